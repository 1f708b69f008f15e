//! Bytes arrive as they were sent, whatever the sizes of the calls.

use std::io::{IoSlice, IoSliceMut};

use crate::common::net::{Net, Stream};
use crate::common::pattern::Pattern;
use crate::common::rng::Rng;
use crate::common::watch::{actor, doing};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One message there and back, for every size around which something changes.
pub(crate) fn echo_of_many_sizes(net: &impl Net) {
    echo(
        net,
        &[
            1,
            2,
            37,
            4 * KIB - 1,
            4 * KIB,
            4 * KIB + 1,
            16 * KIB - 1,
            16 * KIB,
            32 * KIB + 1,
            64 * KIB - 1,
            64 * KIB,
            64 * KIB + 1,
            300_001,
            MIB,
            MIB + 1,
            8 * MIB,
        ],
    );
}

/// As above, small enough to be done many times.
pub(crate) fn echo_of_few_sizes(net: &impl Net) {
    echo(net, &[1, 4 * KIB, 16 * KIB + 1, 64 * KIB, 200_001]);
}

fn echo(net: &impl Net, sizes: &[usize]) {
    let (client, server) = net.pair();
    let there = Pattern(1);
    let back = Pattern(2);
    net.all(vec![
        actor("client", || {
            let mut at = 0;
            for &size in sizes {
                client.put(&there.bytes(at, size));
                client.get_pattern(back, at, size, size);
                at += size as u64;
            }
        }),
        actor("server", || {
            let mut at = 0;
            for &size in sizes {
                server.get_pattern(there, at, size, size);
                server.put(&back.bytes(at, size));
                at += size as u64;
            }
        }),
    ]);
    drop(client);
    server.at_end();
}

/// Both directions at once, a reader and a writer at each end, in calls of random sizes.
pub(crate) fn full_duplex(net: &impl Net) {
    duplex(net, 4 * MIB, 200 * KIB);
}

/// As above, small enough to be done many times.
pub(crate) fn full_duplex_briefly(net: &impl Net) {
    duplex(net, 256 * KIB, 40 * KIB);
}

fn duplex(net: &impl Net, total: usize, call_max: usize) {
    let (client, server) = net.pair();
    let write = |stream: &_, key| {
        let mut rng = Rng::new(key);
        let mut done = 0;
        while done < total {
            let n = rng.between(1, call_max).min(total - done);
            Stream::put(stream, &Pattern(key).bytes(done as u64, n));
            done += n;
        }
    };
    let read = |stream: &_, key| {
        let mut rng = Rng::new(key + 10);
        let mut done = 0;
        while done < total {
            let n = rng.between(1, call_max).min(total - done);
            Stream::get_pattern(stream, Pattern(key), done as u64, n, n);
            done += n;
        }
    };
    net.all(vec![
        actor("client writes", || write(&client, 1)),
        actor("client reads", || read(&client, 2)),
        actor("server writes", || write(&server, 2)),
        actor("server reads", || read(&server, 1)),
    ]);
}

/// Vectored calls move the pieces in order, empty ones included, and may be split anywhere.
pub(crate) fn vectored(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(3);
    let total = 150_000;
    let bytes = pattern.bytes(0, total);
    net.all(vec![
        actor("writer", || {
            let mut done = 0;
            while done < total {
                let left = &bytes[done..];
                let (a, rest) = left.split_at(left.len().min(10));
                let (b, rest) = rest.split_at(rest.len().min(20_000));
                let (c, _) = rest.split_at(rest.len().min(70_000));
                let pieces = [a, &[], b, c].map(IoSlice::new);
                doing(format!("writing pieces after {done}"));
                let n = client.write_vectored(&pieces).expect("write_vectored");
                assert!(n > 0 && n <= a.len() + b.len() + c.len(), "{n} bytes taken");
                done += n;
            }
        }),
        actor("reader", || {
            let mut done = 0;
            while done < total {
                let (mut a, mut b, mut c) = (vec![0; 3], vec![0; 5_000], vec![0; 60_000]);
                let n = {
                    let mut none = [];
                    let mut pieces = [
                        IoSliceMut::new(&mut a),
                        IoSliceMut::new(&mut none),
                        IoSliceMut::new(&mut b),
                        IoSliceMut::new(&mut c),
                    ];
                    doing(format!("reading pieces after {done}"));
                    server.read_vectored(&mut pieces).expect("read_vectored")
                };
                let mut got = [a, b, c].concat();
                assert!(n > 0 && n <= got.len(), "{n} bytes given");
                let untouched = got.split_off(n);
                pattern.check(done as u64, &got);
                assert!(
                    untouched.iter().all(|b| *b == 0),
                    "written beyond the count"
                );
                done += n;
            }
        }),
    ]);
}

/// Peeking leaves the bytes where they are, as often as it is done, also at the end.
pub(crate) fn peek_then_read(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(4);
    client.put(&pattern.bytes(0, 100));
    let mut buf = [0; 200];
    for len in [1, 10, 10] {
        doing("peeking");
        let n = server.peek(&mut buf[..len]).expect("peek");
        assert!(n >= 1 && n <= len);
        pattern.check(0, &buf[..n]);
    }
    server.get_pattern(pattern, 0, 60, 7);
    let seen = net.until("peeking at the rest", || {
        let n = server.peek(&mut buf).expect("peek");
        (n == 40).then_some(n)
    });
    pattern.check(60, &buf[..seen]);
    server.get_pattern(pattern, 60, 40, 40);
    drop(client);
    doing("peeking at the end");
    assert_eq!(server.peek(&mut buf).expect("peek at the end"), 0);
    server.at_end();
}

/// A peek looks at a large write without losing the rest of it.
pub(crate) fn peek_at_a_large_write(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(5);
    let total = 300_000;
    net.all(vec![
        actor("writer", || client.put(&pattern.bytes(0, total))),
        actor("reader", || {
            let mut buf = vec![0; 20_000];
            for _ in 0..3 {
                doing("peeking");
                let n = server.peek(&mut buf).expect("peek");
                assert!(n > 0);
                pattern.check(0, &buf[..n]);
            }
            server.get_pattern(pattern, 0, total, 100_000);
        }),
    ]);
}

/// A large write, read in small pieces: one byte at a time at first.
pub(crate) fn slow_small_reader(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(6);
    let (tiny, small) = (3_000, MIB);
    net.all(vec![
        actor("writer", || client.put(&pattern.bytes(0, tiny + small))),
        actor("reader", || {
            server.get_pattern(pattern, 0, tiny, 1);
            server.get_pattern(pattern, tiny as u64, small, 997);
        }),
    ]);
}

/// Small writes, read in large pieces.
pub(crate) fn small_writes_large_reader(net: &impl Net) {
    small_writes(net, 256 * KIB);
}

/// As above, few enough to be done many times.
pub(crate) fn small_writes_large_reader_briefly(net: &impl Net) {
    small_writes(net, 20 * KIB);
}

fn small_writes(net: &impl Net, total: usize) {
    let (client, server) = net.pair();
    let pattern = Pattern(7);
    net.all(vec![
        actor("writer", || {
            let mut rng = Rng::new(7);
            let mut done = 0;
            while done < total {
                let n = rng.between(1, 300).min(total - done);
                client.put(&pattern.bytes(done as u64, n));
                done += n;
            }
        }),
        actor("reader", || server.get_pattern(pattern, 0, total, 64 * KIB)),
    ]);
}

/// Writes and reads of random sizes, large and small after one another.
pub(crate) fn mixed_sizes(net: &impl Net) {
    let (client, server) = net.pair();
    let pattern = Pattern(8);
    let size = |rng: &mut Rng| {
        let max = [3, 300, 5_000, 50_000, 300_000][rng.below(5)];
        rng.between(1, max)
    };
    let total = 2 * MIB;
    net.all(vec![
        actor("writer", || {
            let mut rng = Rng::new(80);
            let mut done = 0;
            while done < total {
                let n = size(&mut rng).min(total - done);
                client.put(&pattern.bytes(done as u64, n));
                done += n;
            }
        }),
        actor("reader", || {
            let mut rng = Rng::new(81);
            let mut done = 0;
            while done < total {
                let n = size(&mut rng).min(total - done);
                server.get_pattern(pattern, done as u64, n, n);
                done += n;
            }
        }),
    ]);
}

/// Calls with nothing to move return at once, with 0, and change nothing.
pub(crate) fn empty_calls(net: &impl Net) {
    let (client, server) = net.pair();
    doing("writing nothing");
    assert_eq!(client.write(&[]).expect("write"), 0);
    client.put(b"x");
    let mut buf = [0; 1];
    net.until("a byte to peek at", || {
        (server.peek(&mut buf).expect("peek") == 1).then_some(())
    });
    doing("reading nothing");
    assert_eq!(server.read(&mut []).expect("read"), 0);
    assert_eq!(server.peek(&mut []).expect("peek"), 0);
    server.get(&mut buf);
    assert_eq!(&buf, b"x");
}

/// A clone is the same stream: what is read by one is gone for the other, options are shared, and
/// the connection lasts until the last of them is dropped.
pub(crate) fn clones_are_one_stream(net: &impl Net) {
    let (client, server) = net.pair();
    let other = client.try_clone().expect("try_clone");
    client.put(b"ab");
    other.put(b"cd");
    let mut buf = [0; 4];
    server.get(&mut buf);
    assert_eq!(&buf, b"abcd");

    let time = std::time::Duration::from_millis(700);
    client
        .set_read_timeout(Some(time))
        .expect("set_read_timeout");
    assert_eq!(other.read_timeout().expect("read_timeout"), Some(time));
    client.set_read_timeout(None).expect("set_read_timeout");

    drop(client);
    server.put(b"still");
    let mut buf = [0; 5];
    other.get(&mut buf);
    assert_eq!(&buf, b"still");
    other.put(b"here");
    drop(other);
    let mut buf = [0; 4];
    server.get(&mut buf);
    assert_eq!(&buf, b"here");
    server.at_end();
}

/// Several connections at once do not mix.
pub(crate) fn many_connections(net: &impl Net) {
    let (listener, addr) = net.listen();
    let connect = |_| {
        let client = net.connect(addr).expect("connect");
        let (server, _) = crate::common::net::Listener::accept(&listener).expect("accept");
        (client, server)
    };
    let pairs: Vec<_> = (0..20).map(connect).collect();
    let actors = pairs.iter().enumerate().flat_map(|(n, (client, server))| {
        let pattern = Pattern(100 + n as u64);
        let total = 20_000 + 1_000 * n;
        [
            actor("a writer", move || {
                client.put_pattern(pattern, 0, total, 3_000 + n)
            }),
            actor("a reader", move || {
                server.get_pattern(pattern, 0, total, 9_000)
            }),
        ]
    });
    net.all(actors.collect());
}
