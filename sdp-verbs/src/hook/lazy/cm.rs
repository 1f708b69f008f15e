//! Connection management, wrapped to reach queue pairs and to let work out before the end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Setup;
use super::cq::LazyCq;
use super::qp::{LazyQp, QpCore};
use crate::caps::Caps;
use crate::cm::{CmEvent, CmEventKind, CmId, EventChannel};
use crate::error::VerbsError;
use crate::hook::forward::forward;
use crate::own::own;
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

    pub(super) fn inner(&self) -> &Arc<dyn EventChannel> {
        &self.inner
    }
}

impl EventChannel for LazyEvents {
    forward!(EventChannel: fd, next_timeout);

    fn poll(&self) -> Option<CmEvent> {
        let mut event = self.inner.poll()?;
        if let CmEventKind::ConnectRequest { id, .. } = &mut event.kind {
            *id = Arc::new(LazyId::new(Arc::clone(id), &self.setup));
        }
        Some(event)
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
    forward!(CmId: token, bind, adopt, listen, resolve, connect, accept, establish, reject);
    forward!(CmId: local_addr, peer_addr);

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let cq = own::<LazyCq>(Arc::clone(&attr.cq) as _, "completion queue", |_| true)?;
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

    fn disconnect(&self) {
        self.let_everything_out();
        self.inner.disconnect();
    }
}
