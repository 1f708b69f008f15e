//! Synchronisation through one door, so that loom sees it.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks, whatever a panicking thread left behind: engines are value types whose invariants hold
/// between calls, and a panic inside one aborts the process before its memory can be reused.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
