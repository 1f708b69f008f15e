//! Which regions cover memory that the provider did not allocate.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::mr::MemoryRegion;
use crate::types::{Access, Lkey, Rkey};

/// Keys of the regions that were registered by address.
#[derive(Debug, Default)]
pub(super) struct ForeignRegions(Mutex<HashSet<Lkey>>);

impl ForeignRegions {
    /// Remembers a region until it is dropped.
    pub(super) fn note(self: &Arc<Self>, inner: Arc<dyn MemoryRegion>) -> Arc<dyn MemoryRegion> {
        self.with(|keys| keys.insert(inner.lkey()));
        Arc::new(ForeignRegion {
            inner,
            keys: Arc::clone(self),
        })
    }

    pub(super) fn contains(&self, lkey: Lkey) -> bool {
        self.with(|keys| keys.contains(&lkey))
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashSet<Lkey>) -> T) -> T {
        // A panic elsewhere leaves the set whole: every change is one call on it.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct ForeignRegion {
    inner: Arc<dyn MemoryRegion>,
    keys: Arc<ForeignRegions>,
}

impl Drop for ForeignRegion {
    fn drop(&mut self) {
        // Before the inner region goes, or a new one might have taken the key already.
        self.keys.with(|keys| keys.remove(&self.inner.lkey()));
    }
}

impl MemoryRegion for ForeignRegion {
    fn addr(&self) -> NonNull<u8> {
        self.inner.addr()
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn lkey(&self) -> Lkey {
        self.inner.lkey()
    }

    fn rkey(&self) -> Option<Rkey> {
        self.inner.rkey()
    }

    fn access(&self) -> Access {
        self.inner.access()
    }
}
