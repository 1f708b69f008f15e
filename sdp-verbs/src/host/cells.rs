//! Key cells: what a peer reads to know that a key lives, and to prove that it still did after
//! it copied.
//!
//! A cell is written by its owner only. The owner fills it, then stores the living state; it kills
//! a key by storing the dead state and a full fence. A reader takes the state, the fields, copies
//! the memory they name, and then looks at the state again: only if it is still the same was the
//! key alive all the while. A state never comes back soon: it holds the generation.

use crate::sync::{Ordering, Words, fence};

/// Words of a cell: one cache line.
pub(crate) const CELL_WORDS: usize = 8;

/// Bytes at the start of a cell that prove its owner and state: tag and state.
pub(crate) const PROOF_LEN: usize = 24;

const TAG_LOW: usize = 0;
const TAG_HIGH: usize = 1;
const STATE: usize = 2;
const ADDR: usize = 3;
const LEN: usize = 4;
const REGION: usize = 5;
const OFFSET: usize = 6;
const QP: usize = 7;

const ALIVE: u64 = 1;

/// Whether readers look at what proves a key alive. Switched off in one build of the tests only,
/// which must then fail: `cargo xtask keys`.
pub(crate) const CHECKED: bool = !cfg!(sdp_no_cell_check);

/// What an unchecked reader takes every key to allow: to read.
const UNCHECKED_ACCESS: u32 = crate::types::Access::REMOTE_READ.bits();

/// What a key names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    /// First byte, in the owner's address space: what `RemoteAddr` counts in.
    pub(crate) addr: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// `REMOTE_READ` and `REMOTE_WRITE` bits.
    pub(crate) access: u32,
    /// The registered region it lies in, and `addr`'s offset there; `None` for the owner's heap.
    pub(crate) region: Option<(u32, u64)>,
    /// The owner's queue pair it is bound on.
    pub(crate) qp: u32,
}

/// The state a reader found; only the same state again proves a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CellState(u64);

impl CellState {
    /// Bytes the cell of a living key starts with.
    pub(crate) fn proof(self, tag: u128) -> [u8; PROOF_LEN] {
        let mut proof = [0; PROOF_LEN];
        let (tag_part, state_part) = proof.split_at_mut(16);
        tag_part.copy_from_slice(&tag_bytes(tag));
        state_part.copy_from_slice(&self.0.to_ne_bytes());
        proof
    }
}

/// A tag as the two words of a cell lie in memory.
pub(crate) fn tag_bytes(tag: u128) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&tag_low(tag).to_ne_bytes());
    high.copy_from_slice(&tag_high(tag).to_ne_bytes());
    bytes
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
fn tag_low(tag: u128) -> u64 {
    tag as u64
}

fn tag_high(tag: u128) -> u64 {
    tag_low(tag >> 64)
}

fn alive(generation: u16, access: u32) -> u64 {
    u64::from(generation) << 48 | u64::from(access) << 8 | ALIVE
}

/// Puts the owner's tag into a cell that has no key yet.
pub(crate) fn name(words: &impl Words, index: usize, tag: u128) {
    let at = index * CELL_WORDS;
    words.store(at + TAG_LOW, tag_low(tag), Ordering::Relaxed);
    words.store(at + TAG_HIGH, tag_high(tag), Ordering::Release);
}

/// Owner: brings a key to life.
pub(crate) fn publish(words: &impl Words, index: usize, generation: u16, cell: &Cell) {
    let at = index * CELL_WORDS;
    words.store(at + ADDR, cell.addr, Ordering::Relaxed);
    words.store(at + LEN, cell.len, Ordering::Relaxed);
    let (region, offset) = match cell.region {
        Some((id, offset)) => (u64::from(id) << 1 | 1, offset),
        None => (0, 0),
    };
    words.store(at + REGION, region, Ordering::Relaxed);
    words.store(at + OFFSET, offset, Ordering::Relaxed);
    words.store(at + QP, u64::from(cell.qp), Ordering::Relaxed);
    words.store(
        at + STATE,
        alive(generation, cell.access),
        Ordering::Release,
    );
}

/// Owner: kills a key. When this returns, no proof of a copy made from memory changed later
/// succeeds.
pub(crate) fn kill(words: &impl Words, index: usize) {
    words.store(index * CELL_WORDS + STATE, 0, Ordering::Release);
    fence(Ordering::SeqCst);
}

/// Reader: what a key names, if it lives.
pub(crate) fn look(words: &impl Words, index: usize, generation: u16) -> Option<(CellState, Cell)> {
    let at = index * CELL_WORDS;
    let state = words.load(at + STATE, Ordering::Acquire);
    let mut access = u32::try_from(state >> 8 & 0xffff).ok()?;
    if state != alive(generation, access) {
        if CHECKED {
            return None;
        }
        access = UNCHECKED_ACCESS;
    }
    let region = words.load(at + REGION, Ordering::Relaxed);
    let region_id = u32::try_from(region >> 1).ok()?;
    let offset = words.load(at + OFFSET, Ordering::Relaxed);
    let cell = Cell {
        addr: words.load(at + ADDR, Ordering::Relaxed),
        len: words.load(at + LEN, Ordering::Relaxed),
        access,
        region: (region & 1 == 1).then_some((region_id, offset)),
        qp: u32::try_from(words.load(at + QP, Ordering::Relaxed)).ok()?,
    };
    Some((CellState(state), cell))
}

/// Reader: whether the key lived until everything loaded before had been loaded.
pub(crate) fn still(words: &impl Words, index: usize, state: CellState) -> bool {
    fence(Ordering::Acquire);
    words.load(index * CELL_WORDS + STATE, Ordering::Relaxed) == state.0 || !CHECKED
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::model::LoomWords;
    use loom::thread;

    const CELL: Cell = Cell {
        addr: 1,
        len: 1,
        access: 4,
        region: None,
        qp: 1,
    };

    /// A reader that copied what the owner wrote after killing the key never gets its proof,
    /// even if the cell meanwhile serves another key.
    #[test]
    fn a_proven_copy_is_of_the_time_the_key_lived() {
        loom::model(|| {
            let (cells, memory) = (LoomWords::new(CELL_WORDS), LoomWords::new(1));
            memory.store(0, 7, Ordering::Relaxed);
            publish(&cells, 0, 1, &CELL);
            let owner = {
                let (cells, memory) = (cells.clone(), memory.clone());
                thread::spawn(move || {
                    kill(&cells, 0);
                    memory.store(0, 8, Ordering::Relaxed);
                    publish(&cells, 0, 2, &Cell { addr: 2, ..CELL });
                })
            };
            if let Some((state, cell)) = look(&cells, 0, 1) {
                let copied = memory.load(0, Ordering::Relaxed);
                if still(&cells, 0, state) {
                    assert_eq!((copied, cell), (7, CELL));
                }
            }
            owner.join().unwrap();
        });
    }

    #[test]
    fn a_fresh_key_is_seen_whole() {
        loom::model(|| {
            let cells = LoomWords::new(CELL_WORDS);
            let owner = {
                let cells = cells.clone();
                thread::spawn(move || publish(&cells, 0, 3, &CELL))
            };
            if let Some((state, cell)) = look(&cells, 0, 3) {
                assert_eq!(cell, CELL);
                assert!(still(&cells, 0, state));
            }
            owner.join().unwrap();
        });
    }
}
