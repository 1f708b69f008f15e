//! Application calls in progress. A blocking call is `start`, then `poll` and wait in turn until
//! `Done`; the call is a value of the engine's, so it can be driven by a thread or by a simulator.

use smallvec::SmallVec;

use crate::error::CallError;
use crate::ids::{BufferId, GrantId, MemId};
use crate::stats::CopyReason;

/// A send.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// Bytes.
    pub len: usize,
    /// End offsets of the contiguous pieces of the caller's memory, the last one being `len`; none if
    /// there is one piece. No advert crosses such an end.
    pub segment_ends: SmallVec<[usize; 2]>,
    /// Return at once with what can be taken.
    pub nonblocking: bool,
    /// The last byte is urgent (MSG_OOB), once all are accepted.
    pub urgent: bool,
    /// The memory was registered for life, which is what choices are made by.
    pub registered: bool,
    /// `None`: the memory may be shown to the peer. `Some`: it may not, for this reason.
    pub copy_reason: Option<CopyReason>,
}

/// A receive.
#[derive(Clone, Debug)]
pub struct RecvRequest {
    /// Bytes wanted.
    pub len: usize,
    /// As in [`SendRequest::segment_ends`]; no RDMA READ crosses one.
    pub segment_ends: SmallVec<[usize; 2]>,
    /// Return at once with what is there.
    pub nonblocking: bool,
    /// Leave the bytes in the stream (MSG_PEEK).
    pub peek: bool,
    /// Return only with all `len` bytes, or at the end of the stream (MSG_WAITALL).
    pub wait_all: bool,
    /// `None`: the peer's bytes may be read straight into the caller's memory.
    pub copy_reason: Option<CopyReason>,
}

/// What a send call needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum SendStep {
    /// Copy `len` bytes from offset `at` of the caller's memory, without the lock if they are
    /// many, then call `send_copied`, or `send_copy_failed` if `to` could not be had.
    Copy {
        /// Offset in the caller's memory.
        at: usize,
        /// Bytes.
        len: usize,
        /// Target.
        to: CopyTarget,
    },
    /// Nothing to do until an [`Event::SendReady`](crate::Event::SendReady).
    Wait,
    /// The call is over and forgotten. `Ok(n)`: n bytes were accepted; no key of the call's
    /// memory is alive.
    Done(Result<usize, CallError>),
}

/// Where a send's bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyTarget {
    /// A new message buffer, from offset `BSDH_LEN` on.
    Message(GrantId),
    /// The end of the connection's private send memory.
    Private,
}

/// What a receive call needs next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum RecvStep {
    /// Copy `len` bytes to offset `at` of the caller's memory, without the lock if they are many,
    /// then call `recv_copied`.
    Copy {
        /// Source.
        from: CopySource,
        /// Offset in the caller's memory.
        at: usize,
        /// Bytes.
        len: usize,
    },
    /// Nothing to do until an [`Event::RecvReady`](crate::Event::RecvReady).
    Wait,
    /// The call is over and forgotten. `Ok(0)` for a request of more than 0 bytes is the end of
    /// the stream. No work request names the call's memory.
    Done(Result<usize, CallError>),
}

/// What there is to be received out of band.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum UrgentRecv {
    /// The byte that was kept last for [`Action::KeepUrgent`](crate::Action::KeepUrgent).
    Byte,
    /// The peer has announced one (EAGAIN).
    Coming,
    /// None is on its way, or it was received before, or it is in line (EINVAL).
    Nothing,
    /// One was announced, and the stream has ended (0 bytes).
    End,
}

/// Where a receive's bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopySource {
    /// A receive buffer.
    Buffer {
        /// Which.
        buf: BufferId,
        /// Offset from the start of the message.
        offset: u32,
    },
    /// Private receive memory.
    Mem {
        /// Which.
        mem: MemId,
        /// Offset.
        offset: usize,
    },
}

/// Why a call must end before it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndCall {
    /// SO_SNDTIMEO or SO_RCVTIMEO ran out: the count so far, or [`CallError::WouldBlock`].
    TimedOut,
    /// A signal: the count so far, or [`CallError::Interrupted`].
    Interrupted,
}

/// Bytes in a receive buffer that are all that a receive returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundAtOnce {
    /// The buffer.
    pub buf: BufferId,
    /// Where they begin in it.
    pub offset: u32,
    /// How many.
    pub len: usize,
}
