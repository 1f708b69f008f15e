//! The earliest time at which somebody has been asked to look.

use crate::sync::{AtomicU64, Ordering};

/// Later than any time, in nanoseconds.
pub(crate) const NEVER: u64 = u64::MAX;

/// One time, in nanoseconds, that several threads bring forward.
#[derive(Debug)]
pub(crate) struct Alarm(AtomicU64);

impl Alarm {
    /// Nobody has been asked.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(NEVER))
    }

    /// Brings it forward to `at`. False: it is set for then, or for earlier, already.
    pub(crate) fn bring_forward(&self, at: u64) -> bool {
        // One step: of two threads that bring it forward at once, the later time must not stay.
        at < self.0.fetch_min(at, Ordering::SeqCst)
    }

    /// Whether it is set for `at`.
    pub(crate) fn is_set_for(&self, at: u64) -> bool {
        self.0.load(Ordering::SeqCst) == at
    }

    /// It has gone off for `at`, and is set no more. False: it was brought forward since.
    pub(crate) fn take(&self, at: u64) -> bool {
        self.0
            .compare_exchange(at, NEVER, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// Of two times asked for at once, the earlier one goes off.
    #[test]
    fn loom_alarm_keeps_the_earliest() {
        loom::model(|| {
            let alarm = Arc::new(Alarm::new());
            let other = Arc::clone(&alarm);
            let late = loom::thread::spawn(move || other.bring_forward(10));
            assert!(alarm.bring_forward(5));
            late.join().unwrap();
            assert!(alarm.take(5));
        });
    }
}
