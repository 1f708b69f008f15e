//! The entry to the host provider.

use std::ptr::NonNull;
use std::sync::Arc;

use super::cm::Cm;
use super::options::HostOptions;
use super::plane::Plane;
use crate::caps::{Caps, Limits};
use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::provider::Provider;
use crate::types::Access;

/// Verbs between processes of one machine. One instance is one end point; several may live in one
/// process. Dropping it ends what its links carry once their last queue pair is gone.
#[derive(Debug)]
pub struct HostProvider {
    plane: Arc<Plane>,
    cm: Arc<Cm>,
}

impl HostProvider {
    /// Opens an instance.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] when out of memory or descriptors, [`VerbsError::Unavailable`] on a
    /// kernel that lacks memfd seals.
    pub fn open() -> Result<Self, VerbsError> {
        Self::open_with(HostOptions::default())
    }

    /// Opens an instance that is not as usual.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(options: HostOptions) -> Result<Self, VerbsError> {
        let plane = Plane::new()?;
        let cm = Cm::new(Arc::clone(&plane), options)?;
        Ok(Self { plane, cm })
    }
}

impl Provider for HostProvider {
    fn name(&self) -> &'static str {
        "host"
    }

    fn caps(&self) -> Caps {
        unimplemented!()
    }

    fn limits(&self) -> Limits {
        unimplemented!()
    }

    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError> {
        self.cm.create_event_channel()
    }

    fn create_comp_channel(&self) -> Result<Arc<dyn CompChannel>, VerbsError> {
        let _ = &self.plane;
        unimplemented!()
    }

    fn create_cq(
        &self,
        depth: u32,
        channel: &Arc<dyn CompChannel>,
        token: CqToken,
    ) -> Result<Arc<dyn CompletionQueue>, VerbsError> {
        let _ = (depth, channel, token);
        unimplemented!()
    }

    fn create_id(&self, channel: &Arc<dyn EventChannel>) -> Result<Arc<dyn CmId>, VerbsError> {
        self.cm.create_id(channel)
    }

    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        let _ = (addr, len, access);
        unimplemented!()
    }

    fn alloc_registered(&self, len: usize) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        let _ = len;
        unimplemented!()
    }

    fn alloc_window(&self) -> Result<Box<dyn MemoryWindow>, VerbsError> {
        unimplemented!()
    }
}
