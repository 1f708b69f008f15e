//! Who listens: TCP from listen(2) on, and beside it SDP.
//!
//! ```text
//!   Later ──wait──→ Held ──accept──→ Both        and from Later at once, by an accept
//!     ↑              │
//!     └─────fork─────┘                           in the parent; the child has Later, too
//! ```
//!
//! Who waits may leave accepting to others: to a child that it makes then, or to a program that it
//! starts. A connection by SDP would be this process's alone, so while nobody accepts none is made:
//! what listens by SDP is held. It shows callers, and lets them wait in their connect, which ends
//! when somebody accepts here. If nobody does they go on to TCP, whose queue is everybody's that has
//! the listener. So nobody who is connected is ever left waiting for a process that does not accept.
//!
//! Who listens again where this process has accepted before is held from listen(2) on.
//!
//! A listener that several processes have is held for good in each, since one of them that is busy
//! must not keep callers whom the others could take.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use libc::c_int;
use sdp::posix::Failure;

use crate::entry::{Entry, Phase, borrowed, lock};
use crate::log::{Level, say};
use crate::report::{self, Reason};
use crate::sockets::kernels_name;
use crate::table;

/// Who listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listening {
    /// Nobody.
    No,
    /// TCP, and SDP as soon as this process waits for connections or accepts.
    Later(c_int),
    /// TCP; and SDP, which answers nobody before this process accepts.
    Held(c_int),
    /// TCP and SDP.
    Both,
    /// TCP; SDP was not to be had.
    Tcp,
    /// SDP.
    Sdp,
}

impl Listening {
    /// Whether both protocols have a queue to look at.
    pub(crate) fn is_both(self) -> bool {
        matches!(self, Self::Held(_) | Self::Both)
    }
}

/// What a socket knows of its listeners.
#[derive(Debug)]
pub(crate) struct Listeners {
    now: Mutex<Listening>,
    /// Other processes have it, too.
    shared: AtomicBool,
    /// It has been held once, or could not be.
    has_been_held: AtomicBool,
    /// Threads that wait for what SDP shows.
    waiting: AtomicUsize,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            now: Mutex::new(Listening::No),
            shared: AtomicBool::new(false),
            has_been_held: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// Numbers of listeners that callers may have to wait for, or have had to.
static HELD: Mutex<Vec<c_int>> = Mutex::new(Vec::new());

impl Listeners {
    /// What a forked child has of its parent's; `None` if the socket is not for it.
    pub(crate) fn inherit(&self, parents: &Self) -> Option<()> {
        let now = match *parents.now.try_lock().ok()? {
            // The parent has the address for SDP.
            Listening::Both | Listening::Held(_) => Listening::Tcp,
            Listening::Sdp => {
                say(Level::Error, || {
                    "a child does not accept from a listener by SDP alone: it is its parent's"
                        .into()
                });
                return None;
            }
            other => other,
        };
        *lock(&self.now) = now;
        self.shared.store(true, Ordering::Relaxed);
        Some(())
    }
}

/// A thread that waits for what SDP shows of a listener. Meanwhile the listener is not let go of.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Entry>);

impl Waiting {
    pub(crate) fn of(entry: &Arc<Entry>) -> Self {
        entry.listeners.waiting.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(entry))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.listeners.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Entry {
    pub(crate) fn listening(&self) -> Listening {
        *lock(&self.listeners.now)
    }

    /// It listens now.
    ///
    /// # Errors
    /// As [`set_connected`](Self::set_connected).
    pub(crate) fn set_listening(&self, fd: c_int, listening: Listening) -> Result<(), Failure> {
        *lock(&self.listeners.now) = listening;
        self.set_phase(Phase::Listening);
        self.retarget(fd)
    }

    /// Somebody is about to wait for connections, and may accept them then.
    pub(crate) fn await_callers(&self, fd: c_int) {
        if self.phase() != Phase::Listening {
            return;
        }
        let mut listening = lock(&self.listeners.now);
        let Listening::Later(backlog) = *listening else {
            return;
        };
        // Once: a process that has left accepting to a child does so again.
        if self.listeners.has_been_held.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(failure) = self.listen_beside(fd, backlog, true) {
            say(Level::Debug, || {
                format!("{fd}: only TCP listens yet: {}", failure.message)
            });
            return;
        }
        remember_held(fd);
        *listening = Listening::Held(backlog);
        drop(listening);
        if let Err(failure) = self.retarget(fd) {
            say(Level::Debug, || {
                format!("{fd}: only TCP listens yet: {}", failure.message)
            });
            self.let_go(fd);
        }
    }

    /// Nobody listens by SDP until this process accepts.
    fn let_go(&self, fd: c_int) {
        let mut listening = lock(&self.listeners.now);
        let Listening::Held(backlog) = *listening else {
            return;
        };
        *listening = Listening::Later(backlog);
        drop(listening);
        // The kernel's descriptor is registered already, so nothing is needed for it.
        let _ = self.retarget(fd);
        if let Ok(socket) = self.socket() {
            // It fails if it has been closed: then nobody listens.
            let _ = socket.unlisten();
        }
    }

    /// A child is about to be made, which may be the one that accepts.
    pub(crate) fn share(&self, fd: c_int) {
        if !matches!(self.phase(), Phase::New | Phase::Listening) {
            return;
        }
        match self.listening() {
            // A thread that waits would be told that the listener has ended.
            Listening::Held(_) if self.listeners.waiting.load(Ordering::Acquire) == 0 => {
                self.let_go(fd);
            }
            Listening::No | Listening::Later(_) => {}
            _ => return,
        }
        self.listeners.shared.store(true, Ordering::Relaxed);
    }

    /// Has SDP listen beside TCP for a process that accepts.
    pub(crate) fn listen_now(&self, fd: c_int) -> Listening {
        let mut listening = lock(&self.listeners.now);
        let backlog = match *listening {
            Listening::Later(backlog) | Listening::Held(backlog) => backlog,
            other => return other,
        };
        let is_shared = self.listeners.shared.load(Ordering::Relaxed);
        let begun = match *listening {
            Listening::Held(_) => self.begin_to_accept(!is_shared),
            _ => Ok(false),
        };
        let begun = match begun {
            Ok(false) => self.listen_anew(fd, backlog, is_shared),
            other => other.map(|_| ()),
        };
        let now = match begun {
            Ok(()) => Listening::Both,
            Err(failure) => {
                report::left_to_tcp(Reason::of(failure.errno));
                say(Level::Debug, || {
                    format!("{fd}: only TCP listens: {}", failure.message)
                });
                Listening::Tcp
            }
        };
        *listening = now;
        drop(listening);
        if now == Listening::Both {
            remember_place(kernels_name(fd, self.family));
        }
        // Whoever registers it meanwhile has asked who listens, under the lock of the registrations.
        match self.retarget(fd) {
            Ok(()) => now,
            Err(failure) => {
                self.stop_beside(fd, &failure);
                Listening::Tcp
            }
        }
    }

    fn begin_to_accept(&self, at_once: bool) -> Result<bool, Failure> {
        self.socket()?.begin_to_accept(at_once)
    }

    fn listen_anew(&self, fd: c_int, backlog: c_int, held: bool) -> Result<(), Failure> {
        self.socket()?.unlisten()?;
        self.listen_beside(fd, backlog, held)?;
        if held {
            remember_held(fd);
            self.begin_to_accept(false)?;
        }
        Ok(())
    }

    fn listen_beside(&self, fd: c_int, backlog: c_int, held: bool) -> Result<(), Failure> {
        let socket = self.socket()?;
        socket.adopt(borrowed(fd))?;
        socket.set_nonblocking(true)?;
        match held {
            true => socket.listen_and_answer_late(backlog),
            false => socket.listen(backlog),
        }
    }

    /// Only TCP goes on listening: of SDP nobody would be told.
    fn stop_beside(&self, fd: c_int, failure: &Failure) {
        *lock(&self.listeners.now) = Listening::Tcp;
        sdp::sdp_shutdown(self.handle(), libc::SHUT_RD);
        report::left_to_tcp(Reason::of(failure.errno));
        say(Level::Error, || {
            format!("{fd}: only TCP listens: {}", failure.message)
        });
    }

    /// Nobody listens any more, by either protocol; what comes is the kernel's.
    pub(crate) fn stop_listening(&self, fd: c_int) {
        if self.listening().is_both() {
            sdp::sdp_shutdown(self.handle(), libc::SHUT_RD);
        }
        self.set_phase(Phase::Kernels);
        table::remove(fd);
    }

    /// Whether an accept by SDP would find something.
    ///
    /// # Errors
    /// `EBADF` if it has been closed.
    pub(crate) fn has_pending_sdp(&self) -> Result<bool, Failure> {
        Ok(self.listening().is_both() && self.socket()?.has_pending()?)
    }

    /// Whether it has callers wait until this process accepts.
    fn is_held(&self) -> bool {
        match self.listening() {
            Listening::Held(_) => true,
            Listening::Both => self.listeners.shared.load(Ordering::Relaxed),
            _ => false,
        }
    }
}

fn remember_held(fd: c_int) {
    // In a forked child a thread that is not there may have the lock.
    if let Ok(mut held) = HELD.try_lock()
        && !held.contains(&fd)
    {
        held.push(fd);
    }
}

/// Addresses at which this process has accepted by SDP, the last ones.
static PLACES: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
const PLACES_MAX: usize = 64;

fn remember_place(addr: SocketAddr) {
    // In a forked child a thread that is not there may have the lock.
    let Ok(mut places) = PLACES.try_lock() else {
        return;
    };
    places.retain(|place| *place != addr);
    if places.len() == PLACES_MAX {
        places.remove(0);
    }
    places.push(addr);
}

/// Whether this process has accepted there itself, and so will again. Who listens anew at an address, as
/// iperf3 does for its streams, has told of it before: callers may come before it waits.
pub(crate) fn accepts_at(addr: SocketAddr) -> bool {
    let places = PLACES.try_lock();
    places.is_ok_and(|places| places.contains(&addr))
}

/// Whether this process itself is to answer who connects to an address of this machine, and answers only
/// when it accepts. A thread that connects to it before would wait for itself.
pub(crate) fn is_held_here(addr: SocketAddr) -> bool {
    let Ok(mut held) = HELD.try_lock() else {
        return false;
    };
    held.retain(|fd| table::get(*fd).is_some_and(|entry| entry.is_held()));
    let meets =
        |own: IpAddr| own.is_unspecified() || own.to_canonical() == addr.ip().to_canonical();
    held.iter().any(|fd| {
        let family = table::get(*fd).map(|entry| entry.family);
        let own = family.map(|family| kernels_name(*fd, family));
        own.is_some_and(|own| own.port() == addr.port() && meets(own.ip()))
    })
}
