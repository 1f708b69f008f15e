//! What a run must keep to, whatever the programs do and whatever goes wrong.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use sdp_core::ConnectionError;

use crate::plan::{Ending, Plan, Weather};

/// Violations kept of one run.
const VIOLATIONS_MAX: usize = 8;

/// Private memory beside the socket buffers: posted receives, and messages under way.
const SLACK: u64 = 33 * (33 << 10);

/// One direction of a conversation, named by its sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// Bytes that send calls have returned.
    pub(crate) accepted: u64,
    /// Bytes of the last call that were not counted: if the connection broke they may have arrived
    /// or not.
    pub(crate) doubtful: u64,
    pub(crate) received: u64,
    /// Room of the receive call in progress.
    pub(crate) receiving: u64,
    /// The receiver has seen the end of the stream, and no error before.
    pub(crate) ended: bool,
    /// How sending and receiving failed, if they did.
    pub(crate) send_error: Option<String>,
    pub(crate) recv_error: Option<String>,
}

/// What has happened in a run.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) ways: [Way; 2],
    pub(crate) violations: Vec<String>,
    pub(crate) calls: u64,
    pub(crate) listening: bool,
    pub(crate) not_connected: [Option<String>; 2],
    /// A side stops what it does.
    pub(crate) quit: [bool; 2],
}

pub(crate) type SharedBook = Rc<RefCell<Book>>;

/// The bytes `at..` of the stream that `side` sends.
pub(crate) fn fill_pattern(side: usize, at: u64, out: &mut [u8]) {
    let mut at = at;
    let mut rest = out;
    while !rest.is_empty() {
        let word = (at / 8 + 1 + ((side as u64) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bytes = (word ^ (word >> 29)).to_le_bytes();
        let skip = usize::try_from(at % 8).unwrap_or(0);
        let count = rest.len().min(8 - skip);
        let (part, behind) = rest.split_at_mut(count);
        part.copy_from_slice(&bytes[skip..skip + count]);
        at += count as u64;
        rest = behind;
    }
}

impl Book {
    pub(crate) fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// Bytes that `side` has received are those that the other one sent.
    pub(crate) fn check_bytes(&mut self, side: usize, bytes: &[u8]) {
        let at = self.ways[1 - side].received;
        let mut expected = vec![0; bytes.len()];
        fill_pattern(1 - side, at, &mut expected);
        if let Some(place) = bytes.iter().zip(&expected).position(|(a, b)| a != b) {
            let wrong = bytes[place..].iter().take(4).collect::<Vec<_>>();
            let at = at + place as u64;
            self.violation(format!("bytes: side {side} got {wrong:x?} at {at}"));
        }
    }

    /// TCP's promise: no more is accepted than both ends have room for.
    pub(crate) fn check_room(&mut self, plan: &Plan, sender: usize) {
        let way = &self.ways[sender];
        let room = plan.sides[sender].send_buffer + plan.sides[1 - sender].recv_buffer;
        let limit = way.received + way.receiving + room as u64 + SLACK;
        if way.accepted > limit {
            let (accepted, received) = (way.accepted, way.received);
            self.violation(format!(
                "bounds: {accepted} bytes accepted of side {sender}, {received} received, and \
                 room for {room}"
            ));
        }
    }

    /// How a call failed. Only some ways are a program's to see.
    pub(crate) fn note_error(&mut self, side: usize, what: &str, error: &io::Error) -> String {
        let why = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<ConnectionError>());
        if let Some(
            ConnectionError::PeerMisbehaved(_)
            | ConnectionError::PeerIncompatible(_)
            | ConnectionError::Malformed(_),
        ) = why
        {
            self.violation(format!("protocol: {what} of side {side}: {error}"));
        }
        format!("{what}: {error} ({:?})", error.kind())
    }

    /// What must be true when every program has ended.
    pub(crate) fn close(&mut self, plan: &Plan) {
        let sound = plan.weather != Weather::Stormy;
        for side in 0..2 {
            if let Some(error) = self.not_connected[side].take_if(|_| sound) {
                self.violation(format!("close reason: side {side}: {error}"));
            }
            let way = self.ways[side].clone();
            let errors = way.send_error.iter().chain(&way.recv_error);
            for error in errors.filter(|_| sound) {
                self.violation(format!("close reason: way of side {side}: {error}"));
            }
            let doubtful = if sound { 0 } else { way.doubtful };
            if way.received > way.accepted + doubtful {
                let (received, accepted) = (way.received, way.accepted);
                self.violation(format!(
                    "counts: {received} bytes received of {accepted} accepted from side {side}"
                ));
            }
            // An error is told once, to whoever asks first, and the end of the stream after it.
            let told = self.ways[1 - side].send_error.is_some();
            let ended_by = plan.ending.map(|(_, _, ending)| ending);
            let cut = told || matches!(ended_by, Some(Ending::Abort | Ending::ShutdownRead));
            if way.ended && !cut && way.received < way.accepted {
                let (received, accepted) = (way.received, way.accepted);
                self.violation(format!(
                    "counts: the end of the stream after {received} of {accepted} bytes of side \
                     {side}"
                ));
            }
            if sound && self.not_connected[side].is_none() && !way.ended {
                self.violation(format!("close reason: no end of the stream of side {side}"));
            }
        }
    }
}
