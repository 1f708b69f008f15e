//! Memory of messages to be sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::error::{PostError, VerbsError};
use crate::memory::ForeignSlice;
use crate::rdma::slab::{SlabPool, Slot};

/// Where a queue pair takes memory of messages from: from the pool, and where that has none from what
/// it keeps for itself.
#[derive(Debug)]
pub(super) struct Messages {
    qp: u32,
    slabs: Arc<SlabPool>,
    /// Nobody else holds it while it is free.
    kept: Mutex<Option<Arc<Slot>>>,
}

impl Messages {
    pub(super) fn new(qp: u32, slabs: &Arc<SlabPool>) -> Self {
        Self {
            qp,
            slabs: Arc::clone(slabs),
            kept: Mutex::default(),
        }
    }

    /// Keeps memory for one message of up to `len` bytes.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn keep(&self, len: usize) -> Result<(), VerbsError> {
        let slot = self.slabs.take(len)?;
        let mut kept = self.kept.lock().expect("nothing panics under this lock");
        *kept = Some(Arc::new(slot));
        Ok(())
    }

    /// Memory for a message of up to `len` bytes.
    ///
    /// # Errors
    /// [`PostError::NoMemory`]: there is none.
    pub(super) fn reserve(&self, len: usize) -> Result<Reserved, PostError> {
        let memory = match self.slabs.take(len) {
            Ok(slot) => Memory::Pool(slot),
            Err(error) => Memory::Kept(self.take_kept(len).ok_or_else(|| {
                tracing::debug!("no memory for a message: {error}");
                PostError::NoMemory
            })?),
        };
        Ok(Reserved {
            qp: self.qp,
            memory,
            len,
            posted: AtomicBool::new(false),
        })
    }

    fn take_kept(&self, len: usize) -> Option<Arc<Slot>> {
        let mut kept = self.kept.lock().expect("nothing panics under this lock");
        let slot = kept.as_mut()?;
        let is_free = Arc::get_mut(slot).is_some();
        (is_free && slot.mem().len() >= len).then(|| Arc::clone(slot))
    }
}

#[derive(Debug)]
enum Memory {
    Pool(Slot),
    Kept(Arc<Slot>),
}

/// What keeps the memory of a [`SendBuf`](crate::SendBuf).
#[derive(Debug)]
pub(super) struct Reserved {
    qp: u32,
    memory: Memory,
    len: usize,
    posted: AtomicBool,
}

impl Reserved {
    fn slot(&self) -> &Slot {
        match &self.memory {
            Memory::Pool(slot) => slot,
            Memory::Kept(slot) => slot,
        }
    }

    pub(super) fn mem(&self) -> ForeignSlice {
        let mem = self.slot().mem();
        mem.slice(0, self.len).expect("a slot is long enough")
    }

    pub(super) fn lkey(&self) -> u32 {
        self.slot().lkey()
    }

    /// No other message may be sent before it has ended, so that must not stay unknown.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self.memory, Memory::Kept(_))
    }

    /// Takes it for a message of `len` bytes on queue pair `qp`.
    pub(super) fn take(&self, qp: u32, len: usize) -> Result<(), PostError> {
        if self.qp != qp || self.posted.swap(true, Ordering::AcqRel) {
            return Err(PostError::LocalProtection);
        }
        if len > self.len {
            return Err(PostError::TooLarge);
        }
        Ok(())
    }
}
