//! What a run must keep to, whatever the programs do and whatever goes wrong.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use sdp_core::ConnectionError;

use crate::plan::{Ending, Plan, Weather};

/// Violations kept of one run.
const VIOLATIONS_MAX: usize = 8;

/// Private memory beside the socket buffers: posted receives, and messages under way.
const SLACK: u64 = 33 * (33 << 10);

/// A send call, and how much of it has arrived.
#[derive(Clone, Copy, Debug)]
struct Call {
    id: u64,
    len: usize,
    arrived: usize,
    /// What it returned, once it has: bytes that are on their way for certain, and the most that
    /// may be.
    returned: Option<(usize, usize)>,
    /// Bytes of the next call have arrived.
    passed: bool,
}

/// Urgent bytes of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Urgents {
    /// Sends begun, and those that were accepted.
    pub(crate) begun: u64,
    pub(crate) accepted: u64,
    /// They are received in the stream, in line with the others.
    pub(crate) inline: bool,
    /// Received in the stream.
    received: u64,
}

impl Urgents {
    /// Whether a receive out of band at the mark may find this.
    pub(crate) fn may_find(&self, found: &io::Result<Option<u8>>) -> bool {
        match found {
            Ok(Some(byte)) => *byte == URGENT,
            // The byte there was received before, and another was announced, which does not come
            // any more.
            Ok(None) => self.begun > 1,
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::WouldBlock
            ),
        }
    }

    /// Bytes of a receive, or of a look. Gives back those that are not urgent. `Err`: what cannot
    /// be.
    fn take(&mut self, bytes: &[u8], peek: bool) -> Result<Vec<u8>, String> {
        let plain: Vec<u8> = bytes.iter().copied().filter(|b| *b != URGENT).collect();
        let count = (bytes.len() - plain.len()) as u64;
        if self.received + count > self.begun {
            return Err(format!(
                "{count} urgent bytes more, and {} sent",
                self.begun
            ));
        }
        // A second one would have made it an ordinary byte.
        if self.begun == 1 && count > 0 && !self.inline {
            return Err("mark: the urgent byte, in the stream and not in line".to_owned());
        }
        if self.begun == 1 && bytes.iter().skip(1).any(|b| *b == URGENT) {
            return Err("mark: a receive goes beyond it".to_owned());
        }
        if !peek {
            self.received += count;
        }
        Ok(plain)
    }
}

/// One direction of a conversation, named by its sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// Send calls of which more may arrive, in the order in which they began: that of the stream.
    calls: VecDeque<Call>,
    next_call: u64,
    /// Threads that still send.
    pub(crate) senders: usize,
    /// Bytes that send calls have returned.
    pub(crate) accepted: u64,
    pub(crate) received: u64,
    pub(crate) urgents: Urgents,
    /// Room of the receive call in progress.
    pub(crate) receiving: u64,
    /// The receiver has seen the end of the stream, and no error before.
    pub(crate) ended: bool,
    /// How sending and receiving failed, if they did.
    pub(crate) send_error: Option<String>,
    pub(crate) recv_error: Option<String>,
}

impl Way {
    /// A send call begins. Returns its name, which no call has of which more may arrive: by chance its
    /// first bytes might be the next ones of that.
    pub(crate) fn begin(&mut self, len: usize) -> u64 {
        let is_free = |id: &u64| {
            let mut live = self.calls.iter().filter(|call| call.len > 0);
            live.all(|call| tag(call.id) != tag(*id))
        };
        let next = self.next_call;
        let id = (next..next + TAGS).find(is_free).unwrap_or(next);
        self.next_call = id + 1;
        self.calls.push_back(Call {
            id,
            len,
            arrived: 0,
            returned: None,
            passed: false,
        });
        id
    }

    /// Send call `id` has returned `count`, and `most` may arrive. `Err`: what cannot be.
    pub(crate) fn returned(&mut self, id: u64, count: usize, most: usize) -> Result<(), String> {
        self.accepted += count as u64;
        let Some(place) = self.calls.iter().position(|call| call.id == id) else {
            return Ok(());
        };
        let call = &mut self.calls[place];
        call.returned = Some((count, most));
        let arrived = call.arrived;
        let lost = call.passed && arrived < count;
        while self.calls.front().is_some_and(|call| {
            let over = call.returned.is_some_and(|(_, most)| call.arrived >= most);
            over || (call.passed && call.returned.is_some())
        }) {
            self.calls.pop_front();
        }
        if lost || arrived > most {
            return Err(format!(
                "counts: a send returned {count} when {arrived} of its bytes had arrived"
            ));
        }
        Ok(())
    }

    /// Bytes have come, or are looked at. `Err`: what is wrong with them.
    fn arrive(&mut self, side: usize, bytes: &[u8], peek: bool) -> Result<(), String> {
        let bytes = &*self.urgents.take(bytes, peek)?;
        let mut place = self.calls.iter().position(|call| !call.passed);
        let mut offset = place.map_or(0, |place| self.calls[place].arrived);
        let mut rest = bytes;
        while let (Some(at), [first, ..]) = (place, rest) {
            let call = &mut self.calls[at];
            let most = call.returned.map_or(call.len, |(_, most)| most);
            let count = (most - offset.min(most)).min(rest.len());
            let tagged = rest[..count]
                .iter()
                .take_while(|b| tag_of(**b) == tag(call.id))
                .count();
            let mut expected = vec![0; tagged];
            fill_pattern(side, call.id, offset, &mut expected);
            let own = expected.iter().zip(rest).take_while(|(a, b)| a == b);
            let own = own.count();
            let least = call.returned.map(|(least, _)| least);
            // A later call may have the same tag.
            if own < tagged && least.is_none_or(|least| offset + own < least) {
                let wrong = offset + own;
                return Err(format!("byte {wrong} of send {} is another", call.id));
            }
            if own == 0 {
                if least.is_some_and(|least| offset < least) {
                    return Err(format!("{first:x} in place of byte {offset} of a send"));
                }
                call.passed |= !peek;
                place = Some(at + 1).filter(|next| *next < self.calls.len());
                offset = 0;
                continue;
            }
            offset += own;
            if !peek {
                call.arrived = offset;
            }
            rest = &rest[own..];
        }
        if !rest.is_empty() {
            return Err(format!("{} bytes that nobody sent", rest.len()));
        }
        if !peek {
            self.received += bytes.len() as u64;
            while self.calls.front().is_some_and(|call| {
                let whole = call.returned.is_some_and(|(_, most)| call.arrived >= most);
                whole || (call.passed && call.returned.is_some())
            }) {
                self.calls.pop_front();
            }
        }
        Ok(())
    }
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

/// Bits of each byte that name the send call it belongs to.
const TAG_BITS: u32 = 3;

/// The urgent byte: no call has its bits.
pub(crate) const URGENT: u8 = u8::MAX;

const fn tag_of(byte: u8) -> u8 {
    byte >> (u8::BITS - TAG_BITS)
}

/// How many tags there are: all but that of [`URGENT`].
const TAGS: u64 = (1 << TAG_BITS) - 1;

const fn tag(call: u64) -> u8 {
    (call % TAGS) as u8
}

/// The bytes `at..` of send call `call` of `side`.
pub(crate) fn fill_pattern(side: usize, call: u64, at: usize, out: &mut [u8]) {
    let tags = u64::from_ne_bytes([tag(call) << (u8::BITS - TAG_BITS); 8]);
    let rests = u64::from_ne_bytes([u8::MAX >> TAG_BITS; 8]);
    let seed = (call << 24) + ((side as u64) << 60);
    let mut at = at;
    let mut rest = out;
    while !rest.is_empty() {
        let word = (seed + at as u64 / 8 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bytes = ((word ^ (word >> 29)) & rests | tags).to_le_bytes();
        let skip = at % 8;
        let count = rest.len().min(8 - skip);
        let (part, behind) = rest.split_at_mut(count);
        part.copy_from_slice(&bytes[skip..skip + count]);
        at += count;
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
    pub(crate) fn check_bytes(&mut self, side: usize, bytes: &[u8], peek: bool) {
        let way = &mut self.ways[1 - side];
        let at = way.received;
        if let Err(wrong) = way.arrive(1 - side, bytes, peek) {
            self.violation(format!("bytes: side {side} after {at}: {wrong}"));
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
            | ConnectionError::MemoryGone(_)
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
            // An error is told once, to whoever asks first, and the end of the stream after it.
            let told = self.ways[1 - side].send_error.is_some();
            let ended_by = plan.cut.map(|cut| cut.how);
            let cut = told || matches!(ended_by, Some(Ending::Abort | Ending::ShutdownRead));
            if way.ended && !cut && way.received < way.accepted {
                let (received, accepted) = (way.received, way.accepted);
                self.violation(format!(
                    "counts: the end of the stream after {received} of {accepted} bytes of side \
                     {side}"
                ));
            }
            let Urgents {
                accepted, received, ..
            } = way.urgents;
            if way.ended && !cut && way.urgents.inline && received < accepted {
                self.violation(format!(
                    "mark: {received} of {accepted} urgent bytes of side {side} came"
                ));
            }
            if sound && self.not_connected[side].is_none() && !way.ended {
                self.violation(format!("close reason: no end of the stream of side {side}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two bytes of a call were by chance the next two of an earlier one with the same tag, of which more
    /// might have arrived, and the rest was taken to be wrong.
    #[test]
    fn a_later_call_has_another_tag_than_one_of_which_more_may_arrive() {
        let mut way = Way::default();
        let first = way.begin(392);
        way.returned(first, 360, 392).unwrap();
        way.begin(0);
        for _ in 0..5 {
            let failed = way.begin(10);
            way.returned(failed, 0, 10).unwrap();
        }
        let last = way.begin(40);
        assert_ne!(tag(first), tag(last));
        let mut bytes = [0; 400];
        fill_pattern(0, first, 0, &mut bytes[..360]);
        fill_pattern(0, last, 0, &mut bytes[360..]);
        way.arrive(0, &bytes, true).unwrap();
        way.arrive(0, &bytes[..350], false).unwrap();
        let mut wrong = bytes;
        wrong[355] ^= 1;
        way.arrive(0, &wrong[350..], true).unwrap_err();
        way.arrive(0, &bytes[350..], false).unwrap();
        assert_eq!(way.received, 400);
    }

    #[test]
    fn an_urgent_byte_may_have_been_announced_in_vain() {
        let mut urgents = Urgents {
            begun: 1,
            ..Urgents::default()
        };
        assert!(!urgents.may_find(&Ok(None)));
        urgents.begun = 2;
        assert!(urgents.may_find(&Ok(None)) && urgents.may_find(&Ok(Some(URGENT))));
        assert!(!urgents.may_find(&Ok(Some(0))));
    }
}
