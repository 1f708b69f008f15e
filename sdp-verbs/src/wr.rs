//! Work requests and their completions.

use bitflags::bitflags;

use crate::memory::SendBuf;
use crate::types::{QpNum, RemoteAddr, Rkey, Sge, WrId};

bitflags! {
    /// How a send work request is to be treated.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SendFlags: u32 {
        /// Produce a completion even on success. Failures always produce one.
        const SIGNALED = 1;
        /// Raise a solicited event at the receiver (SEND only).
        const SOLICITED = 2;
        /// Start only after all earlier RDMA READs of this queue pair have completed.
        const FENCE = 4;
        /// The receiver's program wants these bytes, and nothing else in the message has to be seen
        /// before it looks at them (SEND only). Counts for [`ArmFor::Token`](crate::ArmFor::Token).
        const PAYLOAD = 8;
        /// There is nothing in the message that a receiver needs before its program's next call, if that
        /// waits for nothing (SEND only). [`ArmFor::Token`](crate::ArmFor::Token) is not told of it.
        const QUIET = 16;
    }
}

/// Bytes of a SEND.
#[derive(Debug)]
pub enum SendData<'a> {
    /// Copied before `post_send` returns.
    Inline(&'a [u8]),
    /// A buffer reserved by [`QueuePair::reserve_send`](crate::QueuePair::reserve_send) and
    /// filled by the caller: its first `len` bytes are the message. The queue pair owns it again.
    Buf {
        /// The reserved buffer.
        buf: SendBuf,
        /// Bytes of the message.
        len: usize,
    },
    /// Gathered from registered memory, which must not change until the request has completed.
    Sges(&'a [Sge]),
}

/// What a send work request does.
#[derive(Debug)]
pub enum SendOp<'a> {
    /// SEND, or SEND with invalidate: the message fills the peer's next posted receive.
    Send {
        /// The message.
        data: SendData<'a>,
        /// A key of the *peer's* that its adapter shall invalidate before it reports the receive.
        invalidate: Option<Rkey>,
    },
    /// RDMA READ: peer memory into local memory.
    Read {
        /// Where the bytes go; the sum of lengths is the length of the read.
        local: &'a [Sge],
        /// Where they come from.
        remote: RemoteAddr,
        /// The peer's key.
        rkey: Rkey,
    },
    /// RDMA WRITE: local memory into peer memory. No elements: the zero-length write, which
    /// touches no memory, needs no key, and completes only if the peer is alive.
    Write {
        /// Where the bytes come from.
        local: &'a [Sge],
        /// Where they go.
        remote: RemoteAddr,
        /// The peer's key.
        rkey: Rkey,
    },
    /// LOCAL_INV: kills a key bound on this queue pair. When it has completed, the key is dead.
    LocalInv {
        /// The key.
        rkey: Rkey,
    },
}

/// A send work request.
#[derive(Debug)]
pub struct SendWr<'a> {
    /// Returned in the completion.
    pub wr_id: WrId,
    /// What to do.
    pub op: SendOp<'a>,
    /// How.
    pub flags: SendFlags,
}

/// Outcome of a work request. After the first one that [breaks](Self::breaks) the queue pair it is
/// in error and everything else on it completes as `Flushed`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum WcStatus {
    /// Done.
    Success,
    /// A local key or length was wrong.
    LocalProtection,
    /// The message was longer than the posted receive.
    LocalLength,
    /// The peer's key was dead, of another kind, or did not cover the range.
    RemoteAccess,
    /// The peer could not carry the request out.
    RemoteOperation,
    /// READ only: the key is good, but the memory under it cannot be read. The queue pair goes on.
    /// Told by providers whose READ is a copy by this processor; an adapter's memory is pinned.
    SourceUnreadable,
    /// The peer had no receive posted for too long.
    RnrRetryExceeded,
    /// The peer does not answer: it is dead or unreachable.
    RetryExceeded,
    /// The queue pair was already in error.
    Flushed,
}

impl WcStatus {
    /// Whether the queue pair is in error because of it.
    #[must_use]
    pub const fn breaks(self) -> bool {
        !matches!(self, Self::Success | Self::SourceUnreadable)
    }
}

/// Which kind of request completed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WcOpcode {
    /// A receive.
    Recv,
    /// A SEND.
    Send,
    /// An RDMA READ.
    Read,
    /// An RDMA WRITE.
    Write,
    /// A window bind.
    Bind,
    /// A LOCAL_INV.
    LocalInv,
}

/// A completed work request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkCompletion {
    /// The caller's name for it.
    pub wr_id: WrId,
    /// Outcome.
    pub status: WcStatus,
    /// Kind.
    pub opcode: WcOpcode,
    /// Bytes received or read; zero for other kinds and on failure.
    pub byte_len: usize,
    /// For a receive: the key of *ours* that this message invalidated. It is dead now.
    pub invalidated: Option<Rkey>,
    /// The queue pair.
    pub qp: QpNum,
}
