//! Write ZCopy: a receive that waits for large data is written to, straight from the sender's
//! memory; one that waits for little offers nothing.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod bodies;
#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::time::Duration;

use sdp_socket::{SdpStream, Stats};

use bodies::zcopy::{received, registered, sent};
use common::net::{Net, Stream};
use common::pattern::Pattern;
use common::sdp::{Sdp, Traces};
use common::threads::until_others_sleep;
use common::watch::{actor, doing, watched};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Messages of a kind that were sent and received.
fn messages(stats: &Stats, kind: &str) -> (u64, u64) {
    let found = stats.messages.iter().find(|(name, ..)| *name == kind);
    found.map_or((0, 0), |(_, sent, received)| (*sent, *received))
}

/// Sends `count` messages of `len` bytes, each to a receive that already waits for it.
fn to_waiting_receives(
    net: &Sdp,
    pair: &(SdpStream, SdpStream),
    from: usize,
    count: usize,
    len: usize,
) {
    let pattern = Pattern(92);
    let mut buf = registered(net, len);
    net.all(vec![
        actor("writer", || {
            for n in from..from + count {
                pattern.fill((n * len) as u64, &mut buf);
                doing("waiting for the reader to wait");
                until_others_sleep();
                pair.0.put(&buf);
                buf.fill(0xee);
            }
        }),
        actor("reader", || {
            pair.1
                .get_pattern(pattern, (from * len) as u64, count * len, len);
        }),
    ]);
}

/// Of so many bytes to waiting receives: those written and those read, by the counters below the
/// engine, which agree with the engine's own.
fn written(net: &Sdp, pair: &(SdpStream, SdpStream), traces: &Traces) -> (u64, u64, u64) {
    to_waiting_receives(net, pair, 0, 10, MIB);
    let (tx, rx) = (traces.client.counters(), traces.server.counters());
    to_waiting_receives(net, pair, 10, 20, MIB);
    let (tx, rx) = (traces.client.counters() - tx, traces.server.counters() - rx);
    let total = 20 * MIB as u64;
    let (client, server) = (pair.0.stats(), pair.1.stats());
    assert_eq!(sent(&client), 30 * MIB as u64, "{client:?}");
    assert_eq!(received(&server), 30 * MIB as u64, "{server:?}");
    assert_eq!(client.tx_bytes_written, server.rx_bytes_written);
    let below = traces.client.counters();
    assert_eq!(client.tx_bytes_written, below.write_bytes);
    (total, tx.write_bytes, rx.read_bytes)
}

/// After ten messages of 1 MiB to receives that wait, at least nine tenths go by Write ZCopy; every
/// key that was given away has died.
#[test]
fn large_messages_to_waiting_receives_are_written() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let net = net.rendezvous(4 << 10);
        let pair = net.pair();
        let (total, written, read) = written(&net, &pair, &traces);
        println!("{written} of {total} bytes written, {read} read");
        assert!(written * 10 >= total * 9 && written + read <= total);
        for below in [traces.client.counters(), traces.server.counters()] {
            let deaths = below.local_inv_count + below.invalidated_count;
            assert_eq!(below.bind_count, deaths, "{below:?}");
        }
    });
}

/// The same where everything happens as late as verbs allow.
#[test]
fn large_messages_to_waiting_receives_are_written_late() {
    for seed in 0..3 {
        watched(move || {
            println!("seed {seed}");
            let net = Sdp::lazy(seed).rendezvous(4 << 10);
            let pair = net.pair();
            to_waiting_receives(&net, &pair, 0, 20, MIB);
            let (client, server) = (pair.0.stats(), pair.1.stats());
            assert_eq!(received(&server), 20 * MIB as u64, "{server:?}");
            assert!(client.tx_bytes_written > 0, "{client:?}");
            assert_eq!(client.tx_bytes_written, server.rx_bytes_written);
        });
    }
}

/// A program that asks and answers in 64 bytes, with receive buffers of 64 KiB, never offers them.
#[test]
fn small_messages_offer_nothing() {
    watched(|| {
        let net = Sdp::shared().rendezvous(4 << 10);
        let pair = net.pair();
        let (ask, answer) = (Pattern(93), Pattern(94));
        let count = 200;
        net.all(vec![
            actor("client", || {
                for n in 0..count {
                    pair.0.put(&ask.bytes(n * 64, 64));
                    let mut buf = vec![0; 64 * KIB];
                    assert_eq!(pair.0.read(&mut buf).expect("read"), 64);
                    answer.check(n * 64, &buf[..64]);
                }
            }),
            actor("server", || {
                for n in 0..count {
                    let mut buf = vec![0; 64 * KIB];
                    assert_eq!(pair.1.read(&mut buf).expect("read"), 64);
                    ask.check(n * 64, &buf[..64]);
                    pair.1.put(&answer.bytes(n * 64, 64));
                }
            }),
        ]);
        for end in [&pair.0, &pair.1] {
            assert_eq!(messages(&end.stats(), "SinkAvail"), (0, 0));
        }
    });
}

/// A stream of large messages that turns small stops offering after the first miss.
#[test]
fn an_offer_that_meets_a_small_message_is_the_last() {
    watched(|| {
        let net = Sdp::shared().rendezvous(4 << 10);
        let pair = net.pair();
        to_waiting_receives(&net, &pair, 0, 10, MIB);
        let before = messages(&pair.1.stats(), "SinkAvail").0;
        assert!(before > 0, "{:?}", pair.1.stats());
        let pattern = Pattern(95);
        net.all(vec![
            actor("writer", || {
                for n in 0..20 {
                    until_others_sleep();
                    pair.0.put(&pattern.bytes(n * 64, 64));
                }
            }),
            actor("reader", || pair.1.get_pattern(pattern, 0, 20 * 64, MIB)),
        ]);
        let after = messages(&pair.1.stats(), "SinkAvail").0;
        assert!(after <= before + 1, "{:?}", pair.1.stats());
    });
}

/// A receive whose time runs out takes its offer back, and the stream goes on.
#[test]
fn an_offer_is_taken_back_when_time_runs_out() {
    watched(|| {
        let net = Sdp::shared().rendezvous(4 << 10);
        let pair = net.pair();
        to_waiting_receives(&net, &pair, 0, 10, MIB);
        let limit = Some(Duration::from_millis(20));
        pair.1.set_read_timeout(limit).expect("a time-out");
        let mut buf = vec![0; MIB];
        let error = pair.1.read(&mut buf).expect_err("nothing was sent");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        let stats = pair.1.stats();
        assert_eq!(messages(&stats, "SinkAvailCancel").0, 1, "{stats:?}");
        assert_eq!(messages(&stats, "SinkCancelAck").1, 1, "{stats:?}");
        pair.1.set_read_timeout(None).expect("no time-out");
        to_waiting_receives(&net, &pair, 10, 3, MIB);
    });
}
