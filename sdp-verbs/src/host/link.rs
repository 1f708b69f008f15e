//! One side of a link: all queue pairs between two provider instances.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::plane::{ControlOut, LocalSide, PeerHello, PeerIdentity, Plane};
use super::qp::HostQp;
use crate::error::VerbsError;
use crate::qp::QpAttr;

/// Why a link ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LinkEnd {
    /// The peer process died or closed the control socket.
    PeerGone,
    /// The peer broke a rule, named here.
    Protocol(String),
    /// We closed an idle link.
    Idle,
}

/// One side of a link. Thread-safe.
#[derive(Debug)]
pub(crate) struct PeerLink {}

impl PeerLink {
    /// Builds the data plane of a link from both halves of the handshake.
    pub(crate) fn new(
        side: LocalSide,
        peer: PeerIdentity,
        hello: PeerHello,
        out: Arc<dyn ControlOut>,
    ) -> Result<Arc<Self>, VerbsError> {
        let _ = (side, peer, hello, out);
        unimplemented!()
    }

    /// The instance it belongs to.
    pub(crate) fn plane(&self) -> &Arc<Plane> {
        unimplemented!()
    }

    /// The peer's tag.
    pub(crate) fn peer_tag(&self) -> u128 {
        unimplemented!()
    }

    /// A `Chunk` message of the peer's. After an error call [`broken`](Self::broken).
    pub(crate) fn attach_chunk(&self, id: u32, fd: OwnedFd, len: u64) -> Result<(), VerbsError> {
        let _ = (id, fd, len);
        unimplemented!()
    }

    /// A `Region` message of the peer's. After an error call [`broken`](Self::broken).
    pub(crate) fn attach_region(&self, id: u32, fd: OwnedFd, len: u64) -> Result<(), VerbsError> {
        let _ = (id, fd, len);
        unimplemented!()
    }

    /// A `RegionGone` message of the peer's. After an error call [`broken`](Self::broken).
    pub(crate) fn detach_region(&self, id: u32) -> Result<(), VerbsError> {
        let _ = id;
        unimplemented!()
    }

    /// A queue pair on this link, not yet connected. `attr.cq` must be of the same instance.
    pub(crate) fn create_qp(self: &Arc<Self>, attr: &QpAttr) -> Result<Arc<HostQp>, VerbsError> {
        let _ = attr;
        unimplemented!()
    }

    /// Queue pairs that exist on this link; an idle link has none.
    pub(crate) fn qp_count(&self) -> usize {
        unimplemented!()
    }

    /// The peer died or the link is unusable. Every queue pair delivers what the peer had
    /// published, then flushes; waiters and channels are woken. Harmless if repeated.
    pub(crate) fn broken(&self, end: LinkEnd) {
        let _ = end;
        unimplemented!()
    }
}
