//! Opaque names. The driver keeps what they stand for.

/// A posted receive buffer, `0..Config::recv_buffers_max`. Allocated by the driver at first use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BufferId(pub u16);

/// Private receive memory (read-ahead), allocated by the driver when first named, freed by
/// [`Action::FreeMem`](crate::Action::FreeMem).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MemId(pub u32);

/// A message buffer being filled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct GrantId(pub u32);

/// A copy that the driver carries out without the connection's lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct JobId(pub u32);

/// A key given to the peer (one advert).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct KeyId(pub u32);

/// A send call in progress.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SendId(pub u32);

/// A receive call in progress.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RecvId(pub u32);

/// A signalled work request; its completion comes back by
/// [`Connection::handle_completion`](crate::Connection::handle_completion).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WorkId(pub u64);

/// A call in progress, of either kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum CallId {
    /// A send.
    Send(SendId),
    /// A receive.
    Recv(RecvId),
}
