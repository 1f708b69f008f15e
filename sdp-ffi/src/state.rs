//! A socket and what it is at the moment.

mod beside;

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use libc::{c_int, c_short};
use sdp_socket::{
    Builder, Readiness, RecvFlags, SdpBound, SdpConnecting, SdpListener, SdpStream, SendFlags,
    Stats,
};

use crate::address::Family;
use crate::errno::Failure;
use crate::settings::{MESSAGE_MAX, Name, OptionBytes, Settings, int_bytes};
use crate::stats::{SdpStats, tcp_info_bytes};

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

/// Where a socket is in its life.
#[derive(Debug)]
enum Phase {
    Fresh,
    Bound(SdpBound),
    Listening,
    /// It has listened, and was shut down: nothing more comes of it.
    Unlistening,
    Connecting(Arc<SdpConnecting>),
    /// The connect failed and nobody has been told.
    Failed(Failure),
    /// It failed, and this was told: as fresh, but that nothing more will come.
    Spent,
    /// `told`: a connect has returned 0.
    Connected {
        told: bool,
    },
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
                Phase::Connected { .. } | Phase::Failed(_) => return connected(&mut phase),
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
        connected(&mut *self.phase()?)
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

    /// The stream, once a connect under way has ended. `absent`: the errno if there is none.
    fn stream(
        &self,
        nonblocking: bool,
        time_max: impl Fn(&Settings) -> Option<Duration>,
        absent: c_int,
    ) -> Result<&SdpStream, Failure> {
        if let Some(failure) = self.take_pending() {
            return Err(failure);
        }
        loop {
            if let Some(stream) = self.stream.get() {
                return Ok(stream);
            }
            let connecting = {
                let mut phase = self.phase()?;
                if let Some(failure) = take_failure(&mut phase) {
                    return Err(failure);
                }
                match &*phase {
                    Phase::Connected { .. } => continue,
                    Phase::Connecting(connecting) if !nonblocking => Arc::clone(connecting),
                    Phase::Connecting(_) => return Err(still_connecting()),
                    _ => return Err(Failure::new(absent, "the socket is not connected")),
                }
            };
            if !connecting.wait(time_max(&self.settings()))? {
                return Err(still_connecting());
            }
        }
    }

    /// Waits as a receive does, and receives nothing: whether there is something to receive, or the
    /// end of the stream.
    pub(crate) fn look(&self, nonblocking: bool) -> Result<bool, Failure> {
        let mut byte = [0];
        let flags = RecvFlags {
            nonblocking,
            peek: true,
            wait_all: false,
        };
        let seen = self.recv(&mut [IoSliceMut::new(&mut byte)], flags)?;
        Ok(seen > 0)
    }

    /// A call that has moved bytes, and then failed, returns these; the next one returns the failure
    /// if it would not happen again by itself.
    pub fn keep(&self, failure: &Failure) {
        let repeats = [libc::EAGAIN, libc::EINTR, libc::EPIPE, libc::EBADF];
        if !repeats.contains(&failure.errno) {
            self.pending.store(failure.errno, Ordering::Release);
        }
    }

    fn take_pending(&self) -> Option<Failure> {
        if self.pending.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let errno = self.pending.swap(0, Ordering::AcqRel);
        let words = io::Error::from_raw_os_error(errno).to_string();
        (errno != 0).then(|| Failure::new(errno, words))
    }

    /// Sends.
    pub(crate) fn send(&self, bufs: &[IoSlice<'_>], flags: SendFlags) -> Result<usize, Failure> {
        let nonblocking = flags.nonblocking || self.is_nonblocking();
        let stream = self.stream(nonblocking, |s| s.write_timeout, libc::EPIPE)?;
        let result = stream.send_with(bufs, SendFlags { nonblocking });
        self.counted(result.map_err(Failure::from))
    }

    /// Receives.
    pub(crate) fn recv(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        flags: RecvFlags,
    ) -> Result<usize, Failure> {
        let nonblocking = flags.nonblocking || self.is_nonblocking();
        let stream = match self.stream(nonblocking, |s| s.read_timeout, libc::ENOTCONN) {
            Ok(stream) => stream,
            Err(failure) if failure.errno == libc::ENOTCONN && self.is_spent() => return Ok(0),
            Err(failure) => return Err(failure),
        };
        let flags = RecvFlags {
            nonblocking,
            ..flags
        };
        let result = stream.recv_with(bufs, flags);
        self.counted(result.map_err(Failure::from))
    }

    /// A connect has failed, and none has begun since.
    fn is_spent(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Spent)
    }

    /// Sends, the last byte urgent.
    pub(crate) fn send_urgent(&self, bytes: &[u8], flags: SendFlags) -> Result<usize, Failure> {
        let nonblocking = flags.nonblocking || self.is_nonblocking();
        let stream = self.stream(nonblocking, |s| s.write_timeout, libc::EPIPE)?;
        let result = stream.send_urgent_with(bytes, SendFlags { nonblocking });
        self.counted(result.map_err(Failure::from))
    }

    /// Receives the urgent byte, if there is room for one.
    pub(crate) fn recv_urgent(&self, to: &mut [u8], peek: bool) -> Result<usize, Failure> {
        let Some(stream) = self.stream_if_any(libc::ENOTCONN)? else {
            return Err(Failure::new(libc::EINVAL, "no urgent byte"));
        };
        let found = if peek {
            stream.peek_urgent()
        } else {
            stream.recv_urgent()
        };
        let byte = found.map_err(|error| self.or_closed(error.into()))?;
        Ok(match (byte, to.first_mut()) {
            (Some(byte), Some(to)) => {
                *to = byte;
                1
            }
            _ => 0,
        })
    }

    /// The stream, of a socket that has one; `listening` is the errno of one that listens.
    fn stream_if_any(&self, listening: c_int) -> Result<Option<&SdpStream>, Failure> {
        let phase = self.phase()?;
        if matches!(*phase, Phase::Listening) {
            return Err(Failure::new(listening, "the socket listens"));
        }
        Ok(self.stream.get())
    }

    /// The next byte of the stream is the urgent one. Where there is none, none is.
    pub(crate) fn at_mark(&self) -> Result<bool, Failure> {
        let phase = self.phase()?;
        let Some(stream) = self.stream.get() else {
            return Ok(false);
        };
        drop(phase);
        stream
            .at_mark()
            .map_err(|error| self.or_closed(error.into()))
    }

    /// Bytes that were moved count, whatever has become of the socket since.
    fn counted(&self, result: Result<usize, Failure>) -> Result<usize, Failure> {
        match result {
            Ok(count) if count > 0 || !self.is_closed() => Ok(count),
            Ok(_) => Err(Failure::closed()),
            Err(failure) => {
                self.told(&failure);
                Err(self.or_closed(failure))
            }
        }
    }

    /// An error that the program has been told of is not shown to poll any more.
    fn told(&self, failure: &Failure) {
        if matches!(failure.errno, libc::EAGAIN | libc::EINTR) {
            return;
        }
        if let Some(readiness) = &*lock(&self.readiness) {
            readiness.error_told();
        }
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

    /// # Errors
    /// `ENOPROTOOPT` for an option that only sockets of IPv6 have.
    fn has_option(&self, name: Name) -> Result<(), Failure> {
        if name.is_v6() && self.family != Family::V6 {
            return Err(Failure::new(libc::ENOPROTOOPT, "no IPv6 socket"));
        }
        Ok(())
    }

    /// Sets an option.
    pub(crate) fn set_option(&self, name: Name, bytes: &[u8]) -> Result<(), Failure> {
        let phase = self.phase()?;
        self.has_option(name)?;
        if name == Name::OnlyV6 {
            let (Phase::Fresh | Phase::Spent) = *phase else {
                return Err(Failure::new(libc::EINVAL, "the socket has an address"));
            };
        }
        let mut settings = lock(&self.settings);
        settings.set(name, bytes)?;
        match self.stream.get() {
            Some(stream) => Ok(settings.apply(stream)?),
            None => Ok(()),
        }
    }

    /// Reads an option.
    pub(crate) fn option(&self, name: Name) -> Result<OptionBytes, Failure> {
        let mut phase = self.phase()?;
        // By Linux's habit another errno than where it is set.
        self.has_option(name).map_err(|failure| Failure {
            errno: libc::EOPNOTSUPP,
            ..failure
        })?;
        let settings = self.settings();
        let stream = self.stream.get();
        if name == Name::MaxSegment && stream.is_some() {
            return Ok(int_bytes(MESSAGE_MAX));
        }
        let buffers = match stream {
            Some(stream) => (stream.send_buffer_size()?, stream.recv_buffer_size()?),
            None => settings.builder().buffer_sizes(),
        };
        if let Some(bytes) = settings.get(name, buffers) {
            return Ok(bytes);
        }
        if name == Name::Stats {
            let stats = stream.ok_or_else(not_connected)?.stats();
            return Ok(SdpStats::from(&stats).bytes());
        }
        if name == Name::Info {
            let stats = stream.map_or_else(Stats::default, SdpStream::stats);
            return Ok(tcp_info_bytes(
                phase.tcp_state(),
                MESSAGE_MAX.unsigned_abs(),
                &stats,
            ));
        }
        Ok(int_bytes(match name {
            Name::Type => libc::SOCK_STREAM,
            Name::Domain => self.domain,
            Name::Protocol => libc::IPPROTO_TCP,
            Name::AcceptConn => c_int::from(matches!(*phase, Phase::Listening)),
            _ => match stream {
                _ if self.pending.load(Ordering::Relaxed) != 0 => {
                    self.take_pending().map_or(0, |failure| failure.errno)
                }
                Some(stream) => stream.take_error()?.map_or(0, |error| {
                    let failure = Failure::from(error);
                    self.told(&failure);
                    failure.errno
                }),
                None => take_failure(&mut phase).map_or(0, |failure| failure.errno),
            },
        }))
    }
}

impl Phase {
    /// The state that TCP_INFO tells, by Linux's numbers.
    const fn tcp_state(&self) -> u8 {
        match self {
            Self::Connected { .. } => 1,
            Self::Connecting(_) => 2,
            Self::Fresh | Self::Bound(_) | Self::Failed(_) | Self::Spent | Self::Unlistening => 7,
            Self::Listening => 10,
        }
    }
}

fn not_connected() -> Failure {
    Failure::new(libc::ENOTCONN, "the socket is not connected")
}

fn still_connecting() -> Failure {
    Failure::new(libc::EAGAIN, "still connecting")
}

/// Why the connect failed, once; the socket may then connect again.
fn take_failure(phase: &mut Phase) -> Option<Failure> {
    if !matches!(phase, Phase::Failed(_)) {
        return None;
    }
    match std::mem::replace(phase, Phase::Spent) {
        Phase::Failed(failure) => Some(failure),
        _ => None,
    }
}

/// What a connect returns now that connecting is over.
fn connected(phase: &mut Phase) -> Result<(), Failure> {
    if let Some(failure) = take_failure(phase) {
        return Err(failure);
    }
    match phase {
        Phase::Connected { told: true } => Err(Failure::new(libc::EISCONN, "it is connected")),
        Phase::Connected { told } => {
            *told = true;
            Ok(())
        }
        _ => Err(Failure::new(libc::ECONNABORTED, "connecting was given up")),
    }
}

#[cfg(test)]
mod tests {
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
