//! Every rule a peer can break, broken once: the error names the field, where it is, and the rule.

use sdp_wire::{
    Body, Carrier, DecodeError, DecodeErrorKind, Flags, HEAD_LEN_MAX, HELLO_ACK_LEN, HELLO_LEN,
    Head, Hello, HelloAck, HelloForm, Message, Mid, RemoteAddr, Rkey, SinkAvail, SrcAvail, Version,
};

/// The head as bytes, with `payload_len` zeros behind it.
fn encode(head: Head) -> Vec<u8> {
    let mut out = [0; HEAD_LEN_MAX];
    let head_len = head.encode(&mut out);
    let mut bytes = out[..head_len].to_vec();
    bytes.resize(head.len() as usize, 0);
    bytes
}

const fn plain(body: Body) -> Head {
    Head {
        flags: Flags::empty(),
        bufs: 3,
        mseq: 1,
        mseq_ack: 1,
        body,
        payload_len: 0,
    }
}

const SOURCE: SrcAvail = SrcAvail {
    len: 100,
    rkey: Rkey(1),
    addr: RemoteAddr(0x1000),
};
const SINK: SinkAvail = SinkAvail {
    len: 100,
    rkey: Rkey(1),
    addr: RemoteAddr(0x1000),
    non_discards: 0,
};

fn error(what: &'static str, offset: usize, kind: DecodeErrorKind) -> DecodeError {
    DecodeError { what, offset, kind }
}

/// Refused with exactly this, when read and when checked before being sent.
#[track_caller]
fn refused(head: Head, what: &'static str, offset: usize, kind: DecodeErrorKind) {
    let expected = error(what, offset, kind);
    assert_eq!(Message::decode(&encode(head)), Err(expected));
    assert_eq!(head.check(), Err(expected));
}

#[test]
fn every_prefix_of_every_message_is_truncated() {
    let bodies = [
        Body::Data,
        Body::RdmaWrCompl { len: 1 },
        Body::RdmaRdCompl { len: 1 },
        Body::ModeChange(sdp_wire::ModeChange::RecvPipelined),
        Body::ChRcvBuf { size: 37 },
        Body::ChRcvBufAck { size: 37 },
        Body::SuspComm {
            service_id: sdp_wire::ServiceId::from_port(1),
        },
        Body::SrcAvail(SOURCE),
        Body::SinkAvail(SINK),
    ];
    for body in bodies {
        let whole = encode(plain(body));
        for have in 0..whole.len() {
            let mut bytes = whole[..have].to_vec();
            let what = if have < 16 { "BSDH" } else { body.mid().name() };
            if let Some(len) = bytes.get_mut(4..8) {
                // Let Len agree, so that only the truncation is wrong.
                len.copy_from_slice(&u32::try_from(have).unwrap().to_be_bytes());
            }
            let expected = error(what, have, DecodeErrorKind::Truncated);
            assert_eq!(Message::decode(&bytes), Err(expected));
        }
    }
}

#[test]
fn a_head_shorter_than_promised_is_truncated_not_misread() {
    let bytes = encode(Head {
        payload_len: 8,
        ..plain(Body::SinkAvail(SINK))
    });
    let expected = error("SinkAvail", 20, DecodeErrorKind::Truncated);
    assert_eq!(Head::decode(&bytes[..20], bytes.len()), Err(expected));
}

#[test]
fn len_must_be_what_the_transport_delivered() {
    let bytes = encode(Head {
        payload_len: 4,
        ..plain(Body::Data)
    });
    for actual in [16, 19, 21, usize::MAX] {
        let kind = DecodeErrorKind::LengthMismatch { stated: 20, actual };
        assert_eq!(
            Head::decode(&bytes, actual),
            Err(error("BSDH.Len", 4, kind))
        );
    }
}

#[test]
fn all_238_other_identifiers_are_refused_by_their_range() {
    let mut bytes = encode(plain(Body::Data));
    let mut refused = 0;
    for byte in 0..=u8::MAX {
        bytes[0] = byte;
        let kind = match byte {
            0x00..=0x0E | 0xFD..=0xFF => continue,
            0x40..=0x7F => DecodeErrorKind::UnknownMid(byte),
            _ => DecodeErrorKind::ReservedMid(byte),
        };
        assert_eq!(Message::decode(&bytes), Err(error("BSDH.MID", 0, kind)));
        assert_eq!(Mid::try_from(byte), Err(kind));
        refused += 1;
    }
    assert_eq!(refused, 238);
}

#[test]
fn handshake_messages_and_others_keep_to_their_places() {
    let wrong = |mid| error("BSDH.MID", 0, DecodeErrorKind::WrongMid(mid));
    assert_eq!(Message::decode(&hello_bytes()), Err(wrong(Mid::Hello)));
    assert_eq!(Message::decode(&ack_bytes()), Err(wrong(Mid::HelloAck)));
    assert_eq!(
        Hello::decode(&ack_bytes(), Carrier::Whole),
        Err(wrong(Mid::HelloAck))
    );
    assert_eq!(HelloAck::decode(&hello_bytes()), Err(wrong(Mid::Hello)));
    let data = encode(plain(Body::Data));
    assert_eq!(
        Hello::decode(&data, Carrier::Compact),
        Err(wrong(Mid::Data))
    );
    assert_eq!(HelloAck::decode(&data), Err(wrong(Mid::Data)));
}

#[test]
fn payload_is_for_three_messages_only() {
    let kind = DecodeErrorKind::ForbiddenPayload { len: 3 };
    refused(
        Head {
            payload_len: 3,
            ..plain(Body::DisConn)
        },
        "DisConn",
        16,
        kind,
    );
    let susp_comm = Body::SuspComm {
        service_id: sdp_wire::ServiceId::from_port(1),
    };
    refused(
        Head {
            payload_len: 3,
            ..plain(susp_comm)
        },
        "SuspComm",
        24,
        kind,
    );
    for body in [Body::Data, Body::SrcAvail(SOURCE), Body::SinkAvail(SINK)] {
        let head = Head {
            payload_len: 3,
            ..plain(body)
        };
        assert_eq!(
            Message::decode(&encode(head)).map(|message| message.head),
            Ok(head)
        );
    }
}

#[test]
fn urgent_data_needs_a_data_message_and_a_byte() {
    let flags = Flags::OOB_PRES;
    let kind = DecodeErrorKind::OobWithoutPayload;
    refused(
        Head {
            flags,
            ..plain(Body::Data)
        },
        "BSDH.Flags",
        1,
        kind,
    );
    let inline = Head {
        flags,
        payload_len: 3,
        ..plain(Body::SrcAvail(SOURCE))
    };
    refused(
        inline,
        "BSDH.Flags",
        1,
        DecodeErrorKind::OobNotData(Mid::SrcAvail),
    );
    let kind = DecodeErrorKind::OobNotData(Mid::SendSm);
    refused(
        Head {
            flags,
            ..plain(Body::SendSm)
        },
        "BSDH.Flags",
        1,
        kind,
    );
}

#[test]
fn adverts_have_1_to_2_pow_31_bytes() {
    for len in [0, 0x8000_0001, u32::MAX] {
        let kind = DecodeErrorKind::AdvertLen(len);
        refused(
            plain(Body::SrcAvail(SrcAvail { len, ..SOURCE })),
            "SrcAvail.Len",
            16,
            kind,
        );
        refused(
            plain(Body::SinkAvail(SinkAvail { len, ..SINK })),
            "SinkAvail.Len",
            16,
            kind,
        );
    }
    for len in [1, 0x8000_0000] {
        let head = plain(Body::SrcAvail(SrcAvail { len, ..SOURCE }));
        assert_eq!(
            Message::decode(&encode(head)).map(|message| message.head),
            Ok(head)
        );
    }
}

#[test]
fn adverts_end_inside_the_address_space() {
    let addr = RemoteAddr(u64::MAX - 99);
    let kind = DecodeErrorKind::AdvertWraps {
        len: 100,
        addr: addr.0,
    };
    refused(
        plain(Body::SrcAvail(SrcAvail { addr, ..SOURCE })),
        "SrcAvail.VA",
        24,
        kind,
    );
    refused(
        plain(Body::SinkAvail(SinkAvail { addr, ..SINK })),
        "SinkAvail.VA",
        24,
        kind,
    );
    let head = plain(Body::SinkAvail(SinkAvail {
        addr: RemoteAddr(addr.0 - 1),
        ..SINK
    }));
    assert_eq!(
        Message::decode(&encode(head)).map(|message| message.head),
        Ok(head)
    );
}

#[test]
fn inline_bytes_are_part_of_a_source_advert_but_not_of_a_sink_advert() {
    let kind = DecodeErrorKind::InlineExceedsAdvert {
        payload_len: 101,
        len: 100,
    };
    refused(
        Head {
            payload_len: 101,
            ..plain(Body::SrcAvail(SOURCE))
        },
        "SrcAvail.Len",
        16,
        kind,
    );
    for head in [
        Head {
            payload_len: 100,
            ..plain(Body::SrcAvail(SOURCE))
        },
        Head {
            payload_len: 101,
            ..plain(Body::SinkAvail(SINK))
        },
    ] {
        assert_eq!(
            Message::decode(&encode(head)).map(|message| message.head),
            Ok(head)
        );
    }
}

#[test]
fn mode_changes_are_the_four_legal_ones() {
    let mut bytes = encode(plain(Body::ModeChange(sdp_wire::ModeChange::RecvBuffered)));
    let mut legal = Vec::new();
    for byte in 0..=u8::MAX {
        bytes[16] = byte;
        match Message::decode(&bytes) {
            Ok(_) => legal.push(byte),
            Err(found) => {
                assert_eq!(
                    found,
                    error("ModeChange.Mode", 16, DecodeErrorKind::ModeByte(byte))
                );
            }
        }
    }
    assert_eq!(legal, [0x00, 0x10, 0x20, 0x90]);
}

#[test]
fn receive_buffers_hold_the_longest_head_and_a_byte() {
    for size in [0, 36] {
        let kind = DecodeErrorKind::RecvSizeTooSmall(size);
        refused(plain(Body::ChRcvBuf { size }), "ChRcvBuf.DesSz", 16, kind);
        refused(
            plain(Body::ChRcvBufAck { size }),
            "ChRcvBufAck.ActSz",
            16,
            kind,
        );
    }
}

const HELLO: Hello = Hello {
    bufs: 3,
    version: Version::V2_2,
    form: HelloForm::Whole,
    invalidate_cap: false,
    adverts_max: 1,
    desired_remote_recv_size: 0,
    local_recv_size: 37,
    local_port: 0,
    src: None,
    dst: None,
};

const ACK: HelloAck = HelloAck {
    bufs: 3,
    version: Version::V2_2,
    adverts_max: 1,
    actual_recv_size: 37,
    invalidate_cap: false,
};

/// The least Hello that is legal in every field.
fn hello_bytes() -> [u8; HELLO_LEN] {
    let mut out = [0; HELLO_LEN];
    HELLO.encode(&mut out);
    out
}

/// The least HelloAck that is legal in every field.
fn ack_bytes() -> [u8; HELLO_ACK_LEN] {
    let mut out = [0; HELLO_ACK_LEN];
    ACK.encode(&mut out);
    out
}

/// A legal Hello with one byte changed is refused with exactly this.
#[track_caller]
fn hello_refused(at: usize, byte: u8, expected: DecodeError) {
    let mut bytes = hello_bytes();
    bytes[at] = byte;
    assert_eq!(Hello::decode(&bytes, Carrier::Whole), Err(expected));
}

/// A legal HelloAck with one byte changed is refused with exactly this.
#[track_caller]
fn ack_refused(at: usize, byte: u8, expected: DecodeError) {
    let mut bytes = ack_bytes();
    bytes[at] = byte;
    assert_eq!(HelloAck::decode(&bytes), Err(expected));
}

#[test]
fn the_least_legal_handshake_is_accepted() {
    assert_eq!(Hello::decode(&hello_bytes(), Carrier::Whole), Ok(HELLO));
    assert_eq!(HelloAck::decode(&ack_bytes()), Ok(ACK));
}

#[test]
fn every_prefix_of_a_handshake_message_is_truncated() {
    let what = |have: usize, name| if have < 16 { "BSDH" } else { name };
    for have in 0..HELLO_LEN {
        let expected = error(what(have, "Hello"), have, DecodeErrorKind::Truncated);
        assert_eq!(
            Hello::decode(&hello_bytes()[..have], Carrier::Whole),
            Err(expected)
        );
    }
    for have in 0..HELLO_ACK_LEN {
        let expected = error(what(have, "HelloAck"), have, DecodeErrorKind::Truncated);
        assert_eq!(HelloAck::decode(&ack_bytes()[..have]), Err(expected));
    }
    let mut bytes = [0; HELLO_LEN];
    let len = Hello {
        form: HelloForm::Compact,
        ..HELLO
    }
    .encode(&mut bytes);
    for have in 0..len {
        let expected = error(what(have, "Hello"), have, DecodeErrorKind::Truncated);
        assert_eq!(
            Hello::decode(&bytes[..have], Carrier::Compact),
            Err(expected)
        );
    }
}

#[test]
fn a_handshake_message_has_its_own_length() {
    let kind = DecodeErrorKind::WrongForm {
        stated: 93,
        expected: 92,
    };
    hello_refused(7, 93, error("BSDH.Len", 4, kind));
    // The 204 bytes that the text of version 1.1 would allow, and nobody sends.
    let kind = DecodeErrorKind::WrongForm {
        stated: 204,
        expected: 196,
    };
    ack_refused(7, 204, error("BSDH.Len", 4, kind));
}

#[test]
fn a_handshake_message_carries_no_urgent_data() {
    hello_refused(
        1,
        0x01,
        error("BSDH.Flags", 1, DecodeErrorKind::OobNotData(Mid::Hello)),
    );
    ack_refused(
        1,
        0x01,
        error("BSDH.Flags", 1, DecodeErrorKind::OobNotData(Mid::HelloAck)),
    );
}

#[test]
fn other_major_versions_are_refused() {
    for byte in [0x00, 0x0F, 0x32, 0xFF] {
        let kind = DecodeErrorKind::Version(byte);
        hello_refused(16, byte, error("Hello.Version", 16, kind));
        ack_refused(16, byte, error("HelloAck.Version", 16, kind));
    }
}

#[test]
fn ip_versions_are_4_and_6() {
    // 0x04 is the nibble-swapped form of an early stack: refused like any other.
    for (byte, version) in [(0x00, 0), (0x04, 0), (0x50, 5), (0xF0, 15)] {
        hello_refused(
            17,
            byte,
            error("Hello.IPV", 17, DecodeErrorKind::IpVersion(version)),
        );
    }
}

#[test]
fn a_peer_takes_at_least_one_advert() {
    let zero = DecodeErrorKind::ZeroAdverts;
    hello_refused(19, 0, error("Hello.MaxAdverts", 19, zero));
    // EXTENDED_MAXADVERTS with 0 in its field.
    hello_refused(17, 0x42, error("Hello.ExtMaxAdverts", 66, zero));
    ack_refused(19, 0, error("HelloAck.MaxAdverts", 19, zero));
}

#[test]
fn a_compact_hello_has_no_extended_adverts() {
    let mut bytes = [0; HELLO_LEN];
    Hello {
        form: HelloForm::Compact,
        ..HELLO
    }
    .encode(&mut bytes);
    bytes[17] |= 0x02;
    let expected = error("Hello.Cap", 17, DecodeErrorKind::ExtendedAdverts);
    assert_eq!(Hello::decode(&bytes, Carrier::Compact), Err(expected));
}

#[test]
fn a_peer_posts_at_least_three_buffers() {
    for bufs in [0, 1, 2] {
        let expected = error("BSDH.Bufs", 2, DecodeErrorKind::TooFewBufs(u16::from(bufs)));
        hello_refused(3, bufs, expected);
        ack_refused(3, bufs, expected);
    }
}

#[test]
fn a_handshake_offers_usable_receive_buffers() {
    let kind = DecodeErrorKind::RecvSizeTooSmall(36);
    hello_refused(27, 36, error("Hello.LocalRcvSz", 24, kind));
    ack_refused(23, 36, error("HelloAck.ActRcvSz", 20, kind));
}

#[test]
fn errors_say_what_where_and_why() {
    let refused = Head::decode(&encode(plain(Body::Data)), 17);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "BSDH.Len at byte 4: Len says 16 bytes, the transport delivered 17"
    );
    let refused = Message::decode(&[0x0F; 16]);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "BSDH.MID at byte 0: message identifier 0x0f is reserved"
    );
}
