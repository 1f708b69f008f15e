//! Sleeping and waking: the futex.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{self, Timespec};

use crate::cq::Wake;

/// Who may sleep on a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Threads of this process.
    Private,
    /// Threads of any process that maps it.
    Shared,
}

/// A word and the value it must still have for the thread to fall asleep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SleepOn<'a> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) value: u32,
    pub(crate) scope: Scope,
}

/// Words one call can sleep on (the kernel's limit).
pub(crate) const SLEEP_WORDS_MAX: usize = 128;

/// How long a kernel without `futex_waitv` sleeps on one of several words before it looks at the
/// others.
const SLICE: Duration = Duration::from_millis(1);

/// Wakes every thread asleep on a word. Never fails for a mapped word.
pub(crate) fn wake_all(word: &AtomicU32, scope: Scope) {
    let flags = match scope {
        Scope::Private => futex::Flags::PRIVATE,
        Scope::Shared => futex::Flags::empty(),
    };
    // The only error is a bad address, and the reference proves that it is a good one. The kernel
    // wants the number of threads below `i32::MAX`.
    let woken = futex::wake(word, flags, i32::MAX.unsigned_abs());
    debug_assert!(woken.is_ok());
}

/// Sleeps while all words keep their values. The first word is the one that is slept on where
/// only one can be.
///
/// Without a time-out the system call is one that the kernel restarts under `SA_RESTART`; with
/// one and a single word it is the form that a signal handler always ends.
pub(crate) fn sleep(words: &[SleepOn<'_>], timeout: Option<Duration>) -> io::Result<Wake> {
    debug_assert!(!words.is_empty() && words.len() <= SLEEP_WORDS_MAX);
    if let [one] = words {
        return outcome(wait_one(one, timeout));
    }
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    match wait_many(words, deadline) {
        // Older than Linux 5.16, or a system call filter that does not know it.
        Err(Errno::NOSYS | Errno::PERM) => sleep_in_slices(words, deadline),
        other => outcome(other),
    }
}

fn outcome(result: rustix::io::Result<()>) -> io::Result<Wake> {
    match result {
        Ok(()) | Err(Errno::AGAIN) => Ok(Wake::Event),
        Err(Errno::TIMEDOUT) => Ok(Wake::TimedOut),
        Err(Errno::INTR) => Ok(Wake::Interrupted),
        Err(e) => Err(e.into()),
    }
}

fn wait_one(on: &SleepOn<'_>, timeout: Option<Duration>) -> rustix::io::Result<()> {
    let flags = match on.scope {
        Scope::Private => futex::Flags::PRIVATE,
        Scope::Shared => futex::Flags::empty(),
    };
    // A time-out beyond what the clock can say is none.
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    futex::wait(on.word, flags, on.value, timeout.as_ref())
}

fn wait_many(words: &[SleepOn<'_>], deadline: Option<Instant>) -> rustix::io::Result<()> {
    let waits: smallvec::SmallVec<[futex::Wait; 4]> = words
        .iter()
        .map(|on| {
            let mut wait = futex::Wait::new();
            wait.val = u64::from(on.value);
            wait.uaddr = std::ptr::from_ref(on.word)
                .cast_mut()
                .cast::<std::ffi::c_void>()
                .into();
            wait.flags = futex::WaitFlags::SIZE_U32;
            if on.scope == Scope::Private {
                wait.flags |= futex::WaitFlags::PRIVATE;
            }
            wait
        })
        .collect();
    let deadline = deadline.and_then(absolute);
    futex::waitv(
        &waits,
        futex::WaitvFlags::empty(),
        deadline.as_ref(),
        futex::ClockId::Monotonic,
    )
    .map(|_| ())
}

/// The kernel's absolute form of a deadline; `None` if it lies beyond what that can say.
fn absolute(deadline: Instant) -> Option<Timespec> {
    let left = deadline.saturating_duration_since(Instant::now());
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.checked_add(Timespec::try_from(left).ok()?)
}

fn sleep_in_slices(words: &[SleepOn<'_>], deadline: Option<Instant>) -> io::Result<Wake> {
    loop {
        let changed =
            |on: &SleepOn<'_>| on.word.load(std::sync::atomic::Ordering::Acquire) != on.value;
        if words.iter().any(changed) {
            return Ok(Wake::Event);
        }
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(Wake::TimedOut);
        }
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        match outcome(wait_one(&words[0], Some(slice)))? {
            Wake::TimedOut => {}
            ended => return Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::thread;

    fn on(word: &AtomicU32, value: u32) -> SleepOn<'_> {
        SleepOn {
            word,
            value,
            scope: Scope::Private,
        }
    }

    #[test]
    fn every_form_ends_by_change_time_and_wake() {
        let (a, b) = (AtomicU32::new(1), AtomicU32::new(2));
        let long = Some(Duration::from_secs(20));
        let brief = Some(Duration::from_millis(2));
        assert_eq!(sleep(&[on(&a, 0)], long).unwrap(), Wake::Event);
        assert_eq!(sleep(&[on(&a, 1), on(&b, 0)], long).unwrap(), Wake::Event);
        assert_eq!(sleep(&[on(&a, 1)], brief).unwrap(), Wake::TimedOut);
        assert_eq!(
            sleep(&[on(&a, 1), on(&b, 2)], brief).unwrap(),
            Wake::TimedOut
        );
        let deadline = Instant::now() + Duration::from_millis(2);
        let slices = sleep_in_slices(&[on(&a, 1), on(&b, 2)], Some(deadline));
        assert_eq!(slices.unwrap(), Wake::TimedOut);
        thread::scope(|s| {
            s.spawn(|| {
                b.store(3, Ordering::Release);
                wake_all(&b, Scope::Private);
            });
            assert_eq!(sleep(&[on(&a, 1), on(&b, 2)], long).unwrap(), Wake::Event);
        });
    }
}
