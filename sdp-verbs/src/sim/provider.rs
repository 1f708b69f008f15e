//! A machine on the fabric, as a provider.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::channel::SimCompChannel;
use super::cm::SimId;
use super::cq::SimCq;
use super::events::SimEventChannel;
use super::fabric::Fabric;
use super::faults::Fault;
use super::options::{SimOptions, nanos};
use super::processors::{Busy, Work};
use super::region::{SimRegion, SimWindow};
use super::world::NodeKey;
use crate::caps::{Caps, Limits};
use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::memory::ForeignSlice;
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::own::own;
use crate::provider::Provider;
use crate::types::Access;

const NAME: &str = "sim";

/// One machine with one adapter: see [`Fabric::node`].
#[derive(Debug)]
pub struct SimProvider {
    fabric: Arc<Fabric>,
    node: NodeKey,
    options: SimOptions,
}

impl SimProvider {
    pub(super) fn new(fabric: Arc<Fabric>, node: NodeKey, options: SimOptions) -> Self {
        Self {
            fabric,
            node,
            options,
        }
    }

    /// The time on this machine: when the processor that works now has done what it was given to
    /// do.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.fabric.with(|world| world.time_on(self.node)))
    }

    /// How many processors this machine has.
    #[must_use]
    pub fn processors(&self) -> usize {
        self.fabric
            .with(|world| world.nodes[self.node].processors.count())
    }

    /// What this machine does from here on is done by one of its processors; there is none beyond
    /// the last, counting begins again.
    pub fn run_on(&self, processor: usize) {
        self.fabric
            .with(|world| world.nodes[self.node].processors.switch_to(processor));
    }

    /// The time on one processor of this machine, counted as in [`run_on`](Self::run_on).
    #[must_use]
    pub fn now_on(&self, processor: usize) -> Duration {
        let time = |world: &mut super::world::World| {
            let until = world.nodes[self.node].processors.until(processor);
            until.max(world.now())
        };
        Duration::from_nanos(self.fabric.with(time))
    }

    /// What the processors of this machine have spent their time on so far.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.fabric
            .with(|world| world.nodes[self.node].processors.busy())
    }

    /// The processor of this machine works for a while.
    pub fn work(&self, time: Duration) {
        self.fabric
            .with(|world| world.charge(self.node, Work::Program, nanos(time)));
    }

    /// The processor of this machine copies payload that the adapter has nothing to do with.
    pub fn copy(&self, len: usize) {
        self.fabric.with(|world| world.charge_copy(self.node, len));
    }

    /// The processor of this machine goes to sleep in the kernel and comes back.
    pub fn system_call(&self) {
        self.fabric.with(|world| {
            let cost = world.timing.system_call;
            world.charge(self.node, Work::SystemCall, cost);
        });
    }

    /// A thread of this machine slept for a completion, which has come.
    pub fn woken(&self) {
        self.fabric.with(|world| {
            let cost = world.timing.wake;
            world.charge(self.node, Work::Interrupt, cost);
        });
    }

    /// Whether a channel of this machine has anything to tell.
    #[must_use]
    pub fn has_events(&self) -> bool {
        self.fabric.with(|world| world.has_events(self.node))
    }

    fn need(&self, caps: Caps, op: &'static str) -> Result<(), VerbsError> {
        if self.options.caps.contains(caps) {
            return Ok(());
        }
        Err(VerbsError::Unsupported { provider: NAME, op })
    }
}

impl Provider for SimProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn caps(&self) -> Caps {
        self.options.caps
    }

    fn limits(&self) -> Limits {
        self.options.limits
    }

    fn has_address(&self, _local: SocketAddr) -> Result<bool, VerbsError> {
        Ok(true)
    }

    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError> {
        Ok(Arc::new(SimEventChannel::open(&self.fabric, self.node)?))
    }

    fn create_comp_channel(&self) -> Result<Arc<dyn CompChannel>, VerbsError> {
        Ok(Arc::new(SimCompChannel::open(&self.fabric, self.node)?))
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
            |channel: &SimCompChannel| channel.is_on(&self.fabric, self.node),
        )?;
        Ok(Arc::new(SimCq::new(&self.fabric, depth, channel, token)))
    }

    fn create_id(&self, channel: &Arc<dyn EventChannel>) -> Result<Arc<dyn CmId>, VerbsError> {
        let channel = own(
            Arc::clone(channel) as _,
            "event channel",
            |channel: &SimEventChannel| channel.is_on(&self.fabric, self.node),
        )?;
        let id = SimId::create(&self.fabric, self.node, channel.key);
        Ok(Arc::new(id))
    }

    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        if access.intersects(Access::REMOTE_READ | Access::REMOTE_WRITE) {
            self.need(Caps::REMOTE_MR, "regions with remote rights")?;
        }
        if len == 0 {
            return Err(VerbsError::Argument {
                what: "length of a region",
                reason: "there are no bytes".to_owned(),
            });
        }
        // SAFETY: the caller's contract; the fabric looks a region up by its key each time it
        // uses it, and forgets it when the region is dropped.
        let mem = unsafe { ForeignSlice::new(addr, len) };
        Ok(Arc::new(SimRegion::over(
            &self.fabric,
            self.node,
            mem,
            access,
        )?))
    }

    fn alloc_registered(&self, len: usize) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        Ok(Arc::new(SimRegion::allocate(&self.fabric, self.node, len)?))
    }

    fn alloc_window(&self) -> Result<Box<dyn MemoryWindow>, VerbsError> {
        self.need(Caps::MEMORY_WINDOW, "memory windows")?;
        if self
            .fabric
            .with(|world| world.dice.fires(Fault::RegisterFails))
        {
            return Err(VerbsError::Limit {
                what: "a memory window",
                limit: "none left".to_owned(),
                remedy: "use fewer at a time",
            });
        }
        Ok(Box::new(SimWindow::new(&self.fabric, self.node)))
    }
}
