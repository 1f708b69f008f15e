//! Moving a connection to another queue pair: no byte is lost, whoever moves it and whatever is on
//! its way.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};

use sdp_socket::{SdpListener, SdpStream};
use sdp_verbs::CmEventKind;
use sdp_wire::{Body, Head, ServiceId};

use common::net::{Net, Stream};
use common::pattern::Pattern;
use common::raw::{Answer, RawEnd, RawSide, good_ack, good_hello, hello_bytes};
use common::sdp::{Sdp, host, lazy, scripted};
use common::watch::{actor, doing, note, watched};

const KIB: usize = 1 << 10;
const THERE: Pattern = Pattern(31);
const BACK: Pattern = Pattern(32);

/// The ways to run a body: threads and one thread, at once and as late as verbs allow.
fn everywhere(body: fn(&Sdp)) {
    watched(move || {
        body(&Sdp::shared());
        note("way", "lazy");
        body(&Sdp::lazy(11));
        for seed in 0..4 {
            note("way", format!("scripted, seed {seed}"));
            scripted(seed, host, body);
            note("way", format!("scripted and lazy, seed {seed}"));
            scripted(seed, || lazy(seed), body);
        }
    });
}

/// Moves a stream, which may be in the course of a move that the peer began.
fn migrate(stream: &SdpStream) {
    doing("moving");
    stream.migrate().expect("migrate");
}

/// Both ends write, read and move at the same time.
#[test]
fn no_byte_is_lost_while_both_ends_move() {
    everywhere(|net| {
        for threshold in [16 * KIB, usize::MAX] {
            let net = net.rendezvous(threshold);
            let (client, server) = net.pair();
            let len = 1024 * KIB;
            net.all(vec![
                actor("client writes", || {
                    client.put_pattern(THERE, 0, len, 100 * KIB);
                }),
                actor("client reads", || {
                    client.get_pattern(BACK, 0, len, 70 * KIB);
                }),
                actor("client moves", || (0..5).for_each(|_| migrate(&client))),
                actor("server writes", || {
                    server.put_pattern(BACK, 0, len, 3 * KIB);
                }),
                actor("server reads", || {
                    server.get_pattern(THERE, 0, len, 30 * KIB);
                }),
                actor("server moves", || (0..5).for_each(|_| migrate(&server))),
            ]);
        }
    });
}

/// What waits at either end goes along: bytes that nobody reads, bytes that found no room.
#[test]
fn bytes_that_wait_go_along() {
    everywhere(|net| {
        let net = net.sized(64 * KIB);
        let (client, server) = net.pair();
        let len = 80 * KIB;
        client.put_pattern(THERE, 0, len, 7 * KIB);
        server.put_pattern(BACK, 0, len, len);
        let names = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        migrate(&client);
        migrate(&server);
        migrate(&server);
        let now = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(names, now, "a move changed the names of the ends");
        server.get_pattern(THERE, 0, len, 5 * KIB);
        client.get_pattern(BACK, 0, len, 9 * KIB);
        drop(client);
        server.at_end();
    });
}

/// A receive and a send that wait go on waiting, and get what they wait for.
#[test]
fn calls_that_wait_go_on() {
    everywhere(|net| {
        let net = net.rendezvous(16 * KIB);
        let (client, server) = net.pair();
        let bytes = THERE.bytes(0, 200 * KIB);
        net.all(vec![
            actor("writer", || client.put(&bytes)),
            actor("reader", || {
                let mut byte = [0];
                client.get(&mut byte);
                assert_eq!(byte, [7]);
            }),
            actor("mover", || {
                net.until_others_wait();
                migrate(&server);
                net.until_others_wait();
                migrate(&client);
                server.put(&[7]);
                server.get_pattern(THERE, 0, bytes.len(), 64 * KIB);
            }),
        ]);
    });
}

/// Halves that have ended stay so, and the other one goes on.
#[test]
fn a_half_that_has_ended_stays_so() {
    everywhere(|net| {
        let (client, server) = net.pair();
        client.put(b"last words");
        client.shutdown(Shutdown::Write).expect("shutdown");
        migrate(&client);
        migrate(&server);
        server.get(&mut [0; 10]);
        server.at_end();
        server.put_pattern(BACK, 0, 50 * KIB, 50 * KIB);
        migrate(&server);
        drop(server);
        client.get_pattern(BACK, 0, 50 * KIB, 50 * KIB);
        client.at_end();
    });
}

/// An urgent byte and its place go along, on their way and once they have come.
#[test]
fn an_urgent_byte_goes_along() {
    everywhere(|net| {
        let (client, server) = net.pair();
        client.put(b"before");
        client.send_urgent(b"!").expect("send_urgent");
        client.put(b"after");
        migrate(&client);
        net.until("an urgent byte", || server.peek_urgent().ok());
        migrate(&server);
        let mut before = [0; 16];
        let n = server.read(&mut before).expect("read");
        assert_eq!(&before[..n], b"before");
        assert!(server.at_mark().expect("at_mark"));
        assert_eq!(server.recv_urgent().expect("recv_urgent"), Some(b'!'));
        let mut after = [0; 5];
        server.get(&mut after);
        assert_eq!(&after, b"after");
    });
}

/// A close does not wait for the move, nor the move for the close; bytes arrive all the same.
#[test]
fn a_close_during_a_move_delivers() {
    everywhere(|net| {
        let (client, server) = net.pair();
        let bytes = THERE.bytes(0, 60 * KIB);
        net.all(vec![
            actor("closer", || {
                client.put(&bytes);
                net.pass();
                drop(client);
            }),
            actor("mover", || {
                doing("moving");
                // The peer may be gone before it is asked.
                if let Err(error) = server.migrate() {
                    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
                }
                server.get_pattern(THERE, 0, bytes.len(), 11 * KIB);
                server.at_end();
            }),
        ]);
    });
}

/// Calls that do not wait, do not.
#[test]
fn calls_that_do_not_wait_do_not_wait_for_a_move() {
    everywhere(|net| {
        let (client, server) = net.pair();
        client.set_nonblocking(true).expect("set_nonblocking");
        server.set_nonblocking(true).expect("set_nonblocking");
        let len = 300 * KIB;
        net.all(vec![
            actor("mover", || (0..8).for_each(|_| migrate(&client))),
            actor("writer", || {
                let (mut done, bytes) = (0, THERE.bytes(0, len));
                while done < len {
                    match client.write(&bytes[done..(done + 9_000).min(len)]) {
                        Ok(n) => done += n,
                        Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
                    }
                    net.pass();
                }
            }),
            actor("reader", || {
                let (mut done, mut buf) = (0, vec![0; 9_000]);
                while done < len {
                    match server.read(&mut buf) {
                        Ok(0) => panic!("the end after {done} bytes"),
                        Ok(n) => {
                            THERE.check(done as u64, &buf[..n]);
                            done += n;
                        }
                        Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
                    }
                    net.pass();
                }
            }),
        ]);
    });
}

/// A stream of ours and a peer that says what it likes.
fn with_raw_peer(side: &RawSide) -> (SdpStream, RawEnd) {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let end = side.connected(listener.local_addr().expect("local_addr"));
    let (stream, _) = listener.accept().expect("accept");
    (stream, end)
}

/// The next message to the peer that is no mere credit.
fn hear(end: &RawEnd, side: &RawSide) -> Body {
    loop {
        let bytes = end.hear(side).expect("a message");
        let head = Head::decode(&bytes, bytes.len()).expect("a good message");
        if head.body != Body::Data {
            return head.body;
        }
    }
}

/// The peer is called on its port; gives the end there, and what the Hello resumes.
fn called(side: &RawSide) -> (RawEnd, Option<ServiceId>) {
    loop {
        match side.event("a call").kind {
            CmEventKind::ConnectRequest { id, private_data } => {
                return (side.end(id), sdp_wire::resuming(&private_data));
            }
            CmEventKind::Disconnected => {}
            other => panic!("{other:?} in place of a call"),
        }
    }
}

/// The peer moves by the letter, without an engine.
#[test]
fn suspension_is_answered() {
    watched(|| {
        let side = RawSide::new();
        let (stream, mut end) = with_raw_peer(&side);
        let (_port, addr) = side.listen();
        let service_id = ServiceId::resuming_at(addr.port(), 0xABCD << 32);
        end.say(Body::Data, b"old ");
        end.say(Body::SuspComm { service_id }, &[]);
        assert_eq!(hear(&end, &side), Body::SuspCommAck);
        let (mut end, resumes) = called(&side);
        assert_eq!(resumes, Some(service_id));
        let mut ack = good_ack();
        sdp_wire::mark_resuming(&mut ack, service_id);
        end.id.accept(&ack).expect("accept");
        // The caller speaks first.
        end.hear(&side).expect("a first message");
        end.say(Body::Data, b"new");
        let mut buf = [0; 7];
        (&stream).read_exact(&mut buf).expect("read");
        assert_eq!(&buf, b"old new");
    });
}

/// Whoever listens at the port that the peer has named must say which connection it resumes.
#[test]
fn a_stranger_at_the_peers_port_is_not_taken_for_it() {
    watched(|| {
        let side = RawSide::new();
        let (stream, mut end) = with_raw_peer(&side);
        let (_port, addr) = side.listen();
        let service_id = ServiceId::resuming_at(addr.port(), 1 << 40);
        end.say(Body::SuspComm { service_id }, &[]);
        assert_eq!(hear(&end, &side), Body::SuspCommAck);
        let (end, _) = called(&side);
        end.id.accept(&good_ack()).expect("accept");
        doing("reading the error");
        let error = stream
            .read(&mut [0; 8])
            .expect_err("a stranger was taken for the peer");
        assert!(error.to_string().contains("§2.8"), "{error}");
    });
}

/// Who calls at our port without the secret is turned down, by name or not, and the peer is taken.
#[test]
fn a_stranger_cannot_take_a_connection_over() {
    watched(|| {
        let side = RawSide::new();
        let (stream, mut end) = with_raw_peer(&side);
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| stream.migrate());
            let Body::SuspComm { service_id } = hear(&end, &side) else {
                panic!("not SuspComm");
            };
            let port = service_id.resume_port().expect("a port");
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let stranger = RawSide::new();
            let mut hello = hello_bytes(&good_hello());
            let mut try_with = |secret: Option<ServiceId>| {
                if let Some(secret) = secret {
                    sdp_wire::mark_resuming(&mut hello, secret);
                }
                stranger.connect(addr, &hello)
            };
            let near = ServiceId::from_raw(service_id.raw() ^ 1 << 63);
            for wrong in [None, Some(ServiceId::from_port(port)), Some(near)] {
                let (_, answer) = try_with(wrong);
                assert!(
                    matches!(answer, Answer::Rejected(_)),
                    "{wrong:?}: {answer:?}"
                );
            }
            end.say(Body::SuspCommAck, &[]);
            end.id.disconnect();
            let (mut end, answer) = try_with(Some(service_id));
            let Answer::Accepted(ack) = answer else {
                panic!("the peer itself was turned down: {answer:?}");
            };
            assert_eq!(sdp_wire::resuming(&ack), Some(service_id));
            end.id.establish().expect("establish");
            end.say(Body::Data, b"it is me");
            mover.join().expect("no panic").expect("migrate");
            let mut buf = [0; 8];
            (&stream).read_exact(&mut buf).expect("read");
            assert_eq!(&buf, b"it is me");
            // Nobody listens there any more.
            let refused = SdpStream::connect(addr).expect_err("the port is still open");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        });
    });
}

/// A Hello that resumes a connection is not taken for one that begins one.
#[test]
fn a_listener_takes_no_resumed_connection() {
    watched(|| {
        let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
        let mut hello = hello_bytes(&good_hello());
        sdp_wire::mark_resuming(&mut hello, ServiceId::from_port(1));
        let addr = listener.local_addr().expect("local_addr");
        let (_, answer) = RawSide::new().connect(addr, &hello);
        assert!(matches!(answer, Answer::Rejected(_)), "{answer:?}");
    });
}

/// The peer ends while it is waited for: so does the connection, and the call.
#[test]
fn a_peer_that_ends_during_a_move() {
    watched(|| {
        let side = RawSide::new();
        let (stream, end) = with_raw_peer(&side);
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| stream.migrate());
            assert!(matches!(hear(&end, &side), Body::SuspComm { .. }));
            end.id.disconnect();
            let moved = mover.join().expect("no panic");
            assert_eq!(
                moved.expect_err("moved to nowhere").kind(),
                ErrorKind::ConnectionReset
            );
        });
    });
}
