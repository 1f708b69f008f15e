//! An eventcount: a counter to sleep on, whose signal costs no system call while nobody sleeps.

use std::io;
use std::time::Duration;

use sdp_verbs::Wake;

use crate::sync::{AtomicU32, Ordering, fence};

/// Sleepers read the counter, look at the state they wait for, then sleep unless the counter has
/// moved. Signallers change the state, then signal.
#[derive(Debug, Default)]
pub(crate) struct EventCount {
    count: AtomicU32,
    sleepers: AtomicU32,
}

impl EventCount {
    /// The present count.
    pub(crate) fn seen(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Moves the count on; wakes every sleeper.
    pub(crate) fn signal(&self) {
        self.count.fetch_add(1, Ordering::Release);
        // Pairs with the fence in `announce`: either the sleeper sees the new count, or we see it.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            self.wake_all();
        }
    }

    /// Announces a sleeper. Returns false, and announces nothing, if the count has moved on.
    fn announce(&self, seen: u32) -> bool {
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.count.load(Ordering::Acquire) == seen {
            return true;
        }
        self.retire();
        false
    }

    fn retire(&self) {
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sleeps while the count is `seen`, at most for `timeout`. Without a time-out the kernel
    /// restarts the wait after a signal handler with SA_RESTART, as it does for a blocking recv.
    #[cfg(not(loom))]
    pub(crate) fn wait(&self, seen: u32, timeout: Option<Duration>) -> io::Result<Wake> {
        use rustix::io::Errno;
        use rustix::thread::futex;

        if !self.announce(seen) {
            return Ok(Wake::Event);
        }
        let timeout = timeout.map(|t| rustix::fs::Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        let slept = futex::wait(&self.count, futex::Flags::PRIVATE, seen, timeout.as_ref());
        self.retire();
        match slept {
            Ok(()) | Err(Errno::AGAIN) => Ok(Wake::Event),
            Err(Errno::TIMEDOUT) => Ok(Wake::TimedOut),
            Err(Errno::INTR) => Ok(Wake::Interrupted),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(loom))]
    fn wake_all(&self) {
        use rustix::thread::futex;
        // Waking cannot fail: the word is aligned memory of ours.
        if let Err(e) = futex::wake(&self.count, futex::Flags::PRIVATE, u32::MAX >> 1) {
            tracing::error!("futex wake: {e}");
        }
    }

    #[cfg(loom)]
    pub(crate) fn wait(&self, seen: u32, _timeout: Option<Duration>) -> io::Result<Wake> {
        if self.announce(seen) {
            while self.count.load(Ordering::Acquire) == seen {
                loom::thread::yield_now();
            }
            self.retire();
        }
        Ok(Wake::Event)
    }

    #[cfg(loom)]
    fn wake_all(&self) {}
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;

    /// A signal that follows the change is never lost: the sleeper gets out.
    #[test]
    fn loom_eventcount_loses_no_signal() {
        loom::model(|| {
            let pair = Arc::new((EventCount::default(), AtomicBool::new(false)));
            let other = Arc::clone(&pair);
            let signaller = loom::thread::spawn(move || {
                other.1.store(true, Ordering::Relaxed);
                other.0.signal();
            });
            loop {
                let seen = pair.0.seen();
                if pair.1.load(Ordering::Relaxed) {
                    break;
                }
                pair.0.wait(seen, None).unwrap();
            }
            signaller.join().unwrap();
        });
    }

    /// With a sleeper announced, the signaller either is seen by it or sees it: the wake-up call
    /// is not skipped while somebody sleeps on the old count.
    #[test]
    fn loom_eventcount_sees_its_sleeper() {
        loom::model(|| {
            let pair = Arc::new((EventCount::default(), AtomicBool::new(false)));
            let other = Arc::clone(&pair);
            let signaller = loom::thread::spawn(move || {
                other.0.count.fetch_add(1, Ordering::Release);
                fence(Ordering::SeqCst);
                let woke = other.0.sleepers.load(Ordering::Relaxed) != 0;
                other.1.store(woke, Ordering::Relaxed);
            });
            let slept = pair.0.announce(0);
            signaller.join().unwrap();
            assert!(
                !slept || pair.1.load(Ordering::Relaxed),
                "slept, and nobody would wake it"
            );
        });
    }
}
