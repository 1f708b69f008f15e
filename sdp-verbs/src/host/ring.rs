//! Rings of fixed entries with the sequence word inside the entry, one writer and one reader.
//!
//! Word 0 of an entry is its sequence, stored last; the reader knows which one comes next, so one
//! load of one line says whether there is an entry. There is no tail: whoever uses a ring bounds
//! what is in it by other means (posted receives, outstanding writes). A writer that laps its
//! reader breaks the reader's contents only, and the reader believes nothing it reads anyway.

use std::fmt;

use crate::sync::{Ordering, Words};

/// The writing end. `E` is the words of an entry.
pub(crate) struct RingWriter<W, const E: usize> {
    words: W,
    mask: u64,
    next: u64,
}

/// The reading end.
pub(crate) struct RingReader<W, const E: usize> {
    words: W,
    mask: u64,
    next: u64,
}

fn entry_at<const E: usize>(next: u64, mask: u64) -> usize {
    usize::try_from(next & mask).expect("a ring index is below 2^16") * E
}

impl<W, const E: usize> fmt::Debug for RingWriter<W, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingWriter")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<W: Words, const E: usize> fmt::Debug for RingReader<W, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingReader")
            .field("next", &self.next)
            .field("published", &self.peek())
            .finish_non_exhaustive()
    }
}

impl<W: Words, const E: usize> RingWriter<W, E> {
    /// Over words that were zero before the ring's first use.
    pub(crate) fn new(words: W, log: u8) -> Self {
        Self {
            words,
            mask: (1 << log) - 1,
            next: 0,
        }
    }

    /// Publishes an entry; word 0 of `entry` is ignored.
    pub(crate) fn push(&mut self, entry: &[u64; E]) {
        let at = entry_at::<E>(self.next, self.mask);
        for (word, value) in entry.iter().enumerate().skip(1) {
            self.words.store(at + word, *value, Ordering::Relaxed);
        }
        self.next += 1;
        self.words.store(at, self.next, Ordering::Release);
    }

    /// Entries published so far.
    pub(crate) fn published(&self) -> u64 {
        self.next
    }
}

impl<W: Words, const E: usize> RingReader<W, E> {
    /// Over words that were zero before the ring's first use.
    pub(crate) fn new(words: W, log: u8) -> Self {
        Self {
            words,
            mask: (1 << log) - 1,
            next: 0,
        }
    }

    /// A copy of the next entry, if it has been published. It stays the next one.
    pub(crate) fn peek(&self) -> Option<[u64; E]> {
        let at = entry_at::<E>(self.next, self.mask);
        let sequence = self.words.load(at, Ordering::Acquire);
        if sequence != self.next + 1 {
            return None;
        }
        let mut entry = [sequence; E];
        for (word, value) in entry.iter_mut().enumerate().skip(1) {
            *value = self.words.load(at + word, Ordering::Relaxed);
        }
        Some(entry)
    }

    /// Done with the entry last peeked at.
    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }

    /// Word index of the entry `ahead` places after the next one.
    pub(crate) fn place(&self, ahead: u64) -> usize {
        entry_at::<E>(self.next + ahead, self.mask)
    }

    /// The ring's words, for hints.
    pub(crate) fn words(&self) -> &W {
        &self.words
    }

    /// Entries taken so far: the number of the next one.
    pub(crate) fn taken(&self) -> u64 {
        self.next
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::model::LoomWords;
    use loom::thread;

    /// A reader that is told by a return word that the writer may go on (as a posted receive
    /// does) sees every entry whole and in order, over more than one lap.
    #[test]
    fn entries_arrive_whole_and_in_order() {
        loom::model(|| {
            let (ring, back) = (LoomWords::new(2 * 3), LoomWords::new(1));
            let writer = {
                let (ring, back) = (ring.clone(), back.clone());
                thread::spawn(move || {
                    let mut writer = RingWriter::<_, 3>::new(ring, 1);
                    for n in 1..=3u64 {
                        // Room: at most two in the ring.
                        while n > back.load(0, Ordering::Acquire) + 2 {
                            thread::yield_now();
                        }
                        writer.push(&[0, n, n * 10]);
                    }
                })
            };
            let mut reader = RingReader::<_, 3>::new(ring, 1);
            for n in 1..=3u64 {
                let entry = loop {
                    if let Some(entry) = reader.peek() {
                        break entry;
                    }
                    thread::yield_now();
                };
                assert_eq!(entry, [n, n, n * 10]);
                reader.advance();
                back.store(0, n, Ordering::Release);
            }
            writer.join().unwrap();
        });
    }
}
