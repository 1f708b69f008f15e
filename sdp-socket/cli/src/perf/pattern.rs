//! Payload whose every byte follows from its connection and its position in the stream.
//!
//! Eight bytes at a time are a mix of connection and position, so a byte that is changed, lost,
//! doubled, moved by any distance, or of another connection differs with a probability that a
//! run of some bytes makes certain.

use std::fmt;
use std::ops::Range;

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
        let (head, index) = self.edge(offset, buf.len());
        let (start, rest) = buf.split_at_mut(head.len());
        start.copy_from_slice(head.bytes());
        let (words, end) = rest.as_chunks_mut::<WORD>();
        for (word, index) in words.iter_mut().zip(index..) {
            *word = self.word(index);
        }
        let last = self.word(index + words.len() as u64);
        end.copy_from_slice(&last[..end.len()]);
    }

    /// Compares `buf` with what belongs at position `offset`.
    ///
    /// # Errors
    /// The first byte that differs.
    pub(crate) fn check(self, offset: u64, buf: &[u8]) -> Result<(), Mismatch> {
        let (head, index) = self.edge(offset, buf.len());
        let (start, rest) = buf.split_at(head.len());
        compare(offset, start, head.bytes())?;
        let mut at = offset + head.len() as u64;
        let (words, end) = rest.as_chunks::<WORD>();
        for (word, index) in words.iter().zip(index..) {
            let expected = self.word(index);
            if *word != expected {
                return compare(at, word, &expected);
            }
            at += WORD as u64;
        }
        let last = self.word(index + words.len() as u64);
        compare(at, end, &last[..end.len()])
    }

    /// What belongs in front of the first whole word of `len` bytes at `offset`, and the index of
    /// that word.
    fn edge(self, offset: u64, len: usize) -> (Edge, u64) {
        let index = offset / WORD as u64;
        // Below 8.
        let skip = usize::try_from(offset % WORD as u64).unwrap_or(0);
        if skip == 0 {
            let word = [0; WORD];
            return (Edge { word, range: 0..0 }, index);
        }
        let range = skip..WORD.min(skip + len);
        let word = self.word(index);
        (Edge { word, range }, index + 1)
    }
}

/// Some bytes of one word.
struct Edge {
    word: [u8; WORD],
    range: Range<usize>,
}

impl Edge {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn bytes(&self) -> &[u8] {
        &self.word[self.range.clone()]
    }
}

/// Finds the first difference between bytes at position `offset`.
fn compare(offset: u64, found: &[u8], expected: &[u8]) -> Result<(), Mismatch> {
    let pairs = found.iter().zip(expected).zip(offset..);
    let mut wrong = pairs.filter(|((found, expected), _)| found != expected);
    wrong.next().map_or(Ok(()), |((found, expected), offset)| {
        Err(Mismatch {
            offset,
            expected: *expected,
            found: *found,
        })
    })
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
