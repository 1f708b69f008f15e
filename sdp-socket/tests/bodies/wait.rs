//! Time-outs, and calls that do not wait.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use crate::common::net::{Listener, Net, Stream, would_block};
use crate::common::pattern::Pattern;
use crate::common::watch::{actor, doing};

const BRIEF: Duration = Duration::from_millis(30);

/// A read gives up after its time, not before, and the stream goes on.
pub(crate) fn read_timeout(net: &impl Net) {
    let (client, server) = net.pair();
    client
        .set_read_timeout(Some(BRIEF))
        .expect("set_read_timeout");
    for _ in 0..2 {
        let before = net.now();
        doing("reading until the time is over");
        assert!(would_block(&client.read(&mut [0; 10])));
        let took = net.now() - before;
        assert!(took >= BRIEF, "gave up after {took:?}");
    }
    server.put(b"data");
    let mut buf = [0; 4];
    client.get(&mut buf);
    assert_eq!(&buf, b"data");
}

/// Options are as they were set; a time of zero is refused.
pub(crate) fn options_are_kept(net: &impl Net) {
    let (client, _server) = net.pair();
    assert_eq!(client.read_timeout().expect("read_timeout"), None);
    assert_eq!(client.write_timeout().expect("write_timeout"), None);
    assert_eq!(client.linger().expect("linger"), None);
    let time = Duration::from_secs(2);
    client
        .set_read_timeout(Some(time))
        .expect("set_read_timeout");
    client
        .set_write_timeout(Some(time * 2))
        .expect("set_write_timeout");
    client.set_linger(Some(time)).expect("set_linger");
    assert_eq!(client.read_timeout().expect("read_timeout"), Some(time));
    assert_eq!(
        client.write_timeout().expect("write_timeout"),
        Some(time * 2)
    );
    assert_eq!(client.linger().expect("linger"), Some(time));
    for zero in [
        client.set_read_timeout(Some(Duration::ZERO)),
        client.set_write_timeout(Some(Duration::ZERO)),
    ] {
        let error = zero.expect_err("a time-out of zero");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    for on in [true, false] {
        client.set_nodelay(on).expect("set_nodelay");
        assert_eq!(client.nodelay().expect("nodelay"), on);
    }
}

/// A write gives up after its time; what it said it took is what the peer gets.
pub(crate) fn write_timeout(net: &impl Net) {
    let (client, server) = net.sized(64 << 10).pair();
    let pattern = Pattern(30);
    client
        .set_write_timeout(Some(BRIEF))
        .expect("set_write_timeout");
    let taken = fill(pattern, |bytes| client.write(bytes));
    let before = net.now();
    doing("writing until the time is over");
    assert!(would_block(&client.write(&[0; 100])));
    let took = net.now() - before;
    assert!(took >= BRIEF, "gave up after {took:?}");
    client.set_write_timeout(None).expect("set_write_timeout");
    exactly(net, &client, &server, pattern, taken);
}

/// Writes the pattern until a write would have to wait; returns how much was taken.
fn fill(pattern: Pattern, write: impl Fn(&[u8]) -> std::io::Result<usize>) -> usize {
    let mut taken = 0;
    loop {
        doing(format!("filling the buffers, {taken} bytes so far"));
        let wrote = write(&pattern.bytes(taken as u64, 50_000));
        if would_block(&wrote) {
            return taken;
        }
        taken += wrote.expect("write");
        assert!(taken < 64 << 20, "nobody reads, and nothing fills up");
    }
}

/// The peer gets exactly `taken` bytes, then as many as are written from now on.
fn exactly<S: Stream>(
    net: &impl Net<Stream = S>,
    client: &S,
    server: &S,
    pattern: Pattern,
    taken: usize,
) {
    let more = 100_000;
    net.all(vec![
        actor("writer", || {
            client.put_pattern(pattern, taken as u64, more, 30_000);
            client.shutdown(Shutdown::Write).expect("shutdown");
        }),
        actor("reader", || {
            server.get_pattern(pattern, 0, taken + more, 70_000);
            server.at_end();
        }),
    ]);
}

/// Calls that would have to wait say so at once; what they took is what the peer gets.
pub(crate) fn nonblocking(net: &impl Net) {
    let net = net.sized(64 << 10);
    let (listener, addr) = net.listen();
    listener.set_nonblocking(true).expect("set_nonblocking");
    assert!(would_block(&listener.accept()));
    let client = net.connect(addr).expect("connect");
    let (server, _) = net.until("a connection to accept", || {
        let accepted = listener.accept();
        (!would_block(&accepted)).then(|| accepted.expect("accept"))
    });
    for stream in [&client, &server] {
        stream.set_nonblocking(true).expect("set_nonblocking");
        assert!(would_block(&stream.read(&mut [0; 10])));
        assert!(would_block(&stream.peek(&mut [0; 10])));
    }
    let pattern = Pattern(31);
    let taken = fill(pattern, |bytes| client.write(bytes));
    assert!(taken > 0, "a fresh connection takes nothing");

    let mut got = 0;
    let mut buf = vec![0; 20_000];
    while got < taken {
        let n = net.until("bytes to read", || {
            let read = server.read(&mut buf);
            (!would_block(&read)).then(|| read.expect("read"))
        });
        assert!(n > 0, "end of stream after {got} of {taken}");
        pattern.check(got as u64, &buf[..n]);
        got += n;
    }
    assert!(would_block(&server.read(&mut buf)), "more than was taken");
    let bytes = pattern.bytes(taken as u64, 1_000);
    net.until("room to write", || {
        let wrote = client.write(&bytes);
        (!would_block(&wrote)).then(|| wrote.expect("write"))
    });
    server.set_nonblocking(false).expect("set_nonblocking");
    server.get_pattern(pattern, taken as u64, 1, 1);
}

/// A stream made non-blocking and back again waits as before.
pub(crate) fn nonblocking_and_back(net: &impl Net) {
    let (client, server) = net.pair();
    client.set_nonblocking(true).expect("set_nonblocking");
    assert!(would_block(&client.read(&mut [0; 1])));
    client.set_nonblocking(false).expect("set_nonblocking");
    net.all(vec![
        actor("reader", || client.get(&mut [0; 4])),
        actor("writer", || {
            doing("waiting for the reader to wait");
            net.until_others_wait();
            server.put(b"data");
        }),
    ]);
}
