//! When connections are to be visited.
//!
//! A visit that was brought forward stays in the list at its old time, too, and so does that of a connection
//! which is no more: taking either out would mean a search. Whoever comes to it finds it void. As that may
//! take hours (keepalive), a list that has grown is swept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use sdp_core::Instant;
use sdp_verbs::CqToken;
use smallvec::SmallVec;

/// A list that is no longer is not swept.
const SWEPT_MIN: usize = 1024;

/// The visits of a context, earliest first.
#[derive(Debug)]
pub(crate) struct Agenda {
    visits: BinaryHeap<Reverse<(Instant, CqToken)>>,
    /// The length from which on it is to be swept.
    swept_from: usize,
}

impl Default for Agenda {
    fn default() -> Self {
        Self {
            visits: BinaryHeap::new(),
            swept_from: SWEPT_MIN,
        }
    }
}

impl Agenda {
    /// Notes a visit. True: it is time to [`sweep`](Self::sweep).
    #[must_use]
    pub(crate) fn add(&mut self, at: Instant, token: CqToken) -> bool {
        self.visits.push(Reverse((at, token)));
        self.visits.len() >= self.swept_from
    }

    /// The time of the next one.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.visits.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out those whose time has come, `max` at most.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        max: usize,
    ) -> SmallVec<[(Instant, CqToken); 8]> {
        let mut due = SmallVec::new();
        while due.len() < max
            && let Some(next) = self.visits.peek_mut()
            && next.0.0 <= now
        {
            due.push(PeekMut::pop(next).0);
        }
        due
    }

    /// Keeps what is `awaited`, each once. The work is that of adding as many again before the next time.
    pub(crate) fn sweep(&mut self, mut awaited: impl FnMut(Instant, CqToken) -> bool) {
        let mut visits = std::mem::take(&mut self.visits).into_vec();
        visits.retain(|Reverse((at, token))| awaited(*at, *token));
        visits.sort_unstable();
        visits.dedup();
        visits.shrink_to(SWEPT_MIN);
        self.swept_from = (2 * visits.len()).max(SWEPT_MIN);
        self.visits = visits.into();
    }

    /// How many there are, void ones among them.
    pub(crate) fn len(&self) -> usize {
        self.visits.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many are void, no more are kept than are awaited, twice, or a few; and they come in order.
    #[test]
    fn what_is_void_does_not_pile_up() {
        let mut agenda = Agenda::default();
        let awaits = |at: Instant, token: CqToken| token.0 < 2 && at.as_nanos() == 7 + token.0;
        for n in 0..100_000 {
            let token = CqToken(n % 4);
            let at = if n % 8 < 2 { 7 + token.0 } else { 100 + n };
            if agenda.add(Instant::from_nanos(at), token) {
                agenda.sweep(awaits);
            }
            assert!(agenda.len() <= SWEPT_MIN, "{}", agenda.len());
        }
        agenda.sweep(awaits);
        assert_eq!(agenda.next(), Some(Instant::from_nanos(7)));
        let due = agenda.take_due(Instant::from_nanos(1_000_000), 64);
        let due: Vec<_> = due
            .iter()
            .map(|(at, token)| (at.as_nanos(), token.0))
            .collect();
        assert_eq!(due, [(7, 0), (8, 1)]);
        assert_eq!(agenda.next(), None);
    }
}
