//! A wrapper that counts and logs every verb below whoever uses it.
//!
//! What the software above says about itself proves little; what crosses this boundary is what
//! happened. Counting costs a few relaxed additions per operation to a line of memory that no
//! other thread writes, so it may stay on in benchmarks. Each operation also gives one
//! `tracing` line at level trace, target `sdp_verbs::trace`, which costs one load when off.

mod cm;
mod counters;
mod cq;
mod ledger;
mod qp;

use std::ptr::NonNull;
use std::sync::Arc;

use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::VerbsError;
use crate::mr::MemoryRegion;
use crate::own::own;
use crate::provider::Provider;
use crate::types::Access;

pub use counters::TraceCounters;

use super::forward::forward;
use counters::{Counter, Counts};

/// Target of the log lines.
const TARGET: &str = "sdp_verbs::trace";

/// A provider that passes everything on to another one and counts it.
///
/// The objects it makes belong to it: a queue made by one `Trace` works with the queue pairs of
/// the same `Trace` only.
#[derive(Debug)]
pub struct Trace {
    inner: Arc<dyn Provider>,
    counts: Arc<Counts>,
}

impl Trace {
    /// Wraps a provider.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>) -> Self {
        Self {
            inner,
            counts: Arc::new(Counts::new()),
        }
    }

    /// What has been counted so far. Counters are read one after the other: a snapshot taken
    /// while others work is not of one instant.
    #[must_use]
    pub fn counters(&self) -> TraceCounters {
        self.counts.snapshot()
    }

    fn count_region(&self, region: &dyn MemoryRegion) {
        self.counts.add(Counter::RegisterCount, 1);
        self.counts.add_len(Counter::RegisterBytes, region.len());
    }
}

impl Provider for Trace {
    forward!(Provider: name, device, caps, limits, has_address, create_comp_channel, alloc_window);

    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError> {
        let inner = self.inner.create_event_channel()?;
        Ok(Arc::new(cm::TraceEvents::new(inner, &self.counts)))
    }

    fn create_cq(
        &self,
        depth: u32,
        channel: &Arc<dyn CompChannel>,
        token: CqToken,
    ) -> Result<Arc<dyn CompletionQueue>, VerbsError> {
        let inner = self.inner.create_cq(depth, channel, token)?;
        Ok(Arc::new(cq::TraceCq::new(inner, &self.counts)))
    }

    fn create_id(&self, channel: &Arc<dyn EventChannel>) -> Result<Arc<dyn CmId>, VerbsError> {
        let channel = Arc::clone(channel) as _;
        let channel = own::<cm::TraceEvents>(channel, "event channel", |_| true)?;
        let inner = self.inner.create_id(channel.inner())?;
        Ok(Arc::new(cm::TraceId::new(inner, &self.counts)))
    }

    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        // SAFETY: the caller's contract is the inner provider's.
        let region = unsafe { self.inner.register(addr, len, access) }?;
        self.count_region(&*region);
        tracing::trace!(target: TARGET, ?addr, len, ?access, lkey = ?region.lkey(), "register");
        Ok(region)
    }

    fn alloc_registered(&self, len: usize) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        let region = self.inner.alloc_registered(len)?;
        self.count_region(&*region);
        tracing::trace!(target: TARGET, len, lkey = ?region.lkey(), "alloc_registered");
        Ok(region)
    }
}
