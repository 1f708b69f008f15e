//! Queue pairs of the host provider.

use crate::error::VerbsError;
use crate::types::QpNum;

/// Where a queue pair's memory is in its link: goes into REQ and REP as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(crate) struct QpDescriptor(pub(crate) [u8; QP_DESCRIPTOR_LEN]);

/// Bytes of a [`QpDescriptor`].
pub(crate) const QP_DESCRIPTOR_LEN: usize = 32;

/// A queue pair.
#[derive(Debug)]
pub(crate) struct HostQp {}

impl HostQp {
    /// Its number, unique in the instance.
    pub(crate) fn num(&self) -> QpNum {
        unimplemented!()
    }

    /// What the peer needs to connect to it.
    pub(crate) fn descriptor(&self) -> QpDescriptor {
        unimplemented!()
    }

    /// Connects to the peer's queue pair: messages may be sent from here on. On the passive side
    /// call it before REP is sent, on the active side when REP has come.
    pub(crate) fn connect_to(&self, peer: &QpDescriptor) -> Result<(), VerbsError> {
        let _ = peer;
        unimplemented!()
    }

    /// The peer has said that it will never touch this queue pair (REJ, or REQ was not sent), so
    /// its memory may be used again at once.
    pub(crate) fn peer_refused(&self) {
        unimplemented!()
    }

    /// Orderly end: what was posted before is delivered to the peer, then its queue pair flushes.
    /// Ours goes into error once the end marker is out. DREQ sent and received both call it.
    pub(crate) fn disconnect(&self) {
        unimplemented!()
    }
}
