//! One connection: request, response, ready, and its end.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::Env;
use super::id::HostCmId;
use super::state::{Id, Phase, State};
use super::timer::Due;
use crate::cm::{CmEventKind, CmToken, RejectReason};
use crate::error::VerbsError;
use crate::host::link::PeerLink;
use crate::host::message::{Message, PRIVATE_DATA_MAX, Request, broken};
use crate::host::names::{self, Scope};
use crate::host::qp::{HostQp, QpDescriptor};

/// How long a connector may take to confirm a response.
const READY_WAIT: Duration = Duration::from_secs(5);

impl State {
    /// The link a queue pair is to be created on.
    ///
    /// # Errors
    /// As [`CmId::create_qp`](crate::CmId::create_qp).
    pub(super) fn link_for_qp(&mut self, token: u64) -> Result<Arc<PeerLink>, VerbsError> {
        const OP: &str = "create_qp";
        let id = self.id(OP, token)?;
        let state = id.phase.name();
        let fits = matches!(id.phase, Phase::Resolved { .. } | Phase::Requested { .. });
        if id.qp.is_some() {
            return Err(VerbsError::State {
                op: OP,
                state: "with a queue pair",
            });
        }
        let link = id.link.filter(|_| fits);
        let link = link.and_then(|link| self.links.get(&link));
        let link = link.ok_or(VerbsError::State { op: OP, state })?;
        Ok(Arc::clone(&link.plane))
    }

    /// Sends the request.
    ///
    /// # Errors
    /// As [`CmId::connect`](crate::CmId::connect).
    pub(super) fn connect(&mut self, token: u64, data: &[u8]) -> Result<(), VerbsError> {
        const OP: &str = "connect";
        check_data(OP, data)?;
        let id = self.id(OP, token)?;
        let Phase::Resolved { name } = id.phase else {
            return Err(wrong_state(OP, id));
        };
        let qp = queue_pair(OP, id)?;
        let (Some(source), Some(dst), Some(link)) = (id.local, id.peer, id.link) else {
            return Err(wrong_state(OP, id));
        };
        let timeout = id.timeout;
        let out = match self.links.get(&link) {
            Some(link) => Arc::clone(&link.out),
            None => {
                return Err(VerbsError::State {
                    op: OP,
                    state: "ended",
                });
            }
        };
        if out.is_congested() {
            return Err(VerbsError::os(
                "host connect: the peer has left too many messages unread",
                Errno::AGAIN,
            ));
        }
        out.post(&Message::Request(Box::new(Request {
            from: token,
            name,
            source,
            dst,
            qp: qp.descriptor(),
            data: data.to_vec(),
        })));
        self.id(OP, token)?.phase = Phase::Connecting { name };
        self.wait_at_most(token, timeout);
        Ok(())
    }

    /// Accepts a request.
    ///
    /// # Errors
    /// As [`CmId::accept`](crate::CmId::accept).
    pub(super) fn accept(&mut self, token: u64, data: &[u8]) -> Result<(), VerbsError> {
        const OP: &str = "accept";
        check_data(OP, data)?;
        let id = self.id(OP, token)?;
        let Phase::Requested { listener, qp: peer } = id.phase else {
            return Err(wrong_state(OP, id));
        };
        let qp = queue_pair(OP, id)?;
        if let Err(error) = qp.connect_to(&peer) {
            qp.peer_refused();
            self.turn_down(token, RejectReason::Incompatible, &[]);
            self.release(token);
            return Err(error);
        }
        let to = id.remote;
        let response = Message::Response {
            from: token,
            to,
            qp: qp.descriptor(),
            data: data.to_vec(),
        };
        id.phase = Phase::Accepted;
        self.post(token, &response);
        self.answered(listener, token);
        self.wait_at_most(token, READY_WAIT);
        Ok(())
    }

    /// Confirms a response.
    ///
    /// # Errors
    /// As [`CmId::establish`](crate::CmId::establish).
    pub(super) fn establish(&mut self, token: u64) -> Result<(), VerbsError> {
        let id = self.id("establish", token)?;
        if !matches!(id.phase, Phase::Responded) {
            return Err(wrong_state("establish", id));
        }
        id.phase = Phase::Connected;
        let to = id.remote;
        self.post(token, &Message::Ready { to });
        Ok(())
    }

    /// Turns a request or a response down.
    ///
    /// # Errors
    /// As [`CmId::reject`](crate::CmId::reject).
    pub(super) fn reject(&mut self, token: u64, data: &[u8]) -> Result<(), VerbsError> {
        const OP: &str = "reject";
        check_data(OP, data)?;
        let id = self.id(OP, token)?;
        let qp = id.qp.as_ref().and_then(std::sync::Weak::upgrade);
        match (&id.phase, qp) {
            // The peer has never heard of our queue pair.
            (Phase::Requested { .. }, Some(qp)) => qp.peer_refused(),
            // The peer may have written to it already.
            (Phase::Responded, Some(qp)) => qp.disconnect(),
            (Phase::Requested { .. } | Phase::Responded, None) => {}
            _ => return Err(wrong_state(OP, id)),
        }
        self.turn_down(token, RejectReason::Consumer, data);
        self.release(token);
        Ok(())
    }

    /// Ends whatever the id has begun, telling the peer. The peer's answer is reported.
    pub(super) fn disconnect(&mut self, env: &Env, token: u64) {
        let Some(id) = self.ids.get(&token) else {
            return;
        };
        match id.phase {
            Phase::Connecting { .. } | Phase::Responded | Phase::Accepted | Phase::Connected => {
                self.end_connection(token);
                if let Some(id) = self.ids.get_mut(&token) {
                    id.phase = Phase::Disconnecting;
                }
                self.timers.clear(Due::Id(token));
            }
            Phase::Requested { .. } => {
                self.turn_down(token, RejectReason::Consumer, &[]);
                self.release(token);
            }
            Phase::Resolving { dst } => {
                self.leave_dial(env, token, dst);
                self.release(token);
            }
            Phase::Resolved { .. } => self.release(token),
            Phase::New | Phase::Listening(_) | Phase::Disconnecting | Phase::Ended => {}
        }
    }

    /// An id is dropped: it ends what it has begun, and is forgotten.
    pub(super) fn forget(&mut self, env: &Env, token: u64) {
        self.disconnect(env, token);
        self.release(token);
        self.timers.clear(Due::Listener(token));
        if let Some(id) = self.ids.remove(&token)
            && let Phase::Listening(listener) = &id.phase
        {
            self.unlisten(env, listener);
        }
    }

    /// Ends the queue pair in order and tells the peer.
    pub(super) fn end_connection(&self, token: u64) {
        let Some(id) = self.ids.get(&token) else {
            return;
        };
        if let Some(qp) = id.qp.as_ref().and_then(std::sync::Weak::upgrade) {
            qp.disconnect();
        }
        let to = id.remote;
        self.post(token, &Message::Disconnect { from: token, to });
    }

    fn turn_down(&self, token: u64, reason: RejectReason, data: &[u8]) {
        if let Some(id) = self.ids.get(&token) {
            let message = Message::Reject {
                to: id.remote,
                reason,
                data: data.to_vec(),
            };
            self.post(token, &message);
        }
    }

    /// Sends a message on an id's link.
    fn post(&self, token: u64, message: &Message) {
        let link = self.ids.get(&token).and_then(|id| id.link);
        if let Some(link) = link.and_then(|link| self.links.get(&link)) {
            link.out.post(message);
        }
    }

    /// A peer asks to connect.
    ///
    /// # Errors
    /// The peer broke a rule.
    pub(super) fn on_request(
        &mut self,
        env: &Env,
        link: u64,
        request: Request,
    ) -> Result<(), VerbsError> {
        let Some(entry) = self.links.get(&link) else {
            return Ok(());
        };
        if entry.by_remote.contains_key(&request.from) {
            return Err(broken(format!(
                "connection {} is asked for twice",
                request.from
            )));
        }
        let exact = match request.name.scope {
            Scope::Exact(ip, _) => ip == request.dst.ip(),
            _ => true,
        };
        if request.name.port != request.dst.port() || !exact {
            return Err(broken(
                "a request's destination is not its listener's".into(),
            ));
        }
        let from = request.from;
        if let Err(reason) = self.admit(env, link, request) {
            let message = Message::Reject {
                to: from,
                reason,
                data: Vec::new(),
            };
            if let Some(link) = self.links.get(&link) {
                link.out.post(&message);
            }
        }
        Ok(())
    }

    /// Makes an id for a request and reports it.
    fn admit(&mut self, env: &Env, link: u64, request: Request) -> Result<(), RejectReason> {
        let listener = self.listeners.get(&request.name).copied();
        let listener = listener.ok_or(RejectReason::NoListener)?;
        let (inbox, cm) = match self.ids.get(&listener) {
            Some(id) => (id.inbox.upgrade(), Self::handle(env)),
            None => return Err(RejectReason::NoListener),
        };
        let (Some(inbox), Some(cm)) = (inbox, cm) else {
            return Err(RejectReason::NoListener);
        };
        let token = self.number();
        let entry = self.listener(listener).ok_or(RejectReason::NoListener)?;
        entry.admit(token).map_err(|_| RejectReason::Backlog)?;
        let shown = |addr| names::shown_on(entry.addr, addr);
        let (local, peer) = (shown(request.dst), shown(request.source));
        let id = Id {
            phase: Phase::Requested {
                listener,
                qp: request.qp,
            },
            local: Some(local),
            peer: Some(peer),
            link: Some(link),
            remote: request.from,
            ..Id::new(&inbox)
        };
        self.ids.insert(token, id);
        self.join_link(link, token);
        self.reopen_link(link);
        if let Some(link) = self.links.get_mut(&link) {
            link.by_remote.insert(request.from, token);
        }
        let id = Arc::new(HostCmId::new(cm, CmToken(token)));
        let private_data = request.data;
        self.emit(listener, CmEventKind::ConnectRequest { id, private_data });
        Ok(())
    }

    /// An id on `link`, unless it is gone.
    fn on_link(&mut self, link: u64, token: u64) -> Option<&mut Id> {
        let id = self.ids.get_mut(&token)?;
        (id.link == Some(link)).then_some(id)
    }

    /// The peer accepts. `ids` are its own and ours.
    pub(super) fn on_response(
        &mut self,
        link: u64,
        ids: (u64, u64),
        peer: QpDescriptor,
        data: Vec<u8>,
    ) {
        let (from, to) = ids;
        let Some(id) = self.on_link(link, to) else {
            return;
        };
        match id.phase {
            Phase::Connecting { .. } => id.remote = from,
            // It crosses our withdrawal. The peer goes by this name from here on.
            Phase::Disconnecting => {
                id.remote = from;
                return;
            }
            _ => return,
        }
        let connected = queue_pair("connect", id).and_then(|qp| qp.connect_to(&peer));
        match connected {
            Ok(()) => {
                id.phase = Phase::Responded;
                self.timers.clear(Due::Id(to));
                let private_data = data;
                self.emit(to, CmEventKind::ConnectResponse { private_data });
            }
            Err(error) => {
                self.end_connection(to);
                self.fail(to, error);
            }
        }
    }

    /// The peer confirms.
    pub(super) fn on_ready(&mut self, link: u64, to: u64) {
        if let Some(id) = self.on_link(link, to)
            && matches!(id.phase, Phase::Accepted)
        {
            id.phase = Phase::Connected;
            self.timers.clear(Due::Id(to));
            self.emit(to, CmEventKind::Established);
        }
    }

    /// The peer turns our request, or our response, down.
    pub(super) fn on_reject(
        &mut self,
        link: u64,
        to: u64,
        reason: RejectReason,
        private_data: Vec<u8>,
    ) {
        let Some(id) = self.on_link(link, to) else {
            return;
        };
        let qp = id.qp.as_ref().and_then(std::sync::Weak::upgrade);
        match id.phase {
            Phase::Connecting { name } => {
                if let Some(qp) = qp {
                    qp.peer_refused();
                }
                if reason == RejectReason::NoListener {
                    self.routes
                        .retain(|_, route| route.link != link || route.name != name);
                }
                let kind = CmEventKind::Rejected {
                    reason,
                    private_data,
                };
                self.finish(to, kind);
            }
            Phase::Accepted | Phase::Disconnecting => {
                if let Some(qp) = qp {
                    qp.disconnect();
                }
                self.finish(to, CmEventKind::Disconnected);
            }
            _ => {}
        }
    }

    /// The peer ends a connection, or withdraws a request.
    ///
    /// # Errors
    /// The peer broke a rule.
    pub(super) fn on_disconnect(
        &mut self,
        link: u64,
        from: u64,
        to: u64,
    ) -> Result<(), VerbsError> {
        if from == 0 {
            return Err(broken("a disconnect names no connection".into()));
        }
        let Some(entry) = self.links.get(&link) else {
            return Ok(());
        };
        entry.out.post(&Message::Disconnected { to: from });
        let to = match to {
            0 => entry.by_remote.get(&from).copied(),
            to => Some(to),
        };
        let Some((to, id)) = to.and_then(|to| Some((to, self.on_link(link, to)?))) else {
            return Ok(());
        };
        if id.remote != from {
            return Err(broken(format!(
                "connection {from} is not the other end of {to}"
            )));
        }
        if let Some(qp) = id.qp.as_ref().and_then(std::sync::Weak::upgrade) {
            qp.disconnect();
        }
        self.finish(to, CmEventKind::Disconnected);
        Ok(())
    }

    /// The peer knows that we ended a connection.
    pub(super) fn on_disconnected(&mut self, link: u64, to: u64) {
        if let Some(id) = self.on_link(link, to)
            && matches!(id.phase, Phase::Disconnecting)
        {
            self.finish(to, CmEventKind::Disconnected);
        }
    }
}

fn queue_pair(op: &'static str, id: &Id) -> Result<Arc<HostQp>, VerbsError> {
    let qp = id.qp.as_ref().and_then(std::sync::Weak::upgrade);
    qp.ok_or(VerbsError::State {
        op,
        state: "without a queue pair",
    })
}

fn wrong_state(op: &'static str, id: &Id) -> VerbsError {
    VerbsError::State {
        op,
        state: id.phase.name(),
    }
}

fn check_data(what: &'static str, data: &[u8]) -> Result<(), VerbsError> {
    if data.len() <= PRIVATE_DATA_MAX {
        return Ok(());
    }
    Err(VerbsError::Argument {
        what,
        reason: format!(
            "{} bytes of private data, the host provider takes {PRIVATE_DATA_MAX}",
            data.len()
        ),
    })
}
