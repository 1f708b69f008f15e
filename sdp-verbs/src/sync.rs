//! The memory model our lock-free code is written against: the compiler's, or loom's.
//!
//! Words in shared memory are reached through [`Words`], never as references, so that the same
//! ring, event word and key cells run over a mapping, over plain atomics and over loom.

pub(crate) use std::sync::atomic::Ordering;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::fence;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::fence;

/// 64-bit words that several threads or processes change at will, by index.
///
/// An index outside of the store is a bug of ours and panics; indices never come from a peer
/// without a check before.
pub(crate) trait Words {
    /// Loads a word.
    fn load(&self, at: usize, order: Ordering) -> u64;
    /// Stores a word.
    fn store(&self, at: usize, value: u64, order: Ordering);
    /// Replaces a word; returns it as it was.
    fn swap(&self, at: usize, value: u64, order: Ordering) -> u64;
    /// Replaces `old` by `new`; true if the word was `old`.
    fn replace(&self, at: usize, old: u64, new: u64, order: Ordering) -> bool;
}

impl<W: Words> Words for &W {
    fn load(&self, at: usize, order: Ordering) -> u64 {
        (**self).load(at, order)
    }

    fn store(&self, at: usize, value: u64, order: Ordering) {
        (**self).store(at, value, order);
    }

    fn swap(&self, at: usize, value: u64, order: Ordering) -> u64 {
        (**self).swap(at, value, order)
    }

    fn replace(&self, at: usize, old: u64, new: u64, order: Ordering) -> bool {
        (**self).replace(at, old, new, order)
    }
}

/// One 32-bit word that a thread can sleep on.
pub(crate) trait SleepWord {
    /// Loads it.
    fn load(&self, order: Ordering) -> u32;
    /// Sets bits; returns what was there before.
    fn fetch_or(&self, bits: u32, order: Ordering) -> u32;
    /// Replaces `old` by `new`; true if it was `old`.
    fn replace(&self, old: u32, new: u32) -> bool;
    /// Wakes every thread asleep on it.
    fn wake_all(&self);
}

#[cfg(all(test, loom))]
pub(crate) mod model {
    //! Stand-ins for shared memory and the futex inside loom models.

    use loom::sync::atomic::{AtomicU32, AtomicU64};
    use loom::sync::{Condvar, Mutex};
    use std::sync::Arc;

    use super::{Ordering, SleepWord, Words};

    /// Words on loom's atomics.
    #[derive(Clone)]
    pub(crate) struct LoomWords(Arc<Vec<AtomicU64>>);

    impl LoomWords {
        pub(crate) fn new(count: usize) -> Self {
            Self(Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()))
        }
    }

    impl Words for LoomWords {
        fn load(&self, at: usize, order: Ordering) -> u64 {
            self.0[at].load(order)
        }

        fn store(&self, at: usize, value: u64, order: Ordering) {
            self.0[at].store(value, order);
        }

        fn swap(&self, at: usize, value: u64, order: Ordering) -> u64 {
            self.0[at].swap(value, order)
        }

        fn replace(&self, at: usize, old: u64, new: u64, order: Ordering) -> bool {
            self.0[at]
                .compare_exchange(old, new, order, Ordering::Relaxed)
                .is_ok()
        }
    }

    /// A word with the futex's contract: `sleep(v)` returns at once unless the word is `v`, and
    /// the check and the falling asleep are one step with respect to `wake_all`.
    pub(crate) struct LoomSleepWord {
        word: AtomicU32,
        bucket: Mutex<()>,
        asleep: Condvar,
    }

    impl LoomSleepWord {
        pub(crate) fn new() -> Self {
            Self {
                word: AtomicU32::new(0),
                bucket: Mutex::new(()),
                asleep: Condvar::new(),
            }
        }

        pub(crate) fn sleep(&self, expected: u32) {
            let bucket = self.bucket.lock().unwrap();
            if self.word.load(Ordering::SeqCst) == expected {
                drop(self.asleep.wait(bucket).unwrap());
            }
        }
    }

    impl SleepWord for LoomSleepWord {
        fn load(&self, order: Ordering) -> u32 {
            self.word.load(order)
        }

        fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
            self.word.fetch_or(bits, order)
        }

        fn replace(&self, old: u32, new: u32) -> bool {
            self.word
                .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
        }

        fn wake_all(&self) {
            let _bucket = self.bucket.lock().unwrap();
            self.asleep.notify_all();
        }
    }
}
