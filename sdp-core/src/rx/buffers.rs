//! The receive buffers that may be posted.

use alloc::vec::Vec;

use sdp_wire::BSDH_LEN;

use crate::action::Action;
use crate::connection::Shared;
use crate::ids::BufferId;
use crate::time::Instant;
use crate::timer::Timer;

/// Receives that stay posted however full the private memory is: the peer can always send
/// control messages. It spends them on nothing else, so they promise no payload.
const POSTED_FLOOR: u32 = 2;

/// Messages with payload that are promised while there is any room: with fewer, one message each
/// way can leave both sides without the credits that payload needs.
const PROMISED_MIN: usize = 2;

/// Credits of the peer's below which it cannot send all it may have to.
const POOR_BELOW: u32 = 3;

/// Buffers neither posted nor holding bytes.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Allocated by the driver before.
    free: Vec<BufferId>,
    /// Never posted, or refused when posted.
    fresh: Vec<BufferId>,
    /// By buffer: it has been posted, and its memory not given back since.
    allocated: Vec<bool>,
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
            allocated: alloc::vec![false; usize::from(max)],
            target: u32::from(initial),
            initial: u32::from(initial),
            max: u32::from(max),
            trimming: false,
            starved: false,
        }
    }

    /// A buffer holds nothing any more.
    pub(super) fn put(&mut self, buf: BufferId) {
        self.set_allocated(buf, true);
        self.free.push(buf);
    }

    fn set_allocated(&mut self, buf: BufferId, allocated: bool) {
        if let Some(known) = self.allocated.get_mut(usize::from(buf.0)) {
            *known = allocated;
        }
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

    /// Receives wanted now. What they promise fits beside the `held` bytes, to less than
    /// [`PROMISED_MIN`] messages, and leaves half of the memory for reading ahead.
    fn wanted(&self, sh: &Shared, held: usize) -> u32 {
        let wanted = if sh.scarce { self.initial } else { self.target };
        if sh.suspend.is_asking() {
            // A peer that is asked to move needs a credit to answer with.
            return wanted;
        }
        let total = sh.recv_buffer_total();
        let room = total.saturating_sub(held);
        let messages = match room {
            0 => 0,
            _ => room
                .min(total / 2)
                .div_ceil(payload_len(sh))
                .max(PROMISED_MIN),
        };
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let bounded = POSTED_FLOOR.saturating_add(messages);
        let brought = if sh.asks_by_last_credit() {
            sh.credits.known() + 1
        } else {
            0
        };
        wanted.min(bounded.max(brought))
    }

    /// Bytes that may be read ahead while `held` are held. The source counts on the credits that it
    /// knows of: what it was not told of yet it learns with the report of the read.
    pub(super) fn ahead_room(&self, sh: &Shared, held: usize) -> usize {
        let total = sh.recv_buffer_total();
        let messages = sh.credits.known().saturating_sub(POSTED_FLOOR);
        let promised = usize::try_from(messages).map_or(usize::MAX, |n| n * payload_len(sh));
        let share = total.saturating_sub(promised).max(total.div_ceil(2));
        share.saturating_sub(held)
    }

    /// Adverts that may be read from at once. If they are cancelled each takes a report, for which
    /// the peer may have to bring a credit by an update, and no update is confirmed before the
    /// answer (§4.8 step 4). So there is a receive for each, posted or to be had, and one more for
    /// what else the peer sends.
    pub(super) fn begun_max(&self, sh: &Shared) -> usize {
        let certain = !self.starved && !sh.scarce;
        let fresh = if certain { self.fresh.len() } else { 0 };
        let posted = usize::try_from(sh.credits.posted()).unwrap_or(usize::MAX);
        (posted + self.free.len() + fresh) / 2
    }

    /// Posts what may be posted while `held` bytes are held.
    pub(super) fn post(&mut self, sh: &mut Shared, held: usize) {
        // Messages that may not be confirmed yet cost the peer credits. When it runs out of them,
        // buffers make up for that, or two sides that hold a cancel each could not answer it.
        let poor = sh.credits.known() < POOR_BELOW;
        let more = if poor { sh.credits.held_back() } else { 0 };
        if sh.credits.posted() >= self.target + more && !self.trimming && !sh.scarce {
            // Never more than that is wanted.
            return;
        }
        let target = self.wanted(sh, held) + more;
        while sh.credits.posted() < target {
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
            self.set_allocated(buf, false);
            self.fresh.push(buf);
            sh.out.push_receive(Action::FreeRecv(buf));
        }
    }

    /// The driver could not allocate `buf`.
    pub(super) fn on_unavailable(&mut self, sh: &mut Shared, now: Instant, buf: BufferId) {
        self.on_unposted(sh);
        let grows = sh.resize.give_growth_up();
        if grows && self.allocated.get(usize::from(buf.0)) == Some(&true) {
            // What it had before serves.
            self.free.push(buf);
            return;
        }
        self.fresh.push(buf);
        if grows {
            return;
        }
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
    pub(super) fn is_full(&self, sh: &Shared, held: usize) -> bool {
        sh.credits.posted() >= self.wanted(sh, held)
    }
}

/// Payload of one receive posted from now on.
fn payload_len(sh: &Shared) -> usize {
    let len = usize::try_from(sh.resize.own_len()).unwrap_or(usize::MAX);
    len.saturating_sub(BSDH_LEN).max(1)
}
