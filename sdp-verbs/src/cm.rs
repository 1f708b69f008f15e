//! Connection management, in the words of rdma_cm.

use std::any::Any;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::VerbsError;
use crate::qp::{QpAttr, QueuePair};

/// Names a [`CmId`] in events; unique within its provider instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CmToken(pub u64);

/// Why a connect request was turned away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RejectReason {
    /// Nobody listens there.
    NoListener,
    /// The listener's backlog is full.
    Backlog,
    /// The listening program rejected it.
    Consumer,
    /// The peer belongs to a user that is not accepted.
    NotPermitted,
    /// The peer's version or layout does not fit.
    Incompatible,
    /// The peer's machine holds a connection with a queue pair of this number, from before a crash of
    /// ours. It ends that now: a later request, by a new queue pair, is good.
    Stale,
}

/// An event of connection management.
#[derive(Debug)]
pub struct CmEvent {
    /// The id concerned; for a connect request, the listener.
    pub id: CmToken,
    /// What happened.
    pub kind: CmEventKind,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum CmEventKind {
    /// The destination is reachable and the id is bound to a device: create the queue pair.
    Resolved,
    /// The destination cannot be reached, or connecting failed. The id is of no further use.
    Failed(VerbsError),
    /// A peer asks to connect.
    ConnectRequest {
        /// A new id for the connection: create its queue pair and accept, or reject.
        id: Arc<dyn CmId>,
        /// The peer's private data.
        private_data: Vec<u8>,
    },
    /// The peer accepted; confirm with [`CmId::establish`] or [`CmId::reject`].
    ConnectResponse {
        /// The peer's private data.
        private_data: Vec<u8>,
    },
    /// The peer rejected.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// The peer's private data.
        private_data: Vec<u8>,
    },
    /// Passive side: the connector confirmed, or its first message came.
    Established,
    /// The peer disconnected, died, or the link to it broke. What it had sent before is still in
    /// the completion queue.
    Disconnected,
}

/// Where and how to bind.
#[derive(Clone, Copy, Debug)]
pub struct BindRequest {
    /// Local address; port 0 takes an ephemeral port.
    pub addr: SocketAddr,
    /// An IPv6 wildcard takes no IPv4 connections.
    pub only_v6: bool,
    /// Several listeners may share the port (SO_REUSEPORT).
    pub reuse_port: bool,
}

/// A queue of connection management events.
pub trait EventChannel: Any + Debug + Send + Sync {
    /// Readable when [`poll`](Self::poll) may return something.
    fn fd(&self) -> BorrowedFd<'_>;
    /// The next event; does what connection management has to do in the background. Never blocks.
    fn poll(&self) -> Option<CmEvent>;
    /// When [`poll`](Self::poll) must be called next although the descriptor is silent.
    fn next_timeout(&self) -> Option<Duration>;
}

/// One end of a connection being made, or a listener. Operations start something and return; what
/// comes of it is an event. Dropping it disconnects.
pub trait CmId: Debug + Send + Sync {
    /// Its name in events.
    fn token(&self) -> CmToken;

    /// Binds to a local address.
    ///
    /// # Errors
    /// As bind(2): EADDRINUSE, EADDRNOTAVAIL, EACCES in [`VerbsError::Os`].
    fn bind(&self, request: BindRequest) -> Result<(), VerbsError>;

    /// Binds to a local address whose port a TCP socket of the program holds already, and goes on
    /// holding: a provider whose ports are TCP's has no socket of its own for it then.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    fn adopt(&self, request: BindRequest, holder: BorrowedFd<'_>) -> Result<(), VerbsError> {
        let _ = holder;
        self.bind(request)
    }

    /// Starts to listen; requests come as events. At most `backlog` of them wait unanswered.
    ///
    /// # Errors
    /// [`VerbsError::State`] if not bound, [`VerbsError::Os`] as listen(2).
    fn listen(&self, backlog: u32) -> Result<(), VerbsError>;

    /// Finds the way to `dst`: `Resolved` or `Failed` follows.
    ///
    /// # Errors
    /// What is known at once to be wrong with the address or the state.
    fn resolve(&self, dst: SocketAddr, timeout: Duration) -> Result<(), VerbsError>;

    /// Creates the queue pair, once resolved (active) or requested (passive).
    ///
    /// # Errors
    /// [`VerbsError::Limit`] or [`VerbsError::State`].
    fn create_qp(&self, attr: &QpAttr) -> Result<Arc<dyn QueuePair>, VerbsError>;

    /// Sends the connect request; `ConnectResponse`, `Rejected` or `Failed` follows.
    ///
    /// # Errors
    /// [`VerbsError::State`], or [`VerbsError::Argument`] for too much private data.
    fn connect(&self, private_data: &[u8]) -> Result<(), VerbsError>;

    /// Accepts; `Established` or `Disconnected` follows.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    fn accept(&self, private_data: &[u8]) -> Result<(), VerbsError>;

    /// Confirms a `ConnectResponse`. Messages may be sent from here on.
    ///
    /// # Errors
    /// [`VerbsError::State`].
    fn establish(&self) -> Result<(), VerbsError>;

    /// Turns a request or a response down.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    fn reject(&self, private_data: &[u8]) -> Result<(), VerbsError>;

    /// Ends the connection at both ends; the queue pair goes into error after what was sent
    /// before has been delivered. Harmless if already ended.
    fn disconnect(&self);

    /// Local address, once bound or resolved.
    fn local_addr(&self) -> Option<SocketAddr>;

    /// The peer's address, once known.
    fn peer_addr(&self) -> Option<SocketAddr>;
}
