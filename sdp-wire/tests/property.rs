//! Whatever is built comes back the same; whatever comes in gives a value or an error; whatever is
//! accepted keeps the rules and survives a round trip.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use sdp_wire::{
    Body, Carrier, Flags, HEAD_LEN_MAX, HELLO_ACK_LEN, HELLO_COMPACT_LEN, HELLO_LEN, Head, Hello,
    HelloAck, HelloForm, Message, Mid, ModeChange, RemoteAddr, Rkey, ServiceId, SinkAvail,
    SrcAvail, Version,
};

/// A length and an address of an advert that fits the address space.
fn extent() -> impl Strategy<Value = (u32, RemoteAddr)> {
    (1..=sdp_wire::ADVERT_LEN_MAX).prop_flat_map(|len| {
        (
            Just(len),
            (0..=u64::MAX - u64::from(len)).prop_map(RemoteAddr),
        )
    })
}

fn body() -> impl Strategy<Value = Body> {
    let source = (extent(), any::<u32>()).prop_map(|((len, addr), rkey)| {
        Body::SrcAvail(SrcAvail {
            len,
            rkey: Rkey(rkey),
            addr,
        })
    });
    let sink =
        (extent(), any::<u32>(), any::<u32>()).prop_map(|((len, addr), rkey, non_discards)| {
            Body::SinkAvail(SinkAvail {
                len,
                rkey: Rkey(rkey),
                addr,
                non_discards,
            })
        });
    prop_oneof![
        Just(Body::DisConn),
        Just(Body::AbortConn),
        Just(Body::SendSm),
        any::<u32>().prop_map(|len| Body::RdmaWrCompl { len }),
        any::<u32>().prop_map(|len| Body::RdmaRdCompl { len }),
        proptest::sample::select(&ModeChange::ALL[..]).prop_map(Body::ModeChange),
        Just(Body::SrcAvailCancel),
        Just(Body::SinkAvailCancel),
        Just(Body::SinkCancelAck),
        (37..=u32::MAX).prop_map(|size| Body::ChRcvBuf { size }),
        (37..=u32::MAX).prop_map(|size| Body::ChRcvBufAck { size }),
        any::<u64>().prop_map(|raw| Body::SuspComm {
            service_id: ServiceId::from_raw(raw)
        }),
        Just(Body::SuspCommAck),
        source,
        sink,
        Just(Body::Data),
    ]
}

/// Any message that may be sent, with at most 4096 bytes of payload.
fn message() -> impl Strategy<Value = (Head, Vec<u8>)> {
    (
        body(),
        any::<(u8, u16, u32, u32)>(),
        proptest::collection::vec(any::<u8>(), 0..4096),
    )
        .prop_map(|(body, (flags, bufs, mseq, mseq_ack), mut payload)| {
            match body {
                Body::SrcAvail(advert) => {
                    payload.truncate(usize::try_from(advert.len).unwrap_or(usize::MAX));
                }
                Body::SinkAvail(_) | Body::Data => {}
                _ => payload.clear(),
            }
            let mut flags = Flags::from_bits_truncate(flags);
            if body != Body::Data || payload.is_empty() {
                flags.remove(Flags::OOB_PRES);
            }
            if !matches!(body.mid(), Mid::RdmaRdCompl | Mid::RdmaWrCompl) {
                flags.remove(Flags::REQ_PIPE);
            }
            let payload_len = u32::try_from(payload.len()).expect("at most 4096");
            (
                Head {
                    flags,
                    bufs,
                    mseq,
                    mseq_ack,
                    body,
                    payload_len,
                },
                payload,
            )
        })
}

fn version() -> impl Strategy<Value = Version> {
    proptest::sample::select(&[Version::V1_1, Version::V2_2][..])
}

/// Two addresses of one family, or none at all, as a program has them.
fn addresses() -> impl Strategy<Value = (Option<IpAddr>, Option<IpAddr>)> {
    let v4 = || (1..=u32::MAX).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = || (1..=u128::MAX).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    prop_oneof![
        (proptest::option::of(v4()), proptest::option::of(v4())),
        (proptest::option::of(v6()), proptest::option::of(v6())),
    ]
}

/// Any Hello that says only what its form and version have fields for.
fn hello() -> impl Strategy<Value = Hello> {
    let head = (
        3..=u16::MAX,
        version(),
        any::<bool>(),
        any::<bool>(),
        1..=u16::MAX,
    );
    let sizes = (any::<u32>(), 37..=u32::MAX, any::<u16>());
    (head, sizes, addresses()).prop_map(|(head, sizes, (src, dst))| {
        let (bufs, version, whole, cap, adverts_max) = head;
        let (desired_remote_recv_size, local_recv_size, local_port) = sizes;
        let caps = version == Version::V2_2;
        Hello {
            bufs,
            version,
            form: if whole {
                HelloForm::Whole
            } else {
                HelloForm::Compact
            },
            invalidate_cap: cap && caps,
            adverts_max: if whole && caps {
                adverts_max
            } else {
                adverts_max.min(255)
            },
            desired_remote_recv_size,
            local_recv_size,
            local_port,
            src: src.filter(|_| whole),
            dst: dst.filter(|_| whole),
        }
    })
}

fn hello_ack() -> impl Strategy<Value = HelloAck> {
    (
        3..=u16::MAX,
        version(),
        1..=u8::MAX,
        37..=u32::MAX,
        any::<bool>(),
    )
        .prop_map(
            |(bufs, version, adverts_max, actual_recv_size, cap)| HelloAck {
                bufs,
                version,
                adverts_max,
                actual_recv_size,
                invalidate_cap: cap && version == Version::V2_2,
            },
        )
}

/// Bytes that often get past the first checks: a real identifier and a Len that is often right.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let mid = proptest::sample::select(&Mid::ALL[..]);
    let tail = proptest::collection::vec(any::<u8>(), 0..240);
    (mid, tail, any::<bool>()).prop_map(|(mid, mut bytes, exact)| {
        bytes.insert(0, mid.byte());
        let len = u32::try_from(if exact { mid.head_len() } else { bytes.len() });
        if let Some(field) = bytes.get_mut(4..8) {
            field.copy_from_slice(&len.expect("small").to_be_bytes());
        }
        bytes
    })
}

/// Runs every decoder; what one accepts must pass its own check and come back the same.
fn decode_everything(bytes: &[u8], total_len: usize) -> Result<(), TestCaseError> {
    if let Ok(head) = Head::decode(bytes, total_len) {
        prop_assert_eq!(head.check(), Ok(()));
        prop_assert_eq!(head.len() as usize, total_len);
        let mut out = [0; HEAD_LEN_MAX];
        let head_len = head.encode(&mut out);
        prop_assert_eq!(head_len, head.head_len());
        prop_assert_eq!(Head::decode(&out, total_len), Ok(head));
        prop_assert!(!head.to_string().is_empty());
    }
    if let Ok(message) = Message::decode(bytes) {
        prop_assert_eq!(message.payload.len(), message.head.payload_len as usize);
        prop_assert_eq!(message.head.head_len() + message.payload.len(), bytes.len());
    }
    for carrier in [Carrier::Whole, Carrier::Compact] {
        if let Ok(hello) = Hello::decode(bytes, carrier) {
            prop_assert_eq!(hello.check(), Ok(()));
            let mut out = [0; HELLO_LEN];
            let len = hello.encode(&mut out);
            prop_assert_eq!(Hello::decode(&out[..len], carrier), Ok(hello));
            prop_assert!(!hello.to_string().is_empty());
        }
    }
    if let Ok(ack) = HelloAck::decode(bytes) {
        prop_assert_eq!(ack.check(), Ok(()));
        let mut out = [0; HELLO_ACK_LEN];
        ack.encode(&mut out);
        prop_assert_eq!(HelloAck::decode(&out), Ok(ack));
        prop_assert!(!ack.to_string().is_empty());
    }
    Ok(())
}

proptest! {
    #[test]
    fn messages_come_back_the_same((head, payload) in message()) {
        prop_assert_eq!(head.check(), Ok(()));
        let mut out = [0xEE; HEAD_LEN_MAX];
        let head_len = head.encode(&mut out);
        let bytes = [&out[..head_len], &payload[..]].concat();
        prop_assert_eq!(Message::decode(&bytes), Ok(Message { head, payload: &payload }));
        let visible = bytes.len().min(HEAD_LEN_MAX);
        prop_assert_eq!(Head::decode(&bytes[..visible], bytes.len()), Ok(head));
    }

    #[test]
    fn hellos_come_back_the_same(hello in hello()) {
        let (carrier, expected) = match hello.form {
            HelloForm::Whole => (Carrier::Whole, HELLO_LEN),
            HelloForm::Compact => (Carrier::Compact, HELLO_COMPACT_LEN),
        };
        let mut out = [0xEE; HELLO_LEN];
        let len = hello.encode(&mut out);
        prop_assert_eq!(len, expected);
        prop_assert_eq!(Hello::decode(&out[..len], carrier), Ok(hello));
    }

    #[test]
    fn hello_acks_come_back_the_same(ack in hello_ack()) {
        let mut out = [0xEE; HELLO_ACK_LEN];
        ack.encode(&mut out);
        prop_assert_eq!(HelloAck::decode(&out), Ok(ack));
    }

    #[test]
    fn any_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        total_len in any::<usize>(),
    ) {
        decode_everything(&bytes, bytes.len())?;
        decode_everything(&bytes, total_len)?;
    }

    #[test]
    fn bytes_that_look_like_messages_never_panic(bytes in nearly_a_message()) {
        decode_everything(&bytes, bytes.len())?;
    }

    #[test]
    fn one_wrong_byte_in_a_handshake_never_panics(
        hello in hello(),
        ack in hello_ack(),
        at in 0..HELLO_ACK_LEN,
        byte in any::<u8>(),
    ) {
        let mut out = [0; HELLO_LEN];
        hello.encode(&mut out);
        if let Some(wrong) = out.get_mut(at) {
            *wrong = byte;
        }
        decode_everything(&out, out.len())?;
        let mut out = [0; HELLO_ACK_LEN];
        ack.encode(&mut out);
        out[at] = byte;
        decode_everything(&out, out.len())?;
    }
}
