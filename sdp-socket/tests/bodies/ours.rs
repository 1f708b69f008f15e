//! What our streams promise beyond TCP's.

use std::io::{BufWriter, ErrorKind, Write as _};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sdp_socket::ZcopyThreshold;

use crate::common::net::{Net, Stream};
use crate::common::sdp::Sdp;
use crate::common::watch::{actor, doing};

/// Two threads write 1 MiB at once on one socket, several times: each write's bytes stay together.
pub(crate) fn writes_never_interleave(net: &Sdp) {
    interleave(net, 1 << 20);
}

/// The same with what is written in one message or a few.
pub(crate) fn small_writes_never_interleave(net: &Sdp) {
    interleave(net, 5_000);
}

fn interleave(net: &Sdp, len: usize) {
    const ROUNDS: usize = 4;
    let (client, server) = net.pair();
    let write = |key: u8| {
        let bytes = vec![key; len];
        for round in 0..ROUNDS {
            doing(format!("write number {round}"));
            assert_eq!(
                client.write(&bytes).expect("write"),
                len,
                "a part of a write"
            );
        }
    };
    net.all(vec![
        actor("a", || write(b'a')),
        actor("b", || write(b'b')),
        actor("reader", || {
            let mut buf = vec![0; len];
            for block in 0..2 * ROUNDS {
                server.get(&mut buf);
                let first = buf[0];
                let other = buf.iter().position(|b| *b != first);
                assert_eq!(other, None, "block {block} of {first} is mixed");
            }
        }),
    ]);
}

/// Ports are the kernel's: what TCP has bound we cannot bind, and the other way round.
pub(crate) fn one_port_space_with_tcp(net: &Sdp) {
    let (ours, at) = net.listen();
    let error = TcpListener::bind(at).expect_err("a port of ours");
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    drop(ours);
    let tcp = TcpListener::bind(at).expect("the port is free again");
    let error = net.bind(at).expect_err("a port of TCP's");
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    drop(tcp);
}

/// A clone of a builder is changed by itself.
pub(crate) fn builder_clones_are_independent(net: &Sdp) {
    let off = net.client.clone().zcopy_threshold(ZcopyThreshold::Off);
    let (_listener, addr) = net.listen();
    let plain = net.connect(addr).expect("connect");
    let off = off.connect(addr).expect("connect");
    assert_eq!(
        plain.zcopy_threshold().expect("threshold"),
        ZcopyThreshold::Auto
    );
    assert_eq!(
        off.zcopy_threshold().expect("threshold"),
        ZcopyThreshold::Off
    );
}

/// Accepted streams start with the options of their listener's builder.
pub(crate) fn accepted_streams_inherit(net: &Sdp) {
    let net = net.with(|b| {
        b.nodelay(true)
            .zcopy_threshold(ZcopyThreshold::Bytes(5_000))
    });
    let (_client, server) = net.pair();
    assert!(server.nodelay().expect("nodelay"));
    let threshold = server.zcopy_threshold().expect("threshold");
    assert_eq!(threshold, ZcopyThreshold::Bytes(5_000));
}

/// Connecting with a time-out works, and a time of zero is refused.
pub(crate) fn connect_timeout(net: &Sdp) {
    let (listener, addr) = net.listen();
    let long = Duration::from_secs(10);
    let client = net
        .client
        .connect_timeout(&addr, long)
        .expect("connect_timeout");
    let mut incoming = listener.incoming();
    let server = incoming.next().expect("no end").expect("accept");
    client.put(b"x");
    server.get(&mut [0]);
    let error = net.client.connect_timeout(&addr, Duration::ZERO);
    let error = error.expect_err("a time-out of zero");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// A destructor may write while another panic unwinds: its own call is whole, so the process goes
/// on and the bytes arrive.
pub(crate) fn write_while_unwinding(net: &Sdp) {
    let (client, server) = net.pair();
    struct Last<W: std::io::Write>(BufWriter<W>);
    impl<W: std::io::Write> Drop for Last<W> {
        fn drop(&mut self) {
            self.0.flush().expect("flush");
        }
    }
    let mut last = Last(BufWriter::new(client));
    last.0.write_all(b"last words").expect("into the buffer");
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _last = last;
        std::panic::resume_unwind(Box::new("planned"));
    }));
    assert!(unwound.is_err());
    let mut buf = [0; 10];
    server.get(&mut buf);
    assert_eq!(&buf, b"last words");
    server.at_end();
}

/// Nobody reads, and the buffers are full: an urgent byte waits for no write in progress, other than
/// TCP's.
pub(crate) fn urgent_byte_beside_a_blocked_write(net: &impl Net) {
    let net = net.sized(64 << 10);
    let (client, server) = net.pair();
    let whole = vec![b'.'; 4 << 20];
    net.all(vec![
        actor("writer", || {
            assert_eq!(client.write(&whole).expect("write"), whole.len());
        }),
        actor("urgent", || {
            net.until_others_wait();
            assert_eq!(client.send_urgent(b"!").expect("send_urgent"), 1);
            let mut buf = vec![0; whole.len()];
            let mut at = 0;
            while at < whole.len() {
                let len = server.read(&mut buf).expect("read");
                assert!(buf[..len].iter().all(|byte| *byte == b'.'));
                at += len;
            }
            assert_eq!(at, whole.len());
        }),
    ]);
}
