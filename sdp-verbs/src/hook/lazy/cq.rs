//! Completion queues that move work on in batches.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::Duration;

use super::channel::LazyChannel;
use super::qp::QpCore;
use crate::cq::{ArmFor, ArmToken, CompletionQueue, CqToken, Wake};
use crate::hook::forward::forward;
use crate::rng::Rng;
use crate::types::{QpNum, WrId};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

/// Requests of all queue pairs of a queue that are posted below at once. The queue below has
/// room for as many beyond what the caller asked for.
pub(super) const IN_FLIGHT_MAX: u32 = 256;

/// Polls in a row that hand out nothing, after which everything is let go.
const DRY_POLLS_MAX: u32 = 4;

/// Completions taken from below in one poll.
const TAKEN_MAX: usize = 64;

const NOTHING: WorkCompletion = WorkCompletion {
    wr_id: WrId(0),
    status: WcStatus::Success,
    opcode: WcOpcode::Recv,
    byte_len: 0,
    invalidated: None,
    qp: QpNum(0),
};

#[derive(Debug)]
struct State {
    qps: Vec<Weak<QpCore>>,
    ready: VecDeque<WorkCompletion>,
    rng: Rng,
    dry_polls: u32,
}

/// See [`Lazy`](super::Lazy).
#[derive(Debug)]
pub(super) struct LazyCq {
    inner: Arc<dyn CompletionQueue>,
    channel: Arc<LazyChannel>,
    token: CqToken,
    solicited: bool,
    /// Held by the one thread that polls, and for moments by those that ask what is held back.
    state: Mutex<State>,
    /// Somebody may be about to wait. Set before looking for held work and read after adding
    /// some, both around the same lock, so that one of the two sees the other.
    waiter_armed: AtomicBool,
    /// As `waiter_armed`, for the channel.
    channel_armed: AtomicBool,
}

impl LazyCq {
    pub(super) fn new(
        inner: Arc<dyn CompletionQueue>,
        channel: Arc<LazyChannel>,
        token: CqToken,
        rng: Rng,
        solicited: bool,
    ) -> Self {
        Self {
            inner,
            channel,
            token,
            solicited,
            state: Mutex::new(State {
                qps: Vec::new(),
                ready: VecDeque::new(),
                rng,
                dry_polls: 0,
            }),
            waiter_armed: AtomicBool::new(false),
            channel_armed: AtomicBool::new(false),
        }
    }

    pub(super) fn inner(&self) -> &Arc<dyn CompletionQueue> {
        &self.inner
    }

    /// Moves the work of a queue pair from now on.
    pub(super) fn add(&self, qp: &Arc<QpCore>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.qps.retain(|known| known.strong_count() > 0);
        state.qps.push(Arc::downgrade(qp));
    }

    /// Something is held back now: whoever is armed shall poll.
    pub(super) fn on_held(&self) {
        if self.channel_armed.swap(false, Ordering::SeqCst) {
            self.inner.disarm_channel();
            self.channel.fire(self.token);
        }
        if self.waiter_armed.swap(false, Ordering::SeqCst) {
            self.inner.wake();
        }
    }

    fn holds(&self) -> bool {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .holds()
    }
}

impl State {
    fn holds(&self) -> bool {
        !self.ready.is_empty()
            || self
                .qps
                .iter()
                .filter_map(Weak::upgrade)
                .any(|qp| qp.holds())
    }

    /// One step of everything that is held back.
    fn step(&mut self, inner: &dyn CompletionQueue) {
        let qps: Vec<_> = self.qps.iter().filter_map(Weak::upgrade).collect();
        let everything = self.dry_polls >= DRY_POLLS_MAX;
        let in_flight: usize = qps.iter().map(|qp| qp.in_flight()).sum();
        let mut room = (IN_FLIGHT_MAX as usize).saturating_sub(in_flight);
        for qp in &qps {
            let before = qp.in_flight();
            let count = if everything { room } else { self.rng.batch() };
            qp.forward(count.min(room));
            room = room.saturating_sub(qp.in_flight().saturating_sub(before));
        }
        let mut taken = [NOTHING; TAKEN_MAX];
        let count = inner.poll(&mut taken);
        for wc in &taken[..count] {
            let owner = qps.iter().find(|qp| qp.num() == wc.qp);
            if !owner.is_some_and(|qp| qp.complete(wc)) {
                // Its queue pair was dropped meanwhile, and its completions went with it.
                tracing::debug!(?wc, "lazy completion queue: completion of no request");
            }
        }
        for qp in &qps {
            let (sends, recvs) = (self.rng.coin(), self.rng.coin());
            qp.release(sends || everything, recvs || everything, &mut self.ready);
        }
    }

    fn hand_out(&mut self, out: &mut [WorkCompletion]) -> usize {
        let count = self.ready.len().min(out.len());
        for (slot, wc) in out.iter_mut().zip(self.ready.drain(..count)) {
            *slot = wc;
        }
        self.dry_polls = if count > 0 {
            0
        } else {
            self.dry_polls.saturating_add(1)
        };
        count
    }
}

impl CompletionQueue for LazyCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return 0,
        };
        state.step(&*self.inner);
        let count = state.hand_out(out);
        let holds = state.holds();
        drop(state);
        if holds {
            self.on_held();
        }
        count
    }

    fn arm(&self, who: ArmFor) -> ArmToken {
        let who = match who {
            ArmFor::ChannelSolicited if !self.solicited => ArmFor::Channel,
            // A token would come before its message does.
            ArmFor::Token => ArmFor::Channel,
            other => other,
        };
        let armed = match who {
            ArmFor::Waiter => &self.waiter_armed,
            ArmFor::Channel | ArmFor::ChannelSolicited | ArmFor::Token => &self.channel_armed,
        };
        armed.store(true, Ordering::SeqCst);
        let token = self.inner.arm(who);
        if self.holds() {
            self.on_held();
        }
        token
    }

    fn disarm_channel(&self) {
        self.channel_armed.store(false, Ordering::SeqCst);
        self.inner.disarm_channel();
    }

    fn wait(&self, token: ArmToken, timeout: Option<Duration>) -> io::Result<Wake> {
        if self.holds() {
            return Ok(Wake::Event);
        }
        self.inner.wait(token, timeout)
    }

    forward!(CompletionQueue: wake);
}
