//! A socket and what it is at the moment.

mod beside;
mod options;
mod phase;
mod transfer;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use libc::{c_int, c_short};
use sdp_socket::{Builder, Readiness, SdpBound, SdpConnecting, SdpListener, SdpStream};

use phase::Phase;

use crate::address::Family;
use crate::errno::Failure;
use crate::settings::Settings;

/// Backlogs are brought down to this, as Linux does to `net.core.somaxconn`.
const BACKLOG_MAX: u32 = 4096;

/// One socket. Calls hold it by `Arc`, so a close never takes it from under one.
#[derive(Debug)]
pub struct Socket {
    /// As the program named it.
    domain: c_int,
    /// The family of its addresses.
    pub family: Family,
    nonblocking: AtomicBool,
    closed: AtomicBool,
    settings: Mutex<Settings>,
    phase: Mutex<Phase>,
    /// Set once, when connected.
    stream: OnceLock<SdpStream>,
    /// Set while listening.
    listener: Mutex<Option<Arc<SdpListener>>>,
    /// Keeps the descriptor of `sdp_fileno` open until the socket is closed or connects anew.
    readiness: Mutex<Option<Readiness>>,
    /// Whether those who wait need edges, once somebody has waited.
    edges: Mutex<Option<bool>>,
    /// The errno of a failure behind bytes that a call returned, for the next call; else 0.
    pending: AtomicI32,
}

/// What a socket shows to poll.
#[derive(Debug)]
pub(crate) enum Polled {
    /// It neither is connected nor listens nor is about to: always these, as with TCP.
    Still(c_short),
    /// What this descriptor shows.
    As(Readiness),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced whole, so none is left halfway by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Socket {
    /// A socket that the program asked for as one of `domain`.
    #[must_use]
    pub fn new(domain: c_int, family: Family, nonblocking: bool) -> Self {
        Self {
            domain,
            family,
            nonblocking: AtomicBool::new(nonblocking),
            closed: AtomicBool::new(false),
            settings: Mutex::default(),
            phase: Mutex::new(Phase::Fresh),
            stream: OnceLock::new(),
            listener: Mutex::default(),
            readiness: Mutex::default(),
            edges: Mutex::default(),
            pending: AtomicI32::new(0),
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    fn builder(&self) -> Builder {
        lock(&self.settings).builder()
    }

    /// The phase, of a socket that is open and whose connect, if it has ended, is seen to have.
    fn phase(&self) -> Result<MutexGuard<'_, Phase>, Failure> {
        let mut phase = lock(&self.phase);
        if self.is_closed() {
            return Err(Failure::closed());
        }
        let Phase::Connecting(connecting) = &*phase else {
            return Ok(phase);
        };
        let Some(result) = connecting.try_finish() else {
            return Ok(phase);
        };
        let connected = result.and_then(|stream| {
            self.settings().apply(&stream)?;
            stream.set_nonblocking(self.is_nonblocking())?;
            Ok(stream)
        });
        *phase = match connected {
            Ok(stream) => {
                // A socket connects once: it was empty.
                let _ = self.stream.set(stream);
                Phase::Connected { told: false }
            }
            Err(error) => Phase::Failed(error.into()),
        };
        Ok(phase)
    }

    /// Takes a local address.
    pub fn bind(&self, addr: SocketAddr) -> Result<(), Failure> {
        let mut phase = self.phase()?;
        let (Phase::Fresh | Phase::Spent) = *phase else {
            return Err(Failure::new(libc::EINVAL, "the socket has an address"));
        };
        *phase = Phase::Bound(self.builder().reserve(addr)?);
        Ok(())
    }

    fn listener(&self) -> Option<Arc<SdpListener>> {
        lock(&self.listener).clone()
    }

    /// Listens, or changes the backlog.
    pub fn listen(&self, backlog: c_int) -> Result<(), Failure> {
        self.listen_by(backlog, Builder::listen)
    }

    fn listen_by(
        &self,
        backlog: c_int,
        open: fn(&Builder, SdpBound, u32) -> io::Result<SdpListener>,
    ) -> Result<(), Failure> {
        let backlog = u32::try_from(backlog)
            .unwrap_or(BACKLOG_MAX)
            .min(BACKLOG_MAX);
        let mut phase = self.phase()?;
        if let (Phase::Listening, Some(listener)) = (&*phase, self.listener()) {
            return Ok(listener.set_backlog(backlog)?);
        }
        let bound = match std::mem::replace(&mut *phase, Phase::Fresh) {
            Phase::Bound(bound) => bound,
            Phase::Fresh | Phase::Spent => self.builder().reserve(self.family.unspecified())?,
            other => {
                *phase = other;
                return Err(Failure::new(libc::EINVAL, "the socket is connected"));
            }
        };
        let listener = open(&self.builder(), bound, backlog)?;
        listener.set_nonblocking(self.is_nonblocking())?;
        *lock(&self.listener) = Some(Arc::new(listener));
        *phase = Phase::Listening;
        Ok(())
    }

    /// Waits for a connection.
    pub fn accept(&self) -> Result<(Self, SocketAddr), Failure> {
        let Some(listener) = self.listener() else {
            return Err(Failure::new(libc::EINVAL, "the socket does not listen"));
        };
        let settings = self.settings();
        let accepted = match settings.read_timeout {
            Some(time) => listener.accept_timeout(time),
            None => listener.accept(),
        };
        let (stream, peer) = accepted.map_err(|error| self.or_closed(error.into()))?;
        settings.apply(&stream)?;
        let socket = Self {
            settings: Mutex::new(settings),
            phase: Mutex::new(Phase::Connected { told: true }),
            stream: OnceLock::from(stream),
            ..Self::new(self.domain, self.family, false)
        };
        Ok((socket, self.family.shown(peer)))
    }

    /// Connects, or goes on connecting.
    pub fn connect(&self, addr: SocketAddr) -> Result<(), Failure> {
        self.connect_to(Ok(addr))
    }

    /// As [`connect`](Self::connect), to an address that may be wrong: that is told when it would be
    /// looked at.
    pub(crate) fn connect_to(&self, addr: Result<SocketAddr, Failure>) -> Result<(), Failure> {
        let connecting = {
            let mut phase = self.phase()?;
            match &mut *phase {
                Phase::Listening | Phase::Unlistening => {
                    return Err(Failure::new(libc::EISCONN, "it listens"));
                }
                Phase::Connected { .. } | Phase::Failed(_) => return self.connected(&mut phase),
                Phase::Connecting(_) if self.is_nonblocking() => {
                    return Err(Failure::new(libc::EALREADY, "still connecting"));
                }
                Phase::Connecting(connecting) => Arc::clone(connecting),
                Phase::Fresh | Phase::Spent | Phase::Bound(_) => {
                    self.start_connect(&mut phase, addr?)?
                }
            }
        };
        let in_time = connecting.wait_heeding_signals(self.settings().write_timeout)?;
        if !in_time {
            return Err(Failure::new(libc::EINPROGRESS, "connecting goes on"));
        }
        self.connected(&mut *self.phase()?)
    }

    fn start_connect(
        &self,
        phase: &mut Phase,
        addr: SocketAddr,
    ) -> Result<Arc<SdpConnecting>, Failure> {
        let bound = match std::mem::replace(phase, Phase::Fresh) {
            Phase::Bound(bound) => Some(bound),
            _ => None,
        };
        let connecting = Arc::new(self.builder().start_connect(addr, bound)?);
        // One of a connect that failed.
        lock(&self.readiness).take();
        *phase = Phase::Connecting(Arc::clone(&connecting));
        if self.is_nonblocking() {
            return Err(Failure::new(libc::EINPROGRESS, "connecting goes on"));
        }
        Ok(connecting)
    }

    fn or_closed(&self, failure: Failure) -> Failure {
        if self.is_closed() {
            return Failure::closed();
        }
        failure
    }

    /// Shuts down one or both directions, a listener, or a connect under way.
    pub(crate) fn shutdown(&self, how: Shutdown) -> Result<(), Failure> {
        if let Some(stream) = self.stream.get() {
            return Ok(stream.shutdown(how)?);
        }
        let mut phase = self.phase()?;
        match &*phase {
            Phase::Connected { .. } => {
                drop(phase);
                self.shutdown(how)
            }
            Phase::Listening => {
                // Nothing can be written to a listener: as Linux, no error.
                if let (Some(listener), true) = (self.listener(), how != Shutdown::Write) {
                    listener.shutdown();
                    *phase = Phase::Unlistening;
                }
                Ok(())
            }
            Phase::Connecting(connecting) => {
                connecting.cancel();
                *phase = Phase::Fresh;
                Ok(())
            }
            _ => Err(not_connected()),
        }
    }

    /// Closes. Calls in progress end; the last of them lets go of the stream, which delivers
    /// what was sent, or is reset, by the rules of close(2).
    pub(crate) fn close(self: Arc<Self>) {
        self.closed.store(true, Ordering::SeqCst);
        // The table has let go: nobody who is not in a call by now can come in any more.
        if Arc::strong_count(&self) == 1 {
            return;
        }
        // Whoever makes a stream or a listener does it under this lock, and nobody begins to after
        // the note above: what is made is seen here.
        let phase = lock(&self.phase);
        if let Some(stream) = self.stream.get() {
            // It fails if the connection has ended: then nobody waits in it.
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(listener) = self.listener() {
            listener.shutdown();
        }
        if let Phase::Connecting(connecting) = &*phase {
            connecting.cancel();
        }
    }

    /// O_NONBLOCK.
    pub fn set_nonblocking(&self, on: bool) -> Result<(), Failure> {
        // Under the lock, so that a listener that is being made cannot miss it.
        let _phase = self.phase()?;
        self.nonblocking.store(on, Ordering::Relaxed);
        if let Some(listener) = self.listener() {
            listener.set_nonblocking(on)?;
        }
        if let Some(stream) = self.stream.get() {
            stream.set_nonblocking(on)?;
        }
        Ok(())
    }

    /// This end's address.
    pub fn local_addr(&self) -> Result<SocketAddr, Failure> {
        let phase = self.phase()?;
        let addr = match &*phase {
            Phase::Bound(bound) => Some(bound.local_addr()?),
            Phase::Connecting(connecting) => connecting.local_addr(),
            _ => match (self.stream.get(), self.listener()) {
                (Some(stream), _) => Some(stream.local_addr()?),
                (None, Some(listener)) => Some(listener.local_addr()?),
                (None, None) => None,
            },
        };
        let addr = addr.unwrap_or_else(|| self.family.unspecified());
        Ok(self.family.shown(addr))
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> Result<SocketAddr, Failure> {
        let _phase = self.phase()?;
        let Some(stream) = self.stream.get() else {
            return Err(not_connected());
        };
        Ok(self.family.shown(stream.peer_addr()?))
    }

    /// Bytes that a receive gets now.
    pub(crate) fn recv_queue_len(&self) -> Result<usize, Failure> {
        self.queue_len(SdpStream::recv_queue_len)
    }

    /// Bytes sent that the peer has not taken.
    pub(crate) fn send_queue_len(&self) -> Result<usize, Failure> {
        self.queue_len(SdpStream::send_queue_len)
    }

    /// Before it is connected a socket has no bytes; one that listens never will.
    fn queue_len(&self, of: fn(&SdpStream) -> io::Result<usize>) -> Result<usize, Failure> {
        let phase = self.phase()?;
        match self.stream.get() {
            Some(stream) => Ok(of(stream)?),
            None if matches!(*phase, Phase::Listening) => Err(Failure::new(
                libc::EINVAL,
                "a listening socket has no bytes",
            )),
            None => Ok(0),
        }
    }

    /// The descriptor to wait on.
    pub fn readiness(&self) -> Result<Readiness, Failure> {
        let polled = self.polled()?;
        // That of a connect that failed goes on showing so.
        let kept = lock(&self.readiness).clone();
        match (polled, kept) {
            (Polled::As(readiness), _) | (Polled::Still(_), Some(readiness)) => Ok(readiness),
            // It failed before anybody asked.
            (Polled::Still(shown), None) if shown & libc::POLLERR != 0 => {
                let failed = Readiness::of_failure()?;
                Ok(lock(&self.readiness).get_or_insert(failed).clone())
            }
            (Polled::Still(_), None) => Err(Failure::new(
                libc::EOPNOTSUPP,
                "a socket has a descriptor once it is connected, or connecting, or listens",
            )),
        }
    }

    /// What poll is to look at.
    pub(crate) fn polled(&self) -> Result<Polled, Failure> {
        const CLOSED: c_short = libc::POLLOUT | libc::POLLWRNORM | libc::POLLHUP;
        const ENDED: c_short = CLOSED | libc::POLLIN | libc::POLLRDNORM | libc::POLLRDHUP;
        let phase = self.phase()?;
        match *phase {
            Phase::Fresh | Phase::Bound(_) | Phase::Unlistening => {
                return Ok(Polled::Still(CLOSED));
            }
            Phase::Spent => return Ok(Polled::Still(ENDED)),
            Phase::Failed(_) => return Ok(Polled::Still(ENDED | libc::POLLERR)),
            Phase::Listening | Phase::Connecting(_) | Phase::Connected { .. } => {}
        }
        let mut kept = lock(&self.readiness);
        if let Some(readiness) = &*kept {
            return Ok(Polled::As(readiness.clone()));
        }
        let made = match (&*phase, self.stream.get(), self.listener()) {
            (Phase::Connecting(connecting), _, _) => connecting.readiness()?,
            (_, Some(stream), _) => stream.readiness()?,
            (_, None, Some(listener)) => listener.readiness()?,
            (_, None, None) => return Ok(Polled::Still(CLOSED)),
        };
        Ok(Polled::As(kept.insert(made).clone()))
    }
}

fn not_connected() -> Failure {
    Failure::new(libc::ENOTCONN, "the socket is not connected")
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::time::Duration;

    use sdp_socket::RecvFlags;

    use super::*;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// A call that finds its connect ended just when the socket is closed ends all the same.
    #[test]
    fn a_close_ends_the_call_that_completes_a_connect() {
        let listener = Socket::new(libc::AF_INET, Family::V4, false);
        listener.bind(loopback()).unwrap();
        listener.listen(16).unwrap();
        let addr = listener.local_addr().unwrap();
        for round in 0..500 {
            let socket = Arc::new(Socket::new(libc::AF_INET, Family::V4, true));
            let under_way = socket.connect(addr).unwrap_err();
            assert_eq!(under_way.errno, libc::EINPROGRESS);
            let (_server, _) = listener.accept().unwrap();
            socket.nonblocking.store(false, Ordering::Relaxed);
            let (tell, ended) = std::sync::mpsc::channel();
            let caller = Arc::clone(&socket);
            let gate = Arc::new(std::sync::Barrier::new(2));
            let theirs = Arc::clone(&gate);
            std::thread::spawn(move || {
                theirs.wait();
                let mut byte = [0; 1];
                let bufs = &mut [IoSliceMut::new(&mut byte)];
                let result = caller.recv(bufs, RecvFlags::default());
                tell.send(result.is_err()).unwrap();
            });
            gate.wait();
            for _ in 0..round % 200 {
                std::hint::spin_loop();
            }
            socket.close();
            let ended = ended.recv_timeout(Duration::from_secs(20));
            assert_eq!(ended, Ok(true), "round {round}");
        }
    }
}
