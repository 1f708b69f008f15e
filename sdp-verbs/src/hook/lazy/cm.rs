//! Connection management, wrapped to reach queue pairs and to let work out before the end.

use std::any::Any;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::Setup;
use super::cq::LazyCq;
use super::qp::{LazyQp, QpCore};
use crate::caps::Caps;
use crate::cm::{BindRequest, CmEvent, CmEventKind, CmId, CmToken, EventChannel};
use crate::error::VerbsError;
use crate::qp::{QpAttr, QueuePair};

/// See [`Lazy`](super::Lazy).
#[derive(Debug)]
pub(super) struct LazyEvents {
    inner: Arc<dyn EventChannel>,
    setup: Arc<Setup>,
}

impl LazyEvents {
    pub(super) fn new(inner: Arc<dyn EventChannel>, setup: &Arc<Setup>) -> Self {
        Self {
            inner,
            setup: Arc::clone(setup),
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
                reason: "it was not created by this Lazy".to_owned(),
            }),
        }
    }
}

impl EventChannel for LazyEvents {
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }

    fn poll(&self) -> Option<CmEvent> {
        let mut event = self.inner.poll()?;
        if let CmEventKind::ConnectRequest { id, .. } = &mut event.kind {
            *id = Arc::new(LazyId::new(Arc::clone(id), &self.setup));
        }
        Some(event)
    }

    fn next_timeout(&self) -> Option<Duration> {
        self.inner.next_timeout()
    }
}

/// See [`Lazy`](super::Lazy).
#[derive(Debug)]
pub(super) struct LazyId {
    inner: Arc<dyn CmId>,
    setup: Arc<Setup>,
    qp: Mutex<Weak<QpCore>>,
}

impl LazyId {
    pub(super) fn new(inner: Arc<dyn CmId>, setup: &Arc<Setup>) -> Self {
        Self {
            inner,
            setup: Arc::clone(setup),
            qp: Mutex::default(),
        }
    }

    /// What was posted before the end is sent before the end.
    fn let_everything_out(&self) {
        let qp = self
            .qp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upgrade();
        if let Some(qp) = qp {
            qp.forward(usize::MAX);
        }
    }
}

impl Drop for LazyId {
    fn drop(&mut self) {
        self.let_everything_out();
    }
}

impl CmId for LazyId {
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
        let cq = LazyCq::from_dyn(&attr.cq)?;
        let retries = self.setup.caps.contains(Caps::RNR_RETRY);
        let inner_attr = QpAttr {
            cq: Arc::clone(cq.inner()),
            rnr_retry: if retries { attr.rnr_retry } else { 0 },
            ..attr.clone()
        };
        let inner = self.inner.create_qp(&inner_attr)?;
        let core = Arc::new(QpCore::new(inner, attr.send_wr_max));
        cq.add(&core);
        *self.qp.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&core);
        Ok(Arc::new(LazyQp::new(core, cq, Arc::clone(&self.setup))))
    }

    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.inner.connect(private_data)
    }

    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.inner.accept(private_data)
    }

    fn establish(&self) -> Result<(), VerbsError> {
        self.inner.establish()
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.inner.reject(private_data)
    }

    fn disconnect(&self) {
        self.let_everything_out();
        self.inner.disconnect();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.local_addr()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.inner.peer_addr()
    }
}
