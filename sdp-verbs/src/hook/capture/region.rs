//! Registered memory, found again by key to show what is in it.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::memory::ForeignSlice;
use crate::mr::MemoryRegion;
use crate::types::{Access, Lkey, Rkey, Sge};

type Known = HashMap<Lkey, Weak<CaptureRegion>>;

/// Every region of one wrapper that exists.
#[derive(Debug, Default)]
pub(super) struct Regions(Mutex<Known>);

impl Regions {
    /// Remembers a region until it is dropped.
    pub(super) fn note(self: &Arc<Self>, inner: Arc<dyn MemoryRegion>) -> Arc<dyn MemoryRegion> {
        let region = Arc::new(CaptureRegion {
            inner,
            regions: Arc::clone(self),
        });
        self.with(|known| known.insert(region.inner.lkey(), Arc::downgrade(&region)));
        region
    }

    /// Copies up to `max` bytes out of what a request of this process names. It ends early where
    /// the request names memory that its key does not cover.
    pub(super) fn copy(&self, sges: &[Sge], max: usize) -> Vec<u8> {
        let total = sges
            .iter()
            .fold(0, |sum: usize, sge| sum.saturating_add(sge.len));
        let mut out = Vec::with_capacity(total.min(max));
        for sge in sges {
            let len = sge.len.min(max - out.len());
            let region = self.with(|known| known.get(&sge.lkey).and_then(Weak::upgrade));
            let Some(memory) = region.and_then(|region| region.part(sge.addr, len)) else {
                break;
            };
            let at = out.len();
            out.resize(at + len, 0);
            memory.read(0, &mut out[at..]);
        }
        out
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        // A panic elsewhere leaves the map whole: every change is one call on it.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
struct CaptureRegion {
    inner: Arc<dyn MemoryRegion>,
    regions: Arc<Regions>,
}

impl CaptureRegion {
    /// The part of it at `addr`, if it is one.
    fn part(&self, addr: *mut u8, len: usize) -> Option<ForeignSlice> {
        let start = self.inner.addr();
        let offset = (addr as usize).checked_sub(start.as_ptr() as usize)?;
        // SAFETY: who registered the range keeps it mapped while a request names it, and keeps
        // references out of it where anybody writes (contract of `Provider::register`). It is used
        // before the request is posted, or before its completion is handed out.
        let whole = unsafe { ForeignSlice::new(start, self.inner.len()) };
        whole.slice(offset, len)
    }
}

impl Drop for CaptureRegion {
    fn drop(&mut self) {
        // Before the inner region goes, or a new one might have taken the key already.
        self.regions.with(|known| known.remove(&self.inner.lkey()));
    }
}

impl MemoryRegion for CaptureRegion {
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
