//! Reading ahead: the advert's bytes go to private memory because the receive is too small for a
//! read of its own, or because nobody receives (policies 3 and 5).

use crate::connection::Shared;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::Rx;

/// The smallest piece of private memory worth having.
const CHUNK_LEN_MIN: usize = 64 << 10;

impl Shared {
    /// Bytes of a new piece of private receive memory, if nothing needs more.
    pub(super) fn chunk_len(&self) -> usize {
        let len = self.config.read_ahead_len.clamp(1, CHUNK_LEN_MIN);
        self.scarce_len(len)
    }
}

impl Rx {
    /// Reads one piece ahead, as far as memory goes. Says whether it did.
    pub(super) fn read_ahead(&mut self, sh: &mut Shared, reason: CopyReason) -> bool {
        let room = if mutant!(ReadAheadUnbounded) {
            usize::MAX
        } else {
            self.buffers.ahead_room(sh, self.held())
        };
        let len = sh.config.read_ahead_len.max(1).min(room);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if self.paused || !self.can_read(sh) {
            return false;
        }
        let Some(len) = self.read_into_mem(sh, len) else {
            return false;
        };
        sh.stats.count_copy(reason, 1, len);
        true
    }

    /// An empty Data: if an advert is open that nobody reads, the peer asks for buffering.
    pub(super) fn on_nudge(&mut self) {
        if !self.has_reader() {
            self.adverts.eager = true;
        }
    }

    /// An advert has waited long enough for a reader.
    pub(crate) fn on_unread(&mut self) {
        self.adverts.eager = true;
    }

    /// Reads ahead all that memory can take while nobody receives.
    pub(super) fn read_ahead_unread(&mut self, sh: &mut Shared) {
        if self.has_reader() {
            // Whoever receives decides how the rest is read.
            self.adverts.eager = false;
            return;
        }
        if !self.adverts.eager {
            return;
        }
        while self.read_ahead(sh, CopyReason::ReadAhead) {}
    }

    /// When to read ahead what nobody reads.
    pub(super) fn set_ahead_timer(&mut self, sh: &mut Shared, now: Instant) {
        if self.has_reader() {
            self.adverts.moved_at = now;
            sh.timers.clear(Timer::RxAhead);
        } else if !self.adverts.eager && self.adverts.rest() > 0 {
            let at = self.adverts.moved_at + sh.config.rendezvous_wait;
            sh.timers.set(Timer::RxAhead, at);
        } else {
            sh.timers.clear(Timer::RxAhead);
        }
    }
}
