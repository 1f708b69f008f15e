//! Non-blocking sends of a program that polls, while somebody reads: they go into messages, not into
//! private memory.
//!
//! What lies in private memory is copied once more and sent by another thread. While the peer's program
//! takes bytes it is worth waiting for: a send that finds no credits leaves the rest to its program,
//! which polls until some have come. Four things stay as they are without readers:
//!
//! * A program that never polls, and only tries again now and then, leaves as much each time as fits.
//! * What fits one message is taken whole, so that a small answer costs no wait for OUT.
//! * When nobody has taken anything for `rendezvous_wait`, or 2 ms, private memory fills up.
//! * A program that may believe that there is room, since it was not told otherwise, finds some.

use core::time::Duration;

use crate::connection::Shared;
use crate::time::Instant;

use super::{SendCall, Tx};

/// How long a reader is waited for at most: a blocking send may wait for one for ever
/// (`rendezvous_wait`), what fits SO_SNDBUF may not.
pub(super) const READ_ON: Duration = Duration::from_millis(2);

/// What a non-blocking send may put into private memory while somebody reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Private {
    /// All of it that there is room for: nobody reads, or it is small.
    Yes,
    /// One message, and its program is to wait then.
    Message,
    /// Nothing: its program is to wait.
    No,
}

impl Tx {
    /// Non-blocking sends are to wait for the reader.
    pub(crate) fn is_pacing(&self) -> bool {
        self.pacing
    }

    /// A message cannot go now, or only the one by which the peer is asked for help, and others will as
    /// soon as the peer's program goes on reading.
    fn must_wait(&self, sh: &Shared, now: Instant) -> bool {
        let blocked = !self.pipe_is_clear() || !sh.can_payload() || sh.credits.is_last_call_spare();
        let reads = sh.config.polled && is_read(sh) && !sh.life.tx_shut();
        blocked && reads && !self.is_given_up(sh, now)
    }

    /// The credit is there and kept: with it the peer's progress thread would be called.
    pub(super) fn keeps_last_call(&self, sh: &Shared) -> bool {
        self.pacing && sh.credits.is_last_call_spare()
    }

    /// Nobody has taken a byte for so long that nobody is waited for.
    fn is_given_up(&self, sh: &Shared, now: Instant) -> bool {
        let wait = read_on(sh);
        wait.is_zero() || self.blocked_from.is_some_and(|from| from + wait <= now)
    }

    /// When that is to be looked at.
    pub(super) fn gives_up_at(&self, sh: &Shared) -> Option<Instant> {
        self.blocked_from
            .filter(|_| self.pacing)
            .map(|from| from + read_on(sh))
    }

    /// The head call is to leave the last message that could go.
    pub(super) fn leaves_last_call(&self, sh: &Shared, now: Instant) -> bool {
        let large = |call: &SendCall| {
            let begun = call.accepted > 0 || self.pacing;
            call.req.nonblocking && begun && !call.req.urgent && call.req.len > sh.data_len_max()
        };
        let head = self.calls.head();
        sh.credits.is_last_call_spare()
            && head.is_some_and(|(_, call)| large(call))
            && self.must_wait(sh, now)
    }

    /// What the head call, which is non-blocking and finds no message, may do.
    pub(super) fn may_buffer(&self, sh: &Shared, now: Instant) -> Private {
        let Some((_, call)) = self.calls.head() else {
            return Private::Yes;
        };
        let room = sh.data_len_max().saturating_sub(self.private.len());
        if call.req.urgent || call.req.len <= room || !self.must_wait(sh, now) {
            Private::Yes
        } else if call.accepted > 0 || self.pacing {
            Private::No
        } else {
            Private::Message
        }
    }

    /// A non-blocking send of `len` bytes is over: whether the next one is to wait.
    pub(super) fn note_paced(&mut self, sh: &mut Shared, now: Instant, len: usize) {
        if len > sh.data_len_max() && sh.life.is_open() && self.must_wait(sh, now) {
            self.blocked_from.get_or_insert(now);
            self.pacing = true;
            // Its program polls now: nothing else may come by which this would be looked at again.
            self.set_stall_timer(sh, now);
        }
    }

    /// Whether there is still something to wait for.
    pub(super) fn look_at_pace(&mut self, sh: &mut Shared, now: Instant) {
        if self.pacing && !self.must_wait(sh, now) {
            self.pacing = false;
            sh.wake.send = true;
        }
    }
}

fn read_on(sh: &Shared) -> Duration {
    sh.patience.wait().min(READ_ON)
}

/// The peer's program reads, or has: more was sent than lies in memory. How much the peer's holds is not
/// known; it is taken for as much as ours.
fn is_read(sh: &Shared) -> bool {
    let most = sh.config.recv_buffer_total.max(sh.config.send_buffer_len);
    usize::try_from(sh.stats.tx_bytes_bcopy).map_or(true, |sent| sent > 2 * most)
}
