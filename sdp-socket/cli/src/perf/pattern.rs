//! Payload whose every byte follows from its connection and its position in the stream.
//!
//! Eight bytes at a time are a mix of connection and position, so a byte that is changed, lost,
//! doubled, moved by any distance, or of another connection differs with a probability that a
//! run of some bytes makes certain.

use std::fmt;

use serde::{Deserialize, Serialize};

const WORD: usize = size_of::<u64>();

/// The payload of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern {
    seed: u64,
}

/// The first byte that is not as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mismatch {
    /// Position in the stream of this run, in bytes.
    pub(crate) offset: u64,
    /// What was sent there.
    pub(crate) expected: u8,
    /// What arrived.
    pub(crate) found: u8,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            offset,
            expected,
            found,
        } = self;
        write!(
            f,
            "first wrong byte at offset {offset}: {found:#04x} where {expected:#04x} was sent"
        )
    }
}

impl Pattern {
    /// The payload of connection `index`.
    pub(crate) fn of(index: u32) -> Self {
        Self {
            seed: mix(u64::from(index) + 1),
        }
    }

    /// The eight bytes at position `8 * index`.
    fn word(self, index: u64) -> [u8; WORD] {
        mix(self.seed ^ index).to_le_bytes()
    }

    /// Fills `buf` with what belongs at position `offset`.
    pub(crate) fn fill(self, offset: u64, buf: &mut [u8]) {
        self.walk(offset, buf.len(), |range, expected| {
            buf[range].copy_from_slice(expected);
            None
        });
    }

    /// Compares `buf` with what belongs at position `offset`.
    ///
    /// # Errors
    /// The first byte that differs.
    pub(crate) fn check(self, offset: u64, buf: &[u8]) -> Result<(), Mismatch> {
        let wrong = self.walk(offset, buf.len(), |range, expected| {
            let found = &buf[range.clone()];
            if found == expected {
                return None;
            }
            let pairs = found.iter().zip(expected).zip(range);
            pairs
                .filter(|((found, expected), _)| found != expected)
                .map(|((found, expected), at)| Mismatch {
                    offset: offset + at as u64,
                    expected: *expected,
                    found: *found,
                })
                .next()
        });
        wrong.map_or(Ok(()), Err)
    }

    /// Visits the pieces of `len` bytes at `offset`, each inside one word, until one gives a
    /// mismatch.
    fn walk(
        self,
        offset: u64,
        len: usize,
        mut visit: impl FnMut(std::ops::Range<usize>, &[u8]) -> Option<Mismatch>,
    ) -> Option<Mismatch> {
        let mut index = offset / WORD as u64;
        // Below 8.
        let mut skip = usize::try_from(offset % WORD as u64).unwrap_or(0);
        let mut at = 0;
        while at < len {
            let count = (WORD - skip).min(len - at);
            let wrong = visit(at..at + count, &self.word(index)[skip..skip + count]);
            if wrong.is_some() {
                return wrong;
            }
            (index, skip, at) = (index + 1, 0, at + count);
        }
        None
    }
}

/// A bijection that changes about half the bits for any change of one (the finisher of
/// splitmix64).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 10_000;

    fn stream(index: u32) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        Pattern::of(index).fill(0, &mut bytes);
        bytes
    }

    fn first_wrong(bytes: &[u8]) -> Option<u64> {
        let verdict = Pattern::of(0).check(0, bytes);
        verdict.err().map(|wrong| wrong.offset)
    }

    #[test]
    fn any_cut_of_the_stream_fills_and_checks_alike() {
        let whole = stream(3);
        let pattern = Pattern::of(3);
        for (start, end) in [
            (0, LEN),
            (1, 2),
            (7, 9),
            (13, 4099),
            (8, 16),
            (9999, LEN),
            (5, 5),
        ] {
            let mut part = vec![0; end - start];
            pattern.fill(start as u64, &mut part);
            assert_eq!(part, whole[start..end], "{start}..{end}");
            assert_eq!(pattern.check(start as u64, &part), Ok(()), "{start}..{end}");
        }
    }

    #[test]
    fn a_flipped_bit_is_found_at_its_offset() {
        for at in [0, 1, 7, 8, 4095, LEN - 1] {
            let mut bytes = stream(0);
            bytes[at] ^= 0x10;
            assert_eq!(first_wrong(&bytes), Some(at as u64));
        }
    }

    #[test]
    fn lost_and_doubled_bytes_are_found_near_their_place() {
        for at in [0, 3, 4096] {
            for count in [1, 8, 64, 4096] {
                let mut lost = stream(0);
                lost.drain(at..at + count);
                let found = usize::try_from(first_wrong(&lost).unwrap()).unwrap();
                assert!(
                    (at..at + 8).contains(&found),
                    "lost {count} at {at}: {found}"
                );

                let mut doubled = stream(0);
                let copy = doubled[at..at + count].to_vec();
                doubled.splice(at..at, copy);
                doubled.truncate(LEN);
                let found = usize::try_from(first_wrong(&doubled).unwrap()).unwrap();
                let after = at + count;
                assert!(
                    (after..after + 8).contains(&found),
                    "doubled {count} at {at}: {found}"
                );
            }
        }
    }

    #[test]
    fn bytes_of_another_connection_are_found() {
        assert!(first_wrong(&stream(1)).is_some_and(|offset| offset < 8));
    }

    #[test]
    fn the_message_names_offset_and_bytes() {
        let wrong = Mismatch {
            offset: 7,
            expected: 1,
            found: 2,
        };
        assert_eq!(
            wrong.to_string(),
            "first wrong byte at offset 7: 0x02 where 0x01 was sent"
        );
    }
}
