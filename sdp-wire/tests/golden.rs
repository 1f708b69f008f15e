//! Every message against bytes written by hand from the offset tables, never by the encoder:
//! decoding gives the expected value, encoding the value gives the very bytes.

use sdp_wire::{
    Body, Flags, HEAD_LEN_MAX, Head, Message, Mid, ModeChange, RemoteAddr, Rkey, ServiceId,
    SinkAvail, SrcAvail,
};

/// A message as it lies on the wire, and what it means.
struct Golden {
    bytes: &'static [u8],
    head: Head,
    payload: &'static [u8],
}

const fn head(bufs: u16, mseq: u32, mseq_ack: u32, body: Body) -> Head {
    Head {
        flags: Flags::empty(),
        bufs,
        mseq,
        mseq_ack,
        body,
        payload_len: 0,
    }
}

#[rustfmt::skip]
fn without_extended_header() -> Vec<Golden> {
    vec![
        Golden {
            bytes: &[
                0x02, 0x00, 0x00, 0x04,  0x00, 0x00, 0x00, 0x10,
                0x00, 0x00, 0x00, 0x01,  0x00, 0x00, 0x00, 0x00,
            ],
            head: head(4, 1, 0, Body::DisConn),
            payload: &[],
        },
        Golden {
            bytes: &[
                0x03, 0x00, 0x00, 0x00,  0x00, 0x00, 0x00, 0x10,
                0x00, 0x00, 0x00, 0x02,  0x00, 0x00, 0x00, 0x01,
            ],
            head: head(0, 2, 1, Body::AbortConn),
            payload: &[],
        },
        Golden {
            bytes: &[
                0x04, 0x00, 0x01, 0x02,  0x00, 0x00, 0x00, 0x10,
                0x03, 0x04, 0x05, 0x06,  0x07, 0x08, 0x09, 0x0A,
            ],
            head: head(0x0102, 0x0304_0506, 0x0708_090A, Body::SendSm),
            payload: &[],
        },
        Golden {
            // OOB_PEND may ride on any message.
            bytes: &[
                0x08, 0x02, 0xFF, 0xFF,  0x00, 0x00, 0x00, 0x10,
                0xFF, 0xFF, 0xFF, 0xFF,  0xFF, 0xFF, 0xFF, 0xFE,
            ],
            head: Head {
                flags: Flags::OOB_PEND,
                ..head(0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFE, Body::SrcAvailCancel)
            },
            payload: &[],
        },
        Golden {
            bytes: &[
                0x09, 0x00, 0x00, 0x07,  0x00, 0x00, 0x00, 0x10,
                0x00, 0x00, 0x01, 0x00,  0x00, 0x01, 0x00, 0x00,
            ],
            head: head(7, 0x100, 0x1_0000, Body::SinkAvailCancel),
            payload: &[],
        },
        Golden {
            bytes: &[
                0x0A, 0x00, 0x00, 0x08,  0x00, 0x00, 0x00, 0x10,
                0x00, 0x00, 0x00, 0x0B,  0x00, 0x00, 0x00, 0x0C,
            ],
            head: head(8, 11, 12, Body::SinkCancelAck),
            payload: &[],
        },
        Golden {
            bytes: &[
                0x0E, 0x00, 0x00, 0x03,  0x00, 0x00, 0x00, 0x10,
                0x00, 0x00, 0x00, 0x15,  0x00, 0x00, 0x00, 0x16,
            ],
            head: head(3, 21, 22, Body::SuspCommAck),
            payload: &[],
        },
    ]
}

#[rustfmt::skip]
fn data() -> Vec<Golden> {
    vec![
        Golden {
            // Data without payload: a credit update.
            bytes: &[
                0xFF, 0x00, 0x00, 0x40,  0x00, 0x00, 0x00, 0x10,
                0x00, 0x00, 0x00, 0x1F,  0x00, 0x00, 0x00, 0x20,
            ],
            head: head(64, 31, 32, Body::Data),
            payload: &[],
        },
        Golden {
            // Data whose last byte is urgent, with another urgent byte to come.
            bytes: &[
                0xFF, 0x03, 0x00, 0x40,  0x00, 0x00, 0x00, 0x13,
                0x00, 0x00, 0x00, 0x21,  0x00, 0x00, 0x00, 0x20,
                b'a', b'b', b'!',
            ],
            head: Head {
                flags: Flags::OOB_PRES.union(Flags::OOB_PEND),
                payload_len: 3,
                ..head(64, 33, 32, Body::Data)
            },
            payload: b"ab!",
        },
    ]
}

#[rustfmt::skip]
fn mode_changes() -> Vec<Golden> {
    let mode_change = |first: &'static [u8], change| Golden {
        bytes: first,
        head: head(5, 6, 7, Body::ModeChange(change)),
        payload: &[],
    };
    vec![
        mode_change(&[
            0x07, 0x00, 0x00, 0x05,  0x00, 0x00, 0x00, 0x14,
            0x00, 0x00, 0x00, 0x06,  0x00, 0x00, 0x00, 0x07,
            0x00, 0x00, 0x00, 0x00,
        ], ModeChange::RecvBuffered),
        mode_change(&[
            0x07, 0x00, 0x00, 0x05,  0x00, 0x00, 0x00, 0x14,
            0x00, 0x00, 0x00, 0x06,  0x00, 0x00, 0x00, 0x07,
            0x10, 0x00, 0x00, 0x00,
        ], ModeChange::RecvCombined),
        mode_change(&[
            0x07, 0x00, 0x00, 0x05,  0x00, 0x00, 0x00, 0x14,
            0x00, 0x00, 0x00, 0x06,  0x00, 0x00, 0x00, 0x07,
            0x20, 0x00, 0x00, 0x00,
        ], ModeChange::RecvPipelined),
        mode_change(&[
            0x07, 0x00, 0x00, 0x05,  0x00, 0x00, 0x00, 0x14,
            0x00, 0x00, 0x00, 0x06,  0x00, 0x00, 0x00, 0x07,
            0x90, 0x00, 0x00, 0x00,
        ], ModeChange::SendCombined),
    ]
}

#[rustfmt::skip]
fn control() -> Vec<Golden> {
    vec![
        Golden {
            bytes: &[
                0x05, 0x00, 0x00, 0x09,  0x00, 0x00, 0x00, 0x14,
                0x00, 0x00, 0x00, 0x01,  0x00, 0x00, 0x00, 0x02,
                0x00, 0x01, 0x00, 0x00,
            ],
            head: head(9, 1, 2, Body::RdmaWrCompl { len: 65_536 }),
            payload: &[],
        },
        Golden {
            // REQ_PIPE has a meaning here.
            bytes: &[
                0x06, 0x04, 0x00, 0x09,  0x00, 0x00, 0x00, 0x14,
                0x00, 0x00, 0x00, 0x03,  0x00, 0x00, 0x00, 0x04,
                0x80, 0x00, 0x00, 0x00,
            ],
            head: Head {
                flags: Flags::REQ_PIPE,
                ..head(9, 3, 4, Body::RdmaRdCompl { len: 0x8000_0000 })
            },
            payload: &[],
        },
        Golden {
            bytes: &[
                0x0B, 0x00, 0x00, 0x02,  0x00, 0x00, 0x00, 0x14,
                0x00, 0x00, 0x00, 0x08,  0x00, 0x00, 0x00, 0x09,
                0x00, 0x00, 0x80, 0x00,
            ],
            head: head(2, 8, 9, Body::ChRcvBuf { size: 32_768 }),
            payload: &[],
        },
        Golden {
            bytes: &[
                0x0C, 0x00, 0x00, 0x02,  0x00, 0x00, 0x00, 0x14,
                0x00, 0x00, 0x00, 0x0A,  0x00, 0x00, 0x00, 0x0B,
                0x00, 0x00, 0x00, 0x25,
            ],
            head: head(2, 10, 11, Body::ChRcvBufAck { size: 37 }),
            payload: &[],
        },
        Golden {
            bytes: &[
                0x0D, 0x00, 0x00, 0x06,  0x00, 0x00, 0x00, 0x18,
                0x00, 0x00, 0x00, 0x0C,  0x00, 0x00, 0x00, 0x0D,
                0x00, 0x00, 0x00, 0x00,  0x00, 0x01, 0x1F, 0x90,
            ],
            head: head(6, 12, 13, Body::SuspComm { service_id: ServiceId::from_port(8080) }),
            payload: &[],
        },
    ]
}

#[rustfmt::skip]
fn adverts() -> Vec<Golden> {
    let source = SrcAvail {
        len: 0x0010_0000,
        rkey: Rkey(0xDEAD_BEEF),
        addr: RemoteAddr(0x0000_7F12_3456_7001),
    };
    let sink = SinkAvail {
        len: 0x8000_0000,
        rkey: Rkey(0x0102_0304),
        addr: RemoteAddr(0x1122_3344_5566_7788),
        non_discards: 0xA0B0_C0D0,
    };
    vec![
        Golden {
            bytes: &[
                0xFE, 0x00, 0x00, 0x10,  0x00, 0x00, 0x00, 0x20,
                0x00, 0x00, 0x00, 0x11,  0x00, 0x00, 0x00, 0x12,
                0x00, 0x10, 0x00, 0x00,  0xDE, 0xAD, 0xBE, 0xEF,
                0x00, 0x00, 0x7F, 0x12,  0x34, 0x56, 0x70, 0x01,
            ],
            head: head(16, 17, 18, Body::SrcAvail(source)),
            payload: &[],
        },
        Golden {
            bytes: &[
                0xFE, 0x00, 0x00, 0x10,  0x00, 0x00, 0x00, 0x22,
                0x00, 0x00, 0x00, 0x11,  0x00, 0x00, 0x00, 0x12,
                0x00, 0x10, 0x00, 0x00,  0xDE, 0xAD, 0xBE, 0xEF,
                0x00, 0x00, 0x7F, 0x12,  0x34, 0x56, 0x70, 0x01,
                0x55, 0xAA,
            ],
            head: Head { payload_len: 2, ..head(16, 17, 18, Body::SrcAvail(source)) },
            payload: &[0x55, 0xAA],
        },
        Golden {
            bytes: &[
                0xFD, 0x00, 0x00, 0x20,  0x00, 0x00, 0x00, 0x24,
                0x00, 0x00, 0x00, 0x13,  0x00, 0x00, 0x00, 0x14,
                0x80, 0x00, 0x00, 0x00,  0x01, 0x02, 0x03, 0x04,
                0x11, 0x22, 0x33, 0x44,  0x55, 0x66, 0x77, 0x88,
                0xA0, 0xB0, 0xC0, 0xD0,
            ],
            head: head(32, 19, 20, Body::SinkAvail(sink)),
            payload: &[],
        },
        Golden {
            // A Transaction: payload of the other half.
            bytes: &[
                0xFD, 0x02, 0x00, 0x20,  0x00, 0x00, 0x00, 0x27,
                0x00, 0x00, 0x00, 0x13,  0x00, 0x00, 0x00, 0x14,
                0x80, 0x00, 0x00, 0x00,  0x01, 0x02, 0x03, 0x04,
                0x11, 0x22, 0x33, 0x44,  0x55, 0x66, 0x77, 0x88,
                0xA0, 0xB0, 0xC0, 0xD0,
                b'G', b'E', b'T',
            ],
            head: Head {
                flags: Flags::OOB_PEND,
                payload_len: 3,
                ..head(32, 19, 20, Body::SinkAvail(sink))
            },
            payload: b"GET",
        },
    ]
}

fn all() -> impl Iterator<Item = Golden> {
    let tables = [
        without_extended_header(),
        data(),
        mode_changes(),
        control(),
        adverts(),
    ];
    tables.into_iter().flatten()
}

#[test]
fn bytes_mean_what_the_offset_tables_say() {
    for golden in all() {
        let message = Message::decode(golden.bytes).expect("a golden message decodes");
        assert_eq!(message.head, golden.head);
        assert_eq!(message.payload, golden.payload, "{}", golden.head);
    }
}

#[test]
fn a_head_decodes_without_its_payload() {
    for golden in all() {
        let visible = golden.bytes.len().min(HEAD_LEN_MAX);
        let head = Head::decode(&golden.bytes[..visible], golden.bytes.len());
        assert_eq!(head, Ok(golden.head));
    }
}

#[test]
fn a_head_decodes_from_the_front_of_a_larger_receive_buffer() {
    for golden in all() {
        let mut buffer = golden.bytes.to_vec();
        buffer.resize(4096, 0xEE);
        assert_eq!(Head::decode(&buffer, golden.bytes.len()), Ok(golden.head));
    }
}

#[test]
fn values_encode_to_the_same_bytes() {
    for golden in all() {
        // Whatever was in the output before must not shine through.
        let mut out = [0xEE; HEAD_LEN_MAX];
        let head_len = golden.head.encode(&mut out);
        let (head, tail) = out.split_at(head_len);
        assert_eq!(
            [head, golden.payload].concat(),
            golden.bytes,
            "{}",
            golden.head
        );
        assert!(tail.iter().all(|byte| *byte == 0), "{}", golden.head);
        assert_eq!(golden.head.len() as usize, golden.bytes.len());
        assert_eq!(golden.head.check(), Ok(()));
    }
}

#[test]
fn no_message_is_left_out() {
    let covered: Vec<Mid> = all().map(|golden| golden.head.mid()).collect();
    for mid in Mid::ALL.into_iter().filter(|mid| !mid.is_cm()) {
        assert!(covered.contains(&mid), "{mid} has no golden bytes");
    }
}

#[test]
fn reserved_bits_and_bytes_are_ignored_on_receive() {
    let plain = head(1, 2, 3, Body::Data);
    let mut bytes = [0; HEAD_LEN_MAX];
    let len = plain.encode(&mut bytes);
    // Flag bits without a name, and REQ_PIPE where it has no meaning.
    bytes[1] = 0xFC;
    assert_eq!(Head::decode(&bytes, len), Ok(plain));

    let change = head(1, 2, 3, Body::ModeChange(ModeChange::RecvPipelined));
    let len = change.encode(&mut bytes);
    bytes[17..20].fill(0xFF);
    assert_eq!(Head::decode(&bytes, len), Ok(change));
}

#[test]
fn meaningless_flags_are_not_sent() {
    let mut bytes = [0; HEAD_LEN_MAX];
    let flags = Flags::from_bits_retain(0xFE);
    Head {
        flags,
        ..head(1, 2, 3, Body::Data)
    }
    .encode(&mut bytes);
    assert_eq!(bytes[1], Flags::OOB_PEND.bits());
    Head {
        flags,
        ..head(1, 2, 3, Body::RdmaWrCompl { len: 1 })
    }
    .encode(&mut bytes);
    assert_eq!(bytes[1], (Flags::OOB_PEND | Flags::REQ_PIPE).bits());
}

#[test]
fn heads_are_as_long_as_the_tables_say() {
    let expected = [
        92, 196, 16, 16, 16, 20, 20, 20, 16, 16, 16, 20, 20, 24, 16, 36, 32, 16,
    ];
    assert_eq!(Mid::ALL.map(Mid::head_len), expected);
    let bytes = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xFD, 0xFE, 0xFF,
    ];
    assert_eq!(Mid::ALL.map(Mid::byte), bytes);
}

#[test]
fn solicited_events_wake_the_peer_for_answers_and_urgent_data_only() {
    use Mid::{
        AbortConn, ChRcvBuf, ChRcvBufAck, Data, DisConn, ModeChange, RdmaRdCompl, RdmaWrCompl,
        SendSm, SinkAvail, SinkAvailCancel, SinkCancelAck, SrcAvail, SrcAvailCancel, SuspComm,
        SuspCommAck,
    };
    for golden in all() {
        let body = golden.head.body;
        let expected = match golden.head.mid() {
            AbortConn | SuspComm | SuspCommAck | SendSm | SrcAvailCancel | SinkAvailCancel
            | SinkCancelAck | RdmaWrCompl | RdmaRdCompl => [true; 4],
            DisConn | SrcAvail | SinkAvail | ModeChange | ChRcvBuf | ChRcvBufAck => [false; 4],
            Data => [false, true, true, false],
            mid => panic!("{mid} is no message outside the CM"),
        };
        let flags = [
            Flags::empty(),
            Flags::OOB_PRES,
            Flags::OOB_PEND,
            Flags::REQ_PIPE,
        ];
        assert_eq!(
            flags.map(|flags| body.is_solicited(flags)),
            expected,
            "{body}"
        );
    }
}

#[test]
fn service_ids_carry_the_port_in_their_last_two_bytes() {
    assert_eq!(ServiceId::from_port(0xABCD).raw(), 0x0000_0000_0001_ABCD);
    assert_eq!(ServiceId::from_port(0xABCD).port(), Some(0xABCD));
    assert_eq!(ServiceId::from_port(0).port(), Some(0));
    // rdma_cm's TCP space, a neighbour, and a high bit: not ports of ours.
    for raw in [0x0106_1F90, 0x0002_1F90, 0x8000_0000_0001_1F90, 0x1F90] {
        assert_eq!(ServiceId::from_raw(raw).port(), None, "{raw:#x}");
        assert_eq!(ServiceId::from_raw(raw).raw(), raw);
    }
    assert_eq!(
        format!("{:?}", ServiceId::from_port(8080)),
        "0x0000000000011f90"
    );
}

/// A service ID that names one connection at a port, and its way through a handshake.
#[test]
fn a_handshake_says_which_connection_it_resumes() {
    let id = ServiceId::resuming_at(0xABCD, 0xFEDC_BA98_7654_3210);
    assert_eq!(id.raw(), 0xFEDC_BA98_7655_ABCD);
    assert_eq!(id.resume_port(), Some(0xABCD));
    assert_eq!(ServiceId::from_port(0).resume_port(), None);
    let mut message = [0; 92];
    assert_eq!(sdp_wire::resuming(&message), None);
    sdp_wire::mark_resuming(&mut message, id);
    assert_eq!(sdp_wire::resuming(&message), Some(id));
    assert_eq!(message[8..16], id.raw().to_be_bytes());
    assert!(message[..8].iter().chain(&message[16..]).all(|b| *b == 0));
    sdp_wire::mark_resuming(&mut message[..10], ServiceId::from_port(1));
    assert_eq!(sdp_wire::resuming(&message), Some(id));
    assert_eq!(sdp_wire::resuming(&message[..10]), None);
}
