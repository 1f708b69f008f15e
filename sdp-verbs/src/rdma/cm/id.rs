//! One end of a connection being made, or a listener.

mod calls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

pub(super) use self::calls::RdmaId;
use super::port::Port;
use super::raw::RawId;
use super::{BY_CONSUMER, RdmaEvents, rejection};
use crate::cm::{CmEventKind, CmToken, RejectReason};
use crate::error::VerbsError;
use crate::rdma::device::{Device, REJECT_DATA_LEN, Transport};
use crate::rdma::qp::RdmaQp;
use crate::rdma::slab::SlabPool;
use crate::rdma::sys;

/// How long the system is asked for the way to a peer before it is asked anew. It looks at what it
/// knows when it is asked and when a neighbour answers: one that answers before the system has noted
/// who waits for it is noticed by neither (seen in Linux 6.1, between devices of one machine).
const RESOLVE_TRY: Duration = Duration::from_secs(1);

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Idle,
    Bound,
    Listening,
    Resolving,
    Resolved,
    Connecting,
    /// Active: the peer has accepted, and waits for our confirmation.
    Responded,
    /// Passive: a peer asks.
    Requested,
    /// Passive: we have accepted, and wait for the peer's confirmation.
    Accepted,
    Established,
    /// The end waits until what was sent before has arrived.
    Draining,
    Ended,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Bound => "bound",
            Self::Listening => "listening",
            Self::Resolving => "resolving",
            Self::Resolved => "resolved",
            Self::Connecting => "connecting",
            Self::Responded => "responded",
            Self::Requested => "requested",
            Self::Accepted => "accepted",
            Self::Established => "established",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

/// A place in a listener's backlog, free again when dropped.
#[derive(Debug)]
pub(super) struct Unanswered(Arc<AtomicU32>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Until when the destination must be resolved.
    deadline: Option<Instant>,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
    /// The end has been reported.
    told: bool,
    unanswered: Option<Unanswered>,
    backlog: u32,
    /// Held until the device has bound its own socket.
    port: Option<Port>,
}

impl State {
    /// How long the destination may still be resolved; `None` without a limit.
    fn left(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }
}

/// An id, held by its handle and by its queue pair.
#[derive(Debug)]
pub(in crate::rdma) struct IdCore {
    token: usize,
    device: Arc<Device>,
    slabs: Arc<SlabPool>,
    state: Mutex<State>,
    qp: Mutex<Weak<RdmaQp>>,
    /// A listener's requests that have not been answered.
    requests: Arc<AtomicU32>,
    // Destroyed before its channel may be.
    raw: RawId,
    events: Arc<RdmaEvents>,
}

impl IdCore {
    pub(super) fn new(
        events: &Arc<RdmaEvents>,
        device: &Arc<Device>,
        slabs: &Arc<SlabPool>,
        token: usize,
        raw: RawId,
        phase: Phase,
    ) -> Arc<Self> {
        let known = phase == Phase::Requested;
        let state = State {
            phase,
            deadline: None,
            local: known.then(|| raw.local_addr()).flatten(),
            peer: known.then(|| raw.peer_addr()).flatten(),
            told: false,
            unanswered: None,
            backlog: 0,
            port: None,
        };
        Arc::new(Self {
            token,
            device: Arc::clone(device),
            slabs: Arc::clone(slabs),
            state: Mutex::new(state),
            qp: Mutex::default(),
            requests: Arc::default(),
            raw,
            events: Arc::clone(events),
        })
    }

    /// Its name in events.
    pub(super) fn name(&self) -> CmToken {
        CmToken(self.token as u64)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// A place in the backlog for one more request.
    pub(super) fn take_backlog(&self) -> Option<Unanswered> {
        let backlog = self.state().backlog;
        let more = |count: u32| (count < backlog).then_some(count + 1);
        self.requests
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, more)
            .ok()?;
        Some(Unanswered(Arc::clone(&self.requests)))
    }

    pub(super) fn set_unanswered(&self, unanswered: Unanswered) {
        self.state().unanswered = Some(unanswered);
    }

    /// The queue pair, if there is one. To be asked for before the state is locked: its drop, if
    /// this turns out to be the last hold on it, locks the state.
    fn queue_pair(&self) -> Option<Arc<RdmaQp>> {
        let qp = self.qp.lock().expect("nothing panics under this lock");
        qp.upgrade()
    }

    fn has_queue_pair(&self) -> bool {
        let qp = self.qp.lock().expect("nothing panics under this lock");
        qp.strong_count() > 0
    }

    fn set_queue_pair(&self, made: &Arc<RdmaQp>) {
        let mut qp = self.qp.lock().expect("nothing panics under this lock");
        *qp = Arc::downgrade(made);
    }

    /// Moves the queue pair through states of the handshake.
    fn advance(&self, qp: &RdmaQp, states: &[sys::ibv_qp_state]) -> Result<(), VerbsError> {
        for state in states {
            let (mut attr, mask) = self.raw.qp_attr(*state)?;
            qp.advance(&mut attr, mask)?;
        }
        Ok(())
    }

    /// An iWARP device moves its queue pairs by itself.
    fn advance_to_send(&self, qp: &RdmaQp) -> Result<(), VerbsError> {
        match self.device.transport {
            Transport::Ib => self.advance(qp, &[sys::IBV_QPS_RTR, sys::IBV_QPS_RTS]),
            Transport::Iwarp => Ok(()),
        }
    }

    pub(super) fn address_resolved(&self) -> Option<CmEventKind> {
        let mut state = self.state();
        if state.phase != Phase::Resolving {
            return None;
        }
        state.local = self.raw.local_addr();
        if self.raw.context() != self.device.context() {
            state.phase = Phase::Ended;
            return Some(CmEventKind::Failed(sys::unavailable(format!(
                "the way there is not through device {}: name the right one with SDP_RDMA_DEVICE",
                self.device.name
            ))));
        }
        let left = state.left().unwrap_or(RESOLVE_TRY);
        if let Err(error) = self.raw.resolve_route(left) {
            state.phase = Phase::Ended;
            return Some(CmEventKind::Failed(error));
        }
        None
    }

    /// The system has not found the way to the peer: it is asked again until the time is out.
    pub(super) fn address_unresolved(&self, mut error: VerbsError) -> Option<CmEventKind> {
        let state = self.state();
        let left = state.left().unwrap_or(RESOLVE_TRY);
        if let (Phase::Resolving, Some(dst)) = (state.phase, state.peer)
            && error.errno() == libc::ETIMEDOUT
            && !left.is_zero()
        {
            match self.raw.resolve_addr(dst, left.min(RESOLVE_TRY)) {
                Ok(()) => return None,
                Err(again) => error = again,
            }
        }
        drop(state);
        self.failed(error)
    }

    pub(super) fn route_resolved(&self) -> Option<CmEventKind> {
        let mut state = self.state();
        if state.phase != Phase::Resolving {
            return None;
        }
        state.phase = Phase::Resolved;
        Some(CmEventKind::Resolved)
    }

    /// Resolving or connecting came to nothing; or, passive, the peer's confirmation never came.
    pub(super) fn failed(&self, error: VerbsError) -> Option<CmEventKind> {
        let mut state = self.state();
        match state.phase {
            Phase::Resolving | Phase::Resolved | Phase::Connecting | Phase::Responded => {
                state.phase = Phase::Ended;
                state.told = true;
                Some(CmEventKind::Failed(error))
            }
            Phase::Accepted | Phase::Established | Phase::Draining => {
                tracing::debug!(id = self.token, "{error}");
                drop(state);
                self.disconnected()
            }
            _ => None,
        }
    }

    pub(super) fn responded(&self, private_data: Vec<u8>) -> Option<CmEventKind> {
        let mut state = self.state();
        if state.phase != Phase::Connecting {
            return None;
        }
        state.phase = Phase::Responded;
        Some(CmEventKind::ConnectResponse { private_data })
    }

    pub(super) fn established(&self, private_data: Vec<u8>) -> Option<CmEventKind> {
        let phase = self.state().phase;
        match phase {
            // iWARP has no confirmation: to the active side this is the answer.
            Phase::Connecting => self.responded(private_data),
            Phase::Accepted => {
                self.state().phase = Phase::Established;
                Some(CmEventKind::Established)
            }
            _ => None,
        }
    }

    /// The peer's first message has come: it has our answer, even if its confirmation is lost.
    pub(in crate::rdma) fn first_message(&self) {
        {
            let mut state = self.state();
            if state.phase != Phase::Accepted {
                return;
            }
            state.phase = Phase::Established;
            if self.device.transport == Transport::Ib
                && let Err(error) = self.raw.notify_established()
            {
                tracing::debug!(id = self.token, "{error}");
            }
        }
        self.events.tell(self, CmEventKind::Established);
    }

    pub(super) fn rejected(
        &self,
        reason: RejectReason,
        mut private_data: Vec<u8>,
    ) -> Option<CmEventKind> {
        let mut state = self.state();
        match state.phase {
            Phase::Connecting => {
                state.phase = Phase::Ended;
                state.told = true;
                private_data.truncate(REJECT_DATA_LEN - 1);
                Some(CmEventKind::Rejected {
                    reason,
                    private_data,
                })
            }
            // The active side does not want our answer.
            Phase::Accepted | Phase::Established => {
                drop(state);
                self.disconnected()
            }
            _ => None,
        }
    }

    /// The peer ended the connection, or has confirmed our end.
    pub(super) fn disconnected(&self) -> Option<CmEventKind> {
        let qp = self.queue_pair();
        let mut state = self.state();
        if let Some(qp) = &qp {
            qp.fail();
        }
        let answered = state.phase == Phase::Ended;
        state.phase = Phase::Ended;
        let told = std::mem::replace(&mut state.told, true);
        drop(state);
        if !answered {
            self.end();
        }
        (!told).then_some(CmEventKind::Disconnected)
    }

    pub(super) fn device_removed(&self) -> Option<CmEventKind> {
        tracing::warn!(id = self.token, device = self.device.name, "device removed");
        let gone = sys::unavailable(format!("device {} was removed", self.device.name));
        if let Some(qp) = self.queue_pair() {
            // In error first, so that a device that is still there has stopped.
            qp.fail();
            qp.lose_device();
        }
        let phase = self.state().phase;
        match phase {
            Phase::Idle | Phase::Bound => None,
            Phase::Listening => {
                let device = &self.device.name;
                tracing::error!(device, "a listener hears nothing more by it: listen anew");
                None
            }
            Phase::Requested => self.disconnected(),
            _ => self.failed(gone),
        }
    }

    /// Tells the peer that the connection ends, or confirms that we have heard of it.
    fn end(&self) {
        if let Err(error) = self.raw.disconnect() {
            // Among other reasons: the peer was faster.
            tracing::trace!(id = self.token, "{error}");
        }
    }

    /// Ends the connection once what was sent before has arrived.
    fn disconnect(&self) {
        let qp = self.queue_pair();
        let mut state = self.state();
        match state.phase {
            Phase::Requested => {
                state.phase = Phase::Ended;
                state.unanswered = None;
                if let Err(error) = self.raw.reject(&rejection(&[], BY_CONSUMER)) {
                    tracing::debug!(id = self.token, "{error}");
                }
            }
            Phase::Accepted | Phase::Established => {
                if qp.as_ref().is_some_and(|qp| qp.post_marker()) {
                    state.phase = Phase::Draining;
                    return;
                }
                state.phase = Phase::Ended;
                if let Some(qp) = &qp {
                    qp.fail();
                }
                self.end();
            }
            Phase::Connecting | Phase::Responded => {
                state.phase = Phase::Ended;
                if let Some(qp) = &qp {
                    qp.fail();
                }
                self.end();
            }
            Phase::Resolving | Phase::Resolved => state.phase = Phase::Ended,
            Phase::Idle | Phase::Bound | Phase::Listening | Phase::Draining | Phase::Ended => {}
        }
    }

    /// What was sent before the end has arrived, or never will.
    pub(in crate::rdma) fn drained(&self) {
        let qp = self.queue_pair();
        let mut state = self.state();
        if state.phase != Phase::Draining {
            return;
        }
        state.phase = Phase::Ended;
        if let Some(qp) = &qp {
            qp.fail();
        }
        drop(state);
        self.end();
    }

    /// The queue pair has gone into error and is about to be destroyed.
    pub(in crate::rdma) fn queue_pair_gone(&self) {
        let mut state = self.state();
        let connected = matches!(
            state.phase,
            Phase::Connecting
                | Phase::Responded
                | Phase::Accepted
                | Phase::Established
                | Phase::Draining
        );
        if connected {
            state.phase = Phase::Ended;
            drop(state);
            self.end();
        }
    }
}

impl Drop for IdCore {
    fn drop(&mut self) {
        self.events.forget(self.token);
    }
}
