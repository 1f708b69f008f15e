//! A request in the send queue.

use smallvec::SmallVec;

use super::buf::Message;
use super::{HostQp, LocalSge};
use crate::types::{RemoteAddr, Rkey, WrId};
use crate::wr::{SendFlags, WcOpcode, WcStatus};

/// What a request does.
#[derive(Debug)]
pub(super) enum Op {
    Send {
        message: Message,
        len: usize,
        invalidate: Option<Rkey>,
    },
    Read {
        local: SmallVec<[LocalSge; 1]>,
        remote: RemoteAddr,
        rkey: Rkey,
    },
    Write {
        local: SmallVec<[LocalSge; 1]>,
        remote: RemoteAddr,
        rkey: Rkey,
        /// Keys of ours that live while the peer fetches.
        keys: SmallVec<[Rkey; 1]>,
        /// One more than the number of its last piece, once started.
        end: u64,
    },
    LocalInv {
        rkey: Rkey,
    },
    /// Done when posted; here for its place in the order.
    Bind,
    /// The end marker; completes without a completion.
    End,
}

/// What a SEND has besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendHead {
    pub(super) wr_id: WrId,
    pub(super) flags: SendFlags,
    pub(super) invalidate: Option<Rkey>,
}

/// A request.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) wr_id: WrId,
    pub(super) flags: SendFlags,
    pub(super) op: Op,
    /// Set when done.
    pub(super) status: Option<WcStatus>,
    pub(super) byte_len: usize,
}

impl Entry {
    pub(super) fn new(wr_id: WrId, flags: SendFlags, op: Op) -> Self {
        Self {
            wr_id,
            flags,
            op,
            status: None,
            byte_len: 0,
        }
    }

    pub(super) fn opcode(&self) -> Option<WcOpcode> {
        match self.op {
            Op::Send { .. } => Some(WcOpcode::Send),
            Op::Read { .. } => Some(WcOpcode::Read),
            Op::Write { .. } => Some(WcOpcode::Write),
            Op::LocalInv { .. } => Some(WcOpcode::LocalInv),
            Op::Bind => Some(WcOpcode::Bind),
            Op::End => None,
        }
    }
}

/// Queues a completion if the request gets one. True if it does.
pub(super) fn report(qp: &HostQp, entry: &Entry, status: WcStatus) -> bool {
    let success = status == WcStatus::Success;
    let Some(opcode) = entry.opcode() else {
        return false;
    };
    if success && !entry.flags.contains(SendFlags::SIGNALED) {
        qp.send_taken();
        return false;
    }
    let byte_len = if success { entry.byte_len } else { 0 };
    qp.complete_send(entry.wr_id, status, opcode, byte_len);
    true
}
