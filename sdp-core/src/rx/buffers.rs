//! The receive buffers that may be posted.

use alloc::vec::Vec;

use crate::action::Action;
use crate::connection::Shared;
use crate::ids::BufferId;
use crate::time::Instant;
use crate::timer::Timer;

/// Receives that stay posted however full the private memory is: the peer can always send
/// control messages.
const POSTED_FLOOR: u32 = 2;

/// Credits of the peer's below which it cannot send all it may have to.
const POOR_BELOW: u32 = 3;

/// Buffers neither posted nor holding bytes.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Allocated by the driver before.
    free: Vec<BufferId>,
    /// Never posted, or refused when posted.
    fresh: Vec<BufferId>,
    /// Receives wanted.
    target: u32,
    initial: u32,
    max: u32,
    /// Memory that is not posted is given back.
    trimming: bool,
    /// The driver refused a fresh one lately.
    starved: bool,
}

impl Buffers {
    /// `max` buffers, of which `initial` are posted by the caller now.
    pub(super) fn new(initial: u16, max: u16) -> Self {
        let mut free = Vec::with_capacity(usize::from(max));
        free.clear();
        Self {
            free,
            fresh: (initial..max).rev().map(BufferId).collect(),
            target: u32::from(initial),
            initial: u32::from(initial),
            max: u32::from(max),
            trimming: false,
            starved: false,
        }
    }

    /// A buffer holds nothing any more.
    pub(super) fn put(&mut self, buf: BufferId) {
        self.free.push(buf);
    }

    /// The peer had `known` credits when payload came: let it have more if that was few.
    pub(super) fn grow(&mut self, known: u32) {
        self.trimming = false;
        if known <= self.target / 2 && self.target < self.max {
            self.target = self.max.min(self.target * 2);
        }
    }

    /// Each holds `times` as much from now on. What goes round shall stay in the processor's cache:
    /// the count begins to grow anew.
    pub(super) fn need_fewer(&mut self, times: u32) {
        self.target = (self.target / times.max(1)).max(self.initial);
    }

    /// The peer is idle: as few as at the beginning are wanted.
    pub(super) fn shrink(&mut self) {
        self.target = self.initial;
        self.trimming = true;
    }

    /// Receives wanted now.
    const fn wanted(&self, sh: &Shared) -> u32 {
        if sh.scarce { self.initial } else { self.target }
    }

    /// Posts what may be posted. `full`: as few as can be.
    pub(super) fn post(&mut self, sh: &mut Shared, full: bool) {
        // Messages that may not be confirmed yet cost the peer credits. When it runs out of them,
        // buffers make up for that, or two sides that hold a cancel each could not answer it.
        let poor = sh.credits.known() < POOR_BELOW;
        let more = if poor { sh.credits.held_back() } else { 0 };
        let target = self.wanted(sh) + more;
        while sh.credits.posted() < target {
            let enough = sh.credits.posted() >= POSTED_FLOOR + more;
            if full && enough {
                break;
            }
            let fresh = || (!self.starved).then(|| self.fresh.pop()).flatten();
            let Some(buf) = self.free.pop().or_else(fresh) else {
                break;
            };
            sh.credits.on_posted();
            let len = sh.resize.own_len();
            sh.out.push_receive(Action::PostRecv { buf, len });
        }
        while (self.trimming || sh.scarce)
            && let Some(buf) = self.free.pop()
        {
            self.fresh.push(buf);
            sh.out.push_receive(Action::FreeRecv(buf));
        }
    }

    /// The driver could not allocate `buf`.
    pub(super) fn on_unavailable(&mut self, sh: &mut Shared, now: Instant, buf: BufferId) {
        self.on_unposted(sh);
        self.fresh.push(buf);
        self.starved = true;
        sh.timers.set_once(Timer::Retry, now, crate::RETRY_WAIT);
    }

    /// A receive is not posted any more, though no message came into it.
    pub(super) fn on_unposted(&mut self, sh: &mut Shared) {
        sh.credits.on_unposted();
        sh.resize.on_unposted(sh.credits.posted());
    }

    /// Memory may be there again.
    pub(super) fn on_retry(&mut self) {
        self.starved = false;
    }

    /// As many receives are posted as are wanted.
    pub(super) fn is_full(&self, sh: &Shared) -> bool {
        sh.credits.posted() >= self.wanted(sh)
    }
}
