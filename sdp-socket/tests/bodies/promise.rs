//! TCP's promise about buffers, kept exactly: a send of at most what the free buffers of both
//! ends hold returns although nobody receives.

use crate::common::net::{Net, Stream, would_block};
use crate::common::pattern::Pattern;
use crate::common::watch::doing;

const KIB: usize = 1 << 10;

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

/// More than fits makes a send wait; given up, it says how much was taken, to the byte. What fits
/// is what both buffers hold, and the messages that the receiver had made room for.
pub(crate) fn too_many_bytes(net: &impl Net) {
    let (client, server) = net.sized(64 * KIB).pair();
    let pattern = Pattern(42);
    let fits = 128 * KIB;
    let posted_max = 32 * 33 * KIB;
    let brief = std::time::Duration::from_millis(50);
    client
        .set_write_timeout(Some(brief))
        .expect("set_write_timeout");
    let before = net.now();
    doing("writing more than fits");
    let taken = client.write(&pattern.bytes(0, 4 << 20)).expect("write");
    assert!(
        (fits..=fits + posted_max).contains(&taken),
        "{taken} bytes taken"
    );
    assert!(net.now() - before >= brief, "it did not wait");
    assert!(would_block(&client.write(&[0])));
    server.get_pattern(pattern, 0, taken, 10_000);
    client.set_write_timeout(None).expect("set_write_timeout");
    client.put(&pattern.bytes(taken as u64, 1_000));
    server.get_pattern(pattern, taken as u64, 1_000, 1_000);
}
