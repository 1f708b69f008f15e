//! The runtime of ordinary programs: real threads, the monotonic clock, one progress thread.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use sdp_core::Instant;
use sdp_verbs::{ArmToken, CompChannel, CompletionQueue, EventChannel, VerbsError, Wake, hidden};
use smallvec::{SmallVec, smallvec};

use super::stat_socket::StatSocket;
use super::{AbortOnUnwind, Runtime, WaitWord, inside};
use crate::context::Context;
use crate::error;
use crate::sync::lock;

/// Threads.
#[derive(Debug)]
pub(crate) struct ThreadRuntime {
    kick: Arc<OwnedFd>,
    started: Mutex<bool>,
}

impl ThreadRuntime {
    /// # Errors
    /// Out of descriptors.
    pub(crate) fn new() -> Result<Self, VerbsError> {
        let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(hidden::hide)
            .map_err(|e| VerbsError::os("opening the eventfd of the progress thread", e))?;
        Ok(Self {
            kick: Arc::new(kick),
            started: Mutex::new(false),
        })
    }
}

fn no_thread(source: io::Error) -> VerbsError {
    VerbsError::Limit {
        what: "starting the progress thread",
        limit: format!("RLIMIT_NPROC, or RLIMIT_AS for its stack: {source}"),
        remedy: "raise ulimit -u or ulimit -v",
    }
}

impl Runtime for ThreadRuntime {
    fn now(&self) -> Instant {
        let t = clock_gettime(ClockId::Monotonic);
        let secs = u64::try_from(t.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(t.tv_nsec).unwrap_or(0);
        Instant::from_nanos(secs * 1_000_000_000 + nanos)
    }

    fn wait_cq(
        &self,
        cq: &dyn CompletionQueue,
        token: ArmToken,
        until: Option<Instant>,
    ) -> io::Result<Wake> {
        cq.wait(token, until.map(|t| t.since(self.now())))
    }

    fn wait_word(&self, word: &WaitWord, seen: u32, until: Option<Instant>) -> io::Result<Wake> {
        word.count().wait(seen, until.map(|t| t.since(self.now())))
    }

    fn start_progress(&self, context: &Arc<Context>) -> io::Result<()> {
        let mut started = lock(&self.started);
        if *started {
            return Ok(());
        }
        let poller = Poller::new(context, &self.kick).map_err(error::verbs_error)?;
        // A signal handler of the program's must not run on this thread: block all signals while
        // it is made, since a new thread inherits the mask.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let spawned = std::thread::Builder::new()
            .name("sdp-progress".into())
            .spawn(move || poller.run());
        before.thread_set_mask()?;
        spawned.map_err(|e| error::verbs_error(no_thread(e)))?;
        *started = true;
        Ok(())
    }

    fn kick_progress(&self) {
        // A full counter means that a kick is pending already.
        match rustix::io::write(&*self.kick, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(e) => tracing::error!("cannot wake the progress thread: {e}"),
        }
    }

    fn may_spin(&self) -> bool {
        true
    }
}

/// The progress thread's loop. It holds the context only while it works, so that a context nobody
/// uses any more goes, and this thread with it.
#[derive(Debug)]
struct Poller {
    context: Weak<Context>,
    kick: Arc<OwnedFd>,
    /// The kick and both channels, for where poll(2) takes none.
    epoll: OwnedFd,
    /// By which this process is asked for its report, if this is the thread that tells.
    stat: Option<StatSocket>,
    cm: Arc<dyn EventChannel>,
    comp: Arc<dyn CompChannel>,
}

/// What ended a sleep; none of these if the time has run out.
#[derive(Clone, Copy, Default, Debug)]
struct Woken {
    by_kick: bool,
    /// The channel of connection management.
    by_cm: bool,
    /// The channel of the connections.
    by_comp: bool,
    /// Somebody who wants the report of this process.
    by_caller: bool,
}

impl Woken {
    /// It may have been anything but a caller.
    const SOMEHOW: Self = Self {
        by_kick: true,
        by_cm: true,
        by_comp: true,
        by_caller: false,
    };
}

/// Descriptors in the set.
const SOURCES: usize = 3;

impl Poller {
    /// # Errors
    /// Out of descriptors.
    fn new(context: &Arc<Context>, kick: &Arc<OwnedFd>) -> Result<Self, VerbsError> {
        let failed = |e| VerbsError::os("opening the epoll set of the progress thread", e);
        let (cm, comp) = context.channels();
        let epoll = hidden::hide(epoll::create(CreateFlags::CLOEXEC).map_err(failed)?);
        let sources: [_; SOURCES] = [kick.as_fd(), cm.fd(), comp.fd()];
        for fd in sources {
            epoll::add(&epoll, fd, EventData::new_u64(0), EventFlags::IN).map_err(failed)?;
        }
        Ok(Self {
            context: Arc::downgrade(context),
            kick: Arc::clone(kick),
            epoll,
            stat: StatSocket::open(context),
            cm,
            comp,
        })
    }

    fn run(mut self) {
        inside::stay_inside();
        // Every connection of the process hangs on this thread: a panic here must not go unseen.
        let _guard = AbortOnUnwind::new();
        let mut woken = Woken::SOMEHOW;
        while let Some(context) = self.context.upgrade() {
            let deadline = context.progress_of(woken.by_cm, woken.by_comp);
            let stat = self.stat.as_mut();
            let serve = stat.and_then(|stat| stat.serve(woken.by_caller, || context.now()));
            let deadline = [deadline, serve].into_iter().flatten().min();
            let timeout = deadline.map(|t| t.since(context.now()));
            drop(context);
            woken = match self.sleep(timeout) {
                Ok(woken) => woken,
                Err(e) => {
                    tracing::error!("the progress thread cannot poll: {e}");
                    return;
                }
            };
        }
    }

    /// Sleeps until a descriptor has something, or the time has run out.
    fn sleep(&self, timeout: Option<Duration>) -> io::Result<Woken> {
        let timeout = timeout.map(|t| rustix::fs::Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let listen = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let callers = self.stat.as_ref().and_then(StatSocket::fd);
        let mut fds: SmallVec<[_; SOURCES + 1]> = smallvec![
            listen(self.kick.as_fd()),
            listen(self.cm.fd()),
            listen(self.comp.fd())
        ];
        fds.extend(callers.map(listen));
        let slept = match poll(&mut fds, timeout.as_ref()) {
            // The program has forbidden itself descriptors: poll(2) then takes none. The other
            // call does, but counts time in milliseconds.
            Err(Errno::INVAL) => {
                let mut events: [MaybeUninit<Event>; SOURCES] =
                    [const { MaybeUninit::uninit() }; SOURCES];
                let waited = epoll::wait(&self.epoll, &mut events, timeout.as_ref());
                // Callers, who could not be taken, are not in the set.
                waited.map(|(some, _)| match some {
                    [] => Woken::default(),
                    _ => Woken::SOMEHOW,
                })
            }
            other => other.map(|_| {
                let shown = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
                Woken {
                    by_kick: shown(0),
                    by_cm: shown(1),
                    by_comp: shown(2),
                    by_caller: shown(SOURCES),
                }
            }),
        };
        let woken = match slept {
            Ok(woken) => woken,
            Err(Errno::INTR) => Woken::SOMEHOW,
            Err(e) => return Err(e.into()),
        };
        if !woken.by_kick {
            return Ok(woken);
        }
        let mut count = [0; 8];
        match rustix::io::read(&*self.kick, &mut count) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(woken),
            Err(e) => Err(e.into()),
        }
    }
}
