//! Hello in both forms and both versions, and HelloAck in both versions, against bytes written by
//! hand from the offset tables.

use std::net::IpAddr;

use sdp_wire::{
    Carrier, DecodeError, DecodeErrorKind, HELLO_ACK_LEN, HELLO_COMPACT_LEN, HELLO_LEN, Hello,
    HelloAck, HelloForm, Version,
};

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect("an address"))
}

/// What all four Hellos below say.
fn hello(version: Version, form: HelloForm) -> Hello {
    Hello {
        bufs: 64,
        version,
        form,
        invalidate_cap: false,
        adverts_max: 16,
        desired_remote_recv_size: 32_784,
        local_recv_size: 4_112,
        local_port: 0x8C4E,
        src: None,
        dst: None,
    }
}

#[rustfmt::skip]
const WHOLE_V2_IPV4: [u8; 92] = [
    0x00, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0x5C,
    0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
    // version, IPV and Cap, reserved, MaxAdverts; sizes
    0x22, 0x41, 0x00, 0x10,  0x00, 0x00, 0x80, 0x10,
    0x00, 0x00, 0x10, 0x10,
    // port, reserved
    0x8C, 0x4E, 0x00, 0x00,
    // source, destination
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 168, 1, 10,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 168, 1, 20,
    // reserved, ExtMaxAdverts, reserved
    0x00, 0x00, 0x00, 0x00,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[rustfmt::skip]
const WHOLE_V2_IPV6_EXTENDED: [u8; 92] = [
    0x00, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0x5C,
    0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
    0x22, 0x62, 0x00, 0xFF,  0x00, 0x00, 0x80, 0x10,
    0x00, 0x00, 0x10, 0x10,
    0x8C, 0x4E, 0x00, 0x00,
    0x20, 0x01, 0x0D, 0xB8,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0x01,
    0x20, 0x01, 0x0D, 0xB8,  0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0x02,
    // ExtMaxAdverts 0x0123
    0x00, 0x00, 0x01, 0x23,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[rustfmt::skip]
const WHOLE_V1: [u8; 92] = [
    0x00, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0x5C,
    0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
    0x11, 0x40, 0x00, 0x10,  0x00, 0x00, 0x80, 0x10,
    0x00, 0x00, 0x10, 0x10,
    0x8C, 0x4E, 0x00, 0x00,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2,
    0x00, 0x00, 0x00, 0x00,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

#[rustfmt::skip]
const COMPACT_V2: [u8; 32] = [
    0x00, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0x20,
    0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
    0x22, 0x41, 0x00, 0x10,  0x00, 0x00, 0x80, 0x10,
    0x00, 0x00, 0x10, 0x10,
    0x8C, 0x4E, 0x00, 0x00,
];

#[rustfmt::skip]
const COMPACT_V1: [u8; 32] = [
    0x00, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0x20,
    0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
    0x11, 0x40, 0x00, 0x10,  0x00, 0x00, 0x80, 0x10,
    0x00, 0x00, 0x10, 0x10,
    0x8C, 0x4E, 0x00, 0x00,
];

/// The bytes of each Hello above, the carrier it fits, and its meaning.
fn goldens() -> Vec<(&'static [u8], Carrier, Hello)> {
    let whole_v2 = Hello {
        invalidate_cap: true,
        src: ip("192.168.1.10"),
        dst: ip("192.168.1.20"),
        ..hello(Version::V2_2, HelloForm::Whole)
    };
    let extended = Hello {
        adverts_max: 0x0123,
        src: ip("2001:db8::1"),
        dst: ip("2001:db8::2"),
        ..hello(Version::V2_2, HelloForm::Whole)
    };
    let whole_v1 = Hello {
        src: ip("10.0.0.1"),
        dst: ip("10.0.0.2"),
        ..hello(Version::V1_1, HelloForm::Whole)
    };
    let compact_v2 = Hello {
        invalidate_cap: true,
        ..hello(Version::V2_2, HelloForm::Compact)
    };
    vec![
        (&WHOLE_V2_IPV4, Carrier::Whole, whole_v2),
        (&WHOLE_V2_IPV6_EXTENDED, Carrier::Whole, extended),
        (&WHOLE_V1, Carrier::Whole, whole_v1),
        (&COMPACT_V2, Carrier::Compact, compact_v2),
        (
            &COMPACT_V1,
            Carrier::Compact,
            hello(Version::V1_1, HelloForm::Compact),
        ),
    ]
}

#[test]
fn hello_bytes_mean_what_the_offset_tables_say() {
    for (bytes, carrier, hello) in goldens() {
        assert_eq!(Hello::decode(bytes, carrier), Ok(hello));
    }
}

#[test]
fn hellos_encode_to_the_same_bytes() {
    for (bytes, _, hello) in goldens() {
        let mut out = [0xEE; HELLO_LEN];
        let len = hello.encode(&mut out);
        assert_eq!(&out[..len], bytes, "{hello}");
        assert!(out[len..].iter().all(|byte| *byte == 0), "{hello}");
        assert_eq!(hello.check(), Ok(()));
    }
}

#[test]
fn what_follows_the_message_in_private_data_is_ignored() {
    // A carrier pads with zeros; a later minor version might add fields.
    for padding in [0x00, 0xEE] {
        for (bytes, carrier, hello) in goldens() {
            let mut private_data = bytes.to_vec();
            private_data.resize(bytes.len() + 24, padding);
            assert_eq!(Hello::decode(&private_data, carrier), Ok(hello));
        }
        let mut private_data = hello_ack_v2().to_vec();
        private_data.resize(204, padding);
        assert_eq!(HelloAck::decode(&private_data), Ok(ACK_V2));
    }
}

#[test]
fn reserved_fields_of_a_hello_are_ignored() {
    let mut bytes = WHOLE_V2_IPV4;
    // Nameless flags, MSeq and MSeqAck, the reserved fields, the padding of both IPv4 addresses,
    // ExtMaxAdverts without its capability bit, and capability bits without a name.
    bytes[1] = 0xF8;
    bytes[8..16].fill(0xEE);
    bytes[17] |= 0x0C;
    bytes[18] = 0xEE;
    bytes[30..44].fill(0xEE);
    bytes[48..60].fill(0xEE);
    bytes[64..].fill(0xEE);
    let plain = Hello::decode(&WHOLE_V2_IPV4, Carrier::Whole);
    assert_eq!(Hello::decode(&bytes, Carrier::Whole), plain);
}

#[test]
fn version_1_has_no_capabilities() {
    // Its Cap bits are reserved: nothing is read from them, and nothing written.
    let mut bytes = WHOLE_V1;
    bytes[17] |= 0x03;
    bytes[66] = 0xFF;
    let decoded = Hello::decode(&bytes, Carrier::Whole).expect("reserved bits do not matter");
    assert!(!decoded.invalidate_cap);
    assert_eq!(decoded.adverts_max, 16);

    let wishes = Hello {
        invalidate_cap: true,
        adverts_max: 300,
        ..decoded
    };
    let mut out = [0; HELLO_LEN];
    wishes.encode(&mut out);
    assert_eq!((out[17], out[19], out[66], out[67]), (0x40, 255, 0, 0));
}

#[test]
fn the_compact_form_offers_at_most_255_adverts_and_no_address() {
    let wishes = Hello {
        adverts_max: 300,
        src: ip("10.0.0.1"),
        dst: ip("10.0.0.2"),
        ..hello(Version::V2_2, HelloForm::Compact)
    };
    let mut out = [0; HELLO_LEN];
    assert_eq!(wishes.encode(&mut out), HELLO_COMPACT_LEN);
    let said = Hello {
        adverts_max: 255,
        src: None,
        dst: None,
        ..wishes
    };
    assert_eq!(
        Hello::decode(&out[..HELLO_COMPACT_LEN], Carrier::Compact),
        Ok(said)
    );
}

#[test]
fn another_minor_version_is_no_reason_to_refuse() {
    for (byte, version) in [
        (0x10, Version::V1_1),
        (0x1F, Version::V1_1),
        (0x20, Version::V2_2),
        (0x2F, Version::V2_2),
    ] {
        let mut bytes = COMPACT_V2;
        bytes[16] = byte;
        let hello = Hello::decode(&bytes, Carrier::Compact).expect("the major version decides");
        assert_eq!(hello.version, version);
    }
}

#[test]
fn each_carrier_takes_its_own_form_only() {
    let wrong_form = |stated, expected| {
        let kind = DecodeErrorKind::WrongForm { stated, expected };
        Err(DecodeError {
            what: "BSDH.Len",
            offset: 4,
            kind,
        })
    };
    let mut padded = [0; HELLO_LEN];
    padded[..HELLO_COMPACT_LEN].copy_from_slice(&COMPACT_V2);
    assert_eq!(Hello::decode(&padded, Carrier::Whole), wrong_form(32, 92));
    assert_eq!(
        Hello::decode(&WHOLE_V2_IPV4, Carrier::Compact),
        wrong_form(92, 32)
    );
}

#[test]
fn carriers_are_told_by_their_room() {
    let room = [
        31,
        32,
        sdp_wire::RDMA_CM_REQ_PRIVATE_LEN,
        91,
        sdp_wire::CM_REQ_PRIVATE_LEN,
        4096,
    ];
    let compact = Some(Carrier::Compact);
    let whole = Some(Carrier::Whole);
    assert_eq!(
        room.map(Carrier::for_private_len),
        [None, compact, compact, compact, whole, whole]
    );
}

#[test]
fn addresses_of_two_families_travel_as_ipv6() {
    let mixed = Hello {
        src: ip("10.0.0.1"),
        dst: ip("2001:db8::2"),
        ..hello(Version::V2_2, HelloForm::Whole)
    };
    let mut out = [0; HELLO_LEN];
    mixed.encode(&mut out);
    let said = Hello {
        src: ip("::ffff:10.0.0.1"),
        ..mixed
    };
    assert_eq!(Hello::decode(&out, Carrier::Whole), Ok(said));
}

#[test]
fn the_unspecified_address_is_none() {
    for (src, dst) in [("0.0.0.0", "::"), ("0.0.0.0", "0.0.0.0"), ("::", "::")] {
        let unspecified = Hello {
            src: ip(src),
            dst: ip(dst),
            ..hello(Version::V2_2, HelloForm::Whole)
        };
        let mut out = [0; HELLO_LEN];
        unspecified.encode(&mut out);
        let said = Hello {
            src: None,
            dst: None,
            ..unspecified
        };
        assert_eq!(Hello::decode(&out, Carrier::Whole), Ok(said), "{src} {dst}");
    }
}

const ACK_V2: HelloAck = HelloAck {
    bufs: 64,
    version: Version::V2_2,
    adverts_max: 1,
    actual_recv_size: 32_784,
    invalidate_cap: true,
};

const ACK_V1: HelloAck = HelloAck {
    version: Version::V1_1,
    adverts_max: 255,
    invalidate_cap: false,
    ..ACK_V2
};

#[rustfmt::skip]
fn hello_ack_v2() -> [u8; 196] {
    let mut bytes = [0; 196]; // 172 reserved bytes at the end
    bytes[..24].copy_from_slice(&[
        0x01, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0xC4,
        0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
        0x22, 0x01, 0x00, 0x01,  0x00, 0x00, 0x80, 0x10,
    ]);
    bytes
}

#[rustfmt::skip]
fn hello_ack_v1() -> [u8; 196] {
    let mut bytes = [0; 196];
    bytes[..24].copy_from_slice(&[
        0x01, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0xC4,
        0x00, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x00,
        0x11, 0x00, 0x00, 0xFF,  0x00, 0x00, 0x80, 0x10,
    ]);
    bytes
}

#[test]
fn hello_ack_bytes_mean_what_the_offset_tables_say() {
    assert_eq!(HelloAck::decode(&hello_ack_v2()), Ok(ACK_V2));
    assert_eq!(HelloAck::decode(&hello_ack_v1()), Ok(ACK_V1));
}

#[test]
fn hello_acks_encode_to_the_same_bytes() {
    for (ack, bytes) in [(ACK_V2, hello_ack_v2()), (ACK_V1, hello_ack_v1())] {
        let mut out = [0xEE; HELLO_ACK_LEN];
        assert_eq!(ack.encode(&mut out), HELLO_ACK_LEN);
        assert_eq!(out, bytes, "{ack}");
        assert_eq!(ack.check(), Ok(()));
    }
}

#[test]
fn reserved_fields_of_a_hello_ack_are_ignored() {
    let mut bytes = hello_ack_v2();
    bytes[1] = 0xF8;
    bytes[8..16].fill(0xEE);
    bytes[17] |= 0xFE;
    bytes[18] = 0xEE;
    bytes[24..].fill(0xEE);
    assert_eq!(HelloAck::decode(&bytes), Ok(ACK_V2));

    let mut bytes = hello_ack_v1();
    bytes[17] = 0xFF;
    assert_eq!(HelloAck::decode(&bytes), Ok(ACK_V1));
    let wishes = HelloAck {
        invalidate_cap: true,
        ..ACK_V1
    };
    let mut out = [0; HELLO_ACK_LEN];
    wishes.encode(&mut out);
    assert_eq!(out, hello_ack_v1());
}
