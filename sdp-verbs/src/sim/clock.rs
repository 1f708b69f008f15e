//! Virtual time and what is due.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::world::Event;

/// Nanoseconds since the fabric was made.
pub(super) type Nanos = u64;

/// Where time begins: not at zero, so that nobody mistakes the first moment for "never".
const START: Nanos = 1_000_000_000;

#[derive(Debug)]
struct Due {
    at: Nanos,
    /// Events of one moment come in the order in which they were asked for.
    seq: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// The clock, which moves from event to event.
#[derive(Debug)]
pub(super) struct Clock {
    now: Nanos,
    seq: u64,
    due: BinaryHeap<Reverse<Due>>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            now: START,
            seq: 0,
            due: BinaryHeap::new(),
        }
    }

    pub(super) fn now(&self) -> Nanos {
        self.now
    }

    /// Asks for an event at a time; a time that has passed means now.
    pub(super) fn at(&mut self, at: Nanos, event: Event) {
        let at = at.max(self.now);
        self.due.push(Reverse(Due {
            at,
            seq: self.seq,
            event,
        }));
        self.seq += 1;
    }

    /// When the next event is due.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.due.peek().map(|Reverse(due)| due.at)
    }

    /// The next event, if it is due by `limit`. Time moves on to it.
    pub(super) fn pop(&mut self, limit: Nanos) -> Option<Event> {
        if self.next()? > limit {
            return None;
        }
        let Reverse(due) = self.due.pop()?;
        self.now = self.now.max(due.at);
        Some(due.event)
    }

    /// Time passes without an event.
    pub(super) fn advance(&mut self, to: Nanos) {
        self.now = self.now.max(to);
    }
}
