//! A tiny world of verbs on virtual time, and programs that use it.
//!
//! What real devices punish is made to fail here: a message without a posted receive, a read
//! through a dead key, a read into memory that a call has given back, a wake-up that never comes.

use std::sync::OnceLock;
use std::vec::Vec;

use crate::{Config, ZcopyThreshold};

pub(super) mod app;
pub(super) mod lone;
pub(super) mod nic;
pub(super) mod op;
pub(super) mod world;

/// Bytes before the pattern repeats: a prime, so that no buffer length hides a shift.
const PERIOD: usize = 65_521;

/// `len` bytes from `offset` on of the stream that side `side` sends.
pub(super) fn pattern(side: usize, offset: u64, len: usize) -> Vec<u8> {
    static TABLES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let tables = TABLES.get_or_init(|| {
        [1, 2].map(|seed| {
            let mut rng = Rng::new(seed);
            (0..PERIOD)
                .map(|_| rng.below(251).to_le_bytes()[0])
                .collect()
        })
    });
    let mut bytes = Vec::with_capacity(len);
    let mut at = usize::try_from(offset % PERIOD as u64).unwrap();
    while bytes.len() < len {
        let run = (PERIOD - at).min(len - bytes.len());
        bytes.extend_from_slice(&tables[side][at..][..run]);
        at = 0;
    }
    bytes
}

/// Nothing is advertised.
pub(super) fn copying() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Off,
        ..Config::default()
    }
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
