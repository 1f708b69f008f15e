//! TCP's promise about buffers, kept exactly: a send of at most what the free buffers of both
//! ends hold returns although nobody receives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::common::net::{Net, Stream, would_block};
use crate::common::pattern::Pattern;
use crate::common::watch::{actor, doing};

const KIB: usize = 1 << 10;
const BRIEF: Duration = Duration::from_millis(50);
/// Long enough for both buffers to fill up, however late everything is.
const ENOUGH: Duration = Duration::from_millis(600);

/// "Both send N, then both receive", in one thread, with buffers of N.
pub(crate) fn both_send_then_both_receive(net: &impl Net) {
    both_send(&net.sized(256 * KIB), 256 * KIB, 256 * KIB);
}

/// The same for twice as much: what the sender's and the receiver's buffer hold together.
pub(crate) fn both_send_all_that_fits(net: &impl Net) {
    both_send(&net.sized(256 * KIB), 512 * KIB, 512 * KIB);
}

/// The same, small enough to be done many times.
pub(crate) fn both_send_all_that_fits_in_small_buffers(net: &impl Net) {
    both_send(&net.sized(32 * KIB), 64 * KIB, 64 * KIB);
}

/// The same in small calls: bytes count, not messages.
pub(crate) fn both_send_all_that_fits_in_small_calls(net: &impl Net) {
    both_send(&net.sized(16 * KIB), 32 * KIB, 3);
}

/// The same, small enough to be done many times.
pub(crate) fn both_send_all_that_fits_in_a_few_small_calls(net: &impl Net) {
    both_send(&net.sized(4 * KIB), 8 * KIB, 17);
}

/// The same in calls of a byte each.
pub(crate) fn both_send_all_that_fits_in_single_bytes(net: &impl Net) {
    both_send(&net.sized(4 * KIB), 8 * KIB, 1);
}

fn both_send(net: &impl Net, len: usize, chunk: usize) {
    let (client, server) = net.pair();
    let (there, back) = (Pattern(40), Pattern(41));
    client.put_pattern(there, 0, len, chunk);
    server.put_pattern(back, 0, len, chunk);
    client.get_pattern(back, 0, len, len);
    server.get_pattern(there, 0, len, len);
}

/// SO_SNDBUF and SO_RCVBUF of the bodies below.
const BUFFER: usize = 256 * KIB;

/// Both sides send all that fits both buffers, in one call each, then both receive.
pub(crate) fn both_send_in_one_call(net: &impl Net) {
    both_send(&net.sized(BUFFER), 2 * BUFFER, 2 * BUFFER);
}

/// The same in calls of 4 KiB.
pub(crate) fn both_send_in_calls_of_4k(net: &impl Net) {
    both_send(&net.sized(BUFFER), 2 * BUFFER, 4 * KIB);
}

/// The same in calls of a byte each.
pub(crate) fn both_send_in_single_bytes(net: &impl Net) {
    both_send(&net.sized(BUFFER), 2 * BUFFER, 1);
}

/// With one byte more than fits the call waits until somebody reads.
pub(crate) fn one_more_waits_for_a_read<N: Net>(net: &N) {
    let net = net.sized(BUFFER);
    let (client, server) = net.pair();
    let pattern = Pattern(43);
    let fits = N::fits(BUFFER);
    let bytes = pattern.bytes(0, fits.end() + 1);
    let len = bytes.len();
    // Given up, it says to the byte how much was taken.
    let time = client.set_write_timeout(Some(BRIEF));
    time.expect("set_write_timeout");
    doing("writing more than fits");
    let taken = client.write(&bytes).expect("write");
    // What is shown to the peer and not read is taken back: then it may be less than fits.
    assert!(
        (BUFFER..=*fits.end()).contains(&taken),
        "{taken} of {len} bytes taken"
    );
    server.get_pattern(pattern, 0, taken, 10_000);
    assert_eq!(server.recv_queue_len().expect("SIOCINQ"), 0);

    client.set_write_timeout(None).expect("set_write_timeout");
    let done = AtomicBool::new(false);
    net.all(vec![
        actor("writer", || {
            doing("writing more than fits, however long it takes");
            let wrote = client.write(&bytes).expect("write");
            assert_eq!(wrote, len, "a part of a write");
            done.store(true, Ordering::SeqCst);
        }),
        actor("reader", || {
            net.until_others_wait();
            assert!(!done.load(Ordering::SeqCst), "it fits");
            server.get_pattern(pattern, 0, len, 10_000);
        }),
    ]);
}

/// A non-blocking socket takes all that fits, sooner or later, and no more before somebody reads.
pub(crate) fn nonblocking_takes_what_fits<N: Net>(net: &N) {
    for chunk in [1 << 20, 4 * KIB, 700] {
        let (client, server) = net.sized(BUFFER).pair();
        let (pattern, fits) = (Pattern(45), N::fits(BUFFER));
        client.set_nonblocking(true).expect("set_nonblocking");
        let mut taken = 0;
        let mut write = || {
            let wrote = client.write(&pattern.bytes(taken as u64, chunk));
            if would_block(&wrote) {
                return false;
            }
            taken += wrote.expect("write");
            assert!(taken <= *fits.end(), "{taken} bytes taken");
            fits.start() <= &taken
        };
        net.until("all that fits", || write().then_some(()));
        // The rest of what TCP takes by its own measure.
        while write() {}
        doing("reading what fitted");
        server.get_pattern(pattern, 0, taken, 10_000);
        net.until("room", || client.write(&[0]).ok());
    }
}

/// A send that fits returns although the reader comes later, and soon.
pub(crate) fn a_late_reader_is_not_waited_for(net: &impl Net) {
    const LEN: usize = 1 << 20;
    const ROUNDS: usize = 5;
    let net = net.sized(LEN);
    let (client, server) = net.pair();
    let pattern = Pattern(44);
    let bytes = pattern.bytes(0, LEN);
    let mut soon = 0;
    for _ in 0..ROUNDS {
        let (begun, returned) = channel();
        let (net, server, soon) = (&net, &server, &mut soon);
        net.all(vec![
            actor("writer", || {
                let before = Instant::now();
                client.put(&bytes);
                begun.send(before.elapsed()).expect("the reader listens");
            }),
            actor("reader", move || {
                // Late, whether or not the writer waits for us.
                let late = Instant::now() + Duration::from_millis(100);
                let took = returned.recv_timeout(Duration::from_millis(100));
                *soon += usize::from(took.is_ok_and(|took| took <= Duration::from_millis(50)));
                while Instant::now() < late {
                    net.pass();
                }
                server.get_pattern(pattern, 0, LEN, 100_000);
            }),
        ]);
    }
    // Another program may have had the processor now and then.
    assert!(
        soon > ROUNDS / 2,
        "within 50 ms in {soon} of {ROUNDS} rounds"
    );
}

/// More than fits makes a send wait; given up, it says how much was taken, to the byte.
pub(crate) fn too_many_bytes<N: Net>(net: &N) {
    let (client, server) = net.sized(64 * KIB).pair();
    let pattern = Pattern(42);
    client
        .set_write_timeout(Some(ENOUGH))
        .expect("set_write_timeout");
    let before = net.now();
    doing("writing more than fits");
    let mut taken = client.write(&pattern.bytes(0, 4 << 20)).expect("write");
    let fits = N::fits(64 * KIB);
    // What is shown to the peer and not read is taken back: then it may be less than fits.
    assert!(
        (64 * KIB..=*fits.end()).contains(&taken),
        "{taken} bytes taken"
    );
    assert!(net.now() - before >= ENOUGH, "it did not wait");
    // Room that was on its way may still come, and has an end.
    net.until("no more room", || {
        let wrote = client.write(&pattern.bytes(taken as u64, 1));
        if would_block(&wrote) {
            return Some(());
        }
        taken += wrote.expect("write");
        assert!(taken <= *fits.end(), "{taken} bytes taken");
        None
    });
    server.get_pattern(pattern, 0, taken, 10_000);
    client.set_write_timeout(None).expect("set_write_timeout");
    client.put(&pattern.bytes(taken as u64, 1_000));
    server.get_pattern(pattern, taken as u64, 1_000, 1_000);
}
