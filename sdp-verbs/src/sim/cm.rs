//! Connection management.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::fabric::Fabric;
use super::faults::Fault;
use super::options::{nanos, wide};
use super::qp::{SimQp, State as QpState};
use super::world::{ChannelKey, Event, NodeKey, World};
use crate::cm::{BindRequest, CmId, CmToken, RejectReason};
use crate::error::VerbsError;
use crate::qp::{QpAttr, QueuePair};
use crate::types::QpNum;

/// Names an id.
pub(super) type IdKey = u64;

/// Times that a message is sent before its sender gives up.
const TRIES: u64 = 8;

/// What an id has to tell.
#[derive(Debug)]
pub(super) enum News {
    Resolved,
    Failed(VerbsError),
    Request {
        child: IdKey,
        private_data: Vec<u8>,
    },
    Response {
        private_data: Vec<u8>,
    },
    Rejected {
        reason: RejectReason,
        private_data: Vec<u8>,
    },
    Established,
    Disconnected,
}

/// A message between the connection managers of two machines.
#[derive(Debug)]
pub(super) enum Message {
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
pub(super) enum CmTimer {
    Resolve,
    /// No answer to the connect request.
    Connect,
    /// No confirmation of the accept.
    Accept,
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
pub(super) struct Id {
    node: NodeKey,
    channel: ChannelKey,
    phase: Phase,
    local: Option<SocketAddr>,
    peer_addr: Option<SocketAddr>,
    bind: Option<BindRequest>,
    qp: Option<QpNum>,
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

    fn resolved(&mut self, key: IdKey) {
        let id = self.id(key);
        let ip = id.peer_addr.map(|addr| addr.ip());
        let known = |ip: IpAddr| ip.is_loopback() || self.nodes.iter().any(|n| n.address == ip);
        if ip.is_some_and(known) {
            self.id(key).phase = Phase::Resolved;
            self.tell(key, News::Resolved);
        } else {
            self.id(key).phase = Phase::Ended;
            let error = os("resolving the address", libc::EHOSTUNREACH);
            self.tell(key, News::Failed(error));
        }
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

    /// A listener for an address: the exact name before the wildcard.
    fn listener_at(&self, dst: SocketAddr) -> Option<IdKey> {
        let wild_v4 = SocketAddr::new(IpAddr::from([0; 4]), dst.port());
        let wild_v6 = SocketAddr::new(IpAddr::from([0u16; 8]), dst.port());
        let names = match dst {
            SocketAddr::V4(_) => [dst, wild_v4, wild_v6],
            SocketAddr::V6(_) => [dst, wild_v6, wild_v6],
        };
        let fits = |name: &SocketAddr, id: &Id| {
            let v6_for_v4 = name.is_ipv6() && dst.is_ipv4();
            let only_v6 = id.bind.is_some_and(|bind| bind.only_v6);
            id.phase == Phase::Listening && !(v6_for_v4 && only_v6)
        };
        names.iter().find_map(|name| {
            let keys = self.ports.get(name)?;
            let mut keys = keys.iter().filter(|key| {
                let id = self.ids.get(key);
                id.is_some_and(|id| fits(name, id))
            });
            keys.next().copied()
        })
    }

    fn request_arrives(
        &mut self,
        from: (IdKey, QpNum, SocketAddr),
        dst: SocketAddr,
        private_data: Vec<u8>,
    ) {
        let (caller, caller_qp, src) = from;
        let reject = |world: &mut Self, reason| {
            world.send_cm(Message::Reject {
                to: caller,
                reason,
                private_data: Vec::new(),
            });
        };
        let Some(listener) = self.listener_at(dst) else {
            return reject(self, RejectReason::NoListener);
        };
        if self.dice.fires(Fault::CmReject) {
            return reject(self, RejectReason::Consumer);
        }
        let id = self.id(listener);
        if id.unanswered >= id.backlog {
            return reject(self, RejectReason::Backlog);
        }
        id.unanswered += 1;
        let (node, channel) = (id.node, id.channel);
        let child = self.add_id(node, channel, Phase::Requested);
        let new = self.id(child);
        new.local = Some(dst);
        new.peer_addr = Some(src);
        new.peer = Some(caller);
        new.peer_qp = Some(caller_qp);
        new.listener = Some(listener);
        self.tell(
            listener,
            News::Request {
                child,
                private_data,
            },
        );
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
        self.is_answered(key);
        self.id(key).phase = Phase::Accepted;
        if let Some(qp) = self.qps.get_mut(&own)
            && qp.state == QpState::Init
        {
            qp.peer = peer_qp;
            qp.state = QpState::ReadyToReceive;
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

    fn reply_arrives(&mut self, to: IdKey, from: (IdKey, QpNum), private_data: Vec<u8>) {
        let (peer, peer_qp) = from;
        let id = self.ids.get_mut(&to);
        let Some(id) = id.filter(|id| id.phase == Phase::Connecting) else {
            // Nobody waits for it any more.
            self.send_cm(Message::Reject {
                to: peer,
                reason: RejectReason::Consumer,
                private_data: Vec::new(),
            });
            return;
        };
        id.phase = Phase::Responded;
        id.peer = Some(peer);
        id.peer_qp = Some(peer_qp);
        if let Some(qp) = id.qp.and_then(|qp| self.qps.get_mut(&qp))
            && qp.state == QpState::Init
        {
            qp.peer = Some(peer_qp);
            qp.state = QpState::ReadyToReceive;
        }
        self.tell(to, News::Response { private_data });
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

    /// The connector's confirmation, or its first message, has come.
    pub(super) fn cm_message_came(&mut self, key: IdKey) {
        let id = self.ids.get_mut(&key);
        let Some(id) = id.filter(|id| id.phase == Phase::Accepted) else {
            return;
        };
        id.phase = Phase::Connected;
        let qp = id.qp;
        self.ready_to_send(qp);
        self.tell(key, News::Established);
        if self.dice.fires(Fault::CmDuplicate) {
            self.tell(key, News::Established);
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
    pub(super) fn say_goodbye(&mut self, key: IdKey) {
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
    pub(super) fn qp_gone(&mut self, key: IdKey) {
        if let Some(id) = self.ids.get_mut(&key) {
            id.qp = None;
        }
    }

    /// The program has let go of an id.
    pub(super) fn drop_id(&mut self, key: IdKey) {
        let Some(id) = self.ids.get_mut(&key) else {
            return;
        };
        let (channel, local) = (id.channel, id.local);
        for news in self.take_news(channel, key) {
            if let News::Request { child, .. } = news {
                self.drop_id(child);
            }
        }
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

    /// A message of connection management arrives.
    pub(super) fn cm_arrives(&mut self, message: Message) {
        match message {
            Message::Request {
                from,
                qp,
                dst,
                src,
                private_data,
            } => self.request_arrives((from, qp, src), dst, private_data),
            Message::Reply {
                to,
                from,
                qp,
                private_data,
            } => self.reply_arrives(to, (from, qp), private_data),
            Message::Ready { to } => self.cm_message_came(to),
            Message::Reject {
                to,
                reason,
                private_data,
            } => self.reject_arrives(to, reason, private_data),
            Message::Disconnect { to } => self.disconnect_arrives(to),
        }
    }

    fn reject_arrives(&mut self, to: IdKey, reason: RejectReason, private_data: Vec<u8>) {
        let Some(phase) = self.ids.get(&to).map(|id| id.phase) else {
            return;
        };
        let news = match phase {
            Phase::Connecting => News::Rejected {
                reason,
                private_data,
            },
            Phase::Accepted | Phase::Connected => News::Disconnected,
            _ => return,
        };
        self.end(to);
        self.tell(to, news);
    }

    fn disconnect_arrives(&mut self, to: IdKey) {
        let Some(id) = self.ids.get_mut(&to) else {
            return;
        };
        let told = matches!(
            id.phase,
            Phase::Responded | Phase::Accepted | Phase::Connected
        );
        // The peer knows of the end.
        id.goodbye_said = true;
        self.end(to);
        if told {
            self.tell(to, News::Disconnected);
            if self.dice.fires(Fault::CmDuplicate) {
                self.tell(to, News::Disconnected);
            }
        }
        self.forget_if_dropped(to);
    }

    /// A timer of connection management.
    pub(super) fn cm_timer(&mut self, key: IdKey, timer: CmTimer) {
        let Some(phase) = self.ids.get(&key).map(|id| id.phase) else {
            return;
        };
        match (timer, phase) {
            (CmTimer::Resolve, Phase::Resolving) => self.resolved(key),
            (CmTimer::Connect, Phase::Connecting) => {
                self.end(key);
                let error = os("connecting", libc::ETIMEDOUT);
                self.tell(key, News::Failed(error));
            }
            (CmTimer::Accept, Phase::Accepted) => {
                self.end(key);
                self.say_goodbye(key);
                self.tell(key, News::Disconnected);
            }
            _ => {}
        }
    }
}

/// See [`CmId`].
#[derive(Debug)]
pub(super) struct SimId {
    fabric: Arc<Fabric>,
    node: NodeKey,
    key: IdKey,
}

impl SimId {
    /// A handle for an id that is there already.
    pub(super) fn new(fabric: &Arc<Fabric>, node: NodeKey, key: IdKey) -> Self {
        Self {
            fabric: Arc::clone(fabric),
            node,
            key,
        }
    }

    pub(super) fn create(fabric: &Arc<Fabric>, node: NodeKey, channel: ChannelKey) -> Self {
        let key = fabric.with(|world| world.add_id(node, channel, Phase::Idle));
        Self::new(fabric, node, key)
    }
}

impl Drop for SimId {
    fn drop(&mut self) {
        self.fabric.with(|world| world.drop_id(self.key));
    }
}

impl CmId for SimId {
    fn token(&self) -> CmToken {
        CmToken(self.key)
    }

    fn bind(&self, request: BindRequest) -> Result<(), VerbsError> {
        self.fabric.with(|world| world.bind(self.key, request))
    }

    fn listen(&self, backlog: u32) -> Result<(), VerbsError> {
        self.fabric.with(|world| world.listen(self.key, backlog))
    }

    fn resolve(&self, dst: SocketAddr, timeout: Duration) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.resolve(self.key, dst, timeout))
    }

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let cq = super::cq::SimCq::from_dyn(&attr.cq);
        let cq = cq.filter(|cq| cq.is_on(&self.fabric, self.node));
        let cq = cq.ok_or_else(|| VerbsError::Argument {
            what: "completion queue",
            reason: "it is not of this provider instance".to_owned(),
        })?;
        let (num, options) = self.fabric.with(|world| {
            let id = world.id(self.key);
            let fits = matches!(id.phase, Phase::Resolved | Phase::Requested);
            if !fits || id.qp.is_some() {
                return Err(wrong_phase("create_qp", id.phase));
            }
            let num = world.create_qp(self.key, self.node, cq.key, attr)?;
            world.id(self.key).qp = Some(num);
            Ok((num, world.nodes[self.node].options))
        })?;
        Ok(Arc::new(SimQp::new(
            &self.fabric,
            self.node,
            num,
            options,
            cq,
        )))
    }

    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.connect(self.key, private_data))
    }

    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.accept(self.key, private_data))
    }

    fn establish(&self) -> Result<(), VerbsError> {
        self.fabric.with(|world| world.establish(self.key))
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.reject(self.key, private_data))
    }

    fn disconnect(&self) {
        self.fabric.with(|world| {
            let now = world.now();
            world.trace.note(now, "disconnect", self.key, [wide(0), 0]);
            world.disconnect(self.key);
        });
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.fabric.with(|world| world.id(self.key).local)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.fabric.with(|world| world.id(self.key).peer_addr)
    }
}
