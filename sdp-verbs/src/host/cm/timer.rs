//! What is due when.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

/// Whose timer it is; each owner has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// An id: what it waits for does not come.
    Id(u64),
    /// A stranger's handshake takes too long.
    Guest(u64),
    /// The next attempt to reach a listener.
    Dial(SocketAddr),
    /// A link has been idle.
    Link(u64),
    /// A link whose messages there were no means to send.
    Outbox(u64),
    /// A listener that ran out of descriptors.
    Listener(u64),
}

/// All timers of an instance.
#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(Instant, Due)>,
    at: HashMap<Due, Instant>,
}

impl Timers {
    /// Sets an owner's timer, instead of the one it had.
    pub(super) fn set(&mut self, due: Due, at: Instant) {
        self.clear(due);
        self.at.insert(due, at);
        self.order.insert((at, due));
    }

    /// Stops an owner's timer.
    pub(super) fn clear(&mut self, due: Due) {
        if let Some(at) = self.at.remove(&due) {
            self.order.remove(&(at, due));
        }
    }

    /// The earliest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let (at, due) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.clear(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_owner_has_one_timer_and_they_come_in_order() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.set(Due::Id(1), at(1));
        timers.set(Due::Id(2), at(2));
        timers.set(Due::Id(1), at(3));
        timers.set(Due::Link(1), at(4));
        timers.clear(Due::Link(1));
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.take_due(at(1)), None);
        assert_eq!(timers.take_due(at(9)), Some(Due::Id(2)));
        assert_eq!(timers.take_due(at(9)), Some(Due::Id(1)));
        assert_eq!(timers.take_due(at(9)), None);
        assert_eq!(timers.next(), None);
    }
}
