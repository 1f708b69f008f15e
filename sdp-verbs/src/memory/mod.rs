//! Memory that another process, or an adapter, may change at any moment.

mod block;
mod foreign;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub(crate) use block::{Block, copy_out};
pub use foreign::ForeignSlice;

/// What keeps a buffer's memory mapped.
pub type Keep = Arc<dyn Any + Send + Sync>;

/// Memory of one receive. See [`QueuePair::alloc_recv`](crate::QueuePair::alloc_recv).
pub struct RecvBuf {
    mem: ForeignSlice,
    token: u64,
    keep: Keep,
}

/// Memory of one message to be sent. See
/// [`QueuePair::reserve_send`](crate::QueuePair::reserve_send).
pub struct SendBuf {
    mem: ForeignSlice,
    token: u64,
    keep: Keep,
}

impl RecvBuf {
    /// Made by providers: `keep` holds the mapping behind `mem`; `token` is the provider's own.
    pub fn new(mem: ForeignSlice, token: u64, keep: Keep) -> Self {
        Self { mem, token, keep }
    }

    /// The bytes. The peer may still change them: copy, then judge.
    #[must_use]
    pub fn mem(&self) -> &ForeignSlice {
        &self.mem
    }

    /// The provider's own name for it.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// What keeps the memory mapped, for the provider's own downcast.
    #[must_use]
    pub fn keep(&self) -> &Keep {
        &self.keep
    }
}

impl SendBuf {
    /// Made by providers: `keep` holds the mapping behind `mem`; `token` is the provider's own.
    pub fn new(mem: ForeignSlice, token: u64, keep: Keep) -> Self {
        Self { mem, token, keep }
    }

    /// The bytes to fill.
    #[must_use]
    pub fn mem(&self) -> &ForeignSlice {
        &self.mem
    }

    /// The provider's own name for it.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// What keeps the memory mapped, for the provider's own downcast.
    #[must_use]
    pub fn keep(&self) -> &Keep {
        &self.keep
    }
}

impl fmt::Debug for RecvBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBuf")
            .field("len", &self.mem.len())
            .field("token", &self.token)
            .finish()
    }
}

impl fmt::Debug for SendBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBuf")
            .field("len", &self.mem.len())
            .field("token", &self.token)
            .finish()
    }
}
