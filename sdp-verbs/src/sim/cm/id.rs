//! The handle of an id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{IdKey, Phase, wrong_phase};
use crate::cm::{BindRequest, CmId, CmToken};
use crate::error::VerbsError;
use crate::own::own;
use crate::qp::{QpAttr, QueuePair};
use crate::sim::channel::ChannelKey;
use crate::sim::cq::SimCq;
use crate::sim::fabric::Fabric;
use crate::sim::options::wide;
use crate::sim::qp::SimQp;
use crate::sim::world::NodeKey;

/// See [`CmId`].
#[derive(Debug)]
pub(in crate::sim) struct SimId {
    fabric: Arc<Fabric>,
    node: NodeKey,
    key: IdKey,
}

impl SimId {
    /// A handle for an id that is there already.
    pub(in crate::sim) fn new(fabric: &Arc<Fabric>, node: NodeKey, key: IdKey) -> Self {
        Self {
            fabric: Arc::clone(fabric),
            node,
            key,
        }
    }

    pub(in crate::sim) fn create(fabric: &Arc<Fabric>, node: NodeKey, channel: ChannelKey) -> Self {
        let key = fabric.with(|world| world.add_id(node, channel, Phase::Idle));
        Self::new(fabric, node, key)
    }
}

impl Drop for SimId {
    fn drop(&mut self) {
        self.fabric.with(|world| world.drop_id(self.key));
    }
}

impl CmId for SimId {
    fn token(&self) -> CmToken {
        CmToken(self.key)
    }

    fn bind(&self, request: BindRequest) -> Result<(), VerbsError> {
        self.fabric.with(|world| world.bind(self.key, request))
    }

    fn listen(&self, backlog: u32) -> Result<(), VerbsError> {
        self.fabric.with(|world| world.listen(self.key, backlog))
    }

    fn resolve(&self, dst: SocketAddr, timeout: Duration) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.resolve(self.key, dst, timeout))
    }

    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError> {
        let cq = own(
            Arc::clone(&attr.cq) as _,
            "completion queue",
            |cq: &SimCq| cq.is_on(&self.fabric, self.node),
        )?;
        let (num, options) = self.fabric.with(|world| {
            let id = world.id(self.key);
            let fits = matches!(id.phase, Phase::Resolved | Phase::Requested);
            if !fits || id.qp.is_some() {
                return Err(wrong_phase("create_qp", id.phase));
            }
            let num = world.create_qp(self.key, self.node, cq.key, attr)?;
            world.id(self.key).qp = Some(num);
            Ok((num, world.nodes[self.node].options))
        })?;
        Ok(Arc::new(SimQp::new(
            &self.fabric,
            self.node,
            num,
            options,
            cq,
        )))
    }

    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.connect(self.key, private_data))
    }

    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.accept(self.key, private_data))
    }

    fn establish(&self) -> Result<(), VerbsError> {
        self.fabric.with(|world| world.establish(self.key))
    }

    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError> {
        self.fabric
            .with(|world| world.reject(self.key, private_data))
    }

    fn disconnect(&self) {
        self.fabric.with(|world| {
            let now = world.now();
            world.trace.note(now, "disconnect", self.key, [wide(0), 0]);
            world.disconnect(self.key);
        });
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.fabric.with(|world| world.id(self.key).local)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.fabric.with(|world| world.id(self.key).peer_addr)
    }
}
