//! The receive queue, as we count it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use crate::memory::RecvBuf;
use crate::rdma::slab::Slot;
use crate::types::WrId;

/// A buffer made for this queue.
#[derive(Debug)]
struct Known {
    slot: Weak<Slot>,
    len: usize,
    posted: bool,
}

/// A receive that has been posted and not completed.
#[derive(Debug)]
struct Posted {
    wr_id: WrId,
    token: u64,
    /// The device writes into it, whatever its owner does.
    _slot: Arc<Slot>,
}

#[derive(Debug)]
pub(super) struct RecvQueue {
    max: usize,
    known: Vec<Known>,
    posted: VecDeque<Posted>,
    /// Number of the oldest entry.
    first: u64,
}

impl RecvQueue {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            known: Vec::new(),
            posted: VecDeque::new(),
            first: 0,
        }
    }

    /// Knows a buffer from here on, by the token returned.
    pub(super) fn adopt(&mut self, slot: &Arc<Slot>, len: usize) -> u64 {
        let known = Known {
            slot: Arc::downgrade(slot),
            len,
            posted: false,
        };
        let gone = |known: &Known| known.slot.strong_count() == 0;
        let place = match self.known.iter().position(gone) {
            Some(place) => {
                self.known[place] = known;
                place
            }
            None => {
                self.known.push(known);
                self.known.len() - 1
            }
        };
        place as u64
    }

    /// The memory of a buffer, if it is of this queue and not posted.
    pub(super) fn find(&self, buf: &RecvBuf) -> Option<Arc<Slot>> {
        let known = self.known.get(usize::try_from(buf.token()).ok()?)?;
        let slot = known.slot.upgrade()?;
        let ours = slot.mem().as_ptr() == buf.mem().as_ptr() && known.len == buf.mem().len();
        (ours && !known.posted).then_some(slot)
    }

    pub(super) fn is_full(&self) -> bool {
        self.posted.len() >= self.max
    }

    pub(super) fn len(&self) -> usize {
        self.posted.len()
    }

    /// Number of the next receive.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.posted.len() as u64
    }

    /// A receive has been posted.
    pub(super) fn push(&mut self, wr_id: WrId, token: u64, slot: Arc<Slot>) {
        self.mark(token, true);
        self.posted.push_back(Posted {
            wr_id,
            token,
            _slot: slot,
        });
    }

    /// A receive has completed; they do so in order.
    pub(super) fn complete(&mut self, number: u64) -> Option<WrId> {
        if number != self.first {
            return None;
        }
        let posted = self.posted.pop_front()?;
        self.first += 1;
        self.mark(posted.token, false);
        Some(posted.wr_id)
    }

    /// The device will say no more: the oldest receive was flushed.
    pub(super) fn flush_one(&mut self) -> Option<WrId> {
        self.complete(self.first)
    }

    fn mark(&mut self, token: u64, posted: bool) {
        let known = usize::try_from(token)
            .ok()
            .and_then(|token| self.known.get_mut(token));
        known.expect("a token of our own").posted = posted;
    }
}
