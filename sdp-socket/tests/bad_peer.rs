//! A peer that speaks verbs and breaks the rules: it is refused or cut off, by name, and nobody
//! else notices.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::OnceLock;

use sdp_socket::{SdpListener, SdpStream};
use sdp_verbs::{RejectReason, WcStatus};
use sdp_wire::{
    BSDH_LEN, Body, HEAD_LEN_MAX, HELLO_ACK_LEN, Head, Hello, ModeChange, ServiceId, SrcAvail,
};

use common::log::{keep_log, logged_about};
use common::net::Stream;
use common::raw::{Answer, RawEnd, RawSide, good_ack, good_hello, hello_bytes};
use common::watch::{actor, doing, on_threads, watched};

fn listen() -> (SdpListener, SocketAddr) {
    keep_log();
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    (listener, addr)
}

/// The listener serves others as before.
fn lives_on(listener: &SdpListener) {
    let addr = listener.local_addr().expect("local_addr");
    let client = SdpStream::connect(addr).expect("connect");
    let (server, from) = listener.accept().expect("accept");
    assert_eq!(
        from,
        client.local_addr().expect("local_addr"),
        "an old request was accepted"
    );
    client.put(b"on");
    server.get(&mut [0; 2]);
}

/// A connect request with these bytes is rejected, the log says for what rule, and the listener
/// lives on.
fn refused(hello: &[u8], rule: &str) {
    let (listener, addr) = listen();
    let side = RawSide::new();
    let (end, answer) = side.connect(addr, hello);
    match answer {
        Answer::Rejected(RejectReason::Consumer) => {}
        other => panic!("{other:?} to a bad Hello ({rule})"),
    }
    let from = end.id.local_addr().expect("an address");
    let said = logged_about(&from.to_string());
    assert!(said.contains(rule), "the log says {said:?}, not {rule:?}");
    lives_on(&listener);
}

/// Changes one field of a good Hello.
fn hello_with(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let mut hello = good_hello();
    change(&mut hello);
    hello_bytes(&hello)
}

/// Changes bytes of a good Hello.
fn hello_bytes_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut hello = hello_bytes(&good_hello());
    hello[at..at + bytes.len()].copy_from_slice(bytes);
    hello
}

#[test]
fn hello_garbage() {
    watched(|| {
        refused(&[], "the bytes end inside this header");
        refused(&[0; 92], "Len says 0 bytes");
        refused(&[0xff; 92], "Data must not appear here");
        refused(b"GET / HTTP/1.1\r\n\r\n", "message identifier");
    });
}

#[test]
fn hello_truncated() {
    watched(|| {
        let good = hello_bytes(&good_hello());
        for len in [1, 15, 16, 31, 32, 91] {
            refused(&good[..len], "the bytes end inside this header");
        }
    });
}

#[test]
fn hello_of_wrong_length() {
    watched(|| {
        refused(
            &hello_bytes_with(4, &[0, 0, 0, 32]),
            "has 92 on this carrier",
        );
        refused(&hello_bytes_with(4, &[0xff; 4]), "has 92 on this carrier");
    });
}

#[test]
fn hello_of_wrong_version() {
    watched(|| {
        for version in [0x00, 0x30, 0xf2] {
            refused(
                &hello_bytes_with(16, &[version]),
                "spoken here are major versions 1 and 2",
            );
        }
    });
}

#[test]
fn hello_of_wrong_ip_version() {
    watched(|| refused(&hello_bytes_with(17, &[0x50]), "IP version 5"));
}

#[test]
fn hello_without_adverts() {
    watched(|| {
        refused(
            &hello_with(|h| h.adverts_max = 0),
            "the number of adverts taken must not be 0",
        );
    });
}

#[test]
fn hello_with_tiny_receives() {
    watched(|| {
        for size in [0, 1, 36] {
            let hello = hello_with(|h| h.local_recv_size = size);
            refused(
                &hello,
                &format!("receive buffers of {size} bytes; at least 37"),
            );
        }
    });
}

#[test]
fn hello_with_few_receives() {
    watched(|| {
        for bufs in [0, 2] {
            let hello = hello_with(|h| h.bufs = bufs);
            refused(&hello, &format!("{bufs} receive buffers; at least 3"));
        }
    });
}

/// A peer that asks to connect and falls silent costs a place in the backlog, not the listener.
#[test]
fn never_established() {
    watched(|| {
        let (listener, addr) = listen();
        let side = RawSide::new();
        let (end, answer) = side.connect(addr, &hello_bytes(&good_hello()));
        assert!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
        lives_on(&listener);
        drop(end);
        lives_on(&listener);
    });
}

/// What our connect says to an answer with these bytes.
fn answered(ack: &'static [u8]) -> io::Error {
    let side = RawSide::new();
    let (_listening, addr) = side.listen();
    let error = OnceLock::new();
    on_threads(vec![
        actor("connector", || {
            doing("connecting");
            let refused = SdpStream::connect(addr).expect_err("a bad HelloAck");
            error.set(refused).expect("once");
        }),
        actor("raw peer", || {
            let end = side.requested();
            end.id.accept(ack).expect("accept");
            let event = side.event("the end of the connection");
            doing(format!("done, by {event:?}"));
        }),
    ]);
    error.into_inner().expect("the connector has it")
}

fn ack_with(at: usize, bytes: &[u8]) -> &'static [u8] {
    let mut ack = good_ack();
    ack[at..at + bytes.len()].copy_from_slice(bytes);
    ack.leak()
}

/// A connect that is answered with something else than a HelloAck fails, naming the rule, and the
/// other end hears of it.
#[test]
fn bad_hello_ack() {
    watched(|| {
        let rules: [(&[u8], &str); 8] = [
            (&[], "the bytes end inside this header"),
            (&[0xff; HELLO_ACK_LEN], "Data must not appear here"),
            (hello_bytes(&good_hello()).leak(), "Hello"),
            (
                &good_ack().leak()[..HELLO_ACK_LEN - 1],
                "the bytes end inside this header",
            ),
            (ack_with(16, &[0x30]), "major versions 1 and 2"),
            (ack_with(16, &[0x11]), "another major version"),
            (ack_with(19, &[0]), "adverts"),
            (ack_with(20, &[0, 0, 0, 36]), "receive buffers of 36 bytes"),
        ];
        for (ack, rule) in rules {
            let error = answered(ack);
            assert!(error.to_string().contains(rule), "{error}, not {rule:?}");
        }
    });
}

/// What a connection breaks by: the raw peer says something after a good handshake.
struct Broken {
    rule: &'static str,
    /// What the program is told.
    kind: ErrorKind,
    say: Box<dyn Fn(&mut RawEnd) + Send>,
}

fn broken(rule: &'static str, say: impl Fn(&mut RawEnd) + Send + 'static) -> Broken {
    Broken {
        rule,
        kind: ErrorKind::ConnectionAborted,
        say: Box::new(say),
    }
}

/// The connection ends by an error that names the rule, then reads end and writes fail; the raw
/// peer is cut off; the listener lives on.
fn cut_off(cases: Vec<Broken>) {
    let (listener, addr) = listen();
    for Broken { rule, kind, say } in cases {
        let side = RawSide::new();
        let mut end = side.connected(addr);
        doing(format!("accepting the raw peer ({rule})"));
        let (stream, _) = listener.accept().expect("accept");
        say(&mut end);
        doing(format!("reading the error ({rule})"));
        let error = loop {
            match stream.read(&mut [0; 1000]) {
                Ok(0) => panic!("an orderly end after breaking {rule:?}"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), kind, "{error} ({rule})");
        assert!(error.to_string().contains(rule), "{error}, not {rule:?}");
        stream.at_end();
        let error = stream.write(b"late").expect_err("a write after the end");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        end.hear_the_end(&side);
    }
    lives_on(&listener);
}

/// Says a good message with some bytes changed.
fn distorted(rule: &'static str, body: Body, at: usize, bytes: &'static [u8]) -> Broken {
    broken(rule, move |end| {
        let mut message = end.message(body, &[]);
        message[at..at + bytes.len()].copy_from_slice(bytes);
        end.send(&message);
    })
}

fn advert(len: u32) -> Body {
    Body::SrcAvail(SrcAvail {
        len,
        rkey: sdp_wire::Rkey(0x1234_5678),
        addr: sdp_wire::RemoteAddr(0x1000),
    })
}

/// Every way a message can be malformed.
#[test]
fn malformed_messages() {
    watched(|| {
        cut_off(vec![
            broken("the bytes end inside this header", |end| end.send(&[])),
            broken("the bytes end inside this header", |end| {
                end.send(&[0xff; BSDH_LEN - 1])
            }),
            distorted(
                "experimental message identifier 0x40",
                Body::Data,
                0,
                &[0x40],
            ),
            distorted(
                "message identifier 0x10 is reserved",
                Body::Data,
                0,
                &[0x10],
            ),
            distorted("Hello must not appear here", Body::Data, 0, &[0x00]),
            distorted("HelloAck must not appear here", Body::Data, 0, &[0x01]),
            distorted("Len says 17 bytes", Body::Data, 4, &[0, 0, 0, 17]),
            distorted("Len says 4294967295 bytes", Body::Data, 4, &[0xff; 4]),
            broken("the bytes end inside this header", |end| {
                let mut message = end.message(advert(1_000), &[]);
                message.truncate(20);
                message[4..8].copy_from_slice(&20_u32.to_be_bytes());
                end.send(&message);
            }),
            broken("of payload on a message that takes none", |end| {
                let message = end.message(Body::DisConn, b"extra");
                end.send(&message);
            }),
            distorted("OOB_PRES is for Data only", Body::DisConn, 1, &[1]),
            distorted(
                "OOB_PRES on a Data message without payload",
                Body::Data,
                1,
                &[1],
            ),
            broken("advert of 0 bytes", |end| end.say(advert(0), b"x")),
            broken("advert of 2147483649 bytes", |end| {
                end.say(advert((1 << 31) + 1), b"x")
            }),
            broken("past the end of the address space", |end| {
                let body = Body::SrcAvail(SrcAvail {
                    len: 4_096,
                    rkey: sdp_wire::Rkey(1),
                    addr: sdp_wire::RemoteAddr(u64::MAX - 10),
                });
                end.say(body, b"x");
            }),
            broken("5 bytes inline of an advert of 4", |end| {
                end.say(advert(4), b"12345")
            }),
            distorted(
                "mode byte 0x33",
                Body::ModeChange(ModeChange::RecvBuffered),
                16,
                &[0x33],
            ),
            broken("receive buffers of 36 bytes", |end| {
                end.say(Body::ChRcvBuf { size: 36 }, &[])
            }),
        ]);
    });
}

/// Good messages that must not come now.
#[test]
fn illegal_messages() {
    watched(|| {
        cut_off(vec![
            broken("§", |end| {
                end.mseq += 1;
                end.say(Body::Data, b"a message is missing");
            }),
            broken("§", |end| {
                end.say(Body::Data, b"once");
                end.mseq -= 1;
                end.say(Body::Data, b"twice");
            }),
            broken("§", |end| {
                let mut message = end.message(Body::Data, b"acknowledges what was never sent");
                message[12..16].copy_from_slice(&1_000_u32.to_be_bytes());
                end.send(&message);
            }),
            broken("RdmaRdCompl", |end| {
                end.say(Body::RdmaRdCompl { len: 10 }, &[])
            }),
            broken("SendSm", |end| end.say(Body::SendSm, &[])),
            broken("SinkAvail", |end| {
                end.say(
                    Body::SinkAvail(sdp_wire::SinkAvail {
                        len: 4_096,
                        rkey: sdp_wire::Rkey(1),
                        addr: sdp_wire::RemoteAddr(0x1000),
                        non_discards: 0,
                    }),
                    &[],
                );
            }),
            broken("RdmaWrCompl", |end| {
                end.say(Body::RdmaWrCompl { len: 10 }, &[])
            }),
            broken("SinkAvailCancel", |end| end.say(Body::SinkAvailCancel, &[])),
            broken("SinkCancelAck", |end| end.say(Body::SinkCancelAck, &[])),
            broken("ChRcvBufAck", |end| {
                end.say(Body::ChRcvBufAck { size: 4_096 }, &[])
            }),
            broken("SuspCommAck", |end| end.say(Body::SuspCommAck, &[])),
            broken("mode", |end| {
                end.say(Body::ModeChange(ModeChange::SendCombined), &[])
            }),
            broken("Buffered", |end| {
                end.say(Body::ModeChange(ModeChange::RecvBuffered), &[]);
                end.say(Body::ModeChange(ModeChange::RecvBuffered), &[]);
            }),
            broken("§", |end| {
                end.say(advert(4_096), b"x");
                end.say(advert(4_096), b"x");
            }),
        ]);
    });
}

/// An advert whose memory cannot be read ends the connection when it is read, as a peer's death would.
#[test]
fn adverts_of_nothing() {
    watched(|| {
        cut_off(vec![Broken {
            kind: ErrorKind::ConnectionReset,
            ..broken("memory", |end| end.say(advert(50_000), b"x"))
        }]);
    });
}

/// After its end of stream a peer has nothing more to say.
#[test]
fn after_disconn() {
    watched(|| {
        let (listener, addr) = listen();
        for (again, rule) in [
            (Body::Data, "payload after DisConn"),
            (Body::DisConn, "second"),
        ] {
            let side = RawSide::new();
            let mut end = side.connected(addr);
            let (stream, _) = listener.accept().expect("accept");
            end.say(Body::DisConn, &[]);
            doing("reading the end of the stream");
            assert_eq!(stream.read(&mut [0; 10]).expect("read"), 0);
            let payload: &[u8] = if again == Body::Data { b"more" } else { &[] };
            end.say(again, payload);
            end.hear_the_end(&side);
            let error = stream.write(&[0; 10]).expect_err("the connection is gone");
            let said = format!("{error} {:?}", stream.take_error().expect("take_error"));
            assert!(said.contains(rule), "{said}, not {rule:?}");
        }
        lives_on(&listener);
    });
}

/// A peer that wants to be called where nobody can be is told so by name.
#[test]
fn suspension_without_a_port() {
    watched(|| {
        let (listener, addr) = listen();
        let side = RawSide::new();
        let mut end = side.connected(addr);
        let (stream, _) = listener.accept().expect("accept");
        let service_id = ServiceId::from_port(0);
        end.say(Body::SuspComm { service_id }, &[]);
        doing("reading the error");
        let error = stream.read(&mut [0; 10]).expect_err("no port");
        assert!(error.to_string().contains("§2.8"), "{error}");
        end.hear_the_end(&side);
        lives_on(&listener);
    });
}

/// More messages than we have room for: the adapter holds them back; nothing is lost or broken.
#[test]
fn a_peer_that_ignores_its_credits() {
    watched(|| {
        let (listener, addr) = listen();
        let side = RawSide::new();
        let mut end = side.connected(addr);
        let (stream, _) = listener.accept().expect("accept");
        for n in 0..40_u8 {
            end.say(Body::Data, &[n; 100]);
        }
        on_threads(vec![
            actor("raw peer", || hear_end_or_disconn(end, &side)),
            actor("reader", move || served_or_cut_off(stream)),
        ]);
        lives_on(&listener);
    });
}

/// Waits until the connection is cut off, or the other side, which was served, has closed its own: then
/// it waits for this side's end, which goes.
fn hear_end_or_disconn(end: RawEnd, side: &RawSide) {
    loop {
        match end.hear(side) {
            Ok(bytes) => {
                let head = Head::decode(&bytes[..bytes.len().min(HEAD_LEN_MAX)], bytes.len());
                if head.expect("a good message").body == Body::DisConn {
                    return;
                }
            }
            Err(status) => return assert_eq!(status, WcStatus::Flushed),
        }
    }
}

/// Reads the 4,000 bytes sent without credit. Being cut off by name is as good as being served.
fn served_or_cut_off(stream: SdpStream) {
    let mut got = Vec::new();
    let mut buf = [0; 1_000];
    while got.len() < 4_000 {
        doing(format!(
            "reading what was sent without credit, after {}",
            got.len()
        ));
        match stream.read(&mut buf) {
            Ok(0) => panic!("an orderly end"),
            Ok(n) => got.extend_from_slice(&buf[..n]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
                break;
            }
        }
    }
    for (n, byte) in got.iter().enumerate() {
        assert_eq!(usize::from(*byte), n / 100, "at {n}");
    }
}
