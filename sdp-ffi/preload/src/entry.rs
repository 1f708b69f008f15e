//! A socket of the program's: the kernel's descriptor, which it always keeps, and beside it the
//! socket that speaks SDP.
//!
//! ```text
//!   New ──connect──→ (Connecting ──→) Connected     by SDP
//!    │ └──listen───→ Listening                        by both, or by SDP only
//!    └─────────────→ Kernels                          TCP has it; taken out of the table
//!
//!   Connected ──fork──→ Relayed                      in the child
//! ```

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use libc::c_int;
use sdp::SdpStats;
use sdp::posix::{Failure, Family, Socket, register};
use sdp_socket::Readiness;

use crate::epoll::Watches;
use crate::listening::{Listeners, Listening};
use crate::log::{Level, say};
use crate::report::{self, Reason};
use crate::shared::{Asks, Waits, go_first};

/// Where a socket is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The kernel's descriptor answers every call, until it is connected or listens.
    New,
    Listening,
    /// By SDP only, on a socket that does not wait.
    Connecting,
    Connected,
    /// TCP has it.
    Kernels,
    /// A connection of the parent's, which a Unix socket at this number leads to (`fork`).
    Relayed,
}

/// What to wait on in place of a descriptor.
#[derive(Debug)]
pub(crate) enum Target {
    /// The descriptor itself.
    Kernels,
    /// What tells of SDP.
    Sdp(Readiness),
    /// Both.
    Both(Readiness),
}

/// The addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// One socket, which several numbers may name.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The number by which libsdp knows it.
    handle: c_int,
    /// Libsdp holds it.
    socket: Weak<Socket>,
    pub(crate) family: Family,
    /// Asked for as SDP's own address family: it never falls back.
    pub(crate) by_name: bool,
    phase: AtomicU8,
    /// O_NONBLOCK, as the program sees it.
    nonblocking: AtomicBool,
    pub(crate) listeners: Listeners,
    /// Held while the kernel's flag O_NONBLOCK is changed.
    pub(crate) flagging: Mutex<()>,
    pub(crate) watches: Watches,
    numbers: AtomicUsize,
    /// Which queue an accept looks at first.
    pub(crate) kernel_first: AtomicBool,
    counted: AtomicBool,
    /// Set when a child is to have it.
    names: OnceLock<Names>,
    /// The child of the fork under way has it.
    offered: AtomicBool,
    /// Of the child of the fork under way; in a child, its own.
    asks: Mutex<Asks>,
    /// Children may have written to it.
    shared: AtomicBool,
    /// Only children have it any more.
    left: AtomicBool,
    /// Held by the call that connects.
    pub(crate) connecting: Mutex<()>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole, so none is left halfway by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// A new socket.
    ///
    /// # Errors
    /// `EMFILE` with 2^20 open.
    pub(crate) fn new(
        socket: Socket,
        family: Family,
        by_name: bool,
        nonblocking: bool,
    ) -> Result<Self, Failure> {
        let socket = Arc::new(socket);
        Ok(Self {
            socket: Arc::downgrade(&socket),
            handle: register(socket)?,
            family,
            by_name,
            phase: AtomicU8::new(Phase::New as u8),
            nonblocking: AtomicBool::new(nonblocking),
            listeners: Listeners::default(),
            flagging: Mutex::default(),
            watches: Watches::default(),
            numbers: AtomicUsize::new(0),
            kernel_first: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            names: OnceLock::new(),
            offered: AtomicBool::new(false),
            asks: Mutex::default(),
            shared: AtomicBool::new(false),
            left: AtomicBool::new(false),
            connecting: Mutex::default(),
        })
    }

    /// A connection that was accepted.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn accepted(
        socket: Socket,
        family: Family,
        nonblocking: bool,
    ) -> Result<Self, Failure> {
        let entry = Self::new(socket, family, false, nonblocking)?;
        entry.set_phase(Phase::Connected);
        Ok(entry)
    }

    /// The socket.
    ///
    /// # Errors
    /// `EBADF` if it has been closed.
    pub(crate) fn socket(&self) -> Result<Arc<Socket>, Failure> {
        let closed = || Failure::new(libc::EBADF, "the socket was closed during the call");
        self.socket.upgrade().ok_or_else(closed)
    }

    /// The number by which libsdp knows it.
    pub(crate) fn handle(&self) -> c_int {
        self.handle
    }

    /// What a forked child has of a socket of its parent's: a new one of the same kind, or the way to
    /// a connection. What else speaks SDP stays with the parent.
    pub(crate) fn inherited(&self) -> Option<Arc<Self>> {
        let phase = match self.phase() {
            Phase::Connected if self.offered.load(Ordering::Relaxed) => Phase::Relayed,
            other => other,
        };
        if !matches!(phase, Phase::New | Phase::Listening | Phase::Relayed) {
            return None;
        }
        let nonblocking = self.is_nonblocking();
        let parents = self.socket.upgrade()?;
        let socket = parents.like();
        // The parent's memory is not for this process to free.
        std::mem::forget(parents);
        let entry = Self::new(socket?, self.family, self.by_name, nonblocking).ok()?;
        entry.socket().ok()?.set_nonblocking(nonblocking).ok()?;
        entry.listeners.inherit(&self.listeners)?;
        if let Some(names) = self.names.get() {
            // It is new, so it has none.
            let _ = entry.names.set(*names);
        }
        if phase == Phase::Relayed {
            // One that a thread of the parent's had locked has just been used.
            let asks = self.asks.try_lock();
            entry.set_asks(asks.map_or_else(|_| Asks::default(), |asks| *asks));
        }
        entry.set_phase(phase);
        entry.watches.inherit(&self.watches);
        entry.add_number();
        Some(Arc::new(entry))
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::New,
            1 => Phase::Listening,
            2 => Phase::Connecting,
            3 => Phase::Connected,
            5 => Phase::Relayed,
            _ => Phase::Kernels,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(crate) fn is_kernels(&self) -> bool {
        self.phase() == Phase::Kernels
    }

    /// Connected by SDP, or connecting, which has its own to say to every call.
    pub(crate) fn is_sdps(&self) -> bool {
        matches!(self.phase(), Phase::Connected | Phase::Connecting)
    }

    /// The child of the fork under way is to have it.
    ///
    /// # Errors
    /// `EBADF` if it has been closed.
    pub(crate) fn offer(&self) -> Result<(), Failure> {
        if self.names.get().is_none() {
            let socket = self.socket()?;
            let (local, peer) = (socket.local_addr()?, socket.peer_addr()?);
            // Whoever was faster has found the same.
            let _ = self.names.set(Names { local, peer });
        }
        self.set_offered(true);
        Ok(())
    }

    pub(crate) fn set_offered(&self, on: bool) {
        self.offered.store(on, Ordering::Relaxed);
    }

    pub(crate) fn set_asks(&self, asks: Asks) {
        *lock(&self.asks) = asks;
    }

    /// The program is about to read, or waits for something to read. A child has its parent told, once.
    pub(crate) fn ask(&self) {
        if self.phase() == Phase::Relayed {
            lock(&self.asks).ask();
        }
    }

    pub(crate) fn set_shared(&self, on: bool) {
        self.shared.store(on, Ordering::Release);
    }

    /// The program is about to send. What its children have written before is sent first. For that alone a call
    /// that `waits` waits as long as SO_SNDTIMEO says.
    ///
    /// # Errors
    /// `EAGAIN` if that cannot be, and the call does not wait, or no longer; `EINTR`.
    pub(crate) fn let_children_go_first(&self, waits: bool) -> Result<(), Failure> {
        if self.shared.load(Ordering::Acquire) && self.is_sdps() {
            let waits = match waits {
                true => Waits::as_set(self)?,
                false => Waits::Not,
            };
            go_first(self, waits)?;
        }
        Ok(())
    }

    pub(crate) fn set_left(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Only children have it any more, of whom one has used it before.
    pub(crate) fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// The addresses of a connection that is the parent's; `None` for every other socket.
    pub(crate) fn relayed(&self) -> Option<Names> {
        if self.phase() != Phase::Relayed {
            return None;
        }
        self.names.get().copied()
    }

    /// A connect goes on, and nobody waits in it.
    ///
    /// # Errors
    /// As [`set_connected`](Self::set_connected).
    pub(crate) fn set_connecting(&self, fd: c_int) -> Result<(), Failure> {
        self.set_phase(Phase::Connecting);
        self.retarget(fd)
    }

    /// Sees whether a connect that went on has ended.
    pub(crate) fn settle(&self) {
        if self.phase() != Phase::Connecting {
            return;
        }
        let Ok(socket) = self.socket() else { return };
        if !socket.is_connected() {
            return;
        }
        let _one_at_a_time = lock(&self.connecting);
        if self.phase() == Phase::Connecting {
            // What tells of the end of a connect tells of the connection.
            self.set_phase(Phase::Connected);
            report::connected();
        }
    }

    /// A socket whose connect has failed goes on saying so to every call, as TCP's does; but it may
    /// connect or listen anew.
    pub(crate) fn renew(&self) {
        // One that connects just now has not failed.
        let Ok(_one_at_a_time) = self.connecting.try_lock() else {
            return;
        };
        let Ok(socket) = self.socket() else { return };
        let is_spent = !socket.is_connecting() && !socket.is_connected();
        if self.phase() == Phase::Connecting && is_spent {
            self.set_phase(Phase::New);
        }
    }

    pub(crate) fn retarget(&self, fd: c_int) -> Result<(), Failure> {
        if self.watches.is_empty() {
            return Ok(());
        }
        let target = self.target(fd, self.watches.any_for_edges())?;
        self.watches.retarget(&target)
    }

    /// O_NONBLOCK.
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    /// O_NONBLOCK; `kernels` sets it for the kernel's descriptor.
    pub(crate) fn set_nonblocking<R>(
        &self,
        on: bool,
        kernels: impl FnOnce() -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let _one_at_a_time = lock(&self.flagging);
        let done = kernels()?;
        self.nonblocking.store(on, Ordering::Relaxed);
        if !self.listening().is_both() {
            self.socket()?.set_nonblocking(on)?;
        }
        Ok(done)
    }

    /// It is connected by SDP now.
    ///
    /// # Errors
    /// `EMFILE` and the like if an epoll set has it, and what tells of SDP could not be put there:
    /// nobody would be woken.
    pub(crate) fn set_connected(&self, fd: c_int) -> Result<(), Failure> {
        self.set_phase(Phase::Connected);
        self.retarget(fd)?;
        report::connected();
        Ok(())
    }

    /// TCP has it from here on.
    pub(crate) fn leave(&self, fd: c_int, reason: Reason, words: impl FnOnce() -> String) {
        self.set_phase(Phase::Kernels);
        report::left_to_tcp(reason);
        say(Level::Info, || {
            format!("{fd}: TCP ({}): {}", reason.name(), words())
        });
        crate::table::remove(fd);
    }

    /// What to wait on, for edges or for a level.
    ///
    /// # Errors
    /// Without descriptors or memory for what tells of SDP. The kernel's descriptor in its place
    /// would tell of nothing.
    pub(crate) fn target(&self, fd: c_int, for_edges: bool) -> Result<Target, Failure> {
        let readiness = |target: fn(Readiness) -> Target| match self.socket().and_then(|socket| {
            socket.awaited(for_edges)?;
            socket.readiness()
        }) {
            Ok(readiness) => Ok(target(readiness)),
            Err(failure) => {
                say(Level::Error, || {
                    format!("{fd}: nothing to wait on: {}", failure.message)
                });
                match failure.errno {
                    libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS => Err(failure),
                    // It was closed during the call, or is spent.
                    _ => Ok(Target::Kernels),
                }
            }
        };
        match self.phase() {
            Phase::New | Phase::Kernels | Phase::Relayed => Ok(Target::Kernels),
            Phase::Connecting | Phase::Connected => readiness(Target::Sdp),
            Phase::Listening => match self.listening() {
                both if both.is_both() => readiness(Target::Both),
                Listening::Sdp => readiness(Target::Sdp),
                _ => Ok(Target::Kernels),
            },
        }
    }

    pub(crate) fn add_number(&self) {
        self.numbers.fetch_add(1, Ordering::Relaxed);
    }

    /// One number less; the last one closes.
    pub(crate) fn drop_number(self: Arc<Self>) {
        if self.numbers.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        self.watches.forget_all();
        if self.phase() == Phase::Connected && crate::relay::pass_on(&self) {
            return;
        }
        if let Some(stats) = self.last_stats() {
            report::ended(&stats);
        }
        sdp::sdp_close(self.handle);
    }

    /// What the connection has done, once.
    pub(crate) fn last_stats(&self) -> Option<SdpStats> {
        if self.phase() != Phase::Connected || self.counted.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.socket().ok()?.stats()
    }
}

/// A number that the program uses in this call.
pub(crate) fn borrowed(fd: c_int) -> BorrowedFd<'static> {
    // SAFETY: it is not -1, being in the table, and goes to system calls only, which check it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
