//! What the engine tells, and what it is told by the connection manager and by completions.

use sdp_wire::Rkey;

use crate::error::ConnectionError;

/// Something the application may wait for has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is complete.
    Connected,
    /// A send call at the head of the turns may get on, or a new one would not block.
    SendReady,
    /// A receive call may get on: bytes, the end of the stream, or an error.
    RecvReady,
    /// An urgent byte has come.
    Urgent,
    /// The connection has ended; nothing more will be posted. `None`: gracefully.
    Closed(Option<ConnectionError>),
}

/// Connection management as seen by one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CmInput<'a> {
    /// The peer accepted.
    Response(&'a [u8]),
    /// Passive side: the peer confirmed.
    Established,
    /// The peer turned us down: nobody listens or the backlog is full (`refused`), or another
    /// reason.
    Rejected {
        /// Private data.
        private_data: &'a [u8],
        /// In words.
        reason: &'static str,
    },
    /// The connection is gone at transport level.
    Disconnected,
    /// The peer could not be reached.
    Unreachable {
        /// errno of the transport.
        errno: i32,
    },
}

/// How a work request or receive ended, in the engine's own words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// Done.
    Success,
    /// The peer's memory could not be read: key dead or range wrong.
    RemoteAccess,
    /// The peer's memory is not readable although its key is good (a bad pointer over there).
    RemoteFault,
    /// Our own memory is not writable.
    LocalFault,
    /// The request was not posted: no memory for its bytes could be had. Requests before it may
    /// still be under way.
    NoMemory,
    /// The queue pair was in error before.
    Flushed,
    /// The peer has left what was sent unanswered for too long: it is dead or out of reach.
    Unanswered,
    /// The transport gave up.
    TransportFailed(&'static str),
}

/// A received message, as the driver found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// At least the first `min(len, HEAD_LEN_MAX)` bytes, copied out of the buffer.
    pub head: &'a [u8],
    /// Bytes of the whole message, by the completion.
    pub len: usize,
    /// A key of ours that the message invalidated at our adapter.
    pub invalidated: Option<Rkey>,
}
