//! The socket by which a process is asked for its report, served between two rounds of the progress
//! loop.
//!
//! A caller connects, and gets one message with a sealed memfd in it, the report, if it is the same
//! user or root; then the connection is closed. Nothing is read from a caller and nobody is waited
//! for. One is served at a time, and whatever callers do, the thread spends no more than a tenth of
//! its time on them.

use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, listen, sendmsg, socket_with,
};
use rustix::process::{Resource, getrlimit};
use sdp_core::Instant;
use sdp_verbs::hidden::hide;
use sdp_verbs::host::{Credentials, caller};

use crate::context::Context;
use crate::report::{ANSWER, Claim, Cost, REPORT_MAX, Report, SOCKET_NAME, Step, claim};

/// `off`: this process is not to be asked.
const VARIABLE: &str = "SDP_STAT";

/// Callers that may wait to be served; the kernel has others wait, or turns them away.
const BACKLOG: i32 = 16;
/// After time spent on a caller nobody is served for so many times as long.
const REST_FACTOR: u32 = 9;
/// When connections are looked at again that other threads worked on.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// As long after a caller could not be taken, for want of descriptors or memory.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// One process's, in the hands of the thread that serves it.
#[derive(Debug)]
pub(crate) struct StatSocket {
    listener: OwnedFd,
    state: State,
    /// What is written in one step.
    text: String,
    _claim: Claim,
}

#[derive(Debug)]
enum State {
    /// Nobody is being served: wait for the listener.
    Idle,
    /// A report is being made.
    Making(Box<Making>),
    /// Nobody is looked at before this time.
    Resting(Instant),
}

/// A caller, and the report that it will get.
#[derive(Debug)]
struct Making {
    caller: OwnedFd,
    file: OwnedFd,
    len: usize,
    report: Report,
    /// When it goes on.
    due: Instant,
    cost: Cost,
}

impl StatSocket {
    /// Makes it, if `context` is one that is in reports, the process has none, and none is
    /// forbidden. Without one the process works as ever.
    pub(super) fn open(context: &Arc<Context>) -> Option<Self> {
        if std::env::var_os(VARIABLE).is_some_and(|value| value == "off") {
            return None;
        }
        let claim = claim(context)?;
        match new_listener() {
            Ok(listener) => Some(Self {
                listener,
                state: State::Idle,
                text: String::new(),
                _claim: claim,
            }),
            Err(error) => {
                tracing::debug!("this process cannot be asked for statistics: {error}");
                None
            }
        }
    }

    /// What to wait on: readable when somebody calls. `None` while nobody would be served.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        matches!(self.state, State::Idle).then(|| self.listener.as_fd())
    }

    /// Does a bounded part of what there is to do. `called`: the descriptor was readable. Returns
    /// when it is to be called again, whatever the descriptor shows by then.
    pub(super) fn serve(&mut self, called: bool, now: impl Fn() -> Instant) -> Option<Instant> {
        if matches!(self.state, State::Idle) && !called {
            return None;
        }
        let start = now();
        self.state = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => self.welcome(start, &now),
            State::Making(making) if start < making.due => State::Making(making),
            State::Making(making) => self.go_on(making, start, &now),
            State::Resting(until) if start < until => State::Resting(until),
            State::Resting(_) => State::Idle,
        };
        match &self.state {
            State::Idle => None,
            State::Making(making) => Some(making.due),
            State::Resting(until) => Some(*until),
        }
    }

    /// Takes a caller in, if there is one.
    fn welcome(&self, start: Instant, now: &impl Fn() -> Instant) -> State {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match accept_with(&self.listener, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return State::Idle,
            Err(error) => {
                tracing::debug!("nobody can be told statistics for a while: {error}");
                return State::Resting(now() + REST_AFTER_FAILURE);
            }
        };
        match begin(socket) {
            Ok((caller, file)) => {
                let mut making = Making {
                    caller,
                    file,
                    len: 0,
                    report: Report::begin(),
                    due: start,
                    cost: Cost::default(),
                };
                making.cost.add(now().since(start));
                State::Making(Box::new(making))
            }
            Err(error) => {
                tracing::debug!("a caller for statistics is turned away: {error}");
                rest(now(), now().since(start))
            }
        }
    }

    /// The next step of a report.
    fn go_on(
        &mut self,
        mut making: Box<Making>,
        start: Instant,
        now: &impl Fn() -> Instant,
    ) -> State {
        self.text.clear();
        let step = making.report.step(&mut self.text, making.cost);
        let told = match making.append(self.text.as_bytes()) {
            Ok(()) if step != Step::Done => {
                let now = now();
                making.cost.add(now.since(start));
                making.due = match step {
                    Step::Wait => now + LOOK_AGAIN_AFTER,
                    _ => now,
                };
                return State::Making(making);
            }
            Ok(()) => making.hand_over(),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::debug!("a caller is not told statistics: {error}");
        }
        let spent = making.cost.spent;
        drop(making);
        // Nobody may ask for long.
        self.text = String::new();
        rest(now(), spent + now().since(start))
    }
}

impl Making {
    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len();
        // The kernel would send a signal if the file grew beyond the limit.
        let limit = getrlimit(Resource::Fsize).current;
        let limit = limit.map_or(REPORT_MAX as u64, |limit| limit.min(REPORT_MAX as u64));
        if self.len as u64 > limit {
            return Err(io::Error::other(format!(
                "a report of more than {limit} bytes (RLIMIT_FSIZE)"
            )));
        }
        while !bytes.is_empty() {
            match rustix::io::write(&self.file, bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the caller the report, as it is for ever.
    fn hand_over(&self) -> io::Result<()> {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&self.file, seals)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [self.file.as_fd()];
        let fits = control.push(SendAncillaryMessage::ScmRights(&files));
        assert!(fits, "the space is as large as one descriptor needs");
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.caller, &[IoSlice::new(ANSWER)], &mut control, flags)?;
        Ok(())
    }
}

/// The time after `spent` in which nobody is served.
fn rest(now: Instant, spent: Duration) -> State {
    State::Resting(now + spent * REST_FACTOR)
}

/// A caller that may be told, and a file for what it is told.
fn begin(socket: OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let who = caller(&socket).map_err(crate::error::verbs_error)?;
    if who.uid != 0 && !who.is_own_user() {
        let text = format!("process {} belongs to user {}", who.pid, who.uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create("sdp-stat", flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know the flag.
        Err(Errno::INVAL) => memfd_create("sdp-stat", flags),
        other => other,
    }?;
    Ok((hide(socket), hide(file)))
}

/// The listener, under a name that nobody can have taken before.
fn new_listener() -> io::Result<OwnedFd> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    let name = format!("{SOCKET_NAME}{}/{random:016x}", Credentials::own().pid);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(
        &socket,
        &SocketAddrUnix::new_abstract_name(name.as_bytes())?,
    )?;
    listen(&socket, BACKLOG)?;
    Ok(hide(socket))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use rustix::net::{connect, getsockname};

    use super::*;

    /// Whatever time a caller takes, the next one waits for nine times as long.
    #[test]
    fn callers_get_a_tenth_of_the_time() {
        let mut socket = StatSocket {
            listener: new_listener().unwrap(),
            state: State::Idle,
            text: String::new(),
            _claim: Claim::for_test(),
        };
        // Each look at the clock is a millisecond later than the one before.
        let clock = Cell::new(0_u64);
        let now = || {
            clock.set(clock.get() + 1_000_000);
            Instant::from_nanos(clock.get())
        };
        assert_eq!(socket.serve(false, now), None);
        assert_eq!(clock.get(), 0, "nobody calls, and nothing is done");

        let name: SocketAddrUnix = getsockname(&socket.listener).unwrap().try_into().unwrap();
        let call = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let caller = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
            let caller = caller.unwrap();
            connect(&caller, &name).unwrap();
            caller
        };
        let callers = [call(), call()];
        let told = |caller: &OwnedFd| rustix::io::read(caller, &mut [0; 64]) == Ok(ANSWER.len());
        let begun = clock.get();
        while !matches!(socket.state, State::Resting(_)) {
            socket.serve(true, now);
        }
        let end = clock.get();
        assert!(told(&callers[0]));
        assert!(socket.fd().is_none(), "callers are not waited for");
        let until = socket.serve(true, now).unwrap();
        // Of the time between two looks at this clock every second one is a step's.
        let (rest, spent) = (until.as_nanos() - end, (end - begun) / 2);
        assert!(
            (8 * spent..10 * spent).contains(&rest),
            "{rest} after {spent}"
        );
        while clock.get() + 1_000_000 < until.as_nanos() {
            assert_eq!(socket.serve(true, now), Some(until));
        }
        assert!(!told(&callers[1]));
        assert_eq!(socket.serve(true, now), None);
        assert!(socket.fd().is_some());
        while !matches!(socket.state, State::Resting(_)) {
            socket.serve(true, now);
        }
        assert!(told(&callers[1]));
    }
}
