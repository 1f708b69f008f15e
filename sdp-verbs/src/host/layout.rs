//! What lies where in a link's memory. Every number is fixed: both sides, whatever their word
//! size, agree on it, and a change of it is a new major version of the handshake.
//!
//! ```text
//! base chunk      probe | doorbell pending | ready bitmap | areas ...
//! queue pair      written by the peer | written by the owner | write statuses |
//!                 inbound ring (64 bytes an entry) | receive ring (32 bytes an entry)
//! ```
//! A queue pair's block lies in the memory of the side that receives.

use std::fmt;
use std::sync::Arc;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::arm::Arm;
use super::shm::Mapping;
use super::words::MappedWords;
use crate::sync::{Ordering, Words};
use crate::types::Rkey;

/// Queue pairs of one link at once.
pub(crate) const QPS_MAX: usize = 1 << 16;

/// Base chunk, word 0: what the peer's probe of our memory found. See [`Probe`].
pub(crate) const BASE_PROBE: usize = 0;
/// Base chunk: set while a doorbell has been rung and not yet answered.
pub(crate) const BASE_PENDING: usize = 8;
/// Base chunk: one bit per queue pair with an event for its channel.
pub(crate) const BASE_READY: usize = 16;
/// Words of the ready bitmap.
pub(crate) const READY_WORDS: usize = QPS_MAX / 64;
/// Words of the base chunk's header.
pub(crate) const HEADER_WORDS: usize = BASE_READY + READY_WORDS;
/// Bytes of the base chunk's header.
pub(crate) const HEADER_LEN: usize = HEADER_WORDS * 8;

/// Writes (pieces of RDMA WRITE requests) under way on one queue pair at once.
pub(crate) const WRITES_MAX: usize = 64;

/// Entries of a ring are at most `1 << RING_LOG_MAX`.
pub(crate) const RING_LOG_MAX: u8 = 14;

/// Words of an inbound ring's entry.
pub(crate) const IN_WORDS: usize = 8;
/// Words of a receive ring's entry.
pub(crate) const RECV_WORDS: usize = 4;

const PEER_STATE: usize = 0;
const GONE: usize = 1;
const RNR: usize = 2;
const ARM: usize = 8;
const STATUSES: usize = 16;
const IN_RING: usize = STATUSES + WRITES_MAX;

/// What a peer found when it tried to read our memory, as it lies in the base chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probe {
    /// It has not said.
    Unknown,
    /// It can.
    Reachable,
    /// It cannot: the system's error.
    Refused(i32),
}

impl Probe {
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Reachable => 1,
            Self::Refused(errno) => 2 | u64::from(errno.unsigned_abs()) << 8,
        }
    }

    pub(crate) fn from_word(word: u64) -> Self {
        match word & 0xff {
            1 => Self::Reachable,
            2 => Self::Refused(i32::try_from(word >> 8 & 0xffff).unwrap_or(0)),
            _ => Self::Unknown,
        }
    }
}

/// Smallest ring that holds `count` entries at once, as a power of two; `None` if too many.
pub(crate) fn ring_log(count: usize) -> Option<u8> {
    let log = u8::try_from(count.checked_next_power_of_two()?.trailing_zeros()).ok()?;
    (log <= RING_LOG_MAX).then_some(log)
}

/// A queue pair's block: in our memory, or the peer's as we see it.
#[derive(Clone)]
pub(crate) struct Block {
    words: MappedWords,
    in_log: u8,
    recv_log: u8,
}

impl fmt::Debug for Block {
    /// What stands in its words now.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |at| self.words.load(at, Ordering::Relaxed);
        f.debug_struct("Block")
            .field("peer_state", &word(PEER_STATE))
            .field("gone", &word(GONE))
            .field("rnr", &word(RNR))
            .field("arm", &word(ARM))
            .finish_non_exhaustive()
    }
}

impl Block {
    /// Bytes of a block with rings of these sizes.
    pub(crate) const fn len(in_log: u8, recv_log: u8) -> usize {
        (IN_RING + (IN_WORDS << in_log) + (RECV_WORDS << recv_log)) * 8
    }

    /// The block at a byte offset of a chunk; `None` if it does not lie there whole and aligned,
    /// or the sizes are beyond what is allowed.
    pub(crate) fn new(map: &Arc<Mapping>, offset: usize, in_log: u8, recv_log: u8) -> Option<Self> {
        if in_log > RING_LOG_MAX || recv_log > RING_LOG_MAX || !map.writable() {
            return None;
        }
        let words = MappedWords::new(map, offset, Self::len(in_log, recv_log) / 8)?;
        Some(Self {
            words,
            in_log,
            recv_log,
        })
    }

    /// Makes it fresh, before the peer knows of it.
    pub(crate) fn clear(&self) {
        self.words.clear();
    }

    /// Owner: whether entry number `next` of the inbound ring has been published.
    pub(crate) fn has_inbound(&self, next: u64) -> bool {
        let index = usize::try_from(next & ((1 << self.in_log) - 1)).expect("below 2^14");
        self.words
            .load(IN_RING + index * IN_WORDS, Ordering::Acquire)
            == next + 1
    }

    /// The inbound ring's words and size.
    pub(crate) fn in_ring(&self) -> (MappedWords, u8) {
        (self.words.tail(IN_RING), self.in_log)
    }

    /// The receive ring's words and size.
    pub(crate) fn recv_ring(&self) -> (MappedWords, u8) {
        let at = IN_RING + (IN_WORDS << self.in_log);
        (self.words.tail(at), self.recv_log)
    }

    /// Peer of the owner: says that its queue pair is in error.
    pub(crate) fn say_error(&self) {
        self.words.store(PEER_STATE, 1, Ordering::Release);
    }

    /// Owner: whether the peer's queue pair is in error.
    pub(crate) fn peer_in_error(&self) -> bool {
        self.words.load(PEER_STATE, Ordering::Acquire) != 0
    }

    /// Peer of the owner: says that it will never touch this queue pair's memory again.
    pub(crate) fn say_gone(&self) {
        self.words.store(GONE, 1, Ordering::Release);
    }

    /// Owner: whether the peer is done with this memory.
    pub(crate) fn is_gone(&self) -> bool {
        self.words.load(GONE, Ordering::Acquire) != 0
    }

    /// Peer of the owner: asks to be woken by the next posted receive.
    pub(crate) fn want_receive(&self) {
        self.words.store(RNR, 1, Ordering::Relaxed);
    }

    /// Owner: whether the peer asked; the request is taken.
    pub(crate) fn take_want_receive(&self) -> bool {
        self.words.load(RNR, Ordering::Relaxed) != 0
            && self.words.swap(RNR, 0, Ordering::AcqRel) != 0
    }

    /// What events the owner's channel wants.
    pub(crate) fn arm(&self) -> Arm<&MappedWords> {
        Arm::new(&self.words, ARM)
    }

    /// Target of a write: reports how write `n` of the owner's ended.
    pub(crate) fn report_write(&self, n: u64, status: WriteStatus) {
        // The number is the peer's, and so is the word.
        let word = n.wrapping_add(1) << 8 | status as u64;
        self.words.store(status_at(n), word, Ordering::Release);
    }

    /// Owner: how its write `n` ended, once it has.
    pub(crate) fn write_status(&self, n: u64) -> Option<WriteStatus> {
        let word = self.words.load(status_at(n), Ordering::Acquire);
        (word >> 8 == n + 1).then(|| WriteStatus::from_code(word & 0xff))
    }
}

fn status_at(n: u64) -> usize {
    STATUSES + usize::try_from(n % WRITES_MAX as u64).expect("below WRITES_MAX")
}

/// How a write ended at its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum WriteStatus {
    Done = 1,
    Access = 2,
    Failed = 3,
}

impl WriteStatus {
    fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Done,
            2 => Self::Access,
            _ => Self::Failed,
        }
    }
}

/// An entry of the inbound ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inbound {
    /// A message of `len` bytes lies in posted receive `slot`.
    Send {
        slot: u32,
        len: u64,
        solicited: bool,
        invalidate: Option<Rkey>,
    },
    /// A message was longer than posted receive `slot`.
    Overrun { slot: u32 },
    /// The owner is asked to fetch `len` bytes from the peer's key into its own.
    Write(WriteRequest),
    /// Nothing more will come.
    End,
}

/// A write as its target sees it. No bytes: the keys mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriteRequest {
    /// The initiator's count of writes, for the report.
    pub(crate) n: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// The initiator's key and address.
    pub(crate) from: (Rkey, u64),
    /// The target's own key and address.
    pub(crate) to: (Rkey, u64),
}

const KIND_SEND: u64 = 1;
const KIND_OVERRUN: u64 = 2;
const KIND_WRITE: u64 = 3;
const KIND_END: u64 = 4;
const FLAG_SOLICITED: u64 = 1 << 8;
const FLAG_INVALIDATE: u64 = 1 << 9;

impl Inbound {
    /// As it lies in the ring.
    pub(crate) fn to_words(self) -> [u64; IN_WORDS] {
        match self {
            Self::Send {
                slot,
                len,
                solicited,
                invalidate,
            } => {
                let mut head = KIND_SEND | u64::from(slot) << 32;
                if solicited {
                    head |= FLAG_SOLICITED;
                }
                if invalidate.is_some() {
                    head |= FLAG_INVALIDATE;
                }
                let rkey = u64::from(invalidate.unwrap_or_default().0);
                [0, head, len, rkey, 0, 0, 0, 0]
            }
            Self::Overrun { slot } => [0, KIND_OVERRUN | u64::from(slot) << 32, 0, 0, 0, 0, 0, 0],
            Self::Write(w) => {
                let keys = u64::from(w.from.0.0) << 32 | u64::from(w.to.0.0);
                [0, KIND_WRITE, w.len, keys, w.from.1, w.to.1, w.n, 0]
            }
            Self::End => [0, KIND_END, 0, 0, 0, 0, 0, 0],
        }
    }

    /// From what lies in the ring; `None` if that is nothing known.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "halves of a word are taken apart"
    )]
    pub(crate) fn from_words(words: &[u64; IN_WORDS]) -> Option<Self> {
        let [_, head, len, third, from, to, n, _] = *words;
        let slot = (head >> 32) as u32;
        match head & 0xff {
            KIND_SEND => Some(Self::Send {
                slot,
                len,
                solicited: head & FLAG_SOLICITED != 0,
                invalidate: (head & FLAG_INVALIDATE != 0).then_some(Rkey(third as u32)),
            }),
            KIND_OVERRUN => Some(Self::Overrun { slot }),
            KIND_WRITE => Some(Self::Write(WriteRequest {
                n,
                len,
                from: (Rkey((third >> 32) as u32), from),
                to: (Rkey(third as u32), to),
            })),
            KIND_END => Some(Self::End),
            _ => None,
        }
    }
}

/// An entry of the receive ring: memory for one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PostedSlot {
    /// The owner's name for it, to be echoed.
    pub(crate) slot: u32,
    pub(crate) chunk: u32,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl PostedSlot {
    /// As it lies in the ring.
    pub(crate) fn to_words(self) -> [u64; RECV_WORDS] {
        let names = u64::from(self.slot) << 32 | u64::from(self.chunk);
        [0, names, self.offset, self.len]
    }

    /// From what lies in the ring, whatever that is.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "halves of a word are taken apart"
    )]
    pub(crate) fn from_words(words: &[u64; RECV_WORDS]) -> Self {
        Self {
            slot: (words[1] >> 32) as u32,
            chunk: words[1] as u32,
            offset: words[2],
            len: words[3],
        }
    }
}

/// Where a queue pair's memory is in its link.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Default,
)]
#[repr(C)]
pub(crate) struct QpPlace {
    /// Its number in its instance.
    pub(crate) qp: U32,
    /// Chunk of its block.
    pub(crate) block_chunk: U32,
    /// Byte offset of its block.
    pub(crate) block_offset: U64,
    /// Chunk of the word its waiters sleep on.
    pub(crate) cell_chunk: U32,
    /// Byte offset of that word.
    pub(crate) cell_offset: U32,
    /// Its bit in the ready bitmap.
    pub(crate) ready: U16,
    /// Size of its inbound ring.
    pub(crate) in_log: u8,
    /// Size of its receive ring.
    pub(crate) recv_log: u8,
    /// Zero.
    pub(crate) reserved: U32,
}

static_assertions::const_assert_eq!(size_of::<QpPlace>(), 32);
static_assertions::const_assert_eq!(HEADER_LEN % 64, 0);
static_assertions::const_assert_eq!(IN_RING % 8, 0);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever words a peer writes, parsing them gives an entry or nothing, and an entry
        /// says the same again.
        #[test]
        fn any_words_parse_or_not(words: [u64; IN_WORDS]) {
            if let Some(entry) = Inbound::from_words(&words) {
                prop_assert_eq!(Inbound::from_words(&entry.to_words()), Some(entry));
            }
        }
    }

    #[test]
    fn entries_survive_the_ring() {
        let all = [
            Inbound::Send {
                slot: 7,
                len: 1 << 40,
                solicited: true,
                invalidate: Some(Rkey(0xffff_0001)),
            },
            Inbound::Overrun { slot: u32::MAX },
            Inbound::Write(WriteRequest {
                n: 9,
                len: 10,
                from: (Rkey(1), 2),
                to: (Rkey(3), 4),
            }),
            Inbound::End,
        ];
        for entry in all {
            assert_eq!(Inbound::from_words(&entry.to_words()), Some(entry));
        }
        assert_eq!(ring_log(0), Some(0));
        assert_eq!(ring_log(5), Some(3));
        assert_eq!(ring_log(1 << 15), None);
        for probe in [Probe::Unknown, Probe::Reachable, Probe::Refused(13)] {
            assert_eq!(Probe::from_word(probe.to_word()), probe);
        }
    }
}
