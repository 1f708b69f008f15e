//! Why a call or a connection ended.

use sdp_wire::DecodeError;

/// Why the connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer broke a rule of the protocol; the text names it by its clause.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(&'static str),
    /// The peer sent a message that cannot be decoded.
    #[error("the peer sent a malformed message: {0}")]
    Malformed(DecodeError),
    /// The peer's version or parameters do not fit ours.
    #[error("the peer is incompatible: {0}")]
    PeerIncompatible(&'static str),
    /// Nobody accepts there.
    #[error("connection refused: {0}")]
    Refused(&'static str),
    /// The peer reset the connection (AbortConn, or the transport ended without DisConn).
    #[error("connection reset by peer")]
    Reset,
    /// Something took too long.
    #[error("timed out: {0}")]
    TimedOut(&'static str),
    /// Memory that the peer advertised was out of reach before it took the advert back. On an adapter
    /// that is also how a peer's death begins: the system takes a dead process's windows before its
    /// queue pairs. The text names the rule that a living peer broke.
    #[error("the memory that the peer advertised is gone: it has died, or it broke {0}")]
    MemoryGone(&'static str),
    /// The transport failed.
    #[error("transport failed: {0}")]
    Transport(&'static str),
    /// The peer could not be reached.
    #[error("unreachable (errno {0})")]
    Unreachable(i32),
    /// This side aborted.
    #[error("aborted locally")]
    LocallyAborted,
}

impl ConnectionError {
    /// What was sent has been left unanswered for too long.
    pub(crate) const SILENT: Self = Self::TimedOut("the peer does not answer");
}

/// Why a call failed with nothing accepted or delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Non-blocking, or its time-out ran out.
    #[error("operation would block")]
    WouldBlock,
    /// A signal ended it.
    #[error("interrupted")]
    Interrupted,
    /// Sending after shutdown of the sending side, or after the peer closed (EPIPE).
    #[error("broken pipe")]
    BrokenPipe,
    /// The connection is not yet, or was never, established (ENOTCONN).
    #[error("not connected")]
    NotConnected,
    /// The memory given cannot be accessed (EFAULT).
    #[error("bad address")]
    Fault,
    /// The connection failed; reported once, then sends give `BrokenPipe` and receives the end of
    /// the stream.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}
