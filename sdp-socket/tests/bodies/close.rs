//! Every way a stream ends, seen from both ends.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::net::{Net, Stream};
use crate::common::pattern::Pattern;
use crate::common::watch::{actor, doing};

/// The connecting end stops sending; the other direction goes on.
pub(crate) fn half_close_by_client(net: &impl Net) {
    let (client, server) = net.pair();
    half_close(net, &client, &server);
}

/// The same for the accepting end.
pub(crate) fn half_close_by_server(net: &impl Net) {
    let (client, server) = net.pair();
    half_close(net, &server, &client);
}

fn half_close<S: Stream>(net: &impl Net<Stream = S>, closer: &S, other: &S) {
    let (first, second) = (Pattern(20), Pattern(21));
    let len = 300_000;
    net.all(vec![
        actor("closer", || {
            closer.put(&first.bytes(0, len));
            closer.shutdown(Shutdown::Write).expect("shutdown");
            doing("writing after shutdown");
            let error = closer.write(b"late").expect_err("a write after shutdown");
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            closer.get_pattern(second, 0, len, 50_000);
            closer.at_end();
        }),
        actor("other", || {
            other.get_pattern(first, 0, len, 40_000);
            other.at_end();
            other.put(&second.bytes(0, len));
            other.shutdown(Shutdown::Write).expect("shutdown");
        }),
    ]);
}

/// Both ends stop sending at once; both get everything.
pub(crate) fn both_half_close(net: &impl Net) {
    let (client, server) = net.pair();
    let (there, back) = (Pattern(22), Pattern(23));
    client.put(&there.bytes(0, 5_000));
    server.put(&back.bytes(0, 6_000));
    client.shutdown(Shutdown::Write).expect("shutdown");
    server.shutdown(Shutdown::Write).expect("shutdown");
    client.get_pattern(back, 0, 6_000, 999);
    server.get_pattern(there, 0, 5_000, 999);
    client.at_end();
    server.at_end();
}

/// After `shutdown(Read)` there is nothing to read.
pub(crate) fn shutdown_read_ends_reading(net: &impl Net) {
    let (client, _server) = net.pair();
    client.shutdown(Shutdown::Read).expect("shutdown");
    client.at_end();
}

/// A stream dropped after a write delivers everything, then its end.
pub(crate) fn drop_after_write(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(24);
    let len = 1 << 20;
    net.all(vec![
        actor("writer", move || {
            client.put(&pattern.bytes(0, len));
            drop(client);
        }),
        actor("reader", || {
            server.get_pattern(pattern, 0, len, 70_000);
            server.at_end();
        }),
    ]);
}

/// The same when nobody reads before the writer is gone.
pub(crate) fn drop_before_the_peer_reads(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(25);
    client.put(&pattern.bytes(0, 100_000));
    drop(client);
    server.get_pattern(pattern, 0, 100_000, 30_000);
    server.at_end();
}

/// Bytes sent before the accept are kept, even if the sender has closed by then.
pub(crate) fn write_and_close_before_accept(net: &impl Net) {
    let (listener, addr) = net.listen();
    let pattern = Pattern(26);
    {
        let client = net.connect(addr).expect("connect");
        client.put(&pattern.bytes(0, 1_000));
    }
    doing("accepting");
    let accepted = crate::common::net::Listener::accept(&listener);
    let (server, _) = accepted.expect("accept");
    server.get_pattern(pattern, 0, 1_000, 1_000);
    server.at_end();
}

/// A stream dropped with unread bytes resets: the peer's read says so, once.
pub(crate) fn drop_with_unread_bytes(net: &impl Net) {
    let (client, server) = net.pair();
    client.put(b"never read");
    let mut buf = [0; 1];
    doing("peeking");
    assert_eq!(server.peek(&mut buf).expect("peek"), 1);
    drop(server);
    reset_once(&client);
}

/// Linger of zero: dropping resets.
pub(crate) fn linger_of_zero(net: &impl Net) {
    let (client, server) = net.pair();
    server.set_linger(Some(Duration::ZERO)).expect("set_linger");
    drop(server);
    reset_once(&client);
}

fn reset_once<S: Stream>(stream: &S) {
    let mut buf = [0; 8];
    doing("reading the reset");
    let error = stream.read(&mut buf).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    stream.at_end();
    doing("writing after the reset");
    let error = stream.write(b"late").expect_err("a write after a reset");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
}

/// The error of a reset can be taken as SO_ERROR, once; then there is nothing to read.
pub(crate) fn take_error_takes_it(net: &impl Net) {
    let (client, server) = net.pair();
    assert!(client.take_error().expect("take_error").is_none());
    server.set_linger(Some(Duration::ZERO)).expect("set_linger");
    drop(server);
    let error = net.until("the error of the reset", || {
        client.take_error().expect("take_error")
    });
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(client.take_error().expect("take_error").is_none());
    client.at_end();
}

/// Writing to a peer that has closed fails after a while, and stays so.
pub(crate) fn write_to_closed_peer(net: &impl Net) {
    let (client, server) = net.pair();
    drop(server);
    let error = net.until("a write to fail", || client.write(&[7; 1_000]).err());
    let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    assert!(kinds.contains(&error.kind()), "{error}");
    doing("writing again");
    let error = client
        .write(b"again")
        .expect_err("a write to a closed peer");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
}

/// `shutdown` by another thread ends a read that waits.
pub(crate) fn shutdown_wakes_read(net: &impl Net) {
    for how in [Shutdown::Read, Shutdown::Both] {
        let (client, _server) = net.pair();
        net.all(vec![
            actor("reader", || {
                doing("reading until shut down");
                assert_eq!(client.read(&mut [0; 10]).expect("read"), 0);
            }),
            actor("shutter", || {
                doing("waiting for the reader to wait");
                net.until_others_wait();
                client.shutdown(how).expect("shutdown");
            }),
        ]);
    }
}

/// `shutdown` by another thread ends a write that waits.
pub(crate) fn shutdown_wakes_write(net: &impl Net) {
    let (client, _server) = net.pair();
    let taken = AtomicUsize::new(0);
    let bytes = vec![1; 1 << 20];
    net.all(vec![
        actor("writer", || {
            doing("writing until shut down");
            let error = loop {
                match client.write(&bytes) {
                    Ok(n) => taken.fetch_add(n, Ordering::SeqCst),
                    Err(error) => break error,
                };
                assert!(taken.load(Ordering::SeqCst) < 100 << 20, "nobody reads");
            };
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        }),
        actor("shutter", || {
            net.until("the first bytes to be taken", || {
                (taken.load(Ordering::SeqCst) > 0).then_some(())
            });
            doing("waiting for the writer to wait");
            net.until_others_wait();
            client.shutdown(Shutdown::Write).expect("shutdown");
        }),
    ]);
}
