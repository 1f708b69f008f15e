//! SuspComm: moving a connection to another service ID (clause §2.8). Not spoken; a peer that
//! asks for it is told so by the name of what ended the connection.

use crate::error::ConnectionError;

/// The answer to SuspComm.
pub(crate) const fn on_susp_comm() -> ConnectionError {
    ConnectionError::PeerIncompatible("§2.8: SuspComm is not spoken here")
}

/// The answer to SuspCommAck, which nobody asked for.
pub(crate) const fn on_susp_comm_ack() -> ConnectionError {
    ConnectionError::PeerMisbehaved("§2.8: SuspCommAck without SuspComm")
}
