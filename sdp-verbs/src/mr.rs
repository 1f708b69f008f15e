//! Registered memory and the windows that are opened over it.

use std::fmt::Debug;
use std::ptr::NonNull;

use crate::types::{Access, Lkey, Rkey};

/// Memory registered with a provider. Dropping it deregisters: its keys are dead when the drop
/// returns.
pub trait MemoryRegion: Debug + Send + Sync {
    /// First byte.
    fn addr(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
    /// True for a region of no bytes, which no provider registers.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Key for this process's own requests.
    fn lkey(&self) -> Lkey;
    /// Key for the peer, if it was registered with a remote right (`Caps::REMOTE_MR`).
    fn rkey(&self) -> Option<Rkey>;
    /// Rights it was registered with.
    fn access(&self) -> Access;
}

/// A memory window of type 2. It belongs to the queue pair it is bound on until its key is dead;
/// binding again before that fails. Dropping it kills its key.
pub trait MemoryWindow: Debug + Send + Sync {
    /// The key of the binding in force, if any.
    fn rkey(&self) -> Option<Rkey>;
    /// For the provider's own downcast.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// What a window shall show to the peer.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Key of a region that has `MW_BIND` and covers the range.
    pub lkey: Lkey,
    /// First byte.
    pub addr: NonNull<u8>,
    /// Bytes, at least 1.
    pub len: usize,
    /// `REMOTE_READ`, `REMOTE_WRITE`, or both.
    pub access: Access,
}

// SAFETY: a `Binding` names memory by address; it is never dereferenced through this value. The
// region behind `lkey` keeps the memory valid.
unsafe impl Send for Binding {}
// SAFETY: as above.
unsafe impl Sync for Binding {}
