//! Atomic words inside a mapping.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::cache;
use super::shm::Mapping;
use super::wait;
use crate::sync::{Ordering, SleepWord, Words};

/// A run of 64-bit words in a mapping.
#[derive(Clone, Debug)]
pub(crate) struct MappedWords {
    first: NonNull<u64>,
    count: usize,
    map: Arc<Mapping>,
}

// SAFETY: the words are only reached as atomics, and `map` keeps them mapped.
unsafe impl Send for MappedWords {}
// SAFETY: as above.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// The `count` words from byte `offset` on; `None` if they are not aligned or not within.
    pub(crate) fn new(map: &Arc<Mapping>, offset: usize, count: usize) -> Option<Self> {
        let part = map.part(offset, count.checked_mul(8)?)?;
        let first = NonNull::new(part.as_ptr().cast::<u64>())?;
        first.is_aligned().then(|| Self {
            first,
            count,
            map: Arc::clone(map),
        })
    }

    /// The words from `at` on, as a store of their own.
    pub(crate) fn tail(&self, at: usize) -> Self {
        assert!(at <= self.count, "tail of words out of range");
        Self {
            // SAFETY: `at` is within the run, checked above.
            first: unsafe { self.first.add(at) },
            count: self.count - at,
            map: Arc::clone(&self.map),
        }
    }

    /// Sets bits; returns the word as it was.
    pub(crate) fn fetch_or(&self, at: usize, bits: u64, order: Ordering) -> u64 {
        self.atomic(at).fetch_or(bits, order)
    }

    /// Asks for the cache line of a word, soon to be read. A word beyond the run is ignored.
    pub(crate) fn prefetch(&self, at: usize) {
        if at < self.count {
            // SAFETY: `at` is within the run, checked above.
            let word = unsafe { self.first.add(at) };
            cache::prefetch_read(word.as_ptr().cast::<u8>());
        }
    }

    /// Makes all words zero.
    pub(crate) fn clear(&self) {
        for at in 0..self.count {
            self.store(at, 0, Ordering::Relaxed);
        }
    }

    fn atomic(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.count, "word index out of range");
        // SAFETY: `at` is within the run, checked above.
        let word = unsafe { self.first.add(at) };
        // SAFETY: aligned (checked by `new`), mapped as long as `self` by `map`, and every other
        // access to it, here or in the peer, is atomic or none of Rust's business.
        unsafe { AtomicU64::from_ptr(word.as_ptr()) }
    }
}

impl Words for MappedWords {
    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.atomic(at).load(order)
    }

    fn store(&self, at: usize, value: u64, order: Ordering) {
        self.atomic(at).store(value, order);
    }

    fn swap(&self, at: usize, value: u64, order: Ordering) -> u64 {
        self.atomic(at).swap(value, order)
    }

    fn replace(&self, at: usize, old: u64, new: u64, order: Ordering) -> bool {
        let word = self.atomic(at);
        word.compare_exchange(old, new, order, Ordering::Relaxed)
            .is_ok()
    }
}

/// A 32-bit word in a mapping that threads of two processes sleep on.
#[derive(Clone)]
pub(crate) struct MappedSleepWord {
    word: NonNull<u32>,
    _map: Arc<Mapping>,
}

// SAFETY: the word is only reached as an atomic, and `_map` keeps it mapped.
unsafe impl Send for MappedSleepWord {}
// SAFETY: as above.
unsafe impl Sync for MappedSleepWord {}

impl MappedSleepWord {
    /// The word at byte `offset`; `None` if it is not aligned, not within, or not writable.
    pub(crate) fn new(map: &Arc<Mapping>, offset: usize) -> Option<Self> {
        let part = map.part(offset, 4)?;
        let word = NonNull::new(part.as_ptr().cast::<u32>())?;
        (word.is_aligned() && map.writable()).then(|| Self {
            word,
            _map: Arc::clone(map),
        })
    }

    /// The word, for the futex calls.
    pub(crate) fn atomic(&self) -> &AtomicU32 {
        // SAFETY: aligned and mapped as long as `self`; all other access is atomic.
        unsafe { AtomicU32::from_ptr(self.word.as_ptr()) }
    }
}

impl fmt::Debug for MappedSleepWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.atomic().load(Ordering::Relaxed))
    }
}

impl SleepWord for MappedSleepWord {
    fn load(&self, order: Ordering) -> u32 {
        self.atomic().load(order)
    }

    fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        self.atomic().fetch_or(bits, order)
    }

    fn replace(&self, old: u32, new: u32) -> bool {
        self.atomic()
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    fn wake_all(&self) {
        wait::wake_all(self.atomic(), wait::Scope::Shared);
    }
}

/// A word that only threads of this process sleep on.
#[derive(Debug, Default)]
pub(crate) struct PrivateSleepWord(AtomicU32);

impl PrivateSleepWord {
    /// The word, for the futex calls.
    pub(crate) fn atomic(&self) -> &AtomicU32 {
        &self.0
    }
}

impl SleepWord for PrivateSleepWord {
    fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        self.0.fetch_or(bits, order)
    }

    fn replace(&self, old: u32, new: u32) -> bool {
        self.0
            .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    fn wake_all(&self) {
        wait::wake_all(&self.0, wait::Scope::Private);
    }
}
