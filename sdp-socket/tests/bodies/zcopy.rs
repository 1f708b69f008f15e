//! Large sends are read by the peer out of the caller's own memory.

use std::time::Duration;

use sdp_socket::{SdpBuffer, SdpStream, Stats, ZcopyThreshold};

use crate::common::net::{Net, Stream};
use crate::common::pattern::Pattern;
use crate::common::sdp::Sdp;
use crate::common::watch::{actor, doing};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A registered buffer of the connecting end.
pub(crate) fn registered(net: &Sdp, len: usize) -> SdpBuffer {
    net.client_buffer(len).expect("a registered buffer")
}

/// Sends `calls` times `len` bytes of `fill`ed memory and reads them in calls of the same size.
fn transfer(net: &Sdp, pair: &(SdpStream, SdpStream), buf: &mut [u8], calls: usize) {
    let (client, server) = pair;
    let pattern = Pattern(60);
    let len = buf.len();
    net.all(vec![
        actor("writer", || {
            for n in 0..calls {
                let at = (n * len) as u64;
                pattern.fill(at, buf);
                doing(format!("send number {n}"));
                assert_eq!(client.write(buf).expect("write"), len, "a part of a write");
                // It is ours again: what is put there now must not arrive.
                buf.fill(0xee);
            }
        }),
        actor("reader", || {
            let mut to = vec![0; len];
            for n in 0..calls {
                server.get(&mut to);
                pattern.check((n * len) as u64, &to);
            }
        }),
    ]);
}

/// What a sender's bytes went by: all of them are accounted for.
pub(crate) fn sent(stats: &Stats) -> u64 {
    stats.tx_bytes_bcopy + stats.tx_bytes_inline + stats.tx_bytes_zcopy
}

/// What a receiver's bytes came by.
pub(crate) fn received(stats: &Stats) -> u64 {
    stats.rx_bytes_bcopy + stats.rx_bytes_inline + stats.rx_bytes_zcopy + stats.rx_bytes_read_ahead
}

/// True, with a line that says so, if this machine does not let the peer read our heap.
pub(crate) fn heap_is_out_of_reach(stats: &Stats) -> bool {
    let reason = stats
        .copy_reasons
        .iter()
        .find(|r| r.0 == "memory_unreachable");
    if reason.is_some() {
        eprintln!("skipped: ordinary memory is out of the peer's reach here: {reason:?}");
    }
    reason.is_some()
}

/// From ordinary memory, with a threshold of 4 KiB and a reader that is waited for: no byte is
/// copied but those inside the adverts.
pub(crate) fn from_heap(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let pair = net.pair();
    transfer(&net, &pair, &mut vec![0; 300 * KIB], 4);
    let stats = pair.0.stats();
    if heap_is_out_of_reach(&stats) {
        return;
    }
    no_copies(&pair, 4 * 300 * KIB as u64);
}

/// From registered memory.
pub(crate) fn from_registered(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let pair = net.pair();
    transfer(&net, &pair, &mut registered(&net, 300 * KIB), 4);
    no_copies(&pair, 4 * 300 * KIB as u64);
}

fn no_copies((client, server): &(SdpStream, SdpStream), total: u64) {
    let (tx, rx) = (client.stats(), server.stats());
    assert_eq!(sent(&tx), total, "{tx:?}");
    assert_eq!(received(&rx), total, "{rx:?}");
    assert_eq!(tx.tx_bytes_bcopy, 0, "{tx:?}");
    assert_eq!(rx.rx_bytes_bcopy, 0, "{rx:?}");
    assert_eq!(
        tx.tx_bytes_zcopy,
        rx.rx_bytes_zcopy + rx.rx_bytes_read_ahead
    );
    assert!(tx.tx_bytes_inline * 100 < total, "{tx:?}");
}

/// Without any option, registered memory is not copied and ordinary memory is.
pub(crate) fn auto_tells_memory_apart(net: &Sdp) {
    let net = net.with(|b| b.rendezvous_wait(Duration::MAX));
    let pair = net.pair();
    transfer(&net, &pair, &mut registered(&net, 100 * KIB), 1);
    let first = pair.0.stats();
    assert_eq!(first.tx_bytes_bcopy, 0, "{first:?}");
    let pair = net.pair();
    transfer(&net, &pair, &mut vec![0; 100 * KIB], 1);
    let second = pair.0.stats();
    assert_eq!(
        second.tx_bytes_zcopy + second.tx_bytes_inline,
        0,
        "{second:?}"
    );
    assert_eq!(second.tx_bytes_bcopy, 100 * KIB as u64);
}

/// Switched off, everything is copied, for that reason.
pub(crate) fn switched_off(net: &Sdp) {
    let net = net.with(|b| b.zcopy_threshold(ZcopyThreshold::Off));
    let pair = net.pair();
    transfer(&net, &pair, &mut registered(&net, 200 * KIB), 2);
    let (tx, rx) = (pair.0.stats(), pair.1.stats());
    assert_eq!(tx.tx_bytes_bcopy, 400 * KIB as u64, "{tx:?}");
    assert_eq!(sent(&tx), tx.tx_bytes_bcopy, "{tx:?}");
    assert_eq!(received(&rx), rx.rx_bytes_bcopy, "{rx:?}");
    assert!(
        tx.copy_reasons.iter().any(|r| r.0 == "threshold_off"),
        "{tx:?}"
    );
}

/// Switched off on a connection that has used it, and on again.
pub(crate) fn switched_over(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let pair = net.pair();
    let mut buf = registered(&net, 64 * KIB);
    for (threshold, bcopy) in [
        (ZcopyThreshold::Bytes(4 * KIB), 0),
        (ZcopyThreshold::Off, 64 * KIB),
        (ZcopyThreshold::Bytes(64 * KIB), 64 * KIB),
        (ZcopyThreshold::Bytes(64 * KIB + 1), 128 * KIB),
    ] {
        pair.0.set_zcopy_threshold(threshold).expect("threshold");
        transfer(&net, &pair, &mut buf, 1);
        let stats = pair.0.stats();
        assert_eq!(
            stats.tx_bytes_bcopy, bcopy as u64,
            "after {threshold:?}: {stats:?}"
        );
    }
}

/// Any part of a registered buffer, aligned or not, is as good as all of it.
pub(crate) fn parts_of_a_registered_buffer(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let (client, server) = net.pair();
    let pattern = Pattern(61);
    let whole = 200 * KIB;
    let mut buf = registered(&net, whole);
    pattern.fill(0, &mut buf);
    let parts = [
        (0, whole),
        (1, 4 * KIB),
        (4 * KIB - 1, 70_001),
        (whole - 10_000, 10_000),
    ];
    net.all(vec![
        actor("writer", || {
            for (at, len) in parts {
                client.put(&buf[at..at + len]);
            }
        }),
        actor("reader", || {
            for (at, len) in parts {
                server.get_pattern(pattern, at as u64, len, len);
            }
        }),
    ]);
    let stats = client.stats();
    assert_eq!(stats.tx_bytes_bcopy, 0, "{stats:?}");
}

/// One registered buffer, many sends.
pub(crate) fn a_registered_buffer_again_and_again(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let pair = net.pair();
    transfer(&net, &pair, &mut registered(&net, 20 * KIB), 200);
    no_copies(&pair, 200 * 20 * KIB as u64);
}

/// Registered and ordinary memory, small and large, in one vectored write.
pub(crate) fn mixed_memory_in_one_write(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let (client, server) = net.pair();
    let pattern = Pattern(62);
    let total = 200_000;
    let mut held = registered(&net, 100_000);
    let mut bytes = pattern.bytes(0, total);
    held.copy_from_slice(&bytes[50_000..150_000]);
    bytes[50_000..150_000].fill(0);
    net.all(vec![
        actor("writer", || {
            let pieces = [&bytes[..3], &bytes[3..50_000], &held[..], &bytes[150_000..]];
            let pieces = pieces.map(std::io::IoSlice::new);
            doing("writing pieces");
            let n = client.write_vectored(&pieces).expect("write_vectored");
            assert_eq!(n, total, "a part of a write");
        }),
        actor("reader", || server.get_pattern(pattern, 0, total, 64 * KIB)),
    ]);
}

/// Reads that are much smaller than the advert still give every byte, and cost no read each.
pub(crate) fn small_reads_of_a_large_advert(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let (client, server) = net.pair();
    let pattern = Pattern(63);
    let buf = {
        let mut buf = registered(&net, 200 * KIB);
        pattern.fill(0, &mut buf);
        buf
    };
    net.all(vec![
        actor("writer", || client.put(&buf)),
        actor("reader", || server.get_pattern(pattern, 0, 200 * KIB, 500)),
    ]);
    let stats = server.stats();
    assert_eq!(received(&stats), 200 * KIB as u64, "{stats:?}");
}

/// A write whose time runs out while its memory is shown to the peer lets go of it, says exactly
/// how much was taken, and the stream goes on from there.
pub(crate) fn write_timeout_with_an_open_advert(net: &Sdp) {
    timeout_with_an_open_advert(&net.rendezvous(4 * KIB).sized(256 * KIB), 3 * MIB);
}

/// As above, small enough to be done many times.
pub(crate) fn write_timeout_with_a_small_advert_open(net: &Sdp) {
    timeout_with_an_open_advert(&net.rendezvous(4 * KIB).sized(16 * KIB), 200 * KIB);
}

fn timeout_with_an_open_advert(net: &Sdp, total: usize) {
    let (client, server) = net.pair();
    let pattern = Pattern(64);
    let mut buf = registered(net, total);
    pattern.fill(0, &mut buf);
    client
        .set_write_timeout(Some(Duration::from_millis(30)))
        .expect("set_write_timeout");
    doing("writing until the time is over");
    let taken = match client.write(&buf) {
        Ok(n) => n,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
        Err(e) => panic!("{e}"),
    };
    assert!(taken < total, "nobody reads");
    // What was not taken must not arrive, even if it was shown.
    buf[..].fill(0xee);
    client.set_write_timeout(None).expect("set_write_timeout");
    pattern.fill(taken as u64, &mut buf[..total - taken]);
    net.all(vec![
        actor("writer", || {
            client.put(&buf[..total - taken]);
            client
                .shutdown(std::net::Shutdown::Write)
                .expect("shutdown");
        }),
        actor("reader", || {
            server.get_pattern(pattern, 0, total, 100_000);
            server.at_end();
        }),
    ]);
}

/// Large sends cross, with nobody reading at first: both ends buffer, and nothing is lost.
pub(crate) fn crossing_adverts(net: &Sdp) {
    let net = net.with(|b| b.zcopy_threshold(ZcopyThreshold::Bytes(4 * KIB)));
    let (client, server) = net.pair();
    let (there, back) = (Pattern(65), Pattern(66));
    let len = 2 * MIB;
    let act = |stream: &SdpStream, out: Pattern, back: Pattern| {
        stream.put(&out.bytes(0, len));
        stream.get_pattern(back, 0, len, 300_000);
    };
    net.all(vec![
        actor("client", || act(&client, there, back)),
        actor("server", || act(&server, back, there)),
    ]);
}

/// A stream dropped right after a large send that nobody has read: the bytes arrive all the same.
pub(crate) fn drop_after_a_large_write(net: &Sdp) {
    let net = net.with(|b| b.zcopy_threshold(ZcopyThreshold::Bytes(4 * KIB)));
    let (client, server) = net.pair();
    let pattern = Pattern(67);
    let len = 300 * KIB;
    client.put(&pattern.bytes(0, len));
    drop(client);
    server.get_pattern(pattern, 0, len, 100_000);
    server.at_end();
}

/// A reader that goes away in the middle of a large send ends it.
pub(crate) fn reader_drops_in_the_middle(net: &Sdp) {
    let net = net.rendezvous(4 * KIB);
    let (client, server) = net.pair();
    let buf = registered(&net, 2 * MIB);
    net.all(vec![
        actor("writer", || {
            doing("writing to a reader that goes away");
            let error = loop {
                if let Err(error) = client.write(&buf) {
                    break error;
                }
            };
            let kinds = [
                std::io::ErrorKind::ConnectionReset,
                std::io::ErrorKind::BrokenPipe,
            ];
            assert!(kinds.contains(&error.kind()), "{error}");
        }),
        actor("reader", move || {
            server.get(&mut vec![0; 50_000]);
            drop(server);
        }),
    ]);
}

/// `shutdown` by another thread ends a send whose memory is shown to the peer.
pub(crate) fn shutdown_ends_an_open_advert(net: &Sdp) {
    let net = net.rendezvous(4 * KIB).sized(64 * KIB);
    let (client, server) = net.pair();
    let pattern = Pattern(68);
    let mut buf = registered(&net, MIB);
    pattern.fill(0, &mut buf);
    let taken = std::sync::atomic::AtomicUsize::new(0);
    net.all(vec![
        actor("writer", || {
            doing("writing until shut down");
            match client.write(&buf) {
                Ok(n) => taken.store(n, std::sync::atomic::Ordering::SeqCst),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::BrokenPipe, "{e}"),
            }
        }),
        actor("shutter", || {
            doing("waiting for the writer to wait");
            net.until_others_wait();
            client
                .shutdown(std::net::Shutdown::Write)
                .expect("shutdown");
        }),
    ]);
    let taken = taken.into_inner();
    assert!(taken < MIB, "nobody read");
    server.get_pattern(pattern, 0, taken, 10_000);
    server.at_end();
}
