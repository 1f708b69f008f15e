//! Threads that sleep in calls, for who cancels one of them.
//!
//! The C libraries wake a cancelled thread only where they may unwind it at once, which a call does not
//! bear. So who puts itself in front of pthread_cancel(3) wakes the thread by what it sleeps on: the call
//! ends as by a signal, gives everything back, and the thread may end behind it.
//!
//! A thread is listed before it asks the C library whether it has been cancelled; whoever cancels it tells
//! the C library first. The place is noted before the sleeper looks whether it has been cancelled, and who
//! cancels marks the sleeper before it looks for the place. Each place keeps count, so a wake-up that comes
//! before the sleep ends it, too.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::sys::pthread::{Pthread, pthread_self};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use sdp_verbs::{CompletionQueue, Wake, hidden};
use smallvec::SmallVec;

use super::fork::{GENERATIONS_MAX, generation};
use super::{WaitWord, inside};
use crate::sync::lock;

/// What a thread sleeps on.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Queue(Arc<dyn CompletionQueue>),
    Word(WaitWord),
    Bell(Arc<OwnedFd>),
}

impl Place {
    fn wake(&self) {
        match self {
            Self::Queue(cq) => cq.wake(),
            Self::Word(word) => word.signal(),
            // A full counter rings as well.
            Self::Bell(bell) => drop(rustix::io::write(bell, &1_u64.to_ne_bytes())),
        }
    }
}

#[derive(Debug)]
struct Sleeper {
    thread: Pthread,
    /// Of the process.
    generation: usize,
    cancelled: AtomicBool,
    place: Mutex<Option<Place>>,
}

/// Whether anybody cancels threads by [`cancel_sleep`].
static WATCHED: AtomicBool = AtomicBool::new(false);

/// The threads of this process that have made calls; a forked child has a list of its own, as a thread of its
/// parent's may hold the lock of that.
static SLEEPERS: [Mutex<Vec<Arc<Sleeper>>>; GENERATIONS_MAX] =
    [const { Mutex::new(Vec::new()) }; GENERATIONS_MAX];

thread_local! {
    static OWN: RefCell<Option<Listed>> = const { RefCell::new(None) };
}

/// A thread's place in the list, until it ends.
#[derive(Debug)]
struct Listed(Arc<Sleeper>);

impl Listed {
    fn new(generation: usize) -> Self {
        let sleeper = Arc::new(Sleeper {
            thread: pthread_self(),
            generation,
            cancelled: AtomicBool::new(false),
            place: Mutex::new(None),
        });
        if let Some(list) = SLEEPERS.get(generation) {
            lock(list).push(Arc::clone(&sleeper));
        }
        Self(sleeper)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mine = self.0.generation;
        if generation().is_ok_and(|now| now == mine)
            && let Some(list) = SLEEPERS.get(mine)
        {
            lock(list).retain(|it| !Arc::ptr_eq(it, &self.0));
        }
    }
}

/// From here on threads can be woken by [`cancel_sleep`].
pub fn watch_sleepers() {
    WATCHED.store(true, Ordering::Relaxed);
}

/// A thread has been cancelled. If it sleeps in a call, or is about to, that ends as by a signal.
pub fn cancel_sleep(thread: Pthread) {
    let Some(list) = generation().ok().and_then(|now| SLEEPERS.get(now)) else {
        return;
    };
    let found = lock(list).iter().find(|it| it.thread == thread).cloned();
    if let Some(sleeper) = found {
        sleeper.cancelled.store(true, Ordering::SeqCst);
        if let Some(place) = &*lock(&sleeper.place) {
            place.wake();
        }
    }
}

/// The present thread is about to make a call that it may be cancelled in. To be called before it is asked
/// whether it has been.
#[inline]
pub fn list_sleeper() {
    if WATCHED.load(Ordering::Relaxed) && !inside::is_listed() && !inside::is_in_handler() {
        list();
    }
}

#[cold]
fn list() {
    inside::enter_call();
    if let Ok(now) = generation() {
        // A thread that is ending is not cancelled any more.
        let _ = OWN.try_with(|own| *own.borrow_mut() = Some(Listed::new(now)));
    }
    inside::set_listed(true);
    if inside::leave_call() {
        inside::catch_up();
    }
}

/// The only thread of a forked child is in none of its lists yet.
pub fn list_anew() {
    inside::set_listed(false);
}

/// This thread's own place in the list, if its call may be ended.
fn own() -> Option<Arc<Sleeper>> {
    if !inside::may_end() || !inside::is_listed() {
        return None;
    }
    let own = OWN.try_with(|own| own.borrow().as_ref().map(|it| Arc::clone(&it.0)));
    own.ok().flatten()
}

/// Sleeps at a place. The program's signal handlers may run meanwhile, and a cancelled thread is woken.
///
/// # Errors
/// Those of `sleep`.
pub(crate) fn sleep_at(
    place: impl FnOnce() -> Place,
    sleep: impl FnOnce() -> io::Result<Wake>,
) -> io::Result<Wake> {
    asleep(place, || Ok(Wake::Interrupted), sleep)
}

fn asleep<R>(
    place: impl FnOnce() -> Place,
    interrupted: impl Fn() -> R,
    sleep: impl FnOnce() -> R,
) -> R {
    let Some(sleeper) = own() else {
        return inside::outside(interrupted, sleep);
    };
    let is_cancelled = || sleeper.cancelled.load(Ordering::SeqCst);
    *lock(&sleeper.place) = Some(place());
    let slept = match is_cancelled() {
        true => interrupted(),
        false => inside::outside(&interrupted, sleep),
    };
    *lock(&sleeper.place) = None;
    if !is_cancelled() {
        return slept;
    }
    inside::tell_to_end();
    interrupted()
}

/// poll(2) inside a call, as any other sleep of one. Returns what each descriptor shows: nothing at all if
/// the time was over.
///
/// # Errors
/// As poll(2).
pub fn poll_asleep(
    fds: &[PollFd<'_>],
    timeout: Option<&Timespec>,
) -> Result<SmallVec<[PollFlags; 4]>, Errno> {
    let bell = own().and_then(|_| {
        let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        Some(Arc::new(hidden::hide(made)))
    });
    let mut all: SmallVec<[PollFd<'_>; 4]> = fds.iter().cloned().collect();
    let interrupted = || Err(Errno::INTR);
    if let Some(bell) = &bell {
        all.push(PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN));
        let place = || Place::Bell(Arc::clone(bell));
        asleep(place, interrupted, || poll(&mut all, timeout))?;
    } else {
        inside::outside(interrupted, || poll(&mut all, timeout))?;
    }
    Ok(all.iter().take(fds.len()).map(PollFd::revents).collect())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    /// A thread that sleeps on a word, or is about to, ends its sleep when it is cancelled, and says so
    /// once; one whose call may not be ended sleeps on.
    #[test]
    fn a_cancelled_sleeper_wakes_once() {
        watch_sleepers();
        let word = WaitWord::default();
        let (say, hear) = mpsc::channel();
        let sleeper = {
            let word = word.clone();
            thread::spawn(move || {
                list_sleeper();
                inside::enter_call();
                inside::let_end(true);
                let sleep = |seen| {
                    let word = word.clone();
                    sleep_at(
                        || Place::Word(word.clone()),
                        || word.count().wait(seen, None),
                    )
                };
                say.send(pthread_self()).unwrap();
                let first = sleep(word.seen()).unwrap();
                assert!(inside::is_told_to_end());
                // The word has moved on, so that nobody sleeps here for ever.
                let second = sleep(word.seen().wrapping_sub(1)).unwrap();
                assert!(!inside::leave_call());
                (first, second)
            })
        };
        cancel_sleep(hear.recv().unwrap());
        assert_eq!(sleeper.join().unwrap(), (Wake::Interrupted, Wake::Event));
    }
}
