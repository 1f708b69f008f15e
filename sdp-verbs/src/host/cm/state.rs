//! All connections of an instance, and what they share.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::dial::Dial;
use super::guest::Guest;
use super::link::Link;
use super::listener::Listener;
use super::timer::{Due, Timers};
use super::{Cm, Env};
use crate::cm::{BindRequest, CmEvent, CmEventKind, CmToken};
use crate::error::VerbsError;
use crate::host::event_channel::Inbox;
use crate::host::names::Name;
use crate::host::ports::EphemeralPorts;
use crate::host::qp::{HostQp, QpDescriptor};

/// What a descriptor in the instance's epoll belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// The instance's own bell.
    Bell,
    /// A listener's id.
    Listener(u64),
    /// A stranger.
    Guest(u64),
    /// A listener being called.
    Dial(SocketAddr),
    /// A link's control socket.
    Link(u64),
    /// A link's peer process.
    Process(u64),
}

/// All connections of an instance.
#[derive(Debug)]
pub(super) struct State {
    /// The last number given out. Ids, links, guests and epoll registrations share one series and
    /// no number comes twice, so that whatever arrives late is recognised.
    last: u64,
    pub(super) ids: HashMap<u64, Id>,
    pub(super) links: HashMap<u64, Link>,
    /// The link to use for a peer. A tag is what a peer says of itself, so only the process that
    /// said it first is found by it.
    pub(super) by_peer: HashMap<PeerName, u64>,
    /// Listeners already reached, by destination.
    pub(super) routes: HashMap<SocketAddr, Route>,
    pub(super) listeners: HashMap<Name, u64>,
    pub(super) dials: HashMap<SocketAddr, Dial>,
    pub(super) guests: HashMap<u64, Guest>,
    pub(super) timers: Timers,
    pub(super) ports: EphemeralPorts,
    sources: HashMap<u64, Source>,
    trash: Vec<CmEvent>,
}

/// What a peer is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct PeerName {
    /// Its process image, by its own word.
    pub(super) tag: u128,
    /// Its process id, by the kernel's; 0 in another pid namespace.
    pub(super) pid: i32,
}

/// The way to a listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) link: u64,
    pub(super) name: Name,
    /// Address connections come from; port 0.
    pub(super) source: SocketAddr,
}

/// One id.
#[derive(Debug)]
pub(super) struct Id {
    pub(super) inbox: Weak<Inbox>,
    pub(super) phase: Phase,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) bound: Option<Bound>,
    /// The link, while it has a use for one.
    pub(super) link: Option<u64>,
    pub(super) qp: Option<Weak<HostQp>>,
    /// The connection's id at the peer; 0 while unknown.
    pub(super) remote: u64,
    /// How long the peer may take to answer.
    pub(super) timeout: Duration,
    /// The port we counted for it, and towards whom.
    pub(super) ephemeral: Option<(u16, SocketAddr)>,
}

/// A bound address.
#[derive(Debug)]
pub(super) struct Bound {
    /// Holds the port, unless a socket of the program's does. Kept for its life.
    pub(super) _port: Option<OwnedFd>,
    pub(super) addr: SocketAddr,
    pub(super) request: BindRequest,
}

/// Where an id stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// New, or bound.
    New,
    /// Listens.
    Listening(Listener),
    /// Active: looks for the listener.
    Resolving {
        /// Whom.
        dst: SocketAddr,
    },
    /// Active: has a link.
    Resolved {
        /// The listener's name.
        name: Name,
    },
    /// Active: the request is out.
    Connecting {
        /// The listener's name.
        name: Name,
    },
    /// Active: the peer accepted.
    Responded,
    /// Passive: asked for, by whom.
    Requested {
        /// The listener.
        listener: u64,
        /// The connector's queue pair.
        qp: QpDescriptor,
    },
    /// Passive: the response is out.
    Accepted,
    /// Both ends know.
    Connected,
    /// We ended it; the peer has not said that it knows.
    Disconnecting,
    /// Over.
    Ended,
}

impl Id {
    /// A new one, whose events go to `inbox`.
    pub(super) fn new(inbox: &Arc<Inbox>) -> Self {
        Self {
            inbox: Arc::downgrade(inbox),
            phase: Phase::New,
            local: None,
            peer: None,
            bound: None,
            link: None,
            qp: None,
            remote: 0,
            timeout: Duration::MAX,
            ephemeral: None,
        }
    }
}

impl Phase {
    /// For errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Listening(_) => "listening",
            Self::Resolving { .. } => "resolving",
            Self::Resolved { .. } => "resolved",
            Self::Connecting { .. } => "connecting",
            Self::Responded => "response received",
            Self::Requested { .. } => "requested",
            Self::Accepted => "accepted",
            Self::Connected => "connected",
            Self::Disconnecting => "disconnecting",
            Self::Ended => "ended",
        }
    }
}

impl State {
    /// Empty; `tag` is the instance's own.
    pub(super) fn new(tag: u128) -> Self {
        Self {
            last: 0,
            ids: HashMap::new(),
            links: HashMap::new(),
            by_peer: HashMap::new(),
            routes: HashMap::new(),
            listeners: HashMap::new(),
            dials: HashMap::new(),
            guests: HashMap::new(),
            timers: Timers::default(),
            ports: EphemeralPorts::new(u64::try_from(tag >> 64).unwrap_or_default()),
            sources: HashMap::new(),
            trash: Vec::new(),
        }
    }

    /// A number never given out before.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A number for an epoll registration.
    pub(super) fn watch(&mut self, source: Source) -> u64 {
        let token = self.number();
        self.sources.insert(token, source);
        token
    }

    /// Ends an epoll registration: what is still reported under its number is ignored.
    pub(super) fn unwatch(&mut self, token: u64) {
        self.sources.remove(&token);
    }

    /// Gives an epoll registration to another owner.
    pub(super) fn rewatch(&mut self, token: u64, source: Source) {
        self.sources.insert(token, source);
    }

    /// What an epoll registration belongs to.
    pub(super) fn source(&self, token: u64) -> Option<Source> {
        self.sources.get(&token).copied()
    }

    /// A new id whose events go to `inbox`.
    pub(super) fn new_id(&mut self, inbox: &Arc<Inbox>) -> CmToken {
        let token = self.number();
        self.ids.insert(token, Id::new(inbox));
        CmToken(token)
    }

    /// The id, which exists as long as its [`HostCmId`](super::id::HostCmId).
    ///
    /// # Errors
    /// [`VerbsError::State`], never in practice.
    pub(super) fn id(&mut self, op: &'static str, token: u64) -> Result<&mut Id, VerbsError> {
        self.ids.get_mut(&token).ok_or(VerbsError::State {
            op,
            state: "destroyed",
        })
    }

    /// Reports an event of an id.
    pub(super) fn emit(&mut self, token: u64, kind: CmEventKind) {
        let inbox = self.ids.get(&token).and_then(|id| id.inbox.upgrade());
        let event = CmEvent {
            id: CmToken(token),
            kind,
        };
        let unread = match inbox {
            Some(inbox) => inbox.push(event).err(),
            None => Some(event),
        };
        self.trash.extend(unread);
    }

    /// Events nobody will read, to be dropped outside the lock: dropping ids takes it.
    pub(super) fn take_trash(&mut self) -> Vec<CmEvent> {
        std::mem::take(&mut self.trash)
    }

    /// A timer has run out.
    pub(super) fn on_due(&mut self, env: &Env, due: Due) {
        match due {
            Due::Id(token) => self.on_id_due(env, token),
            Due::Guest(guest) => self.dismiss(env, guest, "it did not shake hands in time"),
            Due::Dial(dst) => self.dial(env, dst),
            Due::Link(link) => self.on_link_idle(link),
            Due::Outbox(link) => self.on_link_writable(link),
            Due::Listener(id) => self.reopen(env, id),
        }
    }

    fn on_id_due(&mut self, env: &Env, token: u64) {
        let Some(id) = self.ids.get(&token) else {
            return;
        };
        match id.phase {
            Phase::Resolving { dst } => {
                self.leave_dial(env, token, dst);
                self.fail(token, timed_out());
            }
            Phase::Connecting { .. } => {
                self.end_connection(token);
                self.fail(token, timed_out());
            }
            Phase::Accepted => {
                self.end_connection(token);
                self.finish(token, CmEventKind::Disconnected);
            }
            _ => {}
        }
    }

    /// An id is of no further use, and its owner is told why.
    pub(super) fn fail(&mut self, token: u64, error: VerbsError) {
        self.finish(token, CmEventKind::Failed(error));
    }

    /// An id's connection is over, and its owner is told.
    pub(super) fn finish(&mut self, token: u64, kind: CmEventKind) {
        self.release(token);
        self.emit(token, kind);
    }

    /// An id's connection is over: it gives back what it used. A listener has none.
    pub(super) fn release(&mut self, token: u64) {
        self.timers.clear(Due::Id(token));
        let Some(id) = self.ids.get_mut(&token) else {
            return;
        };
        if matches!(id.phase, Phase::Listening(_)) {
            return;
        }
        let phase = std::mem::replace(&mut id.phase, Phase::Ended);
        let remote = id.remote;
        let link = id.link.take();
        if let Some((port, dst)) = id.ephemeral.take() {
            self.ports.release(port, dst);
        }
        if let Phase::Requested { listener, .. } = phase {
            self.answered(listener, token);
        }
        if let Some(link) = link {
            self.leave_link(link, token, remote);
        }
    }

    /// Starts an id's timer; none for a time-out beyond the clock.
    pub(super) fn wait_at_most(&mut self, token: u64, timeout: Duration) {
        match Instant::now().checked_add(timeout) {
            Some(at) => self.timers.set(Due::Id(token), at),
            None => self.timers.clear(Due::Id(token)),
        }
    }

    /// The ids on a link.
    pub(super) fn ids_on(&self, link: u64) -> HashSet<u64> {
        self.links
            .get(&link)
            .map(|link| link.ids.clone())
            .unwrap_or_default()
    }

    /// An id's handle for an event. `None` while the instance is being dropped.
    pub(super) fn handle(env: &Env) -> Option<Arc<Cm>> {
        env.this.upgrade()
    }
}

fn timed_out() -> VerbsError {
    VerbsError::os(
        "host connect: the listener did not answer in time; its process may be stopped",
        rustix::io::Errno::TIMEDOUT,
    )
}
