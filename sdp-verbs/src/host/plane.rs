//! The data plane of one provider instance, and what it exchanges with the control plane.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::VerbsError;

/// Numbers of the handshake that the data plane supplies and reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HelloFacts {
    /// Random name of this provider instance.
    pub(crate) tag: u128,
    /// Address of the key table in its owner's memory, for reads that prove themselves.
    pub(crate) key_table_addr: u64,
    /// Bytes of the key table.
    pub(crate) key_table_len: u64,
    /// Bytes of the base chunk.
    pub(crate) base_len: u64,
}

/// Who the peer is, as the kernel says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PeerIdentity {
    /// Process id in our pid namespace; 0 if it has none there.
    pub(crate) pid: i32,
    /// Its user; only a peer of our own user is shown registered memory.
    pub(crate) uid: u32,
}

/// What the peer's handshake carried. Control checks the number of descriptors; the data plane
/// checks what they are.
#[derive(Debug)]
pub(crate) struct PeerHello {
    /// Its numbers.
    pub(crate) facts: HelloFacts,
    /// An eventfd that wakes the peer's channels.
    pub(crate) doorbell: OwnedFd,
    /// The peer's base chunk.
    pub(crate) base: OwnedFd,
    /// The peer's key table, if it showed it to us.
    pub(crate) key_table: Option<OwnedFd>,
}

/// Our half of a link that is being made.
#[derive(Debug)]
pub(crate) struct LocalSide {
    plane: Arc<Plane>,
}

/// A message of the data plane on the control socket. It must arrive in order with all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PlaneMsg {
    /// One descriptor: a new chunk of ours.
    Chunk { id: u32, len: u64 },
    /// One descriptor: registered memory of ours.
    Region { id: u32, len: u64 },
    /// No descriptor: a region is gone, unmap it.
    RegionGone { id: u32 },
}

/// The control socket, as the data plane sees it.
pub(crate) trait ControlOut: std::fmt::Debug + Send + Sync {
    /// Sends a message; the descriptors stay the caller's. Must not call back into the data plane.
    fn send(&self, msg: PlaneMsg, fds: &[BorrowedFd<'_>]) -> Result<(), VerbsError>;
}

/// The data plane of one provider instance.
#[derive(Debug)]
pub(crate) struct Plane {}

impl Plane {
    /// A new instance with its own tag and key table.
    pub(crate) fn new() -> Result<Arc<Self>, VerbsError> {
        unimplemented!()
    }

    /// Our name in handshakes.
    pub(crate) fn tag(&self) -> u128 {
        unimplemented!()
    }

    /// Makes our half of a link: its doorbell and base chunk.
    pub(crate) fn open_side(self: &Arc<Self>) -> Result<LocalSide, VerbsError> {
        unimplemented!()
    }
}

impl LocalSide {
    /// What to put into the handshake message.
    pub(crate) fn facts(&self) -> HelloFacts {
        unimplemented!()
    }

    /// To be passed to the peer.
    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }

    /// To be passed to the peer.
    pub(crate) fn base(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }

    /// To be passed to the peer if it runs as our own user.
    pub(crate) fn key_table(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }

    /// The instance.
    pub(crate) fn plane(&self) -> &Arc<Plane> {
        &self.plane
    }
}
