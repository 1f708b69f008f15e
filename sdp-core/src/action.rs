//! What the engine wants done. Actions are carried out in the order they are polled.

use sdp_wire::{HEAD_LEN_MAX, RemoteAddr, Rkey, ServiceId};
use smallvec::SmallVec;

use crate::ids::{BufferId, CallId, GrantId, JobId, KeyId, MemId, RecvId, SendId, WorkId};

/// Private data for the connection manager (Hello or HelloAck). On the heap: it is there once per
/// connection, and actions stay small.
pub type PrivateData = SmallVec<[u8; 16]>;

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Action {
    /// CM: send the connect request.
    Connect(PrivateData),
    /// CM: accept the request this connection was made from.
    Accept(PrivateData),
    /// CM: confirm the peer's response.
    Establish,
    /// CM: turn the request or response down.
    Reject(PrivateData),
    /// CM: disconnect; what was posted before is still delivered.
    Disconnect,
    /// The queue pair is done with; another one takes its place. With `call`, this side takes the old
    /// one down, finds the way to the peer's port in it, and calls
    /// [`Connection::handle_path`](crate::Connection::handle_path) when there is a new queue pair.
    /// Otherwise the peer does that: whoever calls at the service ID named in
    /// [`Connection::suspend`](crate::Connection::suspend) is handed to
    /// [`Connection::handle_call`](crate::Connection::handle_call) when the old one is down.
    Leave {
        /// Where the peer is to be called.
        call: Option<ServiceId>,
    },
    /// Put the queue pair into error: abort. All work comes back flushed.
    SetError,
    /// Post a receive of `len` bytes. The buffer's memory, if it has any of another length, is
    /// replaced. If the driver cannot allocate it, it calls `buffer_unavailable`.
    PostRecv {
        /// Which buffer.
        buf: BufferId,
        /// Bytes, header included.
        len: u32,
    },
    /// The buffer will not be posted for a while: its memory is not needed.
    FreeRecv(BufferId),
    /// Post a SEND.
    PostSend(PostSend),
    /// Post an RDMA READ.
    RdmaRead {
        /// Completion.
        work: WorkId,
        /// From where, in the peer.
        remote: RemoteAddr,
        /// With the peer's key.
        rkey: Rkey,
        /// To where.
        into: ReadInto,
        /// Bytes, at least 1.
        len: u32,
    },
    /// Post an RDMA WRITE from memory that was registered before.
    RdmaWrite {
        /// Completion.
        work: WorkId,
        /// Whose memory the bytes come from.
        call: SendId,
        /// Offset in it.
        at: usize,
        /// To where, in the peer.
        remote: RemoteAddr,
        /// With the peer's key.
        rkey: Rkey,
        /// Bytes, at least 1.
        len: u32,
    },
    /// Register part of a send call's memory, within one segment of the request, for RDMA WRITEs.
    /// Answered at once by `handle_registered`, before the next action is polled.
    Register {
        /// Whose memory.
        call: SendId,
        /// Offset in it.
        at: usize,
        /// Bytes.
        len: usize,
    },
    /// Give the peer a key for part of a call's memory, within one segment of the request: to read
    /// that of a send, to write that of a receive. Answered at once by `handle_bound`, before the
    /// next action is polled.
    BindKey {
        /// The key's name.
        key: KeyId,
        /// Whose memory.
        call: CallId,
        /// Offset in it.
        at: usize,
        /// Bytes.
        len: u32,
    },
    /// Kill a key (LOCAL_INV, or whatever does it on this device). The completion of `work` says
    /// it is dead.
    InvalidateKey {
        /// The key.
        key: KeyId,
        /// Completion.
        work: WorkId,
    },
    /// The key is dead by the peer's Send-with-Invalidate; the driver forgets it.
    ForgetKey(KeyId),
    /// Ask the peer's adapter for a sign of life: a zero-length RDMA WRITE, signalled.
    Probe {
        /// Completion.
        work: WorkId,
    },
    /// Send something that the peer's adapter gets, and nobody sees: a write without bytes.
    Knock {
        /// Completion.
        work: WorkId,
    },
    /// The oldest `len` bytes of urgent memory go to the end of private send memory.
    SendUrgent {
        /// Bytes.
        len: usize,
    },
    /// The byte at `offset` of receive buffer `buf` is urgent: keep a copy of it. Done before the
    /// lock is let go, as the byte itself may leave the stream at any time. Comes before all other
    /// actions, so that the buffer still holds it, and once, for the last of several such bytes.
    KeepUrgent {
        /// The buffer.
        buf: BufferId,
        /// Offset from the start of the message.
        offset: u32,
    },
    /// Copy, without holding the connection's lock; answered by `handle_copied`.
    Copy(CopyJob),
    /// The private receive memory is not needed any more. When a connection ends, this may name
    /// memory whose first use was dropped before it was handed out: then there is nothing to do.
    FreeMem(MemId),
    /// A granted message buffer will not be posted; give it back.
    DropGrant(GrantId),
}

/// A SEND: one SDP message, already stamped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostSend {
    /// Header bytes; the first `head_len` count.
    pub head: [u8; HEAD_LEN_MAX],
    /// Bytes of header.
    pub head_len: usize,
    /// Where the payload is.
    pub payload: Payload,
    /// SEND with invalidate of this key of the peer's.
    pub invalidate: Option<Rkey>,
    /// Raise a solicited event.
    pub solicited: bool,
    /// It brings credits and nothing else: a peer that waits for none need not look at it.
    pub update: bool,
    /// Signalled if set.
    pub work: Option<WorkId>,
}

/// Where a message's payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// There is none.
    None,
    /// In the granted message buffer, `len` bytes from offset `BSDH_LEN` on. The driver writes the
    /// header in front and posts the buffer.
    Grant {
        /// The buffer.
        grant: GrantId,
        /// Bytes of payload.
        len: u32,
    },
    /// A few bytes of the send call's own memory, copied at post (inline bytes of a SrcAvail).
    Call {
        /// Whose memory.
        call: SendId,
        /// Offset in it.
        at: usize,
        /// Bytes, at most `Config::inline_len`.
        len: u32,
    },
    /// All the bytes of the send that has just been handed in by
    /// [`Connection::send_at_once`](crate::Connection::send_at_once), copied at post.
    AtOnce {
        /// Bytes.
        len: u32,
    },
}

impl Payload {
    /// How many bytes it is.
    #[must_use]
    pub const fn byte_len(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Grant { len, .. } | Self::Call { len, .. } | Self::AtOnce { len } => len,
        }
    }
}

/// Target of an RDMA READ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadInto {
    /// The receive call's own memory: zero copy.
    Call {
        /// Whose memory.
        call: RecvId,
        /// Offset in it. The range lies within one segment of the request.
        at: usize,
    },
    /// Private memory: read-ahead.
    Mem {
        /// Which; allocated now, with `capacity` bytes, if unknown.
        mem: MemId,
        /// Offset in it.
        at: usize,
        /// Size of the whole piece.
        capacity: usize,
    },
}

/// A copy to be made without the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyJob {
    /// Its name.
    pub id: JobId,
    /// What.
    pub what: CopyWhat,
}

/// What is to be copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyWhat {
    /// The oldest `len` bytes of private send memory into a new message buffer at offset
    /// `BSDH_LEN`; they leave the private memory.
    Stage {
        /// The new message buffer.
        grant: GrantId,
        /// Bytes.
        len: u32,
    },
    /// The payload of a message buffer that will not be posted, back to the front of private send
    /// memory; the buffer is given back.
    Unstage {
        /// The message buffer.
        grant: GrantId,
        /// Bytes.
        len: u32,
    },
    /// Payload of a receive buffer into private receive memory, so that the buffer can be posted
    /// again.
    Compact {
        /// From this buffer,
        buf: BufferId,
        /// from this offset on,
        offset: u32,
        /// that many bytes,
        len: u32,
        /// into this private memory (allocated with `capacity` if unknown),
        mem: MemId,
        /// at this offset.
        at: usize,
        /// Size of the whole piece.
        capacity: usize,
    },
}
