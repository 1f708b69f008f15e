//! The entry to a provider.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::caps::{Caps, Limits};
use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::types::Access;

/// An implementation of verbs, opened for this process.
pub trait Provider: Debug + Send + Sync {
    /// Its name: `host`, `rdma`, `sim`.
    fn name(&self) -> &'static str;
    /// The device that it drives, by the name that the system knows it by; `None` without one.
    fn device(&self) -> Option<&str> {
        None
    }
    /// What it can do.
    fn caps(&self) -> Caps;
    /// How much.
    fn limits(&self) -> Limits;

    /// Whether an address of this machine is one by which peers reach this instance: an adapter has
    /// those of its own interfaces. The port is of no concern.
    ///
    /// # Errors
    /// [`VerbsError::Os`], when out of descriptors.
    fn has_address(&self, local: SocketAddr) -> Result<bool, VerbsError>;

    /// Opens a channel for connection management events.
    ///
    /// # Errors
    /// [`VerbsError::Os`] or [`VerbsError::Limit`], when out of descriptors.
    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError>;

    /// Opens a channel for completion events.
    ///
    /// # Errors
    /// As above.
    fn create_comp_channel(&self) -> Result<Arc<dyn CompChannel>, VerbsError>;

    /// Creates a completion queue with room for `depth` completions.
    ///
    /// # Errors
    /// [`VerbsError::Limit`].
    fn create_cq(
        &self,
        depth: u32,
        channel: &Arc<dyn CompChannel>,
        token: CqToken,
    ) -> Result<Arc<dyn CompletionQueue>, VerbsError>;

    /// Creates an id whose events arrive on `channel`.
    ///
    /// # Errors
    /// [`VerbsError::Limit`].
    fn create_id(&self, channel: &Arc<dyn EventChannel>) -> Result<Arc<dyn CmId>, VerbsError>;

    /// Registers memory of the caller's.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] (locked memory, regions), [`VerbsError::Unsupported`] for rights the
    /// provider cannot give.
    ///
    /// # Safety
    /// `addr..addr + len` stays valid, and with `LOCAL_WRITE` or `REMOTE_WRITE` is not accessed
    /// through references, while the region exists and requests or live keys name it.
    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Arc<dyn MemoryRegion>, VerbsError>;

    /// Memory that the provider owns and has registered with `LOCAL_WRITE | MW_BIND`: page
    /// aligned, zeroed, `len` rounded up to whole pages. It has no remote right of its own.
    ///
    /// # Errors
    /// [`VerbsError::Limit`].
    fn alloc_registered(&self, len: usize) -> Result<Arc<dyn MemoryRegion>, VerbsError>;

    /// A memory window, not yet bound.
    ///
    /// # Errors
    /// [`VerbsError::Unsupported`] without `Caps::MEMORY_WINDOW`, [`VerbsError::Limit`].
    fn alloc_window(&self) -> Result<Box<dyn MemoryWindow>, VerbsError>;
}
