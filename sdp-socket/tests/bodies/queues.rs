//! How much a read waits for, and how much there is to be read or is still to be taken.

use std::time::Duration;

use crate::common::net::{Net, Stream, would_block};
use crate::common::pattern::Pattern;
use crate::common::watch::{actor, doing};

const BRIEF: Duration = Duration::from_millis(30);

/// One call waits for everything asked for, or the end.
pub(crate) fn read_waitall(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(50);
    net.all(vec![
        actor("writer", move || {
            client.put_pattern(pattern, 0, 100_500, 999);
            drop(client);
        }),
        actor("reader", || {
            let mut buf = vec![0; 100_000];
            doing("reading all in one call");
            let all = server.read_waitall(&mut buf);
            assert_eq!(all.expect("read_waitall"), buf.len());
            pattern.check(0, &buf);
            doing("reading the rest in one call");
            let rest = server.read_waitall(&mut buf);
            assert_eq!(rest.expect("read_waitall"), 500);
            pattern.check(100_000, &buf[..500]);
            server.at_end();
        }),
    ]);
}

/// A call that waits for everything gives what there is when its time is over.
pub(crate) fn read_waitall_timeout(net: &impl Net) {
    let (client, server) = net.pair();
    let time = server.set_read_timeout(Some(BRIEF));
    time.expect("set_read_timeout");
    client.put(b"some");
    let before = net.now();
    doing("reading all until the time is over");
    let got = server.read_waitall(&mut [0; 100]).expect("read_waitall");
    assert_eq!(got, 4);
    assert!(net.now() - before >= BRIEF, "it did not wait");
}

/// A read waits for SO_RCVLOWAT bytes, or as many as it has asked for, or its time.
pub(crate) fn low_water(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(51);
    server.set_recv_low_water(1_000).expect("SO_RCVLOWAT");
    let mut buf = vec![0; 5_000];
    net.all(vec![
        actor("reader", || {
            doing("reading a thousand bytes or more");
            let got = server.read(&mut buf).expect("read");
            assert_eq!(got, 1_700);
            pattern.check(0, &buf[..got]);
        }),
        actor("writer", || {
            client.put(&pattern.bytes(0, 600));
            doing("waiting for the reader to wait");
            net.until_others_wait();
            // Linux wakes a reader that has taken some only when as much again is there.
            client.put(&pattern.bytes(600, 1_100));
        }),
    ]);
    client.put(&pattern.bytes(1_700, 100));
    server.get_pattern(pattern, 1_700, 50, 50);
    server
        .set_read_timeout(Some(BRIEF))
        .expect("set_read_timeout");
    let before = net.now();
    doing("reading until the time is over");
    assert_eq!(server.read(&mut buf).expect("read"), 50);
    assert!(net.now() - before >= BRIEF, "it did not wait");
    client.put(b"few");
    server.set_nonblocking(true).expect("set_nonblocking");
    let got = net.until("what is there, without waiting", || {
        let read = server.read(&mut buf);
        (!would_block(&read)).then(|| read.expect("read"))
    });
    assert_eq!(got, 3);
}

/// What there is to be read, and what the peer has not taken.
pub(crate) fn queue_lengths(net: &impl Net) {
    let (client, server) = net.sized(64 << 10).pair();
    let pattern = Pattern(52);
    let unread = || server.recv_queue_len().expect("SIOCINQ");
    assert_eq!(unread(), 0);
    client.put(&pattern.bytes(0, 1_000));
    net.until("a thousand bytes to read", || {
        (unread() == 1_000).then_some(())
    });
    server.get_pattern(pattern, 0, 400, 400);
    assert_eq!(unread(), 600);
    client.set_nonblocking(true).expect("set_nonblocking");
    let mut taken = 1_000;
    let unsent = net.until("bytes that the peer does not take", || {
        let wrote = client.write(&pattern.bytes(taken as u64, 10_000));
        if !would_block(&wrote) {
            taken += wrote.expect("write");
        }
        let unsent = client.send_queue_len().expect("SIOCOUTQ");
        (unsent > 0 && unread() > 0).then_some(unsent)
    });
    assert!(unsent < taken, "{unsent} of {taken} not taken");
    assert!(unread() < taken, "{} of {taken}", unread());
    server.get_pattern(pattern, 400, taken - 400, 20_000);
    net.until("all to be taken", || {
        (client.send_queue_len().expect("SIOCOUTQ") == 0).then_some(())
    });
    assert_eq!(unread(), 0);
}
