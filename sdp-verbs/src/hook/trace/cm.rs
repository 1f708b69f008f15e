//! Connection management, wrapped only to reach the queue pairs that come out of it.

use std::any::Any;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::TARGET;
use super::counters::Counts;
use super::cq::TraceCq;
use super::ledger::Ledger;
use super::qp::TraceQp;
use crate::cm::{BindRequest, CmEvent, CmEventKind, CmId, CmToken, EventChannel};
use crate::error::VerbsError;
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

    /// The wrapped channel.
    pub(super) fn inner_of(
        channel: &Arc<dyn EventChannel>,
    ) -> Result<&Arc<dyn EventChannel>, VerbsError> {
        let channel: &dyn Any = &**channel;
        match channel.downcast_ref::<Self>() {
            Some(channel) => Ok(&channel.inner),
            None => Err(VerbsError::Argument {
                what: "event channel",
                reason: "it was not created by this Trace".to_owned(),
            }),
        }
    }
}

impl EventChannel for TraceEvents {
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }

    fn poll(&self) -> Option<CmEvent> {
        let mut event = self.inner.poll()?;
        tracing::trace!(target: TARGET, ?event, "cm event");
        if let CmEventKind::ConnectRequest { id, .. } = &mut event.kind {
            *id = Arc::new(TraceId::new(Arc::clone(id), &self.counts));
        }
        Some(event)
    }

    fn next_timeout(&self) -> Option<Duration> {
        self.inner.next_timeout()
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
    fn token(&self) -> CmToken {
        self.inner.token()
    }

    fn bind(&self, request: BindRequest) -> Result<(), VerbsError> {
        self.inner.bind(request)
    }

    fn listen(&self, backlog: u32) -> Result<(), VerbsError> {
        self.inner.listen(backlog)
    }

    fn resolve(&self, dst: SocketAddr, timeout: Duration) -> Result<(), VerbsError> {
        self.inner.resolve(dst, timeout)
    }

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let cq: &dyn Any = &*attr.cq;
        let Some(cq) = cq.downcast_ref::<TraceCq>() else {
            return Err(VerbsError::Argument {
                what: "completion queue",
                reason: "it was not created by this Trace".to_owned(),
            });
        };
        let inner_attr = QpAttr {
            cq: Arc::clone(cq.inner()),
            ..attr.clone()
        };
        let inner = self.inner.create_qp(&inner_attr)?;
        let ledger = Arc::new(Ledger::new(inner.num()));
        cq.watch(&ledger);
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

    fn establish(&self) -> Result<(), VerbsError> {
        self.inner.establish()
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        tracing::trace!(target: TARGET, id = ?self.token(), len = private_data.len(), "reject");
        self.inner.reject(private_data)
    }

    fn disconnect(&self) {
        tracing::trace!(target: TARGET, id = ?self.token(), "disconnect");
        self.inner.disconnect();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.local_addr()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.inner.peer_addr()
    }
}
