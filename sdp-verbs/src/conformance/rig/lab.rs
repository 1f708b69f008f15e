//! Both sides, and the loop that keeps them going.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::end::{End, EndCore};
use crate::cm::{BindRequest, CmEvent, CmEventKind, CmId, CmToken, EventChannel};
use crate::conformance::report::{Stop, Verdict};
use crate::conformance::{Poller, Sides};
use crate::cq::{CompChannel, CqToken};
use crate::provider::Provider;

/// How long anything may take. Generous: only a fault comes near it.
pub(in crate::conformance) const BOUND: Duration = Duration::from_secs(20);

/// One of the two sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::conformance) enum Side {
    Active,
    Passive,
}

/// How a connection is to be made.
#[derive(Clone, Copy, Debug)]
pub(in crate::conformance) struct Options {
    pub(in crate::conformance) send_wr_max: u32,
    pub(in crate::conformance) recv_wr_max: u32,
    pub(in crate::conformance) rnr_retry: u8,
    /// Receives that each end posts before it connects.
    pub(in crate::conformance) recvs: usize,
    /// Bytes of each of them.
    pub(in crate::conformance) recv_len: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_wr_max: 16,
            recv_wr_max: 16,
            rnr_retry: 7,
            recvs: 8,
            recv_len: 256,
        }
    }
}

/// One side's channels, and the events it has been told of.
#[derive(Debug)]
pub(in crate::conformance) struct Station {
    pub(in crate::conformance) provider: Arc<dyn Provider>,
    pub(in crate::conformance) events: Arc<dyn EventChannel>,
    pub(in crate::conformance) comp: Arc<dyn CompChannel>,
    seen: RefCell<VecDeque<CmEvent>>,
}

impl Station {
    fn new(provider: &Arc<dyn Provider>) -> Verdict<Self> {
        Ok(Self {
            provider: Arc::clone(provider),
            events: provider.create_event_channel()?,
            comp: provider.create_comp_channel()?,
            seen: RefCell::default(),
        })
    }

    fn drain(&self) -> bool {
        let mut progress = false;
        while let Some(event) = self.events.poll() {
            self.seen.borrow_mut().push_back(event);
            progress = true;
        }
        progress
    }

    fn take(&self, id: CmToken) -> Option<CmEventKind> {
        let mut seen = self.seen.borrow_mut();
        let place = seen.iter().position(|event| event.id == id)?;
        seen.remove(place).map(|event| event.kind)
    }

    pub(in crate::conformance) fn new_id(&self) -> Verdict<Arc<dyn CmId>> {
        Ok(self.provider.create_id(&self.events)?)
    }
}

/// Both sides. Every wait polls everything there is, as one thread that serves all would.
#[derive(Clone, Debug)]
pub(in crate::conformance) struct Lab(Rc<LabCore>);

#[derive(Debug)]
struct LabCore {
    active: Station,
    passive: Station,
    address: IpAddr,
    poller: Poller,
    ends: RefCell<Vec<Weak<EndCore>>>,
    next_token: Cell<u64>,
}

/// A connection: both of its ends, and the listener that stays open meanwhile.
#[derive(Debug)]
pub(in crate::conformance) struct Link {
    pub(in crate::conformance) active: End,
    pub(in crate::conformance) passive: End,
    pub(in crate::conformance) lab: Lab,
    _listener: Arc<dyn CmId>,
}

impl Lab {
    pub(in crate::conformance) fn new(
        sides: &Sides,
        address: IpAddr,
        poller: Poller,
    ) -> Verdict<Self> {
        Ok(Self(Rc::new(LabCore {
            active: Station::new(&sides.active)?,
            passive: Station::new(&sides.passive)?,
            address,
            poller,
            ends: RefCell::default(),
            next_token: Cell::new(1),
        })))
    }

    pub(in crate::conformance) fn station(&self, side: Side) -> &Station {
        match side {
            Side::Active => &self.0.active,
            Side::Passive => &self.0.passive,
        }
    }

    pub(super) fn poller(&self) -> Poller {
        self.0.poller
    }

    pub(super) fn next_token(&self) -> CqToken {
        let token = self.0.next_token.get();
        self.0.next_token.set(token + 1);
        CqToken(token)
    }

    pub(super) fn adopt(&self, end: &Rc<EndCore>) {
        self.0.ends.borrow_mut().push(Rc::downgrade(end));
    }

    /// Polls everything once. True if anything came of it.
    pub(in crate::conformance) fn turn(&self) -> bool {
        let mut progress = self.0.active.drain() | self.0.passive.drain();
        let ends: Vec<_> = self
            .0
            .ends
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for end in ends {
            progress |= end.poll();
        }
        progress
    }

    /// Polls everything a good number of times: what would happen next, has.
    pub(in crate::conformance) fn settle(&self) {
        let mut quiet = 0;
        while quiet < 100 {
            quiet = if self.turn() { 0 } else { quiet + 1 };
            std::thread::yield_now();
        }
    }

    /// Polls everything until `found` finds something.
    #[track_caller]
    pub(in crate::conformance) fn until<T>(
        &self,
        what: &str,
        mut found: impl FnMut() -> Option<T>,
    ) -> Verdict<T> {
        let deadline = Instant::now() + BOUND;
        let late = Stop::failed(format!("nothing within {BOUND:?}: {what}"));
        let mut quiet = 0;
        loop {
            if let Some(found) = found() {
                return Ok(found);
            }
            if self.turn() {
                quiet = 0;
                continue;
            }
            if Instant::now() > deadline {
                return Err(late);
            }
            quiet += 1;
            if quiet < 200 {
                std::thread::yield_now();
            } else {
                self.nap()?;
            }
        }
    }

    /// Sleeps until connection management has something, a millisecond at most.
    fn nap(&self) -> Verdict {
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.0.active.events.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.0.passive.events.fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, Some(&tick)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Stop::from(std::io::Error::from(error))),
        }
    }

    /// The next event of an id.
    #[track_caller]
    pub(in crate::conformance) fn event(&self, side: Side, id: &dyn CmId) -> Verdict<CmEventKind> {
        let token = id.token();
        let what = format!("event of {token:?}, {side:?} side");
        self.until(&what, || self.station(side).take(token))
    }

    /// The next event of an id, if one is there already.
    pub(in crate::conformance) fn event_now(
        &self,
        side: Side,
        id: &dyn CmId,
    ) -> Option<CmEventKind> {
        self.station(side).take(id.token())
    }

    /// An id of the passive side that listens, and its address.
    pub(in crate::conformance) fn listen(
        &self,
        backlog: u32,
    ) -> Verdict<(Arc<dyn CmId>, SocketAddr)> {
        self.listen_at(Side::Passive, SocketAddr::new(self.0.address, 0), backlog)
    }

    /// An id that listens, and its address.
    pub(in crate::conformance) fn listen_at(
        &self,
        side: Side,
        addr: SocketAddr,
        backlog: u32,
    ) -> Verdict<(Arc<dyn CmId>, SocketAddr)> {
        let id = self.station(side).new_id()?;
        id.bind(BindRequest {
            addr,
            only_v6: false,
            reuse_port: false,
        })?;
        id.listen(backlog)?;
        let Some(addr) = id.local_addr() else {
            return Err(Stop::failed("a listener has no local address"));
        };
        Ok((id, addr))
    }

    /// An id that has found its way to `addr`.
    pub(in crate::conformance) fn resolve(
        &self,
        side: Side,
        addr: SocketAddr,
    ) -> Verdict<Arc<dyn CmId>> {
        let id = self.station(side).new_id()?;
        id.resolve(addr, BOUND)?;
        match self.event(side, &*id)? {
            CmEventKind::Resolved => Ok(id),
            other => Err(Stop::failed(format!("resolving {addr} gave {other:?}"))),
        }
    }

    /// The next connect request of a listener.
    #[track_caller]
    pub(in crate::conformance) fn request(
        &self,
        side: Side,
        listener: &dyn CmId,
    ) -> Verdict<(Arc<dyn CmId>, Vec<u8>)> {
        match self.event(side, listener)? {
            CmEventKind::ConnectRequest { id, private_data } => Ok((id, private_data)),
            other => Err(Stop::failed(format!("a listener got {other:?}"))),
        }
    }

    /// A connection with a listener of its own.
    pub(in crate::conformance) fn link(&self, options: &Options) -> Verdict<Link> {
        let (listener, addr) = self.listen(8)?;
        let (active, passive) = self.connect(Side::Active, &*listener, addr, options)?;
        Ok(Link {
            active,
            passive,
            lab: self.clone(),
            _listener: listener,
        })
    }

    /// A connection from `from` to a listener of the other side.
    pub(in crate::conformance) fn connect(
        &self,
        from: Side,
        listener: &dyn CmId,
        addr: SocketAddr,
        options: &Options,
    ) -> Verdict<(End, End)> {
        let to = match from {
            Side::Active => Side::Passive,
            Side::Passive => Side::Active,
        };
        let id = self.resolve(from, addr)?;
        let caller = End::new(self, from, id, options)?;
        caller.id().connect(b"")?;
        let (id, _) = self.request(to, listener)?;
        let callee = End::new(self, to, id, options)?;
        callee.id().accept(b"")?;
        caller.establish()?;
        callee.established()?;
        Ok((caller, callee))
    }
}
