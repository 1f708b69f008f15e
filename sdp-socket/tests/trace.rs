//! What the engine says about itself agrees with what the layer below it has counted.

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

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use sdp_socket::{SdpStream, ZcopyThreshold};
use sdp_verbs::hook::Lazy;
use sdp_verbs::{Caps, Provider};

use bodies::zcopy::{heap_is_out_of_reach, received, registered, sent};
use common::net::{Net, Stream};
use common::pattern::Pattern;
use common::sdp::{Sdp, Traces, host};
use common::watch::{actor, watched};

const TOTAL: usize = 4 << 20;

/// Sends [`TOTAL`] bytes out of `buf`, as often as it takes.
fn send(net: &Sdp, pair: &(SdpStream, SdpStream), buf: &mut [u8]) {
    let pattern = Pattern(90);
    let len = buf.len();
    net.all(vec![
        actor("writer", || {
            for at in (0..TOTAL).step_by(len) {
                pattern.fill(at as u64, buf);
                pair.0.put(buf);
            }
        }),
        actor("reader", || pair.1.get_pattern(pattern, 0, TOTAL, len)),
    ]);
}

/// Nearly everything went by RDMA, and both layers say the same.
fn went_by_rdma((client, server): &(SdpStream, SdpStream), traces: &Traces) {
    let (tx, rx) = (client.stats(), server.stats());
    let (below_tx, below_rx) = (traces.client.counters(), traces.server.counters());
    let total = TOTAL as u64;
    assert_eq!(sent(&tx), total, "{tx:?}");
    assert_eq!(received(&rx), total, "{rx:?}");
    let moved = below_rx.read_bytes + below_tx.write_bytes;
    assert_eq!(tx.tx_bytes_zcopy, moved, "{tx:?} {below_rx:?}");
    assert_eq!(tx.tx_bytes_written, below_tx.write_bytes, "{tx:?}");
    assert_eq!(rx.rx_bytes_zcopy + rx.rx_bytes_read_ahead, moved);
    assert!(moved * 1000 >= total * 999, "{below_rx:?}");
    assert!(below_tx.send_bytes * 1000 < total * 2, "{below_tx:?}");
    // Every key that was given away has died.
    for below in [below_tx, below_rx] {
        let deaths = below.local_inv_count + below.invalidated_count;
        assert_eq!(below.bind_count, deaths, "{below:?}");
    }
    assert_eq!(below_rx.read_count, below_rx.read_posted_count);
}

#[test]
fn from_heap() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let net = net.rendezvous(4 << 10);
        let pair = net.pair();
        send(&net, &pair, &mut vec![0; 1 << 20]);
        if !heap_is_out_of_reach(&pair.0.stats()) {
            went_by_rdma(&pair, &traces);
        }
    });
}

#[test]
fn from_registered() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let net = net.rendezvous(4 << 10);
        let pair = net.pair();
        send(&net, &pair, &mut registered(&net, 1 << 20));
        went_by_rdma(&pair, &traces);
    });
}

/// One large send keeps several adverts open, and every one of its bytes moves from its memory to the
/// receiver's: read, or written where a receive that was there first has offered its own.
#[test]
fn one_large_send_overlaps_its_adverts() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let net = net.rendezvous(4 << 10);
        let pair = net.pair();
        let len = 64 << 20;
        let pattern = Pattern(91);
        let mut buf = registered(&net, len);
        pattern.fill(0, &mut buf);
        net.all(vec![
            actor("writer", || pair.0.put(&buf)),
            actor("reader", || pair.1.get_pattern(pattern, 0, len, 4 << 20)),
        ]);
        let stats = pair.0.stats();
        assert!(stats.tx_adverts_open_max >= 2, "{stats:?}");
        assert_eq!(sent(&stats), len as u64, "{stats:?}");
        let below = [traces.server.counters(), traces.client.counters()];
        let moved = below[0].read_bytes + below[1].write_bytes;
        assert!(moved * 1000 >= len as u64 * 999, "{below:?}");
    });
}

#[test]
fn switched_off() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let net = net.with(|b| b.zcopy_threshold(ZcopyThreshold::Off));
        let pair = net.pair();
        send(&net, &pair, &mut registered(&net, 1 << 20));
        // Credits may still be on their way: what the engine says lies between two looks below.
        let sent_before = traces.client.counters().send_count;
        let (tx, rx) = (pair.0.stats(), pair.1.stats());
        let (below_tx, below_rx) = (traces.client.counters(), traces.server.counters());
        assert_eq!(tx.tx_bytes_bcopy, TOTAL as u64, "{tx:?}");
        assert_eq!(rx.rx_bytes_bcopy, TOTAL as u64, "{rx:?}");
        assert_eq!(below_rx.read_posted_count, 0, "{below_rx:?}");
        assert_eq!(below_tx.bind_count, 0, "{below_tx:?}");
        // Every byte, and not much more than that.
        let carried = below_tx.send_bytes;
        assert!(
            carried >= TOTAL as u64 && carried * 100 < TOTAL as u64 * 101,
            "{below_tx:?}"
        );
        let messages: u64 = tx.messages.iter().map(|(_, sent, _)| *sent).sum();
        let looks = sent_before..=below_tx.send_count;
        assert!(looks.contains(&messages), "{looks:?} {tx:?}");
    });
}

/// A mix of large and small writes: the sums agree, whatever went how.
#[test]
fn mixed() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let net = net.with(|b| b.zcopy_threshold(ZcopyThreshold::Bytes(16 << 10)));
        let pair = net.pair();
        for len in [1 << 20, 4 << 10, 64 << 10] {
            send(&net, &pair, &mut registered(&net, len));
        }
        let (tx, rx) = (pair.0.stats(), pair.1.stats());
        let moved = traces.server.counters().read_bytes + traces.client.counters().write_bytes;
        assert_eq!(sent(&tx), 3 * TOTAL as u64, "{tx:?}");
        assert_eq!(received(&rx), 3 * TOTAL as u64, "{rx:?}");
        assert_eq!(moved, rx.rx_bytes_zcopy + rx.rx_bytes_read_ahead);
        assert_eq!(moved, tx.tx_bytes_zcopy, "{tx:?}");
    });
}

/// An adapter's zero-length write, as if the peer were on another machine.
#[test]
fn a_silent_peer_is_asked_for_a_sign_of_life() {
    watched(|| {
        let (net, traces) = Sdp::traced_over(|| -> Arc<dyn Provider> {
            Arc::new(Lazy::new(host()).without(Caps::SAME_HOST))
        });
        let (client, server) = net.pair();
        let brief = Duration::from_millis(5);
        client
            .set_keepalive_time(brief)
            .expect("set_keepalive_time");
        client
            .set_read_timeout(Some(brief))
            .expect("set_read_timeout");
        client.set_keepalive(true).expect("set_keepalive");
        // The reader of nothing only passes the time: the progress thread asks.
        while traces.client.counters().write_count < 3 {
            let nothing = client.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(nothing, Err(ErrorKind::WouldBlock));
        }
        client.set_keepalive(false).expect("set_keepalive");
        let stats = client.stats();
        assert!(stats.probes >= 3, "{stats:?}");
        assert_eq!(traces.client.counters().write_bytes, 0);
        client.put(b"alive");
        let mut got = [0; 5];
        server.get(&mut got);
        assert_eq!(&got, b"alive");
    });
}

/// On one machine nobody is asked, and nothing is sent.
#[test]
fn keepalive_between_processes_of_one_machine_costs_nothing() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let (client, server) = net.pair();
        let brief = Duration::from_millis(5);
        client
            .set_keepalive_time(brief)
            .expect("set_keepalive_time");
        client.set_keepalive(true).expect("set_keepalive");
        client
            .set_read_timeout(Some(brief))
            .expect("set_read_timeout");
        while client.stats().probes < 3 {
            let nothing = client.read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(nothing, Err(ErrorKind::WouldBlock));
        }
        assert_eq!(traces.client.counters().write_posted_count, 0);
        assert_eq!(traces.client.counters().send_count, 0);
        client.put(b"alive");
        let mut got = [0; 5];
        server.get(&mut got);
        assert_eq!(&got, b"alive");
    });
}

/// The options and their ranges are those of Linux.
#[test]
fn keepalive_options() {
    watched(|| {
        let net = Sdp::shared().with(|b| b.keepalive(true));
        let (client, server) = net.pair();
        for stream in [&client, &server] {
            assert!(stream.keepalive().expect("keepalive"));
        }
        let second = Duration::from_secs(1);
        assert_eq!(client.keepalive_time().expect("time"), 7_200 * second);
        assert_eq!(client.keepalive_interval().expect("interval"), 75 * second);
        assert_eq!(client.keepalive_retries().expect("retries"), 9);
        assert_eq!(client.user_timeout().expect("user_timeout"), None);
        client.set_keepalive_time(second).expect("time");
        client.set_keepalive_interval(2 * second).expect("interval");
        client.set_keepalive_retries(3).expect("retries");
        client
            .set_user_timeout(Some(4 * second))
            .expect("user_timeout");
        assert_eq!(client.keepalive_time().expect("time"), second);
        assert_eq!(client.keepalive_interval().expect("interval"), 2 * second);
        assert_eq!(client.keepalive_retries().expect("retries"), 3);
        assert_eq!(
            client.user_timeout().expect("user_timeout"),
            Some(4 * second)
        );
        let too_long = Duration::from_secs(32_768);
        for time in [Duration::ZERO, too_long] {
            let kind = |result: std::io::Result<()>| result.expect_err("a wrong time").kind();
            assert_eq!(
                kind(client.set_keepalive_time(time)),
                ErrorKind::InvalidInput
            );
            assert_eq!(
                kind(client.set_keepalive_interval(time)),
                ErrorKind::InvalidInput
            );
        }
        for count in [0, 128] {
            let error = client
                .set_keepalive_retries(count)
                .expect_err("a wrong count");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    });
}
