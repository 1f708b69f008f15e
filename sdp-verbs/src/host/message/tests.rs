//! Round trips, refusals, and that no bytes make the decoder panic.

use super::*;
use crate::host::names::Scope;
use crate::host::qp::QP_DESCRIPTOR_LEN;

fn name() -> Name {
    Name {
        scope: Scope::Exact("fe80::7".parse().unwrap(), 3),
        port: 4711,
        slot: 5,
    }
}

fn setup(shows_keys: bool) -> Setup {
    Setup {
        key_table_addr: 0x7000_0000,
        key_table_len: 4096,
        base_len: 8192,
        shows_keys,
    }
}

fn every_message() -> Vec<Message> {
    let mut all = vec![
        Message::Setup(setup(true)),
        Message::Setup(setup(false)),
        Message::Request(Box::new(Request {
            from: 9,
            name: name(),
            source: "127.0.0.1:40000".parse().unwrap(),
            dst: "[fe80::7%3]:4711".parse().unwrap(),
            qp: QpDescriptor([3; QP_DESCRIPTOR_LEN]),
            data: vec![1; PRIVATE_DATA_MAX],
        })),
        Message::Response {
            from: 1,
            to: 2,
            qp: QpDescriptor([4; QP_DESCRIPTOR_LEN]),
            data: vec![2; 196],
        },
        Message::Ready { to: u64::MAX },
        Message::Disconnect { from: 3, to: 0 },
        Message::Disconnected { to: 4 },
        Message::Idle,
        Message::IdleToo,
        Message::Stay,
        Message::Chunk { id: 1, len: 4096 },
        Message::Region {
            id: 2,
            len: 1 << 40,
        },
        Message::RegionGone { id: 3 },
        Message::TokenSocket { index: 4, qp: 5 },
    ];
    for wish in [Wish::Link, Wish::FreshLink, Wish::Existing] {
        all.push(Message::Hello(Hello {
            major: 1,
            minor: 2,
            features: 3,
            page_size: 4096,
            word_size: 8,
            tag: 0x0123_4567_89ab_cdef << 64,
            wish,
        }));
    }
    for reason in [Refusal::Incompatible, Refusal::NotPermitted] {
        all.push(Message::Refuse {
            reason,
            major: 7,
            minor: 8,
        });
    }
    for reason in 1..=5 {
        all.push(Message::Reject {
            to: 8,
            reason: reason_of(reason).unwrap(),
            data: Vec::new(),
        });
    }
    for scope in [Scope::AnyV4, Scope::AnyV6, Scope::AnyDual] {
        all.push(Message::Unlisten(Name { scope, ..name() }));
    }
    all
}

#[test]
fn every_message_survives_the_journey() {
    for message in every_message() {
        let bytes = message.encode();
        assert!(bytes.len() <= MESSAGE_MAX, "{message:?}");
        assert_eq!(Message::decode(&bytes).unwrap(), message);
    }
}

#[test]
fn every_other_length_is_refused_even_if_the_header_agrees() {
    for message in every_message() {
        let has_data = matches!(
            message,
            Message::Request(_) | Message::Response { .. } | Message::Reject { .. }
        );
        let bytes = message.encode();
        for len in 0..bytes.len() {
            assert!(Message::decode(&bytes[..len]).is_err(), "{message:?}");
            if len >= size_of::<Header>() && !has_data {
                let mut cut = bytes[..len].to_vec();
                cut[4..8].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
                assert!(Message::decode(&cut).is_err(), "{message:?} cut to {len}");
            }
        }
        let mut long = bytes;
        long.push(0);
        assert!(Message::decode(&long).is_err());
    }
}

#[test]
fn any_single_wrong_byte_is_refused_or_gives_another_message_but_never_panics() {
    for message in every_message() {
        let bytes = message.encode();
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[at] ^= flip;
                if let Ok(other) = Message::decode(&wrong) {
                    // What decodes must encode: no value outside the vocabulary got in.
                    assert!(Message::decode(&other.encode()).is_ok());
                }
            }
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    // A fixed generator: a failure must come again.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20_000_usize {
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[0]
        })
        .take(round % MESSAGE_MAX)
        .collect();
        if bytes.len() >= size_of::<Header>() {
            bytes[0] %= 20;
            bytes[1] = 0;
            let len = u32::try_from(bytes.len()).unwrap();
            bytes[4..8].copy_from_slice(&len.to_le_bytes());
        }
        if let Ok(message) = Message::decode(&bytes) {
            assert!(Message::decode(&message.encode()).is_ok());
        }
    }
}

#[test]
fn refusals_name_the_rule() {
    let text = |bytes: &[u8]| Message::decode(bytes).unwrap_err().to_string();
    assert!(text(b"x").contains("1 bytes are no message"));
    assert!(text(&packet(99, &[], &[])).contains("kind 99"));
    let mut hello = every_message()
        .into_iter()
        .find(|m| matches!(m, Message::Hello(_)))
        .unwrap()
        .encode();
    hello[8] = b'X';
    assert!(text(&hello).contains("magic"));
    let long = packet(kind::REJECT, &[0; 16], &[0; PRIVATE_DATA_MAX + 1]);
    assert!(text(&long).contains("private data"));
}

#[test]
fn descriptors_come_only_where_they_must() {
    for message in every_message() {
        let expected = match message {
            Message::Setup(setup) if setup.shows_keys => 3,
            Message::Setup(_) => 2,
            Message::Chunk { .. } | Message::Region { .. } | Message::TokenSocket { .. } => 1,
            _ => 0,
        };
        assert_eq!(message.descriptors(), expected);
    }
}
