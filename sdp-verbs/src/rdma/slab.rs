//! Private memory of messages: many buffers in one registered region.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use super::device::Device;
use super::region::RdmaRegion;
use crate::error::VerbsError;
use crate::memory::ForeignSlice;
use crate::mr::MemoryRegion;
use crate::types::Access;

/// Buffers begin at multiples of this, so that none shares a cache line with another.
const ALIGN: usize = 64;

/// Of buffers without this room there are powers of two: what a message has beside its payload.
const HEAD_ROOM: usize = 64;

/// Bytes of the shortest buffers, without that room.
const SLOT_LEN_MIN: usize = 256;

/// Bytes of a slab at least, and buffers in it.
const SLAB_LEN_MIN: usize = 64 << 10;
const SLAB_SLOTS_MIN: usize = 8;

/// Length of the buffers that one of `len` bytes is taken from. There are few lengths: a slab of each
/// is kept, and registered memory may be short.
fn slot_len(len: usize) -> usize {
    let payload = len.saturating_sub(HEAD_ROOM).max(SLOT_LEN_MIN);
    (payload.next_power_of_two() + HEAD_ROOM).next_multiple_of(ALIGN)
}

/// All slabs of an instance, by the length of their buffers.
#[derive(Debug)]
pub(super) struct SlabPool {
    device: Arc<Device>,
    classes: Mutex<BTreeMap<usize, Class>>,
}

/// The slabs of one length of buffers.
#[derive(Debug, Default)]
struct Class {
    slabs: Vec<Arc<Slab>>,
    /// The one that had a free buffer last. Receives hold theirs for long, and those of a thousand
    /// connections would have to be looked through for each message.
    last: usize,
}

impl Class {
    fn take(&mut self) -> Option<(Arc<Slab>, usize)> {
        let mut order = in_turn(self.slabs.len(), self.last);
        let found = |at: usize| Some((at, self.slabs[at].pop()?));
        let (at, index) = order.find_map(found)?;
        self.last = at;
        Some((Arc::clone(&self.slabs[at]), index))
    }

    fn add(&mut self, slab: Arc<Slab>) {
        self.last = self.slabs.len();
        self.slabs.push(slab);
    }
}

/// The places of `count`, from `first` on, or from the beginning if there is none of that number.
fn in_turn(count: usize, first: usize) -> impl Iterator<Item = usize> {
    let first = if first < count { first } else { 0 };
    (first..count).chain(0..first)
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

    /// A buffer of at least `len` bytes. Where no more memory may be registered a longer one serves.
    ///
    /// # Errors
    /// No memory may be registered.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Result<Slot, VerbsError> {
        let slot_len = slot_len(len);
        let mut classes = self.classes.lock().expect("nothing panics under this lock");
        let free = classes.get_mut(&slot_len).and_then(Class::take);
        let (slab, index) = match free {
            Some(found) => found,
            None => match Slab::new(&self.device, slot_len) {
                Ok(slab) => {
                    let slab = Arc::new(slab);
                    let index = slab.pop().expect("a new slab has free buffers");
                    classes.entry(slot_len).or_default().add(Arc::clone(&slab));
                    (slab, index)
                }
                Err(error) => {
                    let mut longer = classes.range_mut(slot_len..);
                    longer.find_map(|(_, class)| class.take()).ok_or(error)?
                }
            },
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
            let Some(class) = classes.get_mut(&slot_len) else {
                return;
            };
            let mut kept = false;
            class.slabs.retain(|slab| {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slab is looked at once, beginning with the one that was good last; one that is gone
    /// meanwhile is no loss.
    #[test]
    fn slabs_take_turns() {
        let order = |count, first| in_turn(count, first).collect::<Vec<_>>();
        assert_eq!(order(4, 2), [2, 3, 0, 1]);
        assert_eq!(order(2, 2), [0, 1]);
        assert_eq!(order(0, 3), []);
    }

    /// Messages of all lengths share few lengths of buffers, which hold them, and of which those of
    /// receives are two.
    #[test]
    fn few_lengths() {
        let lens: std::collections::BTreeSet<usize> = (1..=32_832).map(slot_len).collect();
        assert_eq!(lens.len(), 8, "{lens:?}");
        assert!((1..=1 << 20).all(|len| slot_len(len) >= len));
        assert_eq!([4_160, 32_832].map(slot_len), [4_160, 32_832]);
    }
}
