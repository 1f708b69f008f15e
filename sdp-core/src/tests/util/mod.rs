//! A tiny world of verbs on virtual time, and programs that use it.
//!
//! What real devices punish is made to fail here: a message without a posted receive, a read
//! through a dead key, a read into memory that a call has given back, a wake-up that never comes.

pub(super) mod app;
pub(super) mod nic;
pub(super) mod world;

/// Byte `offset` of the stream that side `side` sends.
pub(super) fn pattern(side: usize, offset: u64) -> u8 {
    let mixed = (offset + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (side as u64 * 0x55);
    (mixed >> 32) as u8
}

/// A small generator of numbers, so that a run depends on its seed alone.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if limit == 0 { 0 } else { self.0 % limit }
    }
}
