//! What passes between programs and their adapters, for who watches a run.

use std::fmt::Debug;

use crate::types::{QpNum, RemoteAddr, Rkey};
use crate::wr::{WcOpcode, WcStatus};

/// One thing that passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Passing<'a> {
    /// Private data of a connect request, or of its acceptance, is handed in.
    PrivateData(&'a [u8]),
    /// A receive of so many bytes is posted.
    Receive {
        /// Bytes.
        len: usize,
    },
    /// A SEND is posted.
    Send {
        /// All of its bytes.
        bytes: &'a [u8],
        /// The key that it invalidates.
        invalidate: Option<Rkey>,
    },
    /// An RDMA READ is posted.
    Read {
        /// From where.
        remote: RemoteAddr,
        /// By which key.
        rkey: Rkey,
        /// Bytes.
        len: usize,
    },
    /// An RDMA WRITE is posted.
    Write {
        /// To where.
        remote: RemoteAddr,
        /// By which key.
        rkey: Rkey,
        /// Bytes.
        len: usize,
    },
    /// The program is told that a message has come.
    Message {
        /// Its first bytes, [`HEAD_LEN`](Self::HEAD_LEN) at most.
        head: &'a [u8],
        /// Bytes of all of it.
        len: usize,
    },
    /// The program is told how a request has ended.
    Done {
        /// Its kind.
        opcode: WcOpcode,
        /// How.
        status: WcStatus,
    },
    /// The program is told that the other side has answered, or confirmed the answer.
    Confirmed,
    /// The queue pair is in error.
    Down,
}

impl Passing<'_> {
    /// Bytes of a message that are shown when it has come.
    pub const HEAD_LEN: usize = 64;
}

/// Who watches.
pub trait Watcher: Debug + Send {
    /// Something passes at a queue pair of machine `node`; machines are numbered as they were
    /// added. Private data have no queue pair.
    fn passes(&mut self, node: usize, qp: Option<QpNum>, what: Passing<'_>);
}
