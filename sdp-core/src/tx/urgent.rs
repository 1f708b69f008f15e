//! Urgent bytes on their way out (MSG_OOB, clause §4.11).
//!
//! A short urgent send waits for no other: its bytes go to the driver's urgent memory at once, the
//! open adverts are taken back, and as soon as none is open the bytes follow what was accepted
//! before them. The send that was interrupted goes on behind them. In private memory an urgent byte
//! is a place, its *end*, at which a Data is cut.
//!
//! Of the urgent bytes on their way only the newest may be unannounced (OOB_PEND): the one before
//! it becomes an ordinary byte, as with TCP's single urgent pointer. So the messages that announce
//! them bound their number.

use alloc::collections::VecDeque;

use crate::action::Action;
use crate::connection::Shared;
use crate::error::CallError;
use crate::mark::Mark;
use crate::stats::CopyReason;

use super::Tx;
use super::pipeline::widen;

/// Bytes of an urgent send that need not wait its turn, and bytes by which such sends may exceed
/// the send buffer.
const URGENT_ROOM: usize = 4 << 10;

/// Bytes from the start of the message with OOB_PEND to the urgent byte, at most (§4.11).
pub(super) const PEND_REACH: usize = 65_535;

/// OOB_PEND as the messages see it, whichever half sends them.
#[derive(Debug, Default)]
pub(crate) struct Pend {
    /// The next message carries OOB_PEND.
    pub(super) due: bool,
    /// Messages that did, since this half last looked.
    sent: usize,
}

impl Pend {
    /// A message leaves. Says whether it carries OOB_PEND.
    pub(crate) fn ride(&mut self) -> bool {
        let due = core::mem::take(&mut self.due);
        self.sent += usize::from(due);
        due
    }
}

/// What waits for adverts to be taken back, and how many urgent bytes were announced.
#[derive(Debug, Default)]
pub(super) struct Urgent {
    /// Bytes in the driver's urgent memory.
    len: usize,
    /// Ends of urgent bytes in it.
    ends: VecDeque<usize>,
    /// Of the urgent bytes on their way, so many were announced: the oldest ones.
    announced: usize,
}

impl Urgent {
    /// Nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Tx {
    /// Accepts a send of `len` bytes, the last of them urgent, ahead of the sends that wait. The
    /// driver has put the bytes into urgent memory before it polls the next action. `false`: the
    /// send must take its turn, for it is long or there is no room.
    ///
    /// # Errors
    /// This half of the connection is over.
    pub(crate) fn send_urgent(&mut self, sh: &mut Shared, len: usize) -> Result<bool, CallError> {
        if sh.life.is_over() {
            return sh
                .life
                .call_error(Err(CallError::BrokenPipe))
                .map(|_| false);
        }
        if sh.life.tx_shut() {
            return Err(CallError::BrokenPipe);
        }
        let held = self.private.len() + self.urgent.len;
        let room = (sh.send_buffer_len() + URGENT_ROOM).saturating_sub(held);
        let short = len > 0 && len <= room && self.urgent.len + len <= URGENT_ROOM;
        if !sh.life.is_open() || !short {
            return Ok(false);
        }
        self.drop_unannounced(sh);
        self.urgent.len += len;
        self.urgent.ends.push_back(self.urgent.len);
        sh.stats.count_copy(CopyReason::Urgent, 1, len);
        self.announce(sh);
        if !self.pipeline.is_empty() {
            sh.reached(Mark::UrgentInterrupts);
            self.cancel_all(sh);
        }
        Ok(true)
    }

    /// What waited follows the bytes accepted before it, if that is their end: no advert is open,
    /// no copy is under way, and the peer is owed nothing.
    pub(super) fn release_urgent(&mut self, sh: &mut Shared) {
        let held_up = self
            .calls
            .head()
            .is_some_and(|(_, call)| call.copying.is_some() || call.is_owing());
        if self.urgent.is_empty() || held_up || !self.pipeline.is_empty() {
            return;
        }
        let len = core::mem::take(&mut self.urgent.len);
        let before = self.private.len();
        let ends = self.urgent.ends.drain(..).map(|end| before + end);
        self.private.ends.extend(ends);
        self.private.push(len);
        self.private.hurry();
        sh.out.push(Action::SendUrgent { len });
    }

    /// The last byte of a send that took its turn is urgent. It was the last to be pushed.
    pub(super) fn mark_last(&mut self, sh: &mut Shared, in_message: bool) {
        self.drop_unannounced(sh);
        if in_message {
            if let Some(filled) = self.filled.back_mut() {
                filled.urgent = true;
            }
        } else {
            let end = self.private.len();
            self.private.ends.push_back(end);
            self.private.hurry();
        }
    }

    /// The newest urgent byte becomes an ordinary one unless it was announced.
    fn drop_unannounced(&mut self, sh: &mut Shared) {
        self.count_announced(sh);
        sh.pend.due = false;
        if self.urgent_count() == self.urgent.announced {
            return;
        }
        sh.reached(Mark::UrgentReplaced);
        let newest = self.urgent.ends.pop_back();
        if newest.or_else(|| self.private.ends.pop_back()).is_none()
            && let Some(filled) = self.filled.iter_mut().rev().find(|filled| filled.urgent)
        {
            filled.urgent = false;
        }
    }

    fn count_announced(&mut self, sh: &mut Shared) {
        self.urgent.announced += core::mem::take(&mut sh.pend.sent);
    }

    /// Urgent bytes on their way.
    fn urgent_count(&self) -> usize {
        let filled = self.filled.iter().filter(|filled| filled.urgent).count();
        filled + self.private.ends.len() + self.urgent.ends.len()
    }

    /// A Data with an urgent byte was sent, and announced it at the latest.
    pub(super) fn on_urgent_sent(&mut self, sh: &mut Shared) {
        self.count_announced(sh);
        assert!(
            self.urgent.announced > 0,
            "an urgent byte was not announced (§4.11)"
        );
        self.urgent.announced -= 1;
    }

    /// The next urgent byte is announced by the next message if that is near enough. During a move
    /// to another queue pair it waits for that one: the peer may have left the old one.
    pub(super) fn announce(&mut self, sh: &mut Shared) {
        self.count_announced(sh);
        let ahead = self.ahead_of(self.urgent.announced);
        sh.pend.due = !sh.suspend.is_on() && ahead.is_some_and(|ahead| ahead <= PEND_REACH);
    }

    /// Bytes that may still be sent ahead of urgent byte `index`, if there is one.
    fn ahead_of(&self, index: usize) -> Option<usize> {
        if self.urgent_count() <= index {
            return None;
        }
        let mut index = index;
        let mut ahead = 0;
        for filled in &self.filled {
            ahead += widen(filled.len);
            if filled.urgent {
                if index == 0 {
                    return Some(ahead - 1);
                }
                index -= 1;
            }
        }
        if let Some(end) = self.private.ends.get(index) {
            return Some(ahead + end - 1);
        }
        index -= self.private.ends.len();
        let refused_at = self.pipeline.refused_at;
        let call = self.calls.head();
        let owed = call.map_or(0, |(_, call)| call.under_way(refused_at));
        let before = ahead + self.private.len() + self.pipeline.remaining() + owed;
        self.urgent.ends.get(index).map(|end| before + end - 1)
    }

    /// Announces an urgent byte that cannot be sent yet: the peer's receiver may have to make room
    /// for what is ahead of it. Without payload the last credits will do (§3.2).
    pub(super) fn flush_pend(&mut self, sh: &mut Shared) {
        self.announce(sh);
        if sh.pend.due && self.pipeline.is_empty() && !sh.can_payload() && sh.can_control() {
            sh.send_update(false);
            self.announce(sh);
        }
    }
}
