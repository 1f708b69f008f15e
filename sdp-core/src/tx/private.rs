//! Private send memory: bytes accepted from callers and not yet in a message. The driver keeps
//! the bytes, this keeps the count.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::action::{Action, CopyJob, CopyWhat};
use crate::connection::Shared;
use crate::ids::{GrantId, JobId};
use crate::mark::Mark;
use crate::time::Instant;
use crate::timer::Timer;

use super::pipeline::widen;
use super::urgent::PEND_REACH;
use super::{Filled, Tx};

/// A copy from private memory into a message buffer.
#[derive(Clone, Copy, Debug)]
struct Staging {
    job: JobId,
    grant: GrantId,
    len: u32,
}

/// The count of private bytes.
#[derive(Debug, Default)]
pub(super) struct Private {
    /// Bytes, those being staged included.
    len: usize,
    /// Where urgent bytes end, oldest first, those being staged included.
    pub(super) ends: VecDeque<usize>,
    staging: Option<Staging>,
    /// The newest message buffer, being emptied.
    unstaging: Option<JobId>,
    /// The last staging found no message buffer.
    pub(super) paused: bool,
    /// Bytes are not held back for more to come.
    hurry: bool,
}

/// Small bytes are held back for at most so long. A peer of our own kind returns credits as soon
/// as it has read what it was sent; this is for peers that do not.
const COALESCE_WAIT: Duration = Duration::from_millis(10);

impl Shared {
    /// Small sends are to be gathered: fewer than half of the credits are left, so the peer has
    /// messages to read, or is about to say that it has read them. Not with TCP_NODELAY, and not
    /// while the peer uses up receives of the old length: no more of them are posted.
    pub(super) fn coalesce(&self) -> bool {
        !self.config.nodelay
            && !self.resize.is_asking()
            && self.credits.is_scarce()
            && !self.life.tx_shut()
    }
}

impl Private {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Room left of `total`.
    pub(super) const fn free(&self, total: usize) -> usize {
        total.saturating_sub(self.len)
    }

    pub(super) fn push(&mut self, len: usize) {
        self.len += len;
    }

    /// What is there is not held back for more to come.
    pub(super) fn hurry(&mut self) {
        self.hurry = !self.is_empty();
    }

    /// Bytes of the next message, of at most `len_max`: an urgent byte is the last of its message,
    /// and none is further into it than it can be announced by it.
    fn message_len(&self, len_max: usize) -> usize {
        let len = self.len.min(len_max);
        match self.ends.front() {
            Some(end) if *end > PEND_REACH + 1 => len.min(end - PEND_REACH - 1),
            Some(end) => len.min(*end),
            None => len,
        }
    }

    /// `len` bytes have left in one message. Says whether the last of them is urgent.
    fn pop(&mut self, len: usize) -> bool {
        self.len = self.len.saturating_sub(len);
        self.hurry &= self.len > 0;
        let urgent = self.ends.pop_front_if(|end| *end == len).is_some();
        for end in &mut self.ends {
            *end -= len;
        }
        urgent
    }

    /// A copy from or to private memory is under way.
    pub(super) const fn is_copying(&self) -> bool {
        self.staging.is_some() || self.unstaging.is_some()
    }

    /// The newest message buffer is being emptied.
    pub(super) const fn is_unstaging(&self) -> bool {
        self.unstaging.is_some()
    }

    /// `len` bytes come back, which were to be sent before all others.
    fn push_front(&mut self, len: usize, urgent: bool) {
        self.len += len;
        for end in &mut self.ends {
            *end += len;
        }
        if urgent {
            self.ends.push_front(len);
        }
        self.hurry = true;
    }

    /// The connection is over. A copy that has begun will still be answered.
    pub(super) fn on_over(&mut self, never_begun: &[JobId]) {
        self.len = 0;
        self.ends.clear();
        if self
            .staging
            .is_some_and(|staging| never_begun.contains(&staging.job))
        {
            self.staging = None;
        }
        self.unstaging.take_if(|job| never_begun.contains(job));
    }
}

impl Tx {
    /// Starts filling a message from private memory when it could be sent at once. Until then
    /// the bytes of small sends gather, so that what waits is bytes and not messages.
    pub(super) fn stage(&mut self, sh: &mut Shared, now: Instant) {
        let private = &mut self.private;
        if private.len == 0
            || private.staging.is_some()
            || private.paused
            || !self.filled.is_empty()
            || !sh.can_payload()
        {
            return;
        }
        if private.len < sh.data_len_max() && !private.hurry && sh.coalesce() {
            sh.timers.set_once(Timer::Coalesce, now, COALESCE_WAIT);
            return;
        }
        sh.timers.clear(Timer::Coalesce);
        let Ok(len) = u32::try_from(private.message_len(sh.data_len_max())) else {
            return;
        };
        self.next_grant = self.next_grant.wrapping_add(1);
        let grant = GrantId(self.next_grant);
        let job = sh.next_job();
        private.staging = Some(Staging { job, grant, len });
        sh.out.push(Action::Copy(CopyJob {
            id: job,
            what: CopyWhat::Stage { grant, len },
        }));
    }

    /// What was held back goes now.
    pub(crate) fn hurry(&mut self, sh: &mut Shared, now: Instant) {
        self.private.hurry();
        self.stage(sh, now);
    }

    /// The connection moves to another queue pair: messages that found no credit on this one are
    /// emptied into private memory, the newest first.
    pub(super) fn unstage(&mut self, sh: &mut Shared) {
        let busy = self.private.is_copying() || self.private.paused || self.is_filling();
        if !sh.suspend.is_on() || busy {
            return;
        }
        if let Some(Filled { grant, len, .. }) = self.filled.back().copied() {
            let job = sh.next_job();
            self.private.unstaging = Some(job);
            sh.reached(Mark::Unstaged);
            sh.out.push(Action::Copy(CopyJob {
                id: job,
                what: CopyWhat::Unstage { grant, len },
            }));
        }
    }

    /// A message buffer has been emptied. Says whether `job` was that.
    fn on_unstaged(&mut self, sh: &mut Shared, now: Instant, job: JobId, ok: bool) -> bool {
        let unstaging = &mut self.private.unstaging;
        if unstaging.take_if(|other| *other == job).is_none() {
            return false;
        }
        if !ok {
            self.pause(sh, now);
        // If the connection is over, there is none any more.
        } else if let Some(Filled { len, urgent, .. }) = self.filled.pop_back() {
            self.private.push_front(widen(len), urgent);
            sh.wake.send |= !self.calls.is_empty();
        }
        true
    }

    /// A copy has ended. Says whether it was one of this half's.
    pub(crate) fn on_copied(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        job: JobId,
        ok: bool,
    ) -> bool {
        let Some(staging) = self.private.staging.filter(|staging| staging.job == job) else {
            return self.on_unstaged(sh, now, job, ok);
        };
        self.private.staging = None;
        let Staging { grant, len, .. } = staging;
        if sh.life.is_over() {
            if ok {
                sh.out.drop_grant(grant);
            }
        } else if ok {
            let urgent = self.private.pop(widen(len));
            self.filled.push_back(Filled { grant, len, urgent });
            sh.wake.send |= !self.calls.is_empty();
        } else {
            self.pause(sh, now);
        }
        true
    }

    /// There was no memory to copy to.
    fn pause(&mut self, sh: &mut Shared, now: Instant) {
        self.private.paused = true;
        sh.timers.set_once(Timer::Retry, now, crate::RETRY_WAIT);
    }
}
