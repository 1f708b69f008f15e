//! What a provider can do, and how much of it.

use bitflags::bitflags;

bitflags! {
    /// Operations a provider supports. A capability that is absent makes its operation return
    /// [`VerbsError::Unsupported`](crate::VerbsError::Unsupported) or
    /// [`PostError::Unsupported`](crate::PostError::Unsupported); the conformance suite checks
    /// that bit and behaviour agree.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Caps: u32 {
        /// RDMA READ.
        const RDMA_READ = 1;
        /// RDMA WRITE, including the zero-length write.
        const RDMA_WRITE = 1 << 1;
        /// Memory windows of type 2: [`QueuePair::bind`](crate::QueuePair::bind).
        const MEMORY_WINDOW = 1 << 2;
        /// LOCAL_INV of a window's key.
        const LOCAL_INV = 1 << 3;
        /// SEND with invalidate, both directions.
        const SEND_WITH_INV = 1 << 4;
        /// Memory regions may carry remote rights of their own.
        const REMOTE_MR = 1 << 5;
        /// A SEND that meets no posted receive waits for one instead of failing.
        const RNR_RETRY = 1 << 6;
        /// Completion channels distinguish solicited events.
        const SOLICITED = 1 << 7;
        /// A window may be bound over memory that the provider did not allocate itself.
        const HEAP_WINDOW = 1 << 8;
        /// Both ends of a connection are on this machine: transfers are copies by the CPU.
        const SAME_HOST = 1 << 9;
        /// The memory that a READ stores into needs `REMOTE_WRITE`, and the peer can reach it for
        /// as long as it is registered: iWARP. (The operation itself works either way on devices
        /// that do not insist.)
        const EXPOSED_SINK = 1 << 10;
        /// A request that the peer refuses completes with the reason. Without it, as on iWARP, it
        /// may complete as if it had been carried out, or as flushed, and the connection ends.
        const REMOTE_STATUS = 1 << 11;
        /// On a new connection the side that accepted sends nothing before the other side's first
        /// message has come: iWARP (RFC 5044 §7.1). Soft-iWARP ends the connection otherwise, if it has
        /// not read the answer yet.
        const CALLER_FIRST = 1 << 12;
        /// The peer shows by itself that a message has come, in a descriptor of this side's:
        /// [`QueuePair::lend_token_socket`](crate::QueuePair::lend_token_socket).
        const TOKENS = 1 << 13;
    }
}

/// Sizes and depths a provider guarantees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Send work requests outstanding on one queue pair.
    pub send_wr_max: u32,
    /// Receive work requests outstanding on one queue pair.
    pub recv_wr_max: u32,
    /// Scatter/gather elements of one request.
    pub sge_max: usize,
    /// Bytes of one RDMA READ or WRITE.
    pub rdma_len_max: usize,
    /// Bytes of one receive buffer.
    pub recv_len_max: usize,
    /// Bytes of a SEND from [`SendData::Inline`](crate::SendData::Inline) that takes no memory of
    /// messages, and so cannot be refused for want of it.
    pub inline_max: usize,
    /// RDMA READs outstanding on one queue pair (initiator depth).
    pub read_depth_max: u32,
    /// Private data bytes in a connect request. SDP's whole Hello needs 92.
    pub connect_data_max: usize,
    /// Private data bytes in an accept. SDP's HelloAck needs 196.
    pub accept_data_max: usize,
    /// Private data bytes in a reject.
    pub reject_data_max: usize,
    /// Bytes of memory that this process may have registered at once, message buffers included,
    /// where a limit is known beforehand; otherwise `usize::MAX`.
    pub registered_max: usize,
}
