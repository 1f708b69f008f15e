//! A small send that nothing stands in the way of: one message, for which no turn is taken.
//!
//! Most sends of a program that talks are of this kind, and what a call costs is what they cost. So what
//! only matters when something waits, is held back or is under way is left out. The message is made like
//! every other, and where one of the conditions fails the send takes its turn.

use sdp_wire::Body;

use super::Tx;
use super::pipeline::widen;
use crate::action::Payload;
use crate::connection::Shared;
use crate::outbox::Outgoing;
use crate::stats::CopyReason;

impl Tx {
    /// Whether a send of `len` bytes would be one message that goes now, with nothing to be done before
    /// it or because of it. There are no urgent bytes to be announced where nothing waits.
    pub(crate) fn goes_at_once(&self, sh: &Shared, len: usize) -> bool {
        // Whoever was turned away is to be told first.
        let waited_for = self.blocked_from.is_some() || self.turned_away || self.pacing;
        self.is_unused()
            && !waited_for
            // A full one is a sign that the peer's buffers are too short.
            && len < sh.data_len_max()
            && sh.can_payload()
            && !sh.coalesce()
            // What leaves no credits is somebody's to look after.
            && !sh.credits.is_last_call()
            && !sh.out.next_is_signalled()
    }

    /// Queues that message. Bytes that are copied are counted under `reason`.
    pub(crate) fn send_at_once(&mut self, sh: &mut Shared, len: u32, reason: CopyReason) {
        debug_assert!(
            !sh.pend.due,
            "an urgent byte is announced that is not there"
        );
        self.count_payload(sh);
        sh.stats.count_copy(reason, 1, widen(len));
        sh.stats.tx_bytes_bcopy += u64::from(len);
        sh.send(Outgoing {
            payload: Payload::AtOnce { len },
            ..Outgoing::control(Body::Data)
        });
    }
}
