//! One end of a connection being made, or a listener.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::raw::RawId;
use super::{BY_CONSUMER, RdmaEvents, rejection};
use crate::cm::{BindRequest, CmEventKind, CmId, CmToken, RejectReason};
use crate::error::VerbsError;
use crate::own::own;
use crate::qp::{QpAttr, QueuePair};
use crate::rdma::NAME;
use crate::rdma::cq::RdmaCq;
use crate::rdma::device::{ACCEPT_DATA_MAX, CONNECT_DATA_MAX, Device, REJECT_DATA_LEN, Transport};
use crate::rdma::qp::RdmaQp;
use crate::rdma::slab::SlabPool;
use crate::rdma::sys;

/// Requests that the kernel may hold for a listener; the listener's own backlog is counted here.
const KERNEL_BACKLOG: u32 = 1024;

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
        let left = state.deadline.map_or(Duration::from_secs(1), |at| {
            at.saturating_duration_since(Instant::now())
        });
        if let Err(error) = self.raw.resolve_route(left) {
            state.phase = Phase::Ended;
            return Some(CmEventKind::Failed(error));
        }
        None
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
        let phase = self.state().phase;
        match phase {
            Phase::Idle | Phase::Bound | Phase::Listening => None,
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

/// The caller's handle. Dropping it disconnects.
#[derive(Debug)]
pub(super) struct RdmaId(Arc<IdCore>);

impl RdmaId {
    pub(super) fn new(core: Arc<IdCore>) -> Self {
        Self(core)
    }
}

impl Drop for RdmaId {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}

fn wrong_state<T>(op: &'static str, phase: Phase) -> Result<T, VerbsError> {
    Err(VerbsError::State {
        op,
        state: phase.name(),
    })
}

fn check_data(what: &'static str, data: &[u8], max: usize) -> Result<(), VerbsError> {
    if data.len() <= max {
        return Ok(());
    }
    Err(VerbsError::Argument {
        what,
        reason: format!("{} bytes, at most {max}", data.len()),
    })
}

impl CmId for RdmaId {
    fn token(&self) -> CmToken {
        self.0.name()
    }

    fn bind(&self, request: BindRequest) -> Result<(), VerbsError> {
        let core = &*self.0;
        let mut state = core.state();
        if state.phase != Phase::Idle {
            return wrong_state("bind", state.phase);
        }
        if request.reuse_port {
            return Err(VerbsError::Unsupported {
                provider: NAME,
                op: "several listeners on one port (SO_REUSEPORT)",
            });
        }
        if request.only_v6 && request.addr.is_ipv6() {
            core.raw.set_only_v6()?;
        }
        core.raw.bind(request.addr)?;
        let bound = core.raw.context();
        if !bound.is_null() && bound != core.device.context() {
            return Err(sys::unavailable(format!(
                "{} is not behind device {}: name the right one with SDP_RDMA_DEVICE",
                request.addr, core.device.name
            )));
        }
        state.local = core.raw.local_addr();
        state.phase = Phase::Bound;
        Ok(())
    }

    fn listen(&self, backlog: u32) -> Result<(), VerbsError> {
        let core = &*self.0;
        let mut state = core.state();
        match state.phase {
            Phase::Bound => core.raw.listen(KERNEL_BACKLOG)?,
            // As listen(2): again, for another backlog.
            Phase::Listening => {}
            other => return wrong_state("listen", other),
        }
        state.phase = Phase::Listening;
        state.backlog = backlog;
        Ok(())
    }

    fn resolve(&self, dst: SocketAddr, timeout: Duration) -> Result<(), VerbsError> {
        let core = &*self.0;
        let mut state = core.state();
        if !matches!(state.phase, Phase::Idle | Phase::Bound) {
            return wrong_state("resolve", state.phase);
        }
        core.raw.resolve_addr(dst, timeout)?;
        state.deadline = Instant::now().checked_add(timeout);
        state.peer = Some(dst);
        state.phase = Phase::Resolving;
        Ok(())
    }

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let core = &self.0;
        let state = core.state();
        if !matches!(state.phase, Phase::Resolved | Phase::Requested) || core.has_queue_pair() {
            return wrong_state("create_qp", state.phase);
        }
        let cq = own(
            Arc::clone(&attr.cq) as _,
            "completion queue",
            |cq: &RdmaCq| cq.belongs_to(&core.device),
        )?;
        check_depth(
            "send requests",
            attr.send_wr_max,
            core.device.limits.send_wr_max,
        )?;
        check_depth("receives", attr.recv_wr_max, core.device.limits.recv_wr_max)?;
        let qp = RdmaQp::new(&core.device, &core.slabs, core, &cq, attr)?;
        // Receives may be posted from here on.
        if let Err(error) = core.advance(&qp, &[sys::IBV_QPS_INIT]) {
            // Its drop looks at this id.
            drop(state);
            drop(qp);
            return Err(error);
        }
        core.set_queue_pair(&qp);
        Ok(qp)
    }

    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        let core = &*self.0;
        let qp = core.queue_pair();
        let mut state = core.state();
        let (Phase::Resolved, Some(qp)) = (state.phase, &qp) else {
            return wrong_state("connect", state.phase);
        };
        check_data("private data of a request", private_data, CONNECT_DATA_MAX)?;
        let (number, depth) = (qp.number(), core.device.read_depth);
        state.phase = Phase::Connecting;
        match core.raw.connect(private_data, number, depth) {
            // iWARP devices may say at once what TCP says.
            Err(error) if error.errno() == libc::ECONNREFUSED => {
                state.phase = Phase::Ended;
                state.told = true;
                let event = CmEventKind::Rejected {
                    reason: RejectReason::NoListener,
                    private_data: Vec::new(),
                };
                core.events.tell(core, event);
                Ok(())
            }
            Err(error) => {
                state.phase = Phase::Resolved;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        let core = &*self.0;
        let (qp, phase) = (core.queue_pair(), core.state().phase);
        let (Phase::Requested, Some(qp)) = (phase, qp) else {
            return wrong_state("accept", phase);
        };
        check_data("private data of an answer", private_data, ACCEPT_DATA_MAX)?;
        core.advance_to_send(&qp)?;
        {
            let mut state = core.state();
            core.raw.accept(private_data, qp.number())?;
            state.phase = Phase::Accepted;
            state.unanswered = None;
        }
        qp.set_ready();
        Ok(())
    }

    fn establish(&self) -> Result<(), VerbsError> {
        let core = &*self.0;
        let (qp, phase) = (core.queue_pair(), core.state().phase);
        let (Phase::Responded, Some(qp)) = (phase, qp) else {
            return wrong_state("establish", phase);
        };
        core.advance_to_send(&qp)?;
        if core.device.transport == Transport::Ib {
            core.raw.establish()?;
        }
        let mut state = core.state();
        if state.phase == Phase::Responded {
            state.phase = Phase::Established;
            drop(state);
            qp.set_ready();
        }
        Ok(())
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        let core = &*self.0;
        let mut state = core.state();
        let phase = state.phase;
        if !matches!(phase, Phase::Requested | Phase::Responded) {
            return wrong_state("reject", phase);
        }
        check_data(
            "private data of a rejection",
            private_data,
            REJECT_DATA_LEN - 1,
        )?;
        // On iWARP there is no word but the end once the peer has accepted.
        if phase == Phase::Responded && core.device.transport == Transport::Iwarp {
            core.raw.disconnect()?;
        } else {
            core.raw.reject(&rejection(private_data, BY_CONSUMER))?;
        }
        state.phase = Phase::Ended;
        state.unanswered = None;
        Ok(())
    }

    fn disconnect(&self) {
        self.0.disconnect();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.0.state().local
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.state().peer
    }
}

fn check_depth(what: &'static str, wanted: u32, max: u32) -> Result<(), VerbsError> {
    if wanted <= max {
        return Ok(());
    }
    Err(VerbsError::Limit {
        what,
        limit: max.to_string(),
        remedy: "ask for fewer",
    })
}
