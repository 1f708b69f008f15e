//! Connection management: what ids are, and the calls on them.

mod arrival;
mod id;

use std::net::SocketAddr;
use std::time::Duration;

pub(super) use id::SimId;

use super::channel::ChannelKey;
use super::events::News;
use super::faults::Fault;
use super::options::nanos;
use super::qp::State as QpState;
use super::watch::Passing;
use super::world::{Event, NodeKey, World};
use crate::cm::{BindRequest, RejectReason};
use crate::error::VerbsError;
use crate::types::QpNum;

/// Names an id.
pub(in crate::sim) type IdKey = u64;

/// Times that a message is sent before its sender gives up.
const TRIES: u64 = 8;

/// A message between the connection managers of two machines.
#[derive(Debug)]
pub(in crate::sim) enum Message {
    Request {
        from: IdKey,
        qp: QpNum,
        dst: SocketAddr,
        src: SocketAddr,
        private_data: Vec<u8>,
    },
    Reply {
        to: IdKey,
        from: IdKey,
        qp: QpNum,
        private_data: Vec<u8>,
    },
    Ready {
        to: IdKey,
    },
    Reject {
        to: IdKey,
        reason: RejectReason,
        private_data: Vec<u8>,
    },
    Disconnect {
        to: IdKey,
    },
}

/// What an id waits for by the clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sim) enum CmTimer {
    Resolve,
    /// No answer to the connect request.
    Connect,
    /// No confirmation of the accept.
    Accept,
    /// The news that a message confirmed it.
    Confirm,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Bound,
    Listening,
    Resolving,
    Resolved,
    Connecting,
    Responded,
    Requested,
    Accepted,
    Connected,
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
            Self::Responded => "answered",
            Self::Requested => "requested",
            Self::Accepted => "accepted",
            Self::Connected => "connected",
            Self::Ended => "ended",
        }
    }
}

/// An id on the fabric.
#[derive(Debug)]
pub(in crate::sim) struct Id {
    node: NodeKey,
    channel: ChannelKey,
    phase: Phase,
    local: Option<SocketAddr>,
    peer_addr: Option<SocketAddr>,
    bind: Option<BindRequest>,
    pub(super) qp: Option<QpNum>,
    /// The peer's id, once known.
    peer: Option<IdKey>,
    peer_qp: Option<QpNum>,
    listener: Option<IdKey>,
    backlog: usize,
    /// Requests of this listener that nobody has answered.
    unanswered: usize,
    goodbye_said: bool,
}

fn wrong_phase(op: &'static str, phase: Phase) -> VerbsError {
    VerbsError::State {
        op,
        state: phase.name(),
    }
}

fn os(op: &'static str, errno: i32) -> VerbsError {
    VerbsError::os(op, std::io::Error::from_raw_os_error(errno))
}

fn check_data(data: &[u8], max: usize) -> Result<(), VerbsError> {
    if data.len() <= max {
        return Ok(());
    }
    Err(VerbsError::Argument {
        what: "private data",
        reason: format!("{} bytes, and {max} fit", data.len()),
    })
}

impl World {
    fn add_id(&mut self, node: NodeKey, channel: ChannelKey, phase: Phase) -> IdKey {
        let key = self.new_key();
        let id = Id {
            node,
            channel,
            phase,
            local: None,
            peer_addr: None,
            bind: None,
            qp: None,
            peer: None,
            peer_qp: None,
            listener: None,
            backlog: 0,
            unanswered: 0,
            goodbye_said: false,
        };
        self.ids.insert(key, id);
        key
    }

    fn id(&mut self, key: IdKey) -> &mut Id {
        self.ids
            .get_mut(&key)
            .expect("an id stays until its handle is dropped")
    }

    fn cm_delay(&self) -> u64 {
        self.timing.latency + self.timing.cm
    }

    fn send_cm(&mut self, message: Message) {
        let delay = self.cm_delay();
        self.after(delay, Event::Cm(message));
    }

    fn tell(&mut self, key: IdKey, news: News) {
        if let Some(id) = self.ids.get(&key) {
            let channel = id.channel;
            let now = self.now();
            self.trace.line(|| format!("{now:>13} cm {key} {news:?}"));
            self.tell_id(channel, key, news);
        }
    }

    fn bind(&mut self, key: IdKey, request: BindRequest) -> Result<(), VerbsError> {
        let id = self.id(key);
        if id.phase != Phase::Idle {
            return Err(wrong_phase("bind", id.phase));
        }
        let node = id.node;
        if !self.is_local(node, request.addr.ip()) {
            return Err(os("bind", libc::EADDRNOTAVAIL));
        }
        let mut addr = request.addr;
        if addr.port() == 0 {
            addr.set_port(self.new_port());
        } else if self.is_taken(&request) {
            return Err(os("bind", libc::EADDRINUSE));
        }
        self.ports.entry(addr).or_default().push(key);
        let id = self.id(key);
        id.local = Some(addr);
        id.bind = Some(request);
        id.phase = Phase::Bound;
        Ok(())
    }

    /// Whether others are bound there and do not share.
    fn is_taken(&self, request: &BindRequest) -> bool {
        let wanted = request.addr;
        let clashes = |addr: &SocketAddr| {
            let any = addr.ip().is_unspecified() || wanted.ip().is_unspecified();
            addr.port() == wanted.port() && (any || addr.ip() == wanted.ip())
        };
        let there = self.ports.iter().filter(|(addr, _)| clashes(addr));
        let mut holders = there.flat_map(|(_, keys)| keys);
        holders.any(|key| {
            let bind = self.ids.get(key).and_then(|id| id.bind);
            !(request.reuse_port && bind.is_some_and(|bind| bind.reuse_port))
        })
    }

    fn listen(&mut self, key: IdKey, backlog: u32) -> Result<(), VerbsError> {
        let id = self.id(key);
        // Again: another backlog.
        if !matches!(id.phase, Phase::Bound | Phase::Listening) {
            return Err(wrong_phase("listen", id.phase));
        }
        id.phase = Phase::Listening;
        id.backlog = usize::try_from(backlog).unwrap_or(usize::MAX);
        Ok(())
    }

    fn resolve(&mut self, key: IdKey, dst: SocketAddr, time: Duration) -> Result<(), VerbsError> {
        let id = self.id(key);
        if !matches!(id.phase, Phase::Idle | Phase::Bound) {
            return Err(wrong_phase("resolve", id.phase));
        }
        let node = id.node;
        id.phase = Phase::Resolving;
        id.peer_addr = Some(dst);
        let delay = self.timing.latency.min(nanos(time));
        if self.id(key).local.is_none() {
            let ip = match dst.ip() {
                ip if ip.is_loopback() => ip,
                _ => self.nodes[node].address,
            };
            let port = self.new_port();
            self.id(key).local = Some(SocketAddr::new(ip, port));
        }
        self.after(delay, Event::CmTimer(key, CmTimer::Resolve));
        Ok(())
    }

    fn connect(&mut self, key: IdKey, data: &[u8]) -> Result<(), VerbsError> {
        let id = self.id(key);
        let (node, phase) = (id.node, id.phase);
        let (Some(qp), Some(dst), Some(src)) = (id.qp, id.peer_addr, id.local) else {
            return Err(wrong_phase("connect", phase));
        };
        if phase != Phase::Resolved {
            return Err(wrong_phase("connect", phase));
        }
        check_data(data, self.nodes[node].options.limits.connect_data_max)?;
        self.show(node, None, Passing::PrivateData(data));
        self.id(key).phase = Phase::Connecting;
        let give_up = self.timing.cm_retry * TRIES;
        self.after(give_up, Event::CmTimer(key, CmTimer::Connect));
        if !self.dice.fires(Fault::CmTimeout) {
            self.send_cm(Message::Request {
                from: key,
                qp,
                dst,
                src,
                private_data: data.to_vec(),
            });
        }
        Ok(())
    }

    /// A listener's request was answered.
    fn is_answered(&mut self, key: IdKey) {
        let listener = self.id(key).listener.take();
        if let Some(listener) = listener.and_then(|key| self.ids.get_mut(&key)) {
            listener.unanswered -= 1;
        }
    }

    fn accept(&mut self, key: IdKey, data: &[u8]) -> Result<(), VerbsError> {
        let id = self.id(key);
        let (node, phase, peer, peer_qp) = (id.node, id.phase, id.peer, id.peer_qp);
        let (Phase::Requested, Some(own), Some(to)) = (phase, id.qp, peer) else {
            return Err(wrong_phase("accept", phase));
        };
        check_data(data, self.nodes[node].options.limits.accept_data_max)?;
        self.show(node, None, Passing::PrivateData(data));
        self.is_answered(key);
        self.id(key).phase = Phase::Accepted;
        if let Some(qp) = self.qps.get_mut(&own)
            && qp.state == QpState::Init
        {
            qp.peer = peer_qp;
            qp.state = QpState::ReadyToReceive;
        }
        if self.begin_opening(own) {
            // Nobody confirms anything.
            self.id(key).phase = Phase::Connected;
            self.after(self.timing.cm, Event::CmTimer(key, CmTimer::Confirm));
        }
        let give_up = self.timing.cm_retry * TRIES;
        self.after(give_up, Event::CmTimer(key, CmTimer::Accept));
        if !self.dice.fires(Fault::CmTimeout) {
            self.send_cm(Message::Reply {
                to,
                from: key,
                qp: own,
                private_data: data.to_vec(),
            });
        }
        Ok(())
    }

    fn establish(&mut self, key: IdKey) -> Result<(), VerbsError> {
        let id = self.id(key);
        let (Phase::Responded, Some(to)) = (id.phase, id.peer) else {
            return Err(wrong_phase("establish", id.phase));
        };
        id.phase = Phase::Connected;
        let qp = id.qp;
        self.ready_to_send(qp);
        // A lost one is sent again when the acceptor repeats its answer.
        let lost = self.dice.fires(Fault::CmLostRtu);
        let repeated = if lost { self.timing.cm_retry } else { 0 };
        let delay = self.cm_delay() + repeated;
        self.after(delay, Event::Cm(Message::Ready { to }));
        Ok(())
    }

    fn ready_to_send(&mut self, qp: Option<QpNum>) {
        if let Some(qp) = qp.and_then(|qp| self.qps.get_mut(&qp))
            && qp.state == QpState::ReadyToReceive
        {
            qp.state = QpState::ReadyToSend;
        }
    }

    fn reject(&mut self, key: IdKey, data: &[u8]) -> Result<(), VerbsError> {
        let id = self.id(key);
        let (node, phase, peer) = (id.node, id.phase, id.peer);
        let (Phase::Requested | Phase::Responded, Some(to)) = (phase, peer) else {
            return Err(wrong_phase("reject", phase));
        };
        check_data(data, self.nodes[node].options.limits.reject_data_max)?;
        self.is_answered(key);
        self.send_cm(Message::Reject {
            to,
            reason: RejectReason::Consumer,
            private_data: data.to_vec(),
        });
        self.end(key);
        Ok(())
    }

    /// Nothing more comes of an id, and its queue pair is in error.
    fn end(&mut self, key: IdKey) {
        let id = self.id(key);
        id.phase = Phase::Ended;
        if let Some(qp) = id.qp {
            self.fail_qp(qp);
        }
    }

    fn disconnect(&mut self, key: IdKey) {
        let id = self.id(key);
        match id.phase {
            Phase::Requested | Phase::Responded => {
                // The phase fits and there are no data: it is not refused.
                let _ = self.reject(key, &[]);
            }
            Phase::Accepted | Phase::Connected => {
                id.phase = Phase::Ended;
                let qp = id.qp;
                let live = qp.filter(|qp| {
                    let qp = self.qps.get(qp);
                    qp.is_some_and(|qp| qp.state == QpState::ReadyToSend)
                });
                match live {
                    Some(qp) => self.drain(qp),
                    None => {
                        if let Some(qp) = qp {
                            self.fail_qp(qp);
                        }
                        self.say_goodbye(key);
                    }
                }
            }
            Phase::Resolving | Phase::Connecting => self.end(key),
            Phase::Idle | Phase::Bound | Phase::Listening | Phase::Resolved | Phase::Ended => {}
        }
    }

    /// Tells the peer of the end, once.
    pub(in crate::sim) fn say_goodbye(&mut self, key: IdKey) {
        let Some(id) = self.ids.get_mut(&key) else {
            return;
        };
        if std::mem::replace(&mut id.goodbye_said, true) {
            return;
        }
        if let Some(to) = id.peer {
            self.send_cm(Message::Disconnect { to });
        }
        self.forget_if_dropped(key);
    }

    /// The program has let go of a queue pair.
    pub(in crate::sim) fn qp_gone(&mut self, key: IdKey) {
        if let Some(id) = self.ids.get_mut(&key) {
            id.qp = None;
        }
    }

    /// The program has let go of an id.
    pub(in crate::sim) fn drop_id(&mut self, key: IdKey) {
        let Some(id) = self.ids.get_mut(&key) else {
            return;
        };
        let (channel, local) = (id.channel, id.local);
        self.discard_news(channel, key);
        if let Some(addr) = local
            && let Some(keys) = self.ports.get_mut(&addr)
        {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.ports.remove(&addr);
            }
        }
        self.disconnect(key);
        // Events for it have nobody to go to.
        self.id(key).channel = 0;
        self.forget_if_dropped(key);
    }

    /// An id goes when its handle is gone and its last word is said.
    fn forget_if_dropped(&mut self, key: IdKey) {
        let Some(id) = self.ids.get(&key) else {
            return;
        };
        let draining = id.qp.and_then(|qp| self.qps.get(&qp));
        let draining = draining.is_some_and(|qp| qp.draining && qp.state != QpState::Error);
        if id.channel == 0 && !draining {
            self.ids.remove(&key);
        }
    }
}
