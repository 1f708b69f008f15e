//! The entry to the provider.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;

use super::NAME;
use super::cm::{self, RdmaEvents};
use super::cq::{RdmaChannel, RdmaCq};
use super::device::Device;
use super::group::Group;
use super::options::RdmaOptions;
use super::region::RdmaRegion;
use super::slab::SlabPool;
use super::window::RdmaWindow;
use crate::caps::{Caps, Limits};
use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::own::own;
use crate::provider::Provider;
use crate::types::Access;

/// Verbs on an adapter. One instance is one device.
#[derive(Debug)]
pub struct RdmaProvider {
    device: Arc<Device>,
    slabs: Arc<SlabPool>,
    group: Arc<Group>,
}

impl RdmaProvider {
    /// Opens the device that `SDP_RDMA_DEVICE` names, else the first that has an active port.
    ///
    /// # Errors
    /// [`VerbsError::Unavailable`]: a library, a device, a kernel module or a permission is
    /// missing; the reason names it and the remedy.
    pub fn open() -> Result<Self, VerbsError> {
        Self::open_with(&RdmaOptions::default())
    }

    /// Opens an instance that is not as usual.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(options: &RdmaOptions) -> Result<Self, VerbsError> {
        let device = Device::open(options)?;
        Ok(Self::on(device, &Arc::default()))
    }

    /// Opens the device that `SDP_RDMA_DEVICE` names, else all that have an active port and speak to
    /// their peers as the first one does (InfiniBand and RoCE, or iWARP); at least one. What peers
    /// ask of a listener on every address comes to the event channel of the device by which they
    /// came, if the program has opened one there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_all() -> Result<Vec<Self>, VerbsError> {
        let devices = Device::open_all(&RdmaOptions::default())?;
        let group = Arc::default();
        let on = |device| Self::on(device, &group);
        Ok(devices.into_iter().map(on).collect())
    }

    fn on(device: Arc<Device>, group: &Arc<Group>) -> Self {
        Self {
            slabs: SlabPool::new(&device),
            device,
            group: Arc::clone(group),
        }
    }

    /// Name of the device, as `ibv_devices` lists it.
    #[must_use]
    pub fn device_name(&self) -> &str {
        &self.device.name
    }

    /// The addresses of this machine that are behind the device: where a peer reaches it.
    ///
    /// # Errors
    /// The system does not tell its addresses.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, VerbsError> {
        cm::addresses(&self.device)
    }
}

impl Provider for RdmaProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device(&self) -> Option<&str> {
        Some(&self.device.name)
    }

    fn caps(&self) -> Caps {
        self.device.caps
    }

    fn limits(&self) -> Limits {
        self.device.limits
    }

    fn has_address(&self, local: SocketAddr) -> Result<bool, VerbsError> {
        cm::has_address(&self.device, local)
    }

    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError> {
        Ok(RdmaEvents::new(&self.device, &self.slabs, &self.group)?)
    }

    fn create_comp_channel(&self) -> Result<Arc<dyn CompChannel>, VerbsError> {
        Ok(RdmaChannel::new(&self.device)?)
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
            |channel: &RdmaChannel| channel.belongs_to(&self.device),
        )?;
        Ok(RdmaCq::new(&self.device, depth, &channel, token)?)
    }

    fn create_id(&self, channel: &Arc<dyn EventChannel>) -> Result<Arc<dyn CmId>, VerbsError> {
        let channel = own(
            Arc::clone(channel) as _,
            "event channel",
            |channel: &RdmaEvents| channel.belongs_to(&self.device),
        )?;
        channel.create_id()
    }

    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        // SAFETY: this function's contract is the same.
        let region = unsafe { RdmaRegion::register(&self.device, addr, len, access, None) };
        Ok(region?)
    }

    fn alloc_registered(&self, len: usize) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        let access = Access::LOCAL_WRITE | Access::MW_BIND;
        Ok(RdmaRegion::allocate(&self.device, len, access)?)
    }

    fn alloc_window(&self) -> Result<Box<dyn MemoryWindow>, VerbsError> {
        let Some(ops) = self.device.ops.windows else {
            return Err(VerbsError::Unsupported {
                provider: NAME,
                op: "memory windows of type 2",
            });
        };
        Ok(Box::new(RdmaWindow::new(&self.device, ops)?))
    }
}
