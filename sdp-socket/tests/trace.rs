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

use sdp_socket::{SdpStream, ZcopyThreshold};

use bodies::zcopy::{heap_is_out_of_reach, received, registered, sent};
use common::net::{Net, Stream};
use common::pattern::Pattern;
use common::sdp::{Sdp, Traces};
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

/// Nearly everything went by RDMA READs of the receiver, and both layers say the same.
fn went_by_reads((client, server): &(SdpStream, SdpStream), traces: &Traces) {
    let (tx, rx) = (client.stats(), server.stats());
    let (below_tx, below_rx) = (traces.client.counters(), traces.server.counters());
    let total = TOTAL as u64;
    assert_eq!(sent(&tx), total, "{tx:?}");
    assert_eq!(received(&rx), total, "{rx:?}");
    assert_eq!(
        tx.tx_bytes_zcopy, below_rx.read_bytes,
        "{tx:?} {below_rx:?}"
    );
    assert_eq!(
        rx.rx_bytes_zcopy + rx.rx_bytes_read_ahead,
        below_rx.read_bytes
    );
    assert!(below_rx.read_bytes * 1000 >= total * 999, "{below_rx:?}");
    assert!(below_tx.send_bytes * 1000 < total * 2, "{below_tx:?}");
    // Every key that was given away has died.
    let deaths = below_tx.local_inv_count + below_tx.invalidated_count;
    assert_eq!(below_tx.bind_count, deaths, "{below_tx:?}");
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
            went_by_reads(&pair, &traces);
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
        went_by_reads(&pair, &traces);
    });
}

/// One large send keeps several adverts open, and every one of its bytes is read from its memory.
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
        let below = traces.server.counters();
        assert!(below.read_bytes * 1000 >= len as u64 * 999, "{below:?}");
    });
}

#[test]
fn switched_off() {
    watched(|| {
        let (net, traces) = Sdp::traced();
        let net = net.with(|b| b.zcopy_threshold(ZcopyThreshold::Off));
        let pair = net.pair();
        send(&net, &pair, &mut registered(&net, 1 << 20));
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
        assert_eq!(messages, below_tx.send_count, "{tx:?} {below_tx:?}");
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
        let below = traces.server.counters();
        assert_eq!(sent(&tx), 3 * TOTAL as u64, "{tx:?}");
        assert_eq!(received(&rx), 3 * TOTAL as u64, "{rx:?}");
        assert_eq!(below.read_bytes, rx.rx_bytes_zcopy + rx.rx_bytes_read_ahead);
        assert_eq!(below.read_bytes, tx.tx_bytes_zcopy, "{tx:?}");
    });
}
