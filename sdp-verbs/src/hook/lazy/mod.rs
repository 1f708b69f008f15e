//! A wrapper that does everything as late as verbs allow.
//!
//! A provider whose adapter is the CPU copies at once, and software tested on it alone comes to
//! rely on that without knowing. Over this wrapper
//!
//! * a SEND takes its bytes, and a READ or WRITE starts, only inside a later poll;
//! * the bytes of a receive appear in its buffer only when its completion is handed out, and the
//!   buffer is scribbled over while it is posted;
//! * a reserved buffer is private memory;
//! * completions come late and in batches; send and receive completions overtake each other as
//!   they do on adapters;
//! * an unsignalled request keeps its place in the queue until a signalled one behind it has been
//!   handed out, so a queue that is never signalled fills up;
//! * any capability can be switched off.
//!
//! What stays: the order of requests and completions, and the rule against lost wake-ups. While
//! something is held back, [`wait`](crate::CompletionQueue::wait) returns at once and an armed
//! channel fires, so that whoever follows the rule polls again; each poll moves things on.
//!
//! A window is bound in the wrapped provider at the moment of the call, because its key is needed
//! at once; only its completion is late. A request that no poll has let out yet is lost when its
//! queue pair is dropped, as it may be on an adapter; [`disconnect`](crate::CmId::disconnect)
//! lets everything out first.

mod channel;
mod cm;
mod cq;
mod qp;
mod recv;
mod send;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::caps::{Caps, Limits};
use crate::cm::{CmId, EventChannel};
use crate::cq::{CompChannel, CompletionQueue, CqToken};
use crate::error::{PostError, VerbsError};
use crate::mr::{MemoryRegion, MemoryWindow};
use crate::own::own;
use crate::provider::Provider;
use crate::rng::Rng;
use crate::types::Access;

use super::forward::forward;
use super::regions::Regions;

/// What the objects of one wrapper share.
#[derive(Debug)]
struct Setup {
    name: &'static str,
    caps: Caps,
    limits: Limits,
    /// Regions over memory that the provider below did not allocate.
    heap: Arc<Regions>,
}

impl Setup {
    /// Fails an operation whose capability is off.
    fn need(&self, cap: Caps, op: &'static str) -> Result<(), VerbsError> {
        if self.caps.contains(cap) {
            return Ok(());
        }
        Err(VerbsError::Unsupported {
            provider: self.name,
            op,
        })
    }

    fn need_to_post(&self, cap: Caps) -> Result<(), PostError> {
        if self.caps.contains(cap) {
            Ok(())
        } else {
            Err(PostError::Unsupported)
        }
    }
}

/// A provider that passes everything on to another one, late. See the [module](self).
///
/// The objects it makes belong to it: a queue made by one `Lazy` works with the queue pairs of
/// the same `Lazy` only.
#[derive(Debug)]
pub struct Lazy {
    inner: Arc<dyn Provider>,
    setup: Arc<Setup>,
    seed: u64,
    cq_count: AtomicU64,
}

impl Lazy {
    /// Wraps a provider; every capability it has stays on, and the seed is 0.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>) -> Self {
        // A token would come before its message does.
        let caps = inner.caps() - Caps::TOKENS;
        Self::with(inner, caps, 0)
    }

    /// Switches capabilities off: their operations return `Unsupported`. Without `RNR_RETRY` a
    /// SEND is not tried again; without `SOLICITED` every completion raises an event; without
    /// `SAME_HOST` nothing changes but the bit.
    #[must_use]
    pub fn without(self, caps: Caps) -> Self {
        let left = self.setup.caps - caps;
        Self::with(self.inner, left, self.seed)
    }

    /// Chooses how work is held back. The same seed and the same calls give the same batches.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    fn with(inner: Arc<dyn Provider>, caps: Caps, seed: u64) -> Self {
        let setup = Setup {
            name: inner.name(),
            caps,
            limits: inner.limits(),
            heap: Arc::default(),
        };
        Self {
            inner,
            setup: Arc::new(setup),
            seed,
            cq_count: AtomicU64::new(0),
        }
    }
}

impl Provider for Lazy {
    forward!(Provider: device, has_address);

    fn name(&self) -> &'static str {
        self.setup.name
    }

    fn caps(&self) -> Caps {
        self.setup.caps
    }

    fn limits(&self) -> Limits {
        self.setup.limits
    }

    fn create_event_channel(&self) -> Result<Arc<dyn EventChannel>, VerbsError> {
        let inner = self.inner.create_event_channel()?;
        Ok(Arc::new(cm::LazyEvents::new(inner, &self.setup)))
    }

    fn create_comp_channel(&self) -> Result<Arc<dyn CompChannel>, VerbsError> {
        let inner = self.inner.create_comp_channel()?;
        Ok(Arc::new(channel::LazyChannel::new(inner)?))
    }

    fn create_cq(
        &self,
        depth: u32,
        channel: &Arc<dyn CompChannel>,
        token: CqToken,
    ) -> Result<Arc<dyn CompletionQueue>, VerbsError> {
        let channel = Arc::clone(channel) as _;
        let channel = own::<channel::LazyChannel>(channel, "completion channel", |_| true)?;
        // Every request is signalled below, so those that are not above need room as well.
        let room = self.setup.limits.send_wr_max.clamp(cq::IN_FLIGHT_MAX, 4096);
        let inner = self
            .inner
            .create_cq(depth.saturating_add(room), channel.inner(), token)?;
        let number = self.cq_count.fetch_add(1, Ordering::Relaxed);
        let rng = Rng::new(self.seed, number);
        Ok(Arc::new(cq::LazyCq::new(
            inner,
            channel,
            token,
            rng,
            self.setup.caps.contains(Caps::SOLICITED),
        )))
    }

    fn create_id(&self, channel: &Arc<dyn EventChannel>) -> Result<Arc<dyn CmId>, VerbsError> {
        let channel = Arc::clone(channel) as _;
        let channel = own::<cm::LazyEvents>(channel, "event channel", |_| true)?;
        let inner = self.inner.create_id(channel.inner())?;
        Ok(Arc::new(cm::LazyId::new(inner, &self.setup)))
    }

    unsafe fn register(
        &self,
        addr: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Arc<dyn MemoryRegion>, VerbsError> {
        if access.intersects(Access::REMOTE_READ | Access::REMOTE_WRITE) {
            self.setup
                .need(Caps::REMOTE_MR, "regions with remote rights")?;
        }
        // SAFETY: the caller's contract is the inner provider's.
        let region = unsafe { self.inner.register(addr, len, access) }?;
        Ok(self.setup.heap.note(region))
    }

    forward!(Provider: alloc_registered);

    fn alloc_window(&self) -> Result<Box<dyn MemoryWindow>, VerbsError> {
        self.setup.need(Caps::MEMORY_WINDOW, "memory windows")?;
        self.inner.alloc_window()
    }
}
