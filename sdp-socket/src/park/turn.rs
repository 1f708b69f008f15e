//! Whose turn it is to poll: one thread at a time, and nobody's work is forgotten.

use crate::sync::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
const MORE: u32 = 3;

/// A try-lock whose holder learns, before it lets go, that somebody came by in the meantime.
/// Whoever fails to enter leaves "more work" behind and goes away; the holder looks again.
#[derive(Debug, Default)]
pub(crate) struct Turn(AtomicU32);

impl Turn {
    /// Takes the turn, or leaves "more work" with its holder.
    pub(crate) fn try_enter(&self) -> bool {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let (next, entered) = if state == FREE {
                (HELD, true)
            } else {
                (MORE, false)
            };
            match self
                .0
                .compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return entered,
                Err(now) => state = now,
            }
        }
    }

    /// Takes the turn if it is free; leaves no note otherwise. For those who come back anyway.
    pub(crate) fn try_enter_quietly(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FREE
            && self
                .0
                .compare_exchange(FREE, HELD, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Lets go. Returns false, still holding, if somebody left more work: look again.
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        match self
            .0
            .compare_exchange(HELD, FREE, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(_) => {
                // A swap, not a store: what the last visitor did before it came must be seen.
                self.0.swap(HELD, Ordering::AcqRel);
                false
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// Work put down before a failed `try_enter` is always done by the holder.
    #[test]
    fn loom_turn_forgets_no_work() {
        loom::model(|| {
            let shared = Arc::new((Turn::default(), AtomicU32::new(0), AtomicU32::new(0)));
            let run = |s: &(Turn, AtomicU32, AtomicU32)| {
                s.1.fetch_add(1, Ordering::Relaxed);
                if s.0.try_enter() {
                    loop {
                        let todo = s.1.swap(0, Ordering::Relaxed);
                        s.2.fetch_add(todo, Ordering::Relaxed);
                        if s.0.leave() {
                            break;
                        }
                    }
                }
            };
            let other = Arc::clone(&shared);
            let helper = loom::thread::spawn(move || run(&other));
            run(&shared);
            helper.join().unwrap();
            assert_eq!(shared.2.load(Ordering::Relaxed), 2);
        });
    }
}
