//! One line of text per message, as logs and traces show it.

use sdp_wire::{
    Body, Flags, Head, Hello, HelloAck, HelloForm, Mid, ModeChange, RemoteAddr, Rkey, ServiceId,
    SinkAvail, SrcAvail, Version,
};

fn line(flags: Flags, body: Body, payload_len: u32) -> String {
    Head {
        flags,
        bufs: 8,
        mseq: 3,
        mseq_ack: 2,
        body,
        payload_len,
    }
    .to_string()
}

#[test]
fn heads_print_on_one_line_with_keys_in_hex() {
    let none = Flags::empty();
    let source = SrcAvail {
        len: 65_536,
        rkey: Rkey(0xBEEF),
        addr: RemoteAddr(0x7F00_0000_1000),
    };
    let sink = SinkAvail {
        len: 1,
        rkey: Rkey(1),
        addr: RemoteAddr(0x10),
        non_discards: 4,
    };
    let cases = [
        (line(none, Body::SendSm, 0), "SendSm mseq=3 ack=2 bufs=8"),
        (
            line(Flags::OOB_PRES | Flags::OOB_PEND, Body::Data, 5),
            "Data payload=5 mseq=3 ack=2 bufs=8 OOB_PRES OOB_PEND",
        ),
        (
            line(Flags::REQ_PIPE, Body::RdmaRdCompl { len: 9 }, 0),
            "RdmaRdCompl len=9 mseq=3 ack=2 bufs=8 REQ_PIPE",
        ),
        (
            line(none, Body::SrcAvail(source), 0),
            "SrcAvail len=65536 rkey=0x0000beef addr=0x7f0000001000 payload=0 mseq=3 ack=2 bufs=8",
        ),
        (
            line(none, Body::SinkAvail(sink), 2),
            "SinkAvail len=1 rkey=0x00000001 addr=0x10 non_discards=4 payload=2 \
             mseq=3 ack=2 bufs=8",
        ),
        (
            line(none, Body::ModeChange(ModeChange::SendCombined), 0),
            "ModeChange SendCombined mseq=3 ack=2 bufs=8",
        ),
        (
            line(none, Body::ChRcvBuf { size: 99 }, 0),
            "ChRcvBuf size=99 mseq=3 ack=2 bufs=8",
        ),
        (
            line(
                none,
                Body::SuspComm {
                    service_id: ServiceId::from_port(22),
                },
                0,
            ),
            "SuspComm service_id=0x0000000000010016 mseq=3 ack=2 bufs=8",
        ),
    ];
    for (shown, expected) in cases {
        assert_eq!(shown, expected);
    }
}

#[test]
fn handshakes_print_on_one_line() {
    let hello = Hello {
        bufs: 64,
        version: Version::V2_2,
        form: HelloForm::Whole,
        invalidate_cap: true,
        adverts_max: 16,
        desired_remote_recv_size: 32_784,
        local_recv_size: 4_112,
        local_port: 4000,
        src: Some([10, 0, 0, 1].into()),
        dst: None,
    };
    assert_eq!(
        hello.to_string(),
        "Hello whole version=2.2 port=4000 recv_size=4112 desired_remote=32784 adverts=16 bufs=64 \
         src=10.0.0.1 INVALIDATE_CAP"
    );
    let ack = HelloAck {
        bufs: 4,
        version: Version::V1_1,
        adverts_max: 1,
        actual_recv_size: 4_112,
        invalidate_cap: false,
    };
    assert_eq!(
        ack.to_string(),
        "HelloAck version=1.1 recv_size=4112 adverts=1 bufs=4"
    );
}

#[test]
fn names_fill_columns() {
    assert_eq!(format!("{:<12}|", Mid::Data), "Data        |");
}
