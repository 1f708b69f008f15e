//! Connection management that writes down its exchange.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Shared;
use super::cq::CaptureCq;
use super::flow::{Flow, Role};
use super::qp::CaptureQp;
use crate::cm::{CmEvent, CmEventKind, CmId, CmToken, EventChannel};
use crate::error::VerbsError;
use crate::hook::forward::forward;
use crate::own::own;
use crate::qp::{QpAttr, QueuePair};

type Flows = Arc<Mutex<HashMap<CmToken, Weak<Flow>>>>;

/// See [`Capture`](super::Capture).
#[derive(Debug)]
pub(super) struct CaptureEvents {
    inner: Arc<dyn EventChannel>,
    shared: Arc<Shared>,
    /// Ids whose events come here, until they are dropped.
    flows: Flows,
}

impl CaptureEvents {
    pub(super) fn new(inner: Arc<dyn EventChannel>, shared: &Arc<Shared>) -> Self {
        Self {
            inner,
            shared: Arc::clone(shared),
            flows: Flows::default(),
        }
    }

    pub(super) fn inner(&self) -> &Arc<dyn EventChannel> {
        &self.inner
    }

    /// Puts an id of the inner provider behind one of ours.
    pub(super) fn wrap(&self, inner: Arc<dyn CmId>, role: Role) -> Arc<dyn CmId> {
        self.wrap_flow(inner, role).0
    }

    fn wrap_flow(&self, inner: Arc<dyn CmId>, role: Role) -> (Arc<dyn CmId>, Arc<Flow>) {
        let flow = Arc::new(Flow::new(&self.shared, role));
        with(&self.flows, |known| {
            known.insert(inner.token(), Arc::downgrade(&flow))
        });
        let id = CaptureId {
            inner,
            flow: Arc::clone(&flow),
            flows: Arc::clone(&self.flows),
        };
        (Arc::new(id), flow)
    }

    fn hear(&self, token: CmToken, kind: &mut CmEventKind) {
        if let CmEventKind::ConnectRequest { id, private_data } = kind {
            let inner = Arc::clone(id);
            let (wrapped, flow) = self.wrap_flow(Arc::clone(id), Role::Listener);
            *id = wrapped;
            flow.request(&mut flow.lock(), &*inner, private_data);
            return;
        }
        let flow = with(&self.flows, |known| {
            known.get(&token).and_then(Weak::upgrade)
        });
        let Some(flow) = flow else { return };
        let mut state = flow.lock();
        match kind {
            CmEventKind::ConnectResponse { private_data } => flow.reply(&state, private_data),
            CmEventKind::Rejected {
                reason,
                private_data,
            } => flow.hear_reject(&mut state, *reason, private_data),
            CmEventKind::Established => flow.ready(&state),
            CmEventKind::Disconnected => flow.hear_disconnect(&mut state),
            _ => {}
        }
    }
}

fn with<T>(flows: &Flows, work: impl FnOnce(&mut HashMap<CmToken, Weak<Flow>>) -> T) -> T {
    // A panic elsewhere leaves the map whole: every change is one call on it.
    work(&mut flows.lock().unwrap_or_else(PoisonError::into_inner))
}

impl EventChannel for CaptureEvents {
    forward!(EventChannel: fd, next_timeout);

    fn poll(&self) -> Option<CmEvent> {
        let mut event = self.inner.poll()?;
        self.hear(event.id, &mut event.kind);
        Some(event)
    }
}

/// See [`Capture`](super::Capture).
#[derive(Debug)]
struct CaptureId {
    inner: Arc<dyn CmId>,
    flow: Arc<Flow>,
    flows: Flows,
}

impl Drop for CaptureId {
    fn drop(&mut self) {
        with(&self.flows, |known| known.remove(&self.inner.token()));
        // Dropping an id disconnects.
        self.flow.disconnect(&mut self.flow.lock());
    }
}

impl CmId for CaptureId {
    forward!(CmId: token, bind, adopt, listen, resolve, local_addr, peer_addr);

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let cq = own::<CaptureCq>(Arc::clone(&attr.cq) as _, "completion queue", |_| true)?;
        let inner_attr = QpAttr {
            cq: Arc::clone(cq.inner()),
            ..attr.clone()
        };
        let inner = self.inner.create_qp(&inner_attr)?;
        self.flow.has_qp(inner.num(), attr.send_wr_max);
        cq.flows().insert(inner.num(), &self.flow);
        Ok(Arc::new(CaptureQp::new(inner, &self.flow)))
    }

    // The exchange is written under the flow's lock, so that no answer comes before it.

    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        let mut state = self.flow.lock();
        self.inner.connect(private_data)?;
        self.flow.request(&mut state, &*self.inner, private_data);
        Ok(())
    }

    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        let state = self.flow.lock();
        self.inner.accept(private_data)?;
        self.flow.reply(&state, private_data);
        Ok(())
    }

    fn establish(&self) -> Result<(), VerbsError> {
        let state = self.flow.lock();
        self.inner.establish()?;
        self.flow.ready(&state);
        Ok(())
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        let mut state = self.flow.lock();
        self.inner.reject(private_data)?;
        self.flow.reject(&mut state, private_data);
        Ok(())
    }

    fn disconnect(&self) {
        let mut state = self.flow.lock();
        self.inner.disconnect();
        self.flow.disconnect(&mut state);
    }
}
