//! Connection management, wrapped only to reach the queue pairs that come out of it.

use std::sync::Arc;

use super::TARGET;
use super::counters::Counts;
use super::cq::TraceCq;
use super::ledger::Ledger;
use super::qp::TraceQp;
use crate::cm::{CmEvent, CmEventKind, CmId, EventChannel};
use crate::error::VerbsError;
use crate::hook::forward::forward;
use crate::own::own;
use crate::qp::{QpAttr, QueuePair};

/// See [`Trace`](super::Trace).
#[derive(Debug)]
pub(super) struct TraceEvents {
    inner: Arc<dyn EventChannel>,
    counts: Arc<Counts>,
}

impl TraceEvents {
    pub(super) fn new(inner: Arc<dyn EventChannel>, counts: &Arc<Counts>) -> Self {
        Self {
            inner,
            counts: Arc::clone(counts),
        }
    }

    pub(super) fn inner(&self) -> &Arc<dyn EventChannel> {
        &self.inner
    }
}

impl EventChannel for TraceEvents {
    forward!(EventChannel: fd, next_timeout);

    fn poll(&self) -> Option<CmEvent> {
        let mut event = self.inner.poll()?;
        tracing::trace!(target: TARGET, ?event, "cm event");
        if let CmEventKind::ConnectRequest { id, .. } = &mut event.kind {
            *id = Arc::new(TraceId::new(Arc::clone(id), &self.counts));
        }
        Some(event)
    }
}

/// See [`Trace`](super::Trace).
#[derive(Debug)]
pub(super) struct TraceId {
    inner: Arc<dyn CmId>,
    counts: Arc<Counts>,
}

impl TraceId {
    pub(super) fn new(inner: Arc<dyn CmId>, counts: &Arc<Counts>) -> Self {
        Self {
            inner,
            counts: Arc::clone(counts),
        }
    }
}

impl CmId for TraceId {
    forward!(CmId: token, bind, adopt, listen, resolve, establish, local_addr, peer_addr);

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let cq = own::<TraceCq>(Arc::clone(&attr.cq) as _, "completion queue", |_| true)?;
        let inner_attr = QpAttr {
            cq: Arc::clone(cq.inner()),
            ..attr.clone()
        };
        let inner = self.inner.create_qp(&inner_attr)?;
        let ledger = Arc::new(Ledger::new(inner.num(), Arc::downgrade(&inner)));
        cq.ledgers().insert(ledger.qp(), &ledger);
        Ok(Arc::new(TraceQp::new(inner, ledger, &self.counts)))
    }

    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        tracing::trace!(target: TARGET, id = ?self.token(), len = private_data.len(), "connect");
        self.inner.connect(private_data)
    }

    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        tracing::trace!(target: TARGET, id = ?self.token(), len = private_data.len(), "accept");
        self.inner.accept(private_data)
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        tracing::trace!(target: TARGET, id = ?self.token(), len = private_data.len(), "reject");
        self.inner.reject(private_data)
    }

    fn disconnect(&self) {
        tracing::trace!(target: TARGET, id = ?self.token(), "disconnect");
        self.inner.disconnect();
    }
}
