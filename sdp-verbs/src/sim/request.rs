//! Send requests: what they do, and how far they have come.

use smallvec::SmallVec;

use crate::types::{RemoteAddr, Rkey, Sge, WrId};
use crate::wr::{SendFlags, WcOpcode, WcStatus};

/// Elements of a request.
pub(super) type Sges = SmallVec<[Sge; 2]>;

/// What a request does.
#[derive(Debug)]
pub(super) enum Op {
    Send {
        data: Data,
        invalidate: Option<Rkey>,
    },
    Read {
        local: Sges,
        remote: RemoteAddr,
        rkey: Rkey,
    },
    Write {
        local: Sges,
        remote: RemoteAddr,
        rkey: Rkey,
    },
    Bind(Rkey),
    LocalInv(Rkey),
}

/// The bytes of a SEND.
#[derive(Debug)]
pub(super) enum Data {
    Taken(Vec<u8>),
    Gather(Sges),
}

impl Op {
    pub(super) fn opcode(&self) -> WcOpcode {
        match self {
            Self::Send { .. } => WcOpcode::Send,
            Self::Read { .. } => WcOpcode::Read,
            Self::Write { .. } => WcOpcode::Write,
            Self::Bind(_) => WcOpcode::Bind,
            Self::LocalInv(_) => WcOpcode::LocalInv,
        }
    }

    /// The caller's memory that it names.
    pub(super) fn sges(&self) -> &[Sge] {
        match self {
            Self::Send {
                data: Data::Gather(sges),
                ..
            } => sges,
            Self::Read { local, .. } | Self::Write { local, .. } => local,
            _ => &[],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Queued,
    Started,
    Done { status: WcStatus, byte_len: usize },
}

/// A send request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) wr_id: WrId,
    pub(super) flags: SendFlags,
    pub(super) op: Op,
    pub(super) stage: Stage,
}
