//! Small vocabulary: identifiers, keys, access rights.

use std::fmt;

use bitflags::bitflags;

/// The caller's name for a work request; it comes back in the completion, unread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct WrId(pub u64);

/// Number of a queue pair, unique within its provider instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct QpNum(pub u32);

/// Local key: the right to use memory in work requests of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lkey(pub u32);

/// Remote key: the right, given to a peer, to read or write memory of this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rkey(pub u32);

/// Address in the peer's memory, meaningful only together with the peer's [`Rkey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RemoteAddr(pub u64);

macro_rules! hex_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    )*};
}
hex_debug!(QpNum, Lkey, Rkey, RemoteAddr);

bitflags! {
    /// Rights on registered memory. Reading by this process's own work requests is always allowed.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Access: u32 {
        /// Receives and RDMA reads of this process may store into it.
        const LOCAL_WRITE = 1;
        /// The peer may store into it by RDMA WRITE.
        const REMOTE_WRITE = 2;
        /// The peer may load from it by RDMA READ.
        const REMOTE_READ = 4;
        /// A memory window may be bound over it.
        const MW_BIND = 16;
    }
}

/// One piece of registered local memory: scatter/gather element.
#[derive(Clone, Copy, Debug)]
pub struct Sge {
    /// First byte.
    pub addr: *mut u8,
    /// Bytes.
    pub len: usize,
    /// Key of the [`MemoryRegion`](crate::MemoryRegion) that covers `addr..addr + len`.
    pub lkey: Lkey,
}

// SAFETY: an `Sge` is a name for memory, not a reference to it. The memory is kept valid by the
// region registered under `lkey` (contract of `Provider::register`), whichever thread posts.
unsafe impl Send for Sge {}
// SAFETY: as for `Send`; shared access to the name reads three integers only.
unsafe impl Sync for Sge {}
