//! Regions that pass through a wrapper, found again by key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::forward::forward;
use crate::mr::MemoryRegion;
use crate::types::Lkey;

type Known = HashMap<Lkey, Weak<NotedRegion>>;

/// Every region that was noted and still exists.
#[derive(Debug, Default)]
pub(super) struct Regions(Mutex<Known>);

impl Regions {
    /// Remembers a region until it is dropped.
    pub(super) fn note(self: &Arc<Self>, inner: Arc<dyn MemoryRegion>) -> Arc<dyn MemoryRegion> {
        let region = Arc::new(NotedRegion {
            inner,
            regions: Arc::clone(self),
        });
        self.with(|known| known.insert(region.inner.lkey(), Arc::downgrade(&region)));
        region
    }

    /// The region with a key.
    pub(super) fn find(&self, lkey: Lkey) -> Option<Arc<dyn MemoryRegion>> {
        let region = self.with(|known| known.get(&lkey).and_then(Weak::upgrade))?;
        Some(region)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        // A panic elsewhere leaves the map whole: every change is one call on it.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct NotedRegion {
    inner: Arc<dyn MemoryRegion>,
    regions: Arc<Regions>,
}

impl Drop for NotedRegion {
    fn drop(&mut self) {
        // Before the inner region goes, or a new one might have taken the key already.
        self.regions.with(|known| known.remove(&self.inner.lkey()));
    }
}

impl MemoryRegion for NotedRegion {
    forward!(MemoryRegion: addr, len, lkey, rkey, access);
}
