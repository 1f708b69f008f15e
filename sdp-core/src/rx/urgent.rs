//! The urgent byte of the stream received (MSG_OOB, clause §4.11), by the rules of Linux's TCP.
//!
//! The byte stays where it is in the stream; the *mark* is its place, and the driver keeps a copy
//! of it for a receive out of band. A receive stops at the mark, and one that begins there passes
//! over the byte, or begins with it (SO_OOBINLINE). A second urgent byte makes the first an
//! ordinary one, unless a receive would begin with it: then it is gone. Other than Linux's, a
//! receive that finds nothing behind the byte leaves it where it is.

use sdp_wire::{BSDH_LEN, Flags};

use crate::call::UrgentRecv;
use crate::connection::Shared;
use crate::ids::BufferId;
use crate::mark::Mark;

use super::Rx;

/// Where the urgent byte is.
#[derive(Debug, Default)]
pub(super) struct Urgent {
    /// Urgent bytes announced (OOB_PEND) that have not come.
    announced: u32,
    /// Offset of the last urgent byte in the queue, until it is taken or passed over.
    mark: Option<usize>,
    /// It was not received out of band.
    unread: bool,
    /// A receive has passed over it, and its buffer may be free.
    passed: bool,
    /// The first byte of the queue is to leave the stream as soon as it is not being moved.
    drop_moved: bool,
}

impl Urgent {
    pub(super) const fn mark(&self) -> Option<usize> {
        self.mark
    }

    /// The first `len` bytes of the queue have been taken.
    pub(super) fn on_taken(&mut self, len: usize) {
        self.mark = self.mark.and_then(|mark| mark.checked_sub(len));
        self.unread &= self.mark.is_some();
    }

    /// The bytes received are given up.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Rx {
    /// What the flags of a message say of urgent bytes. `len`: bytes of payload, which has been
    /// queued.
    pub(super) fn on_urgent_flags(
        &mut self,
        sh: &mut Shared,
        buf: BufferId,
        flags: Flags,
        len: u32,
    ) {
        if flags.contains(Flags::OOB_PEND) {
            self.urgent.announced = self.urgent.announced.saturating_add(1);
        }
        if !flags.contains(Flags::OOB_PRES) {
            return;
        }
        self.urgent.announced = self.urgent.announced.saturating_sub(1);
        let taking = self
            .calls
            .head()
            .is_some_and(|(_, call)| call.is_copying() && !call.req.peek);
        if self.at_mark() && !sh.config.oob_inline && !taking {
            sh.reached(Mark::UrgentDropped);
            if self.queue.is_front_moving() {
                self.urgent.drop_moved = true;
            } else {
                self.pass_urgent(sh);
            }
        }
        self.urgent.mark = self.queue.len().checked_sub(1);
        self.urgent.unread = true;
        let head_len = u32::try_from(BSDH_LEN).unwrap_or(u32::MAX);
        sh.out.keep_urgent(buf, head_len + len - 1);
        sh.wake.urgent = true;
    }

    /// An urgent byte is on its way behind what is advertised, so that is read now, reader or not.
    pub(crate) fn on_urgent_announced(&mut self, sh: &mut Shared, buf: BufferId, flags: Flags) {
        self.on_urgent_flags(sh, buf, flags & Flags::OOB_PEND, 0);
        if !self.adverts.is_empty() {
            sh.reached(Mark::UrgentBehindAdvert);
            self.on_nudge();
        }
    }

    /// The urgent byte is the first of the queue, and leaves the stream.
    pub(super) fn pass_urgent(&mut self, sh: &mut Shared) {
        if let Some(call) = self.calls.head_mut() {
            // A look behind the byte began with it.
            call.passed = 0;
        }
        debug_assert_eq!(self.urgent.mark, Some(0), "the urgent byte is passed over");
        self.urgent.passed = true;
        self.take(sh, 1);
    }

    /// A move has ended: what waited for that leaves the stream.
    pub(super) fn drop_moved_urgent(&mut self, sh: &mut Shared) {
        if self.urgent.drop_moved && !self.queue.is_front_moving() {
            self.urgent.drop_moved = false;
            self.take(sh, 1);
        }
    }

    /// A receive waits behind the urgent byte, which it leaves where it is. Its buffer may be
    /// needed meanwhile.
    pub(super) fn waits_at_mark(&self) -> bool {
        let copying = self.calls.head().is_some_and(|(_, call)| call.is_copying());
        self.at_mark() && self.queue.len() == 1 && !copying
    }

    /// Whether a receive has passed over an urgent byte since this was last asked.
    pub(crate) fn has_passed_urgent(&mut self) -> bool {
        core::mem::take(&mut self.urgent.passed)
    }

    /// The stream is at the urgent byte (sockatmark).
    pub(crate) fn at_mark(&self) -> bool {
        self.urgent.mark == Some(0)
    }

    /// There is an urgent byte that was not received out of band.
    pub(crate) const fn has_urgent(&self) -> bool {
        self.urgent.unread
    }

    /// A receive out of band. `peek`: the byte can be received again.
    pub(crate) fn recv_urgent(&mut self, sh: &Shared, peek: bool) -> UrgentRecv {
        if sh.config.oob_inline {
            return UrgentRecv::Nothing;
        }
        if self.urgent.unread {
            self.urgent.unread = peek;
            return UrgentRecv::Byte;
        }
        let over = sh.life.is_over() || sh.life.rx_shut || sh.life.peer_fin;
        match self.urgent.announced {
            0 => UrgentRecv::Nothing,
            _ if over => UrgentRecv::End,
            _ => UrgentRecv::Coming,
        }
    }

    /// Bytes of the queue that a receive gets at once.
    pub(super) fn queued_len(&self, sh: &Shared) -> usize {
        match self.urgent.mark {
            None => self.queue.len(),
            Some(_) if sh.config.oob_inline => self.queue.len(),
            Some(0) => self.queue.len() - 1,
            Some(mark) => mark,
        }
    }

    /// A receive that begins now ends at the mark, however much it would wait for.
    pub(crate) fn ends_at_mark(&self) -> bool {
        self.urgent.mark.is_some_and(|mark| mark > 0)
    }

    /// All that is left of the queue is an urgent byte that was received out of band.
    pub(super) fn is_spent(&self, sh: &Shared) -> bool {
        let alone = self.queue.len() == 1 && self.at_mark();
        alone && !self.urgent.unread && !sh.config.oob_inline
    }
}
