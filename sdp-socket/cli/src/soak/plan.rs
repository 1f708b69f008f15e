//! What follows from the seed: how long each connection lives, and how it is used.

use std::time::Duration;

use sdp_socket::{SdpStream, ZcopyThreshold};

use crate::lab::Rng;
use crate::perf::pattern::Pattern;

/// Longest call, bytes.
pub(super) const CALL_MAX: usize = 8 << 20;

/// The two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Connects.
    Client,
    /// Accepts.
    Server,
}

impl Side {
    /// The way on which this side sends.
    pub(super) fn way(self) -> Way {
        match self {
            Self::Client => Way::Up,
            Self::Server => Way::Down,
        }
    }
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    /// The other one.
    pub(super) fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// One connection from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// The seed of the run.
    pub(super) seed: u64,
    /// Which of the connections that exist at once.
    pub(super) slot: u32,
    /// How many there were in this slot before.
    pub(super) generation: u32,
}

impl Life {
    /// Length of the first bytes of a connection, which say whose they are.
    pub(super) const PREFACE_LEN: usize = 16;
    const MAGIC: u64 = u64::from_le_bytes(*b"sdp soak");

    /// The first bytes.
    pub(super) fn preface(self) -> [u8; Self::PREFACE_LEN] {
        let mut bytes = [0; Self::PREFACE_LEN];
        bytes[..8].copy_from_slice(&Self::MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_le_bytes());
        bytes[12..].copy_from_slice(&self.generation.to_le_bytes());
        bytes
    }

    /// The life that begins with these bytes; none if they are no preface.
    pub(super) fn of_preface(seed: u64, bytes: &[u8; Self::PREFACE_LEN]) -> Option<Self> {
        let [magic @ .., _, _, _, _, _, _, _, _] = bytes;
        let [.., s0, s1, s2, s3, g0, g1, g2, g3] = *bytes;
        (u64::from_le_bytes(*magic) == Self::MAGIC).then(|| Self {
            seed,
            slot: u32::from_le_bytes([s0, s1, s2, s3]),
            generation: u32::from_le_bytes([g0, g1, g2, g3]),
        })
    }

    /// Choices for one purpose.
    pub(super) fn rng(self, purpose: &str, way: Way) -> Rng {
        let purpose = purpose.bytes().fold(0, |sum, b| sum * 31 + u64::from(b));
        let Self {
            seed,
            slot,
            generation,
        } = self;
        Rng::of(&[
            seed,
            u64::from(slot),
            u64::from(generation),
            purpose,
            way as u64,
        ])
    }

    /// Bytes on one way, if the run does not end first.
    pub(super) fn total(self, way: Way) -> u64 {
        let mut rng = self.rng("total", way);
        let total = match rng.below(8) {
            0 => 0,
            1 => rng.length(64 << 10),
            2..6 => rng.between(1 << 20, 16 << 20),
            _ => rng.between(16 << 20, 96 << 20),
        };
        total as u64
    }

    /// The bytes on one way.
    pub(super) fn pattern(self, way: Way) -> Pattern {
        let mut rng = self.rng("pattern", way);
        Pattern::of(u32::try_from(rng.below(u32::MAX as usize)).unwrap_or(0))
    }

    /// Whether the socket of this side is non-blocking: a third of them are.
    pub(super) fn nonblocking(self, side: Side) -> bool {
        let turn = match side {
            Side::Client => 0,
            Side::Server => 1,
        };
        (self.slot.wrapping_add(self.generation) + turn).is_multiple_of(3)
    }

    /// Whether the client ends its way by closing alone, without a shutdown before it.
    pub(super) fn closes_only(self) -> bool {
        self.rng("close", Way::Up).one_in(4)
    }

    /// From which length on this side's sends are not copied.
    pub(super) fn threshold(self, side: Side) -> ZcopyThreshold {
        match self.rng("threshold", side.way()).below(4) {
            0 => ZcopyThreshold::Off,
            1 => ZcopyThreshold::Bytes(4 << 10),
            2 => ZcopyThreshold::Bytes(256 << 10),
            _ => ZcopyThreshold::Auto,
        }
    }

    /// How long this client's large sends wait for a reader.
    pub(super) fn rendezvous_wait(self) -> Option<Duration> {
        match self.rng("rendezvous", Way::Up).below(4) {
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_millis(2)),
            2 => Some(Duration::MAX),
            _ => None,
        }
    }

    /// Sets the options of this side's socket.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn configure(self, side: Side, stream: &SdpStream) -> std::io::Result<()> {
        let mut rng = self.rng("options", side.way());
        stream.set_zcopy_threshold(self.threshold(side))?;
        stream.set_nonblocking(self.nonblocking(side))?;
        stream.set_nodelay(rng.one_in(2))?;
        if rng.one_in(3) {
            stream.set_send_buffer_size(rng.between(4 << 10, 1 << 20))?;
        }
        if rng.one_in(3) {
            stream.set_recv_buffer_size(rng.between(4 << 10, 1 << 20))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life {
        seed: 7,
        slot: 3,
        generation: 9,
    };

    #[test]
    fn a_preface_says_whose_it_is_and_other_bytes_do_not() {
        assert_eq!(Life::of_preface(7, &LIFE.preface()), Some(LIFE));
        assert_eq!(Life::of_preface(7, &[0; Life::PREFACE_LEN]), None);
    }

    #[test]
    fn a_third_of_the_sockets_of_either_side_does_not_block() {
        for side in [Side::Client, Side::Server] {
            let of = |slot| Life { slot, ..LIFE };
            let count = (0..30).filter(|slot| of(*slot).nonblocking(side)).count();
            assert_eq!(count, 10, "{side:?}");
        }
    }

    #[test]
    fn the_two_ways_of_two_lives_carry_different_bytes() {
        let next = Life {
            generation: 10,
            ..LIFE
        };
        let mut seen = Vec::new();
        for (life, way) in [(LIFE, Way::Up), (LIFE, Way::Down), (next, Way::Up)] {
            let mut bytes = [0; 16];
            life.pattern(way).fill(0, &mut bytes);
            assert!(!seen.contains(&bytes));
            seen.push(bytes);
        }
    }
}
