//! Two threads send on one socket: their calls take turns, and waiting for a turn ends in time.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::time::{Duration, Instant};

use sdp_socket::{SdpBuffer, ZcopyThreshold};

use common::net::{Net, Stream, would_block};
use common::sdp::Sdp;
use common::threads::until_others_sleep;
use common::watch::{actor, doing, watched, watched_for};

/// Bytes of one call.
const LEN: usize = 16 << 20;

/// In each round both send once. What comes first must come to its end before the other begins.
fn rounds(net: &Sdp, count: usize, mut memory: [impl AsMut<[u8]> + AsRef<[u8]> + Sync; 2]) {
    let whole = [vec![b'a'; LEN], vec![b'b'; LEN]];
    for (memory, whole) in memory.iter_mut().zip(&whole) {
        memory.as_mut().copy_from_slice(whole);
    }
    let (client, server) = net.pair();
    let send = |bytes: &[u8]| {
        for round in 0..count {
            doing(format!("round {round}"));
            assert_eq!(client.write(bytes).expect("write"), LEN, "a part of a call");
        }
    };
    net.all(vec![
        actor("a", || send(memory[0].as_ref())),
        actor("b", || send(memory[1].as_ref())),
        actor("reader", || {
            let mut buf = vec![0; LEN];
            let mut came = [0; 2];
            for call in 0..2 * count {
                server.get(&mut buf);
                let which = usize::from(buf[0] == b'b');
                // As slices, which is quick however this is compiled.
                assert!(buf == whole[which], "call {call} is mixed");
                came[which] += 1;
            }
            assert_eq!(came, [count; 2]);
        }),
    ]);
}

fn heap() -> [Vec<u8>; 2] {
    [vec![0; LEN], vec![0; LEN]]
}

struct Registered(SdpBuffer);

impl AsRef<[u8]> for Registered {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Registered {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

fn registered(net: &Sdp) -> [Registered; 2] {
    [(); 2].map(|()| Registered(net.client_buffer(LEN).expect("memory")))
}

#[test]
fn copied() {
    watched(|| rounds(&Sdp::shared(), 3, heap()));
}

#[test]
fn shown() {
    watched(|| {
        let net = Sdp::shared();
        rounds(&net, 3, registered(&net));
    });
}

#[test]
fn late() {
    watched(|| rounds(&Sdp::lazy(1), 2, heap()));
}

#[test]
#[ignore = "32 GB: asked for by name"]
fn copied_in_full() {
    let limit = Duration::from_secs(600);
    watched_for(limit, || rounds(&Sdp::shared(), 1_000, heap()));
}

#[test]
#[ignore = "32 GB: asked for by name"]
fn shown_in_full() {
    watched_for(Duration::from_secs(600), || {
        let net = Sdp::shared();
        rounds(&net, 1_000, registered(&net));
    });
}

/// While one call waits for a reader, another one that waits for its turn gives up when its time
/// is over, at once if it does not wait, and none of its bytes is sent.
fn a_waiting_call_gives_up(net: &Sdp) {
    const TIME: Duration = Duration::from_millis(200);
    let (client, server) = net.pair();
    let first = vec![b'a'; 2 * LEN];
    net.all(vec![
        actor("first", || {
            doing("waiting for a reader");
            assert_eq!(client.write(&first).expect("write"), first.len());
        }),
        actor("second", || {
            until_others_sleep();
            client
                .set_write_timeout(Some(TIME))
                .expect("set_write_timeout");
            let before = Instant::now();
            doing("waiting for its turn");
            assert!(would_block(&client.write(b"bb")));
            let took = before.elapsed();
            let late = Duration::from_millis(900);
            assert!(
                (TIME..TIME + late).contains(&took),
                "gave up after {took:?}"
            );
            let flags = sdp_socket::SendFlags { nonblocking: true };
            let bytes = [std::io::IoSlice::new(b"bb")];
            assert!(would_block(&client.send_with(&bytes, flags)));
            let mut all = vec![0; first.len()];
            server.get(&mut all);
            assert!(all == first, "bytes of the call that gave up");
            assert_eq!(server.recv_queue_len().expect("SIOCINQ"), 0);
        }),
    ]);
}

#[test]
fn a_waiting_call_gives_up_copied() {
    watched(|| a_waiting_call_gives_up(&Sdp::shared()));
}

#[test]
fn a_waiting_call_gives_up_shown() {
    watched(|| {
        let shown = |b: sdp_socket::Builder| b.zcopy_threshold(ZcopyThreshold::Bytes(16 << 10));
        a_waiting_call_gives_up(&Sdp::shared().with(shown));
    });
}
