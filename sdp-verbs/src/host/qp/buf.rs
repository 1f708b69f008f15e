//! Memory of a message on its way out.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::HostQp;
use super::remote::Remote;
use crate::host::shm::Mapping;
use crate::memory::ForeignSlice;

/// A posted receive of the peer's that was taken: ours to fill, once.
#[derive(Clone, Debug)]
pub(super) struct PeerSlot {
    /// The peer's name for it.
    pub(super) number: u32,
    pub(super) mem: ForeignSlice,
    /// Keeps `mem` mapped.
    pub(super) _map: Arc<Mapping>,
}

/// Private memory for a message that has no receive to go to yet.
#[derive(Debug)]
pub(super) struct HeapBuf {
    ptr: NonNull<[u8]>,
}

// SAFETY: it owns its memory.
unsafe impl Send for HeapBuf {}
// SAFETY: shared use is by copies through `ForeignSlice` only.
unsafe impl Sync for HeapBuf {}

impl HeapBuf {
    /// Zeroed memory.
    pub(super) fn new(len: usize) -> Self {
        let memory = vec![0u8; len].into_boxed_slice();
        Self {
            ptr: NonNull::from(Box::leak(memory)),
        }
    }

    /// Its bytes.
    pub(super) fn mem(&self) -> ForeignSlice {
        // SAFETY: allocated until `self` is dropped, and never referred to but through copies.
        unsafe { ForeignSlice::new(self.ptr.cast::<u8>(), self.ptr.len()) }
    }
}

impl Drop for HeapBuf {
    fn drop(&mut self) {
        // SAFETY: made by leaking a box, given back once.
        drop(unsafe { Box::from_raw(self.ptr.as_ptr()) });
    }
}

/// Where a reserved message will lie.
#[derive(Debug)]
pub(super) enum Place {
    /// In the peer's receive already.
    Slot(PeerSlot),
    /// With us, until there is a receive.
    Heap(HeapBuf),
}

/// What keeps a [`SendBuf`](crate::SendBuf)'s memory. Dropped unposted, it gives its slot back.
#[derive(Debug)]
pub(super) struct Reservation {
    pub(super) qp: Weak<HostQp>,
    pub(super) place: Place,
    pub(super) posted: AtomicBool,
    /// The peer must not use the slot's memory anew while the program may still fill it.
    pub(super) _remote: Arc<Remote>,
}

impl Reservation {
    /// Marks it posted; false if it was before.
    pub(super) fn take(&self) -> bool {
        !self.posted.swap(true, Ordering::AcqRel)
    }

    /// Its bytes.
    pub(super) fn mem(&self) -> ForeignSlice {
        match &self.place {
            Place::Slot(slot) => slot.mem,
            Place::Heap(heap) => heap.mem(),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.take()
            && let Some(qp) = self.qp.upgrade()
        {
            let slot = match &self.place {
                Place::Slot(slot) => Some(slot.clone()),
                Place::Heap(_) => None,
            };
            qp.give_back(slot);
        }
    }
}

/// A message waiting its turn.
#[derive(Debug)]
pub(super) enum Message {
    /// In the peer's receive.
    Slot(PeerSlot),
    /// In private memory.
    Heap(HeapBuf),
    /// In the private memory of a reservation.
    Reserved(Arc<Reservation>),
    /// Longer than the receive that was its turn.
    Overrun(PeerSlot),
}

impl Message {
    /// The private memory, if it still has to be copied.
    pub(super) fn private(&self) -> Option<ForeignSlice> {
        match self {
            Self::Slot(_) | Self::Overrun(_) => None,
            Self::Heap(heap) => Some(heap.mem()),
            Self::Reserved(reservation) => Some(reservation.mem()),
        }
    }
}

/// Copies `len` bytes from one range to another.
pub(super) fn copy(to: &ForeignSlice, from: &ForeignSlice, len: usize) {
    let from = from
        .slice(0, len)
        .expect("a message lies within its memory");
    // SAFETY: `from` is valid by its own contract, and a slot of the peer's never overlaps private
    // memory or another slot of the peer's that an honest peer posted; where a hostile one
    // overlaps its own slots, the copy goes through separate mappings' bytes and may tear only.
    unsafe { to.write_from(0, from.as_ptr(), len) };
}
