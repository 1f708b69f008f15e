//! The life of a socket: socket(2) to shutdown(2).

use std::net::SocketAddr::{self, V6};
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use libc::{c_int, sockaddr, socklen_t};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use sdp::posix::{Failure, Family, Socket, bytes_of, guard, read_address, write_address};
use sdp_socket::{poll_asleep, signals_restart};
use smallvec::{SmallVec, smallvec};

use crate::boundary::{Outcome, checked, interpose};
use crate::config::config;
use crate::entry::{Entry, Phase, Target, borrowed, lock};
use crate::listening::{self, Listening, is_held_here};
use crate::log::{Level, say};
use crate::real;
use crate::report::{self, Reason};
use crate::rules::{Choice, Role};
use crate::table;

/// Those of accept4(2).
const ACCEPT_FLAGS: c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// How long an accept sees to a caller that it has answered, and that does not confirm it.
const ANSWERED_WAIT: Duration = Duration::from_secs(5);

/// How long a connect by both protocols waits for SDP towards an address of this machine. Who does
/// not listen there in SDP says so at once; this is for one that is slow to be scheduled.
const WAIT_LOCAL: Duration = Duration::from_millis(50);
/// The same over an adapter.
const WAIT_REMOTE: Duration = Duration::from_millis(300);

interpose! {
    /// The kernel makes the socket; one that may speak SDP is noted.
    raw fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        let by_name = domain == sdp::AF_INET_SDP || domain == sdp::AF_INET6_SDP;
        let kernels = match domain {
            sdp::AF_INET_SDP => libc::AF_INET,
            sdp::AF_INET6_SDP => libc::AF_INET6,
            other => other,
        };
        // SAFETY: no preconditions.
        let fd = unsafe { real::socket(kernels, kind, protocol) };
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let is_tcp = kind & !flags == libc::SOCK_STREAM
            && (protocol == 0 || protocol == libc::IPPROTO_TCP);
        if fd < 0 || !is_tcp {
            return fd;
        }
        let Some(family) = Family::of(kernels) else { return fd };
        let number = Number(fd);
        guard("socket", || {
            // Read now, so that what is wrong with the rules is said even if none is needed.
            config();
            if let Err(failure) = table::start() {
                warn_once(&failure);
                return Ok(number.keep());
            }
            let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
            let socket = Socket::new(domain, family, nonblocking);
            let entry = Arc::new(Entry::new(socket, family, by_name, nonblocking)?);
            if !table::insert(fd, &entry) {
                say(Level::Info, || format!("{fd}: TCP: the number is too great"));
            }
            Ok(number.keep())
        })
    }

    /// The kernel holds the port; an address of SDP's own family is one of TCP's to it.
    fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int |entry| {
        entry.renew();
        if entry.is_sdps() {
            return Err(Failure::new(libc::EINVAL, "the socket is connected"));
        }
        if !entry.by_name {
            return Ok(None);
        }
        // SAFETY: our caller's promise.
        let addr = unsafe { read_its_address(entry, addr, len) }?;
        let bytes = bytes_of(addr);
        let len = socklen_t::try_from(bytes.len()).unwrap_or(0);
        // SAFETY: the address is ours.
        checked(unsafe { real::bind(fd, bytes.as_ptr().cast(), len) }).map(Some)
    }

    fn listen(fd: c_int, backlog: c_int) -> c_int |entry| {
        entry.renew();
        start_listening(entry, fd, backlog)
    }

    wait fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int |entry| {
        // SAFETY: our caller's promise.
        unsafe { accept_one(entry, fd, addr, len, 0) }
    }

    wait fn accept4(
        fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int,
    ) -> c_int |entry| {
        // SAFETY: our caller's promise.
        unsafe { accept_one(entry, fd, addr, len, flags) }
    }

    wait fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int |entry| {
        if entry.phase() == Phase::Listening && entry.listening() != Listening::Sdp {
            return Ok(None);
        }
        if entry.relayed().is_some() {
            return Err(Failure::new(libc::EISCONN, "the parent's socket is connected"));
        }
        entry.renew();
        if entry.phase() != Phase::New {
            // SAFETY: our caller's promise.
            return checked(unsafe { sdp::sdp_connect(entry.handle(), addr, len) }).map(Some);
        }
        // SAFETY: our caller's promise.
        let parsed = unsafe { read_its_address(entry, addr, len) };
        match parsed {
            Ok(addr) => connect_to(entry, fd, addr),
            Err(failure) if entry.by_name => Err(failure),
            // Whatever is wrong, the kernel says; AF_UNSPEC is not wrong at all.
            Err(_) => Ok(None),
        }
    }

    fn shutdown(fd: c_int, how: c_int) -> c_int |entry| {
        let listening = entry.listening();
        if entry.is_sdps() || listening == Listening::Sdp {
            if how != libc::SHUT_RD {
                entry.let_children_go_first(true)?;
            }
            return checked(sdp::sdp_shutdown(entry.handle(), how)).map(Some);
        }
        if listening != Listening::No && matches!(how, libc::SHUT_RD | libc::SHUT_RDWR) {
            entry.stop_listening(fd);
        }
        Ok(None)
    }

    /// A bound one's is the kernel's.
    fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int |entry| {
        if let Some(names) = entry.relayed() {
            // SAFETY: our caller's promise.
            return unsafe { write_address(names.local, addr, len) }.map(|()| Some(0));
        }
        if !entry.is_sdps() {
            return Ok(None);
        }
        // SAFETY: our caller's promise.
        checked(unsafe { sdp::sdp_getsockname(entry.handle(), addr, len) }).map(Some)
    }

    fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int |entry| {
        if let Some(names) = entry.relayed() {
            // SAFETY: our caller's promise.
            return unsafe { write_address(names.peer, addr, len) }.map(|()| Some(0));
        }
        if !entry.is_sdps() {
            return Ok(None);
        }
        // SAFETY: our caller's promise.
        checked(unsafe { sdp::sdp_getpeername(entry.handle(), addr, len) }).map(Some)
    }
}

/// An address for a socket. One that was asked for as IPv4's of SDP takes IPv6's, too, where they mean the same:
/// the kernel's SDP of old read no more than the port, and qperf binds it so.
///
/// # Safety
/// As bind(2).
unsafe fn read_its_address(
    entry: &Entry,
    addr: *const sockaddr,
    len: socklen_t,
) -> Result<SocketAddr, Failure> {
    // SAFETY: the caller's promise.
    let read = |family| unsafe { read_address(addr, len, family) };
    match read(entry.family) {
        Err(failure) if failure.errno == libc::EAFNOSUPPORT && entry.by_name => {
            let other = match entry.family {
                Family::V4 => read(Family::V6)?,
                Family::V6 => return Err(failure),
            };
            match Family::V4.shown(other) {
                V6(any) if any.ip().is_unspecified() => {
                    Ok((std::net::Ipv4Addr::UNSPECIFIED, any.port()).into())
                }
                V6(_) => Err(failure),
                mapped => Ok(mapped),
            }
        }
        read => read,
    }
}

/// Says why sockets are TCP's of which none may be ours.
fn warn_once(failure: &Failure) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        say(Level::Error, || {
            format!(
                "sockets are left to TCP as long as it is so: {}",
                failure.message
            )
        });
    });
    report::left_to_tcp(Reason::Failed);
}

/// The address that the kernel's descriptor is bound to; port 0 if it is not.
pub(crate) fn kernels_name(fd: c_int, family: Family) -> SocketAddr {
    let name = rustix::net::getsockname(borrowed(fd)).ok();
    let addr = name.and_then(|name| SocketAddr::try_from(name).ok());
    addr.unwrap_or_else(|| family.unspecified())
}

fn choose(entry: &Entry, role: Role, addr: SocketAddr) -> Choice {
    if entry.by_name {
        return Choice::Sdp;
    }
    let config = config();
    config.rules.choose(role, &config.program, addr)
}

fn start_listening(entry: &Entry, fd: c_int, backlog: c_int) -> Outcome<c_int> {
    match (entry.phase(), entry.listening()) {
        (Phase::Connected | Phase::Connecting, _) => {
            return Err(Failure::new(libc::EINVAL, "the socket is connected"));
        }
        (Phase::Listening, Listening::Sdp) => {
            return entry.socket()?.listen(backlog).map(|()| Some(0));
        }
        (Phase::Listening, Listening::Both | Listening::Held(_)) => {
            entry.socket()?.listen(backlog)?;
            return Ok(None);
        }
        (Phase::Listening | Phase::Kernels | Phase::Relayed, _) => return Ok(None),
        (Phase::New, _) => {}
    }
    let addr = kernels_name(fd, entry.family);
    match choose(entry, Role::Server, addr) {
        Choice::Tcp => {
            entry.leave(fd, Reason::Rule, || format!("listens on {addr}"));
            Ok(None)
        }
        Choice::Both => {
            // Who connects between the first wait and SDP's listening gets TCP: let it be short.
            if let Err(failure) = entry.socket()?.prepare() {
                say(Level::Debug, || {
                    format!("{fd}: nothing to listen on by SDP yet: {}", failure.message)
                });
            }
            // SAFETY: no preconditions.
            checked(unsafe { real::listen(fd, backlog) })?;
            entry.set_listening(fd, Listening::Later(backlog))?;
            if listening::accepts_at(addr) {
                entry.await_callers(fd);
            }
            Ok(Some(0))
        }
        Choice::Sdp => {
            if addr.port() == 0 {
                let any = bytes_of(entry.family.unspecified());
                let len = socklen_t::try_from(any.len()).unwrap_or(0);
                // SAFETY: the address is ours.
                checked(unsafe { real::bind(fd, any.as_ptr().cast(), len) })?;
            }
            entry.socket()?.adopt(borrowed(fd))?;
            entry.socket()?.listen(backlog)?;
            entry.set_listening(fd, Listening::Sdp)?;
            Ok(Some(0))
        }
    }
}

fn connect_to(entry: &Entry, fd: c_int, addr: SocketAddr) -> Outcome<c_int> {
    // Not waited for: it may be a signal handler's call that has interrupted the other one.
    let Ok(_one_at_a_time) = entry.connecting.try_lock() else {
        return Err(Failure::new(libc::EALREADY, "it is about to connect"));
    };
    match entry.phase() {
        Phase::New => {}
        Phase::Kernels => return Ok(None),
        // Another thread was faster.
        _ => return Err(Failure::new(libc::EISCONN, "it is connected, or listens")),
    }
    let choice = choose(entry, Role::Client, addr);
    if choice == Choice::Tcp {
        entry.leave(fd, Reason::Rule, || format!("connects to {addr}"));
        return Ok(None);
    }
    let attempt = || {
        let from = kernels_name(fd, entry.family);
        if from.port() != 0 {
            entry.socket()?.adopt(borrowed(fd))?;
        } else if !from.ip().is_unspecified() {
            // IP_BIND_ADDRESS_NO_PORT: an address, whose port is taken by the connect.
            entry.socket()?.bind(from)?;
        }
        if is_held_here(addr) && is_local(addr.ip()) {
            return Err(Failure::new(
                libc::ECONNREFUSED,
                "this process does not accept yet",
            ));
        }
        if choice == Choice::Sdp {
            return connect_by_sdp(entry, fd, addr);
        }
        let wait = config().wait.unwrap_or_else(|| wait_towards(addr.ip()));
        entry.socket()?.connect_within(addr, wait)
    };
    match attempt().and_then(|()| entry.set_connected(fd)) {
        Ok(()) => {
            say(Level::Debug, || format!("{fd}: connected to {addr} by SDP"));
            Ok(Some(0))
        }
        Err(failure) if choice == Choice::Sdp => Err(failure.at(addr)),
        Err(failure) => {
            let reason = Reason::of(failure.errno);
            entry.leave(fd, reason, || failure.at(addr).message.into_owned());
            Ok(None)
        }
    }
}

/// Connects, or leaves that under way.
fn connect_by_sdp(entry: &Entry, fd: c_int, addr: SocketAddr) -> Result<(), Failure> {
    let socket = entry.socket()?;
    if entry.is_nonblocking() {
        let started = socket.connect_unwaited(addr);
        if matches!(&started, Err(failure) if failure.errno == libc::EINPROGRESS) {
            entry.set_connecting(fd)?;
        }
        return started;
    }
    match socket.connect(addr) {
        // Its time is over, or a signal came; if it has ended meanwhile, this call may as well say
        // how.
        Err(failure) if matches!(failure.errno, libc::EINPROGRESS | libc::EINTR) => {
            if !socket.is_under_way() {
                return socket.connect(addr);
            }
            entry.set_connecting(fd)?;
            Err(failure)
        }
        other => other,
    }
}

fn wait_towards(ip: IpAddr) -> Duration {
    if is_local(ip) {
        WAIT_LOCAL
    } else {
        WAIT_REMOTE
    }
}

/// Whether it is an address of this machine.
fn is_local(ip: IpAddr) -> bool {
    // Nothing is sent: the system says whether it would take the address as its own.
    ip.is_unspecified() || ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// # Safety
/// As accept4(2).
unsafe fn accept_one(
    entry: &Entry,
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> Outcome<c_int> {
    if entry.phase() != Phase::Listening {
        return Ok(None);
    }
    let deadline = entry
        .socket()?
        .read_timeout()
        .map(|time| Instant::now() + time);
    if entry.listen_now(fd) == Listening::Sdp {
        // SAFETY: the caller's promise.
        return unsafe { accept_sdp(entry, addr, len, flags) }.map(Some);
    }
    let waits = !entry.is_nonblocking() && flags & !ACCEPT_FLAGS == 0;
    // A caller by SDP has been answered, and has to be accepted before any other.
    let mut has_answered = false;
    loop {
        let (kernels_has, sdp_has) = match waits && !has_answered {
            true => wait_for_either(entry, fd, deadline)?,
            false => (true, true),
        };
        let kernel_first = entry.kernel_first.fetch_xor(true, Ordering::Relaxed) && !has_answered;
        has_answered = false;
        for kernels in [kernel_first, !kernel_first] {
            if kernels && kernels_has {
                // SAFETY: the caller's promise.
                match unsafe { accept_kernels(entry, fd, addr, len, flags) } {
                    Ok(accepted) => {
                        report::accepted(false);
                        return Ok(Some(accepted));
                    }
                    Err(failure) if failure.errno == libc::EAGAIN => {}
                    Err(failure) => return Err(failure),
                }
            } else if !kernels && sdp_has && entry.has_pending_sdp()? {
                // SAFETY: the caller's promise.
                match unsafe { accept_sdp(entry, addr, len, flags) } {
                    Err(failure) if failure.errno == libc::EAGAIN && waits => {
                        entry.socket()?.await_answered(ANSWERED_WAIT)?;
                        has_answered = true;
                        break;
                    }
                    Err(failure) if failure.errno == libc::EAGAIN => {}
                    other => return other.map(Some),
                }
            }
        }
        if !waits {
            return Err(Failure::new(libc::EAGAIN, "nobody waits to be accepted"));
        }
    }
}

/// Takes a connection of the kernel's, if there is one. An accept looks at two queues and must not
/// hang in one, even if another process that has the listener is faster. But the kernel's flag is
/// that process's, too, which may know nothing of this library: it is set only while somebody is
/// there to be accepted.
///
/// # Safety
/// As accept4(2).
unsafe fn accept_kernels(
    entry: &Entry,
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> Result<c_int, Failure> {
    if entry.is_nonblocking() || flags & !ACCEPT_FLAGS != 0 {
        // It does not wait, or fails.
        // SAFETY: the caller's promise.
        return checked(unsafe { real::accept4(fd, addr, len, flags) });
    }
    let _one_at_a_time = lock(&entry.flagging);
    // The program may have set it meanwhile, to stay.
    let waits = !entry.is_nonblocking();
    if waits {
        set_waiting(fd, false)?;
    }
    // SAFETY: the caller's promise.
    let accepted = checked(unsafe { real::accept4(fd, addr, len, flags) });
    if waits {
        // It does not fail: it did not a moment ago.
        let _ = set_waiting(fd, true);
    }
    accepted
}

/// Whether the kernel's calls wait. It is one call, and leaves the other flags alone.
fn set_waiting(fd: c_int, on: bool) -> Result<(), Failure> {
    let mut nonblocking = c_int::from(!on);
    let request = libc::c_ulong::from(libc::FIONBIO);
    // SAFETY: the request reads an int, which is ours.
    checked(unsafe { real::ioctl(fd, request, (&raw mut nonblocking).cast()) }).map(|_| ())
}

/// Sleeps until TCP or SDP has a connection: which of them.
fn wait_for_either(
    entry: &Entry,
    fd: c_int,
    deadline: Option<Instant>,
) -> Result<(bool, bool), Failure> {
    let target = entry.target(fd, false)?;
    let own = borrowed(fd);
    let mut fds: SmallVec<[_; 2]> = smallvec![PollFd::new(&own, PollFlags::IN)];
    if let Target::Both(readiness) = &target {
        fds.push(PollFd::new(readiness, PollFlags::IN));
    }
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll_asleep(&fds, left.as_ref()) {
            Ok(shown) if shown.iter().all(PollFlags::is_empty) => {
                return Err(Failure::new(libc::EAGAIN, "nobody came in time"));
            }
            Ok(shown) => {
                let has = |shows: &PollFlags| !shows.is_empty();
                return Ok((has(&shown[0]), shown.get(1).is_some_and(has)));
            }
            // The kernel restarts an accept without a time-out under these handlers.
            Err(Errno::INTR) if deadline.is_none() && signals_restart() => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
}

/// # Safety
/// As accept4(2).
unsafe fn accept_sdp(
    entry: &Entry,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> Result<c_int, Failure> {
    if flags & !ACCEPT_FLAGS != 0 {
        return Err(Failure::new(libc::EINVAL, "unknown flags"));
    }
    let domain = match entry.family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let make = || {
        // SAFETY: no preconditions.
        checked(unsafe { real::socket(domain, libc::SOCK_STREAM | flags, 0) })
    };
    // A number first: without one, or with one too great, the connection stays in the queue. One
    // that waits for a connection has none meanwhile, and takes the next.
    let waits = !entry.socket()?.has_pending()?;
    let first = Number(make()?);
    if !table::has_room(first.0) {
        return Err(Failure::new(libc::EMFILE, "the number is too great"));
    }
    let early = (!waits).then_some(first);
    let (socket, peer) = entry.socket()?.accept()?;
    let number = match early {
        Some(number) => number,
        None => Number(make()?),
    };
    if !addr.is_null() {
        // SAFETY: the caller's promise.
        unsafe { write_address(peer, addr, len) }?;
    }
    let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
    socket.set_nonblocking(nonblocking)?;
    let accepted = Arc::new(Entry::accepted(socket, entry.family, nonblocking)?);
    if !table::insert(number.0, &accepted) {
        return Err(Failure::new(libc::EMFILE, "the number is too great"));
    }
    report::accepted(true);
    say(Level::Debug, || {
        format!("{}: accepted {peer} by SDP", number.0)
    });
    Ok(number.keep())
}

/// A number that is closed again unless it is kept.
struct Number(c_int);

impl Number {
    fn keep(self) -> c_int {
        let fd = self.0;
        std::mem::forget(self);
        fd
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        // SAFETY: nobody else knows the number.
        unsafe { real::close(self.0) };
    }
}
