//! Registered memory and windows over it.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use super::keys::KeyTable;
use super::plane::Plane;
use super::shm::{self, Mapping, SEALS_OWNED};
use crate::error::VerbsError;
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::types::{Access, Lkey, Rkey};

/// Whose memory a region is.
#[derive(Debug)]
enum Backing {
    /// The program's; a peer reaches it through the kernel.
    Heap,
    /// Ours, in a sealed memfd that peers map read-only.
    Owned { map: Mapping, fd: OwnedFd },
}

/// A registered range of memory. Requests under way keep it mapped if it is ours.
#[derive(Debug)]
pub(crate) struct RegionInner {
    id: u32,
    addr: NonNull<u8>,
    len: usize,
    access: Access,
    backing: Backing,
    /// Keys bound over it; dead ones are swept when it grows.
    bound: Mutex<Vec<Rkey>>,
}

// SAFETY: `addr` names memory that the contract of `register`, or the mapping in `backing`, keeps
// valid; it is only used for copies.
unsafe impl Send for RegionInner {}
// SAFETY: as above.
unsafe impl Sync for RegionInner {}

/// Keys remembered by a region before dead ones are swept.
const BOUND_SWEEP_MIN: usize = 32;

impl RegionInner {
    /// Its number in the instance: the lkey, and its name on links.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// First byte.
    pub(crate) fn addr(&self) -> u64 {
        self.addr.as_ptr().addr() as u64
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What a peer maps, if it is ours.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Heap => None,
            Backing::Owned { fd, .. } => Some(fd.as_fd()),
        }
    }

    /// The pointer to `addr` with the provenance of the region; `None` if `addr..addr + len` does
    /// not lie within.
    pub(crate) fn pointer(&self, addr: u64, len: usize) -> Option<*mut u8> {
        let offset = usize::try_from(addr.checked_sub(self.addr())?).ok()?;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        Some(self.addr.as_ptr().wrapping_add(offset))
    }

    /// Remembers a key bound over it.
    pub(crate) fn note_key(&self, keys: &KeyTable, rkey: Rkey) {
        let mut bound = self.bound.lock().expect("nothing panics under this lock");
        if bound.len() >= BOUND_SWEEP_MIN && bound.len() == bound.capacity() {
            bound.retain(|k| keys.is_alive(*k));
        }
        bound.push(rkey);
    }
}

/// The regions of an instance by local key.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    by_lkey: RwLock<HashMap<u32, Arc<RegionInner>>>,
    last: AtomicU32,
}

impl Regions {
    /// The region that an lkey names if it covers the range with all of `access`.
    pub(crate) fn covering(
        &self,
        lkey: Lkey,
        addr: u64,
        len: usize,
        access: Access,
    ) -> Option<Arc<RegionInner>> {
        let regions = self.by_lkey.read().expect("nothing panics under this lock");
        let region = regions.get(&lkey.0)?;
        region.pointer(addr, len)?;
        region.access.contains(access).then(|| Arc::clone(region))
    }

    fn insert(
        &self,
        make: impl FnOnce(u32) -> RegionInner,
    ) -> Result<Arc<RegionInner>, VerbsError> {
        let mut regions = self
            .by_lkey
            .write()
            .expect("nothing panics under this lock");
        for _ in 0..=regions.len() {
            let id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if id != 0 && !regions.contains_key(&id) {
                let region = Arc::new(make(id));
                regions.insert(id, Arc::clone(&region));
                return Ok(region);
            }
        }
        Err(VerbsError::Limit {
            what: "memory regions",
            limit: format!("{}", regions.len()),
            remedy: "deregister some",
        })
    }

    fn remove(&self, id: u32) {
        let mut regions = self
            .by_lkey
            .write()
            .expect("nothing panics under this lock");
        regions.remove(&id);
    }
}

/// The caller's handle of a region.
#[derive(Debug)]
pub(crate) struct HostRegion {
    plane: Arc<Plane>,
    inner: Arc<RegionInner>,
}

impl HostRegion {
    /// Registers the caller's memory. The contract is [`Provider::register`]'s.
    ///
    /// [`Provider::register`]: crate::Provider::register
    pub(crate) fn over_heap(
        plane: &Arc<Plane>,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Self, VerbsError> {
        if access.intersects(Access::REMOTE_READ | Access::REMOTE_WRITE) {
            return Err(VerbsError::Unsupported {
                provider: "host",
                op: "regions with remote rights of their own",
            });
        }
        if len == 0 || addr.as_ptr().addr().checked_add(len).is_none() {
            return Err(VerbsError::Argument {
                what: "length of a region",
                reason: format!("{len} bytes from {addr:p}"),
            });
        }
        let inner = plane.regions().insert(|id| RegionInner {
            id,
            addr,
            len,
            access,
            backing: Backing::Heap,
            bound: Mutex::default(),
        })?;
        Ok(Self {
            plane: Arc::clone(plane),
            inner,
        })
    }

    /// Allocates memory of our own, zeroed. We are the only process that can ever write it.
    pub(crate) fn allocate(plane: &Arc<Plane>, len: usize) -> Result<Self, VerbsError> {
        let rounded = shm::page_round(len).filter(|l| *l > 0);
        let Some(len) = rounded else {
            return Err(VerbsError::Argument {
                what: "length of a region",
                reason: format!("{len} bytes"),
            });
        };
        let fd = shm::create("sdp-region", len, len)?;
        let map = Mapping::read_write(fd.as_fd(), len)?;
        shm::seal(fd.as_fd(), SEALS_OWNED)?;
        let inner = plane.regions().insert(|id| RegionInner {
            id,
            addr: map.ptr(),
            len,
            access: Access::LOCAL_WRITE | Access::MW_BIND,
            backing: Backing::Owned { map, fd },
            bound: Mutex::default(),
        })?;
        Ok(Self {
            plane: Arc::clone(plane),
            inner,
        })
    }
}

impl MemoryRegion for HostRegion {
    fn addr(&self) -> NonNull<u8> {
        self.inner.addr
    }

    fn len(&self) -> usize {
        self.inner.len
    }

    fn lkey(&self) -> Lkey {
        Lkey(self.inner.id)
    }

    fn rkey(&self) -> Option<Rkey> {
        None
    }

    fn access(&self) -> Access {
        self.inner.access
    }
}

impl Drop for HostRegion {
    fn drop(&mut self) {
        self.plane.regions().remove(self.inner.id);
        let bound = std::mem::take(
            &mut *self
                .inner
                .bound
                .lock()
                .expect("nothing panics under this lock"),
        );
        for rkey in bound {
            self.plane.keys().kill(rkey, None);
        }
        if let Backing::Owned { map, .. } = &self.inner.backing {
            debug_assert_eq!(map.len(), self.inner.len);
            self.plane.region_gone(self.inner.id);
        }
    }
}

/// A memory window.
#[derive(Debug)]
pub(crate) struct HostWindow {
    plane: Weak<Plane>,
    keys: Arc<KeyTable>,
    bound: Mutex<Option<Rkey>>,
}

impl HostWindow {
    /// Not yet bound.
    pub(crate) fn new(plane: &Arc<Plane>) -> Self {
        Self {
            plane: Arc::downgrade(plane),
            keys: Arc::clone(plane.keys()),
            bound: Mutex::new(None),
        }
    }

    /// Whether it is of this instance.
    pub(crate) fn belongs_to(&self, plane: &Arc<Plane>) -> bool {
        std::ptr::eq(self.plane.as_ptr(), Arc::as_ptr(plane))
    }

    /// Binds it by `make` unless a living binding is in force.
    pub(crate) fn bind_with<E>(
        &self,
        in_force: E,
        make: impl FnOnce() -> Result<Rkey, E>,
    ) -> Result<Rkey, E> {
        let mut bound = self.bound.lock().expect("nothing panics under this lock");
        if bound.is_some_and(|rkey| self.keys.is_alive(rkey)) {
            return Err(in_force);
        }
        let rkey = make()?;
        *bound = Some(rkey);
        Ok(rkey)
    }
}

impl MemoryWindow for HostWindow {
    fn rkey(&self) -> Option<Rkey> {
        let bound = self.bound.lock().expect("nothing panics under this lock");
        bound.filter(|rkey| self.keys.is_alive(*rkey))
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Drop for HostWindow {
    fn drop(&mut self) {
        let bound = self.bound.lock().expect("nothing panics under this lock");
        if let Some(rkey) = *bound {
            self.keys.kill(rkey, None);
        }
    }
}
