//! One large send: what several adverts at once gain, and how it gets on where little memory may be
//! registered, or little is left for receives.

use std::time::Duration;

use sdp_socket::ZcopyThreshold;
use sdp_verbs::sim::{Fault, Faults, SimOptions};

use crate::one_send::{OneSend, Sent};

const MIB: usize = 1 << 20;
/// Bytes of the one send.
const LEN: usize = 64 * MIB;

/// [`LEN`] bytes, with room for `send_buffer` bytes of open adverts.
fn large(send_buffer: usize, options: SimOptions) -> Sent {
    let send = OneSend {
        len: LEN,
        send_buffer,
        threshold: ZcopyThreshold::Bytes(64 << 10),
        options,
        faults: Faults::none(),
    };
    send.run()
}

/// While one chunk is read, the next ones are registered, advertised and reported.
#[test]
fn several_adverts_are_faster_than_one() {
    let rate = |time: Duration| LEN as f64 / time.as_secs_f64() / 1e9;
    let one = large(MIB, SimOptions::default());
    assert_eq!(one.stats.tx_adverts_open_max, 1, "{one:?}");
    assert_eq!(one.stats.tx_bytes_written, 0, "{one:?}");
    let several = large(4 * MIB, SimOptions::default());
    assert!(several.stats.tx_adverts_open_max >= 2, "{several:?}");
    let gain = rate(several.time) / rate(one.time);
    println!(
        "one advert {:.3} GB/s, up to {} adverts {:.3} GB/s: {gain:.2} x",
        rate(one.time),
        several.stats.tx_adverts_open_max,
        rate(several.time),
    );
    assert!(gain >= 1.15, "{gain}");
}

/// A call may lend the adapter half of what may be registered, and is copied where it would need
/// more: its own message buffers, and the peer's, would be refused otherwise, again and again.
#[test]
fn a_large_call_leaves_memory_for_message_buffers() {
    let max = 3 * MIB;
    let mut options = SimOptions {
        registered_max: max,
        ..SimOptions::default()
    };
    options.limits.registered_max = max;
    let sent = large(4 * MIB, options);
    println!("{:?}", sent.time);
    assert_eq!(sent.faults.of(Fault::RegisteredExhausted), 0);
    assert!(sent.stats.tx_bytes_zcopy >= MIB as u64 / 2, "{sent:?}");
}

/// Memory for receives runs out when some of them, and not all, have the length that the sender has
/// asked for: it is not granted, and those that are longer serve as they are.
#[test]
fn receives_of_a_length_that_was_not_granted_serve() {
    // Each side has its first four.
    for had in 8..24 {
        let mut faults = Faults::none().with(Fault::NoRecvMemory, 1_000_000);
        faults.spared = (0..had).collect();
        let send = OneSend {
            len: MIB,
            send_buffer: MIB,
            threshold: ZcopyThreshold::Off,
            options: SimOptions::default(),
            faults,
        };
        let sent = send.run();
        println!("{had} receives had, {:?}", sent.time);
        assert!(sent.faults.of(Fault::NoRecvMemory) > 0, "{sent:?}");
        assert!(sent.time < Duration::from_millis(20), "{sent:?}");
    }
}
