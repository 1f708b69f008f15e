//! Adapters: what they say to each other.

mod ending;
mod requester;
mod responder;

use super::world::{Event, World};
use crate::types::{QpNum, RemoteAddr, Rkey};
use crate::wr::WcStatus;

/// A request on its way to the responder.
#[derive(Debug)]
pub(super) struct Packet {
    from: QpNum,
    pub(super) to: QpNum,
    /// Its number in the requester's send queue.
    seq: u64,
    kind: Kind,
    /// How often it has met no receive.
    attempts: u8,
    /// It was sent by a side that had to wait for a message first.
    early: bool,
}

#[derive(Debug)]
enum Kind {
    Send {
        bytes: Vec<u8>,
        invalidate: Option<Rkey>,
        solicited: bool,
    },
    Read {
        remote: RemoteAddr,
        rkey: Rkey,
        len: usize,
    },
    Write {
        bytes: Vec<u8>,
        remote: RemoteAddr,
        rkey: Rkey,
    },
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Answer {
    qp: QpNum,
    seq: u64,
    status: WcStatus,
    /// Bytes of a READ.
    bytes: Vec<u8>,
}

impl World {
    /// A request that nobody answers.
    fn give_up(&mut self, packet: &Packet, status: WcStatus) {
        let at = self.now() + self.timing.retry_time;
        self.answer_at(at, packet.from, packet.seq, status, Vec::new());
    }

    fn answer_at(&mut self, at: u64, qp: QpNum, seq: u64, status: WcStatus, bytes: Vec<u8>) {
        let answer = Answer {
            qp,
            seq,
            status,
            bytes,
        };
        self.at(at, Event::Answer(answer));
    }
}
