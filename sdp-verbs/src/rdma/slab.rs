//! Private memory of messages: many buffers in one registered region.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::device::Device;
use super::region::RdmaRegion;
use crate::error::VerbsError;
use crate::memory::ForeignSlice;
use crate::mr::MemoryRegion;
use crate::types::Access;

/// Buffers begin at multiples of this, so that none shares a cache line with another.
const ALIGN: usize = 64;

/// Bytes of a slab at least, and buffers in it.
const SLAB_LEN_MIN: usize = 64 << 10;
const SLAB_SLOTS_MIN: usize = 8;

/// All slabs of an instance, by the length of their buffers.
#[derive(Debug)]
pub(super) struct SlabPool {
    device: Arc<Device>,
    classes: Mutex<HashMap<usize, Vec<Arc<Slab>>>>,
}

/// One registered region, cut into buffers of one length.
#[derive(Debug)]
struct Slab {
    region: Arc<RdmaRegion>,
    slot_len: usize,
    count: usize,
    free: Mutex<Vec<usize>>,
}

/// One buffer. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    pool: Weak<SlabPool>,
    slab: Arc<Slab>,
    index: usize,
}

impl SlabPool {
    pub(super) fn new(device: &Arc<Device>) -> Arc<Self> {
        Arc::new(Self {
            device: Arc::clone(device),
            classes: Mutex::default(),
        })
    }

    /// A buffer of at least `len` bytes.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Result<Slot, VerbsError> {
        let slot_len = len.max(1).next_multiple_of(ALIGN);
        let mut classes = self.classes.lock().expect("nothing panics under this lock");
        let slabs = classes.entry(slot_len).or_default();
        let found = slabs
            .iter()
            .find_map(|slab| Some((Arc::clone(slab), slab.pop()?)));
        let (slab, index) = match found {
            Some(found) => found,
            None => {
                let slab = Arc::new(Slab::new(&self.device, slot_len)?);
                let index = slab.pop().expect("a new slab has free buffers");
                slabs.push(Arc::clone(&slab));
                (slab, index)
            }
        };
        Ok(Slot {
            pool: Arc::downgrade(self),
            slab,
            index,
        })
    }

    /// Lets go of slabs without a buffer in use, but of one.
    fn trim(&self, slot_len: usize) {
        let mut unused = Vec::new();
        {
            let mut classes = self.classes.lock().expect("nothing panics under this lock");
            let Some(slabs) = classes.get_mut(&slot_len) else {
                return;
            };
            let mut kept = false;
            slabs.retain(|slab| {
                let keep = !slab.is_unused() || !std::mem::replace(&mut kept, true);
                if !keep {
                    unused.push(Arc::clone(slab));
                }
                keep
            });
        }
        // Outside of the lock: deregistering takes its time.
        drop(unused);
    }
}

impl Slab {
    fn new(device: &Arc<Device>, slot_len: usize) -> Result<Self, VerbsError> {
        let len = SLAB_LEN_MIN.max(slot_len * SLAB_SLOTS_MIN);
        let region = RdmaRegion::allocate(device, len, Access::LOCAL_WRITE)?;
        let count = region.len() / slot_len;
        Ok(Self {
            region,
            slot_len,
            count,
            free: Mutex::new((0..count).rev().collect()),
        })
    }

    fn pop(&self) -> Option<usize> {
        self.free
            .lock()
            .expect("nothing panics under this lock")
            .pop()
    }

    /// Gives a buffer back. True if none is in use any more.
    fn push(&self, index: usize) -> bool {
        let mut free = self.free.lock().expect("nothing panics under this lock");
        free.push(index);
        free.len() == self.count
    }

    fn is_unused(&self) -> bool {
        let free = self.free.lock().expect("nothing panics under this lock");
        free.len() == self.count
    }
}

impl Slot {
    /// Its bytes; valid while the slot is there.
    pub(super) fn mem(&self) -> ForeignSlice {
        // SAFETY: the slab's region keeps its memory mapped while this slot holds it, and nobody
        // makes references into it.
        let whole = unsafe { ForeignSlice::new(self.slab.region.addr(), self.slab.region.len()) };
        whole
            .slice(self.index * self.slab.slot_len, self.slab.slot_len)
            .expect("a slot lies within its slab")
    }

    /// The local key of its memory.
    pub(super) fn lkey(&self) -> u32 {
        self.slab.region.lkey().0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.slab.push(self.index)
            && let Some(pool) = self.pool.upgrade()
        {
            pool.trim(self.slab.slot_len);
        }
    }
}
