//! What a program does.

use core::time::Duration;
use std::vec::Vec;

/// One thing a program does.
#[derive(Clone, Debug)]
pub(in crate::tests) enum Op {
    Send {
        len: usize,
        nonblocking: bool,
        copied: bool,
        /// Ends of the pieces of memory; empty: one piece.
        pieces: Vec<usize>,
        time_limit: Option<u64>,
    },
    Recv {
        len: usize,
        nonblocking: bool,
        peek: bool,
        wait_all: bool,
        pieces: Vec<usize>,
        time_limit: Option<u64>,
    },
    /// A send of `lead` bytes and an urgent one, ahead of those that wait.
    Urgent {
        lead: usize,
    },
    /// As [`Self::Urgent`], in turn.
    UrgentInTurn {
        lead: usize,
        nonblocking: bool,
    },
    /// Waits until there is an urgent byte.
    AwaitUrgent,
    RecvUrgent {
        peek: bool,
    },
    Inline(bool),
    /// Receives of `len` until the end of the stream.
    RecvToEnd {
        len: usize,
    },
    Sleep(u64),
    /// Moves the connection to another queue pair.
    Move,
    ShutSend,
    ShutRecv,
    Close(Option<Duration>),
    Abort,
}

impl Op {
    pub(in crate::tests) fn send(len: usize) -> Self {
        Self::Send {
            len,
            nonblocking: false,
            copied: false,
            pieces: Vec::new(),
            time_limit: None,
        }
    }

    pub(in crate::tests) fn try_send(len: usize) -> Self {
        Self::Send {
            len,
            nonblocking: true,
            copied: false,
            pieces: Vec::new(),
            time_limit: None,
        }
    }

    pub(in crate::tests) fn send_for(len: usize, time: u64) -> Self {
        Self::Send {
            len,
            nonblocking: false,
            copied: false,
            pieces: Vec::new(),
            time_limit: Some(time),
        }
    }

    pub(in crate::tests) fn recv(len: usize) -> Self {
        Self::recv_with(len, false, false, false)
    }

    pub(in crate::tests) fn recv_all(len: usize) -> Self {
        Self::recv_with(len, false, false, true)
    }

    pub(in crate::tests) fn try_recv(len: usize) -> Self {
        Self::recv_with(len, true, false, false)
    }

    pub(in crate::tests) fn peek(len: usize) -> Self {
        Self::recv_with(len, false, true, false)
    }

    pub(in crate::tests) fn recv_for(len: usize, time: u64) -> Self {
        Self::Recv {
            len,
            nonblocking: false,
            peek: false,
            wait_all: false,
            pieces: Vec::new(),
            time_limit: Some(time),
        }
    }

    fn recv_with(len: usize, nonblocking: bool, peek: bool, wait_all: bool) -> Self {
        Self::Recv {
            len,
            nonblocking,
            peek,
            wait_all,
            pieces: Vec::new(),
            time_limit: None,
        }
    }
}
