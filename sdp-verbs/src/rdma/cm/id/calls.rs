//! What the caller asks of a connection being made, or of a listener.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{IdCore, Phase, RESOLVE_TRY, State};
use crate::cm::{BindRequest, CmEventKind, CmId, CmToken, RejectReason};
use crate::error::VerbsError;
use crate::own::own;
use crate::qp::{QpAttr, QueuePair};
use crate::rdma::NAME;
use crate::rdma::cm::port::Port;
use crate::rdma::cm::silence::ack_timeout;
use crate::rdma::cm::{BY_CONSUMER, address, rejection};
use crate::rdma::cq::RdmaCq;
use crate::rdma::device::{ACCEPT_DATA_MAX, CONNECT_DATA_MAX, REJECT_DATA_LEN, Transport};
use crate::rdma::qp::RdmaQp;
use crate::rdma::sys;

/// Requests that the kernel may hold for a listener; the listener's own backlog is counted here.
const KERNEL_BACKLOG: u32 = 1024;

/// Ports tried for one id.
const PORT_TRIES: u32 = 16;

/// The caller's handle. Dropping it disconnects.
#[derive(Debug)]
pub(in crate::rdma::cm) struct RdmaId(Arc<IdCore>);

impl RdmaId {
    pub(in crate::rdma::cm) fn new(core: Arc<IdCore>) -> Self {
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

impl IdCore {
    fn bind(&self, state: &mut State, addr: SocketAddr) -> Result<(), VerbsError> {
        if self.device.transport == Transport::Ib || addr.port() != 0 {
            return self.raw.bind(addr);
        }
        // A port that is free for TCP may be one of another id.
        let mut tries = 1..PORT_TRIES;
        loop {
            let port = Port::reserve(addr)?;
            match self.raw.bind(port.on(addr)) {
                Err(error) if error.errno() == libc::EADDRINUSE && tries.next().is_some() => {}
                bound => {
                    state.port = bound.is_ok().then_some(port);
                    return bound;
                }
            }
        }
    }

    /// Binds an id that its owner has not bound, if its connection to `dst` needs it: where the system
    /// would take another way, the device that was named decides; on iWARP, for the port.
    fn bind_for(&self, state: &mut State, dst: SocketAddr) -> Result<(), VerbsError> {
        let source = if self.device.named {
            address::source(&self.device, dst)?
        } else {
            None
        };
        let any = || address::any(dst);
        let iwarp = self.device.transport == Transport::Iwarp;
        match source.or_else(|| iwarp.then(any)) {
            Some(addr) => self.bind(state, addr),
            None => Ok(()),
        }
    }
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
        core.bind(&mut state, request.addr)?;
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
            Phase::Bound => {
                core.raw.listen(KERNEL_BACKLOG)?;
                state.port = None;
            }
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
        if state.phase == Phase::Idle {
            core.bind_for(&mut state, dst)?;
        }
        core.raw.resolve_addr(dst, timeout.min(RESOLVE_TRY))?;
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
        if core.device.transport == Transport::Ib {
            core.raw.set_ack_timeout(ack_timeout(attr.silence_max))?;
        }
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
        let connected = core.raw.connect(private_data, number, depth);
        state.port = None;
        match connected {
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
