//! The entry to the host provider.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;

use super::channel::HostChannel;
use super::cm::Cm;
use super::cq::HostCq;
use super::message::PRIVATE_DATA_MAX;
use super::options::HostOptions;
use super::plane::Plane;
use super::region::{HostRegion, HostWindow};
use crate::caps::{Caps, Limits};
use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::own::own;
use crate::provider::Provider;
use crate::types::Access;

/// What every instance guarantees.
pub(crate) const LIMITS: Limits = Limits {
    send_wr_max: 4096,
    recv_wr_max: 4096,
    sge_max: 16,
    rdma_len_max: 16 << 20,
    recv_len_max: 1 << 20,
    inline_max: 1 << 20,
    read_depth_max: 4096,
    connect_data_max: PRIVATE_DATA_MAX,
    accept_data_max: PRIVATE_DATA_MAX,
    reject_data_max: PRIVATE_DATA_MAX,
    registered_max: usize::MAX,
};

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
        Caps::RDMA_READ
            | Caps::RDMA_WRITE
            | Caps::MEMORY_WINDOW
            | Caps::LOCAL_INV
            | Caps::SEND_WITH_INV
            | Caps::RNR_RETRY
            | Caps::SOLICITED
            | Caps::HEAP_WINDOW
            | Caps::SAME_HOST
            | Caps::REMOTE_STATUS
            | Caps::TOKENS
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn has_address(&self, _local: SocketAddr) -> Result<bool, VerbsError> {
        Ok(true)
    }

    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError> {
        self.cm.create_event_channel()
    }

    fn create_comp_channel(&self) -> Result<Arc<dyn CompChannel>, VerbsError> {
        Ok(HostChannel::new(&self.plane)?)
    }

    fn create_cq(
        &self,
        depth: u32,
        channel: &Arc<dyn CompChannel>,
        token: CqToken,
    ) -> Result<Arc<dyn CompletionQueue>, VerbsError> {
        let channel = own(
            Arc::clone(channel) as _,
            "completion channel",
            |channel: &HostChannel| channel.belongs_to(&self.plane),
        )?;
        Ok(HostCq::new(&self.plane, depth, channel, token))
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
        Ok(Arc::new(HostRegion::over_heap(
            &self.plane,
            addr,
            len,
            access,
        )?))
    }

    fn alloc_registered(&self, len: usize) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        Ok(Arc::new(HostRegion::allocate(&self.plane, len)?))
    }

    fn alloc_window(&self) -> Result<Box<dyn MemoryWindow>, VerbsError> {
        Ok(Box::new(HostWindow::new(&self.plane)))
    }
}
