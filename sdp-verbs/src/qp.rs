//! Queue pairs.

use std::any::Any;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::cq::CompletionQueue;
use crate::error::{PostError, VerbsError};
use crate::memory::{RecvBuf, SendBuf};
use crate::mr::{Binding, MemoryWindow};
use crate::types::{QpNum, Rkey, WrId};
use crate::wr::{SendFlags, SendWr};

/// How to create a queue pair.
#[derive(Clone, Debug)]
pub struct QpAttr {
    /// Where sends and receives complete. Several queue pairs may share it.
    pub cq: Arc<dyn CompletionQueue>,
    /// Send requests outstanding at once, at most `Limits::send_wr_max`.
    pub send_wr_max: u32,
    /// Receives posted at once, at most `Limits::recv_wr_max`.
    pub recv_wr_max: u32,
    /// Times a SEND that meets no receive is tried again; 7 means without end, as in the
    /// InfiniBand specification.
    pub rnr_retry: u8,
    /// How long a peer that does not even acknowledge what is sent is believed to be there, where
    /// the adapter can be told; `None`: as long as the provider finds right.
    pub silence_max: Option<Duration>,
}

/// A reliable connected queue pair. Requests start in the order posted, and complete in it.
pub trait QueuePair: Any + Debug + Send + Sync {
    /// Its number.
    fn num(&self) -> QpNum;

    /// Memory for one posted receive of up to `len` bytes.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] if no memory can be had.
    fn alloc_recv(&self, len: usize) -> Result<RecvBuf, VerbsError>;

    /// Posts a receive. The buffer belongs to the queue pair until the receive completes; its
    /// bytes may then be read, as often as wanted, until it is posted again. Allowed before the
    /// connection exists.
    ///
    /// # Errors
    /// [`PostError`]; nothing was posted.
    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError>;

    /// Keeps memory for one message of up to `len` bytes, so that there is always some for one at a
    /// time, whatever others take. Replaces what was kept before.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] if no memory can be had.
    fn keep_send(&self, len: usize) -> Result<(), VerbsError>;

    /// A buffer for a message of up to `len` bytes, to be filled by the caller and posted as
    /// [`SendData::Buf`](crate::SendData::Buf). Where the adapter is the CPU this may be the
    /// peer's own posted receive, so that filling it is the only copy on this side.
    ///
    /// # Errors
    /// [`PostError::QueueFull`] if no buffer is free, [`PostError::NoMemory`] if none may be made,
    /// [`PostError::WrongState`], [`PostError::TooLarge`].
    fn reserve_send(&self, len: usize) -> Result<SendBuf, PostError>;

    /// Gives a reserved buffer back unposted.
    fn unreserve_send(&self, buf: SendBuf);

    /// Posts a send request.
    ///
    /// # Errors
    /// [`PostError`]; nothing was posted. A `SendBuf` in it is given back.
    fn post_send(&self, wr: SendWr<'_>) -> Result<(), PostError>;

    /// Posts a window bind. The key returned is valid for requests that follow on this queue pair,
    /// so it may be sent to the peer at once.
    ///
    /// # Errors
    /// [`PostError`]; nothing was posted and the window is as before.
    fn bind(
        &self,
        wr_id: WrId,
        flags: SendFlags,
        window: &dyn MemoryWindow,
        binding: Binding,
    ) -> Result<Rkey, PostError>;

    /// Whether the peer can reach memory that this provider did not allocate, as far as is known:
    /// it may only find out when it reads. Such a read completes as
    /// [`SourceUnreadable`](crate::WcStatus::SourceUnreadable), and the answer is no from then on.
    ///
    /// # Errors
    /// The reason why not, in words for an operator.
    fn heap_reachable(&self) -> Result<(), String>;

    /// Whether the device has refused a request of the peer's and put the queue pair into error for
    /// it: the request named memory that it may not reach, or no longer. As far as the device lets it
    /// be known.
    fn has_refused_peer(&self) -> bool {
        false
    }

    /// Bytes of messages posted that have not gone out, as far as this side knows: they wait for a
    /// request in front of them, or for a receive of the peer's. An adapter keeps its queue to
    /// itself, so there are none that are known of.
    fn queued_len(&self) -> usize {
        0
    }

    /// Lends the peer a connected Unix stream socket. From now on it may put one byte there, once for
    /// each [`ArmFor::Token`](crate::ArmFor::Token), when a message sent as
    /// [`PAYLOAD`](SendFlags::PAYLOAD) has come: whoever polls the other end of the socket wakes
    /// without a thread of ours in between. What the peer does beyond that shows there too, so the
    /// bytes are hints and nothing more. Until the peer has the socket, and if it can't have it, such
    /// a message is an event for the channel.
    ///
    /// # Errors
    /// [`VerbsError::Unsupported`] without [`Caps::TOKENS`](crate::Caps::TOKENS), or if the peer
    /// knows no tokens or is another user's; [`VerbsError::State`] while the queue pair is not
    /// connected, or if it has one already; [`VerbsError::Limit`].
    fn lend_token_socket(&self, _socket: BorrowedFd<'_>) -> Result<(), VerbsError> {
        Err(VerbsError::Unsupported {
            provider: "in use",
            op: "lending a token socket",
        })
    }

    /// Puts the queue pair into the error state: everything outstanding completes as
    /// [`Flushed`](crate::WcStatus::Flushed), nothing of the peer's gets in any more, and every
    /// key bound on it is dead when this returns.
    fn set_error(&self);
}
