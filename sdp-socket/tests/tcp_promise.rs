//! TCP's promise about buffers, the same bodies over kernel TCP and over our streams; and what
//! keeping it may cost.

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

use sdp_socket::SdpStream;

use bodies::promise;
use bodies::zcopy::registered;
use common::net::{Net, Stream};
use common::pattern::Pattern;
use common::sdp::Sdp;
use common::tcp::Tcp;
use common::watch::{actor, watched, watched_for};

macro_rules! mount {
    ($($name:ident: $net:expr;)+) => {
        $(mod $name {
            use super::*;

            #[test]
            fn both_send_in_one_call() {
                watched(|| promise::both_send_in_one_call(&$net));
            }

            #[test]
            fn both_send_in_calls_of_4k() {
                watched(|| promise::both_send_in_calls_of_4k(&$net));
            }

            #[test]
            #[ignore = "a million calls: asked for by name"]
            fn both_send_in_single_bytes() {
                let limit = Duration::from_secs(300);
                watched_for(limit, || promise::both_send_in_single_bytes(&$net));
            }

            #[test]
            fn both_send_few_single_bytes() {
                watched(|| promise::both_send_all_that_fits_in_single_bytes(&$net));
            }

            #[test]
            fn one_more_waits_for_a_read() {
                watched(|| promise::one_more_waits_for_a_read(&$net));
            }

            #[test]
            fn nonblocking_takes_what_fits() {
                watched(|| promise::nonblocking_takes_what_fits(&$net));
            }

            #[test]
            fn a_late_reader_is_not_waited_for() {
                watched(|| promise::a_late_reader_is_not_waited_for(&$net));
            }
        })+
    };
}

mount! {
    tcp: Tcp::new();
    copied: Sdp::over_host();
    shown: advertising(&Sdp::over_host());
    late: Sdp::lazy(1);
    late_shown: advertising(&Sdp::lazy(2));
}

/// Large sends show their memory to the peer, ordinary memory too.
fn advertising(net: &Sdp) -> Sdp {
    net.with(|b| b.zcopy_threshold(sdp_socket::ZcopyThreshold::Bytes(16 << 10)))
}

/// One send of `total` bytes, received in calls of `len` bytes: the receiver's side does not read
/// the sender's memory more often than is worth it.
fn few_reads(total: usize, len: usize) {
    let (net, traces) = Sdp::traced();
    let net = net.rendezvous(4 << 10);
    let (client, server) = net.pair();
    let mut buf = registered(&net, total);
    let pattern = Pattern(95);
    pattern.fill(0, &mut buf);
    net.all(vec![
        actor("writer", || client.put(&buf)),
        actor("reader", || get_in_pieces(&server, pattern, total, len)),
    ]);
    let (tx, rx) = (traces.client.counters(), traces.server.counters());
    let most = (total >> 16) as u64 + tx.bind_count;
    assert!(rx.read_count > 0, "nothing was read: {rx:?}");
    assert!(
        rx.read_count <= most,
        "{} reads for {total} bytes in {} adverts",
        rx.read_count,
        tx.bind_count
    );
    assert!(
        rx.read_bytes * 1000 >= total as u64 * 999,
        "not by reads: {rx:?}"
    );
}

/// Checks the bytes many at a time: they come in calls of `len`.
fn get_in_pieces(stream: &SdpStream, pattern: Pattern, total: usize, len: usize) {
    let mut block = vec![0; total.min(1 << 20)];
    for at in (0..total).step_by(block.len()) {
        let want = block.len().min(total - at);
        let mut have = 0;
        while have < want {
            let piece = len.min(want - have);
            let got = stream.read(&mut block[have..have + piece]).expect("read");
            assert!(got > 0, "an end of the stream at {}", at + have);
            have += got;
        }
        pattern.check(at as u64, &block[..want]);
    }
}

#[test]
fn few_reads_for_calls_of_100_bytes() {
    watched(|| few_reads(16 << 20, 100));
}

#[test]
#[ignore = "700,000 calls: asked for by name"]
fn few_reads_for_calls_of_100_bytes_in_full() {
    watched_for(Duration::from_secs(600), || few_reads(64 << 20, 100));
}

#[test]
fn few_reads_for_single_bytes() {
    watched(|| few_reads(512 << 10, 1));
}

#[test]
#[ignore = "67 million calls: cargo test --release -p sdp-socket --test tcp_promise -- --ignored"]
fn few_reads_for_single_bytes_in_full() {
    watched_for(Duration::from_secs(600), || few_reads(64 << 20, 1));
}
