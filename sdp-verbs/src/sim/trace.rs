//! What happened: a hash of all of it, and the last lines of it for people.

use std::collections::VecDeque;

use super::clock::Nanos;

/// A hash over everything that happened, and a log that is kept if asked for.
///
/// Addresses are left out: they differ between two runs of one seed.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    log: VecDeque<String>,
    log_max: usize,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            hash: 0xCBF2_9CE4_8422_2325,
            log: VecDeque::new(),
            log_max: 0,
        }
    }

    /// Keeps the last `lines` lines.
    pub(super) fn keep(&mut self, lines: usize) {
        self.log_max = lines;
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01B3);
        self.hash ^= self.hash >> 29;
    }

    /// Something happened: what, to whom, and two numbers about it.
    pub(super) fn note(&mut self, now: Nanos, what: &'static str, who: u64, about: [u64; 2]) {
        self.mix(now);
        for byte in what.bytes() {
            self.mix(u64::from(byte));
        }
        self.mix(who);
        about.into_iter().for_each(|value| self.mix(value));
        self.line(|| format!("{now:>13} {what} {who:#x} {} {}", about[0], about[1]));
    }

    /// A line for people only.
    pub(super) fn line(&mut self, text: impl FnOnce() -> String) {
        if self.log_max == 0 {
            return;
        }
        if self.log.len() == self.log_max {
            self.log.pop_front();
        }
        self.log.push_back(text());
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.log.iter().cloned().collect()
    }
}
