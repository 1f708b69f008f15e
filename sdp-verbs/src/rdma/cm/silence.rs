//! How long a silent peer is believed to be there.

use std::time::Duration;

use crate::rdma::qp::RETRY_COUNT;

/// How long a peer is believed in that nobody has named a limit for: each repetition waits 2.1 s. A
/// device under load that serves many connections may take seconds until the next answer on one of
/// them, and one that has given up does not come back; but rxe notices the loss of a part of a READ's
/// answer by this time only.
const SILENCE: Duration = Duration::from_secs(16);

/// The code of the time after which a packet is sent again, 4.096 us * 2^code, such that the last
/// repetition is over by `silence_max` on a device that keeps to it; InfiniBand lets one wait up to four
/// times as long, and adapters that find the time by themselves (adaptive retransmission) heed no code.
pub(super) fn ack_timeout(silence_max: Option<Duration>) -> u8 {
    let each = silence_max.unwrap_or(SILENCE) / (u32::from(RETRY_COUNT) + 1);
    let units = each.as_nanos() / 4_096;
    // Code 0 is "for ever", and there are 5 bits.
    u8::try_from(units.max(1).ilog2().clamp(1, 31)).expect("31 at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_given_up_in_time() {
        let given_up_after = |limit| {
            let each = Duration::from_nanos(4_096 << ack_timeout(limit));
            each * (u32::from(RETRY_COUNT) + 1)
        };
        for millis in [1, 10, 5_000, 60_000, 900_000] {
            let limit = Duration::from_millis(millis);
            let after = given_up_after(Some(limit));
            assert!(after <= limit && after > limit / 2, "{limit:?}: {after:?}");
        }
        assert!(given_up_after(None) > Duration::from_secs(15));
        assert_eq!(ack_timeout(Some(Duration::ZERO)), 1);
        assert_eq!(ack_timeout(Some(Duration::MAX)), 31);
    }
}
