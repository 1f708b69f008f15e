//! The send queue, as we count it.

use std::collections::VecDeque;

use super::held::Held;
use crate::memory::Keep;
use crate::types::WrId;
use crate::wr::{WcOpcode, WcStatus};

/// What a request in the queue is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Send,
    Read {
        len: usize,
    },
    Write,
    Bind {
        rkey: u32,
    },
    LocalInv {
        rkey: u32,
    },
    /// Ours: it shows that everything before it has arrived, and the connection may end.
    Marker,
    /// Ours: it shows that everything before it has arrived, and a bind may follow.
    Barrier,
}

impl Kind {
    /// It is answered by the peer, and repeated until it is.
    fn is_repeated(self) -> bool {
        !matches!(self, Self::Bind { .. } | Self::LocalInv { .. })
    }

    pub(super) fn is_bind(self) -> bool {
        matches!(self, Self::Bind { .. })
    }

    fn is_barrier(self) -> bool {
        matches!(self, Self::Barrier)
    }

    /// How its completion reports it.
    pub(super) fn report(self) -> (WcOpcode, usize) {
        match self {
            Self::Send => (WcOpcode::Send, 0),
            Self::Read { len } => (WcOpcode::Read, len),
            Self::Write | Self::Marker | Self::Barrier => (WcOpcode::Write, 0),
            Self::Bind { .. } => (WcOpcode::Bind, 0),
            Self::LocalInv { .. } => (WcOpcode::LocalInv, 0),
        }
    }
}

/// Requests of ours that may be outstanding besides the caller's: the end of the connection, and what
/// a bind waits for.
pub(in crate::rdma) const OWN_WR_MAX: u32 = 2;

/// A request that has been posted and not completed.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) wr_id: WrId,
    pub(super) kind: Kind,
    /// The caller wants to see its success.
    pub(super) signaled: bool,
    /// Memory that the device reads.
    pub(super) keep: Option<Keep>,
    /// The device will tell of its success.
    told: bool,
    /// What the device has said.
    status: Option<WcStatus>,
}

impl Entry {
    pub(super) fn new(wr_id: WrId, kind: Kind, signaled: bool) -> Self {
        Self {
            wr_id,
            kind,
            signaled,
            keep: None,
            told: signaled,
            status: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct SendQueue {
    max: usize,
    entries: VecDeque<Entry>,
    /// Of them, [`Kind::Barrier`].
    barriers: usize,
    /// A bind was among them: more will follow.
    has_bound: bool,
    /// Number of the oldest entry.
    first: u64,
    /// Requests since the last one that will tell of its completion.
    silent: usize,
    /// What the device has told of is older than this number.
    told_to: u64,
    /// Taken from the caller, and not posted yet.
    held: VecDeque<Held>,
}

impl SendQueue {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            entries: VecDeque::new(),
            barriers: 0,
            has_bound: false,
            first: 0,
            silent: 0,
            told_to: 0,
            held: VecDeque::new(),
        }
    }

    /// The caller has as many requests in it as it may.
    pub(super) fn is_full(&self) -> bool {
        self.len() - self.barriers >= self.max
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.held.len()
    }

    /// Something is held back, behind which everything else must wait.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// A request waits behind what is held back, or is held back itself.
    pub(super) fn hold(&mut self, held: Held) {
        self.held.push_back(held);
    }

    /// What the peer has not answered yet would be repeated, and with it what is behind it, up to a
    /// LOCAL_INV, which is carried out when everything before it has been answered.
    pub(super) fn may_repeat(&self) -> bool {
        let is_fence = |entry: &&Entry| matches!(entry.kind, Kind::LocalInv { .. });
        let open = |entry: &Entry| entry.status.is_none() && entry.kind.is_repeated();
        let behind = self.entries.iter().rev();
        behind.take_while(|entry| !is_fence(entry)).any(open)
    }

    /// The device will tell when all that was posted has ended.
    pub(super) fn ends_aloud(&self) -> bool {
        self.silent == 0
    }

    pub(super) fn has_bound(&self) -> bool {
        self.has_bound
    }

    /// The oldest one held back, if it may go: a bind must not be behind anything that could be
    /// repeated.
    pub(super) fn first_held(&self) -> Option<&Held> {
        let first = self.held.front()?;
        (!first.is_bind() || !self.may_repeat()).then_some(first)
    }

    pub(super) fn take_held(&mut self) -> Option<Held> {
        self.held.pop_front()
    }

    /// A request that the device will never have has ended, behind those that it has.
    pub(super) fn push_ended(&mut self, mut entry: Entry, status: WcStatus) {
        entry.status = Some(status);
        self.entries.push_back(entry);
    }

    /// Number of the next request.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// So many requests in a row are silent that the next must not be: only a completion frees
    /// the places of those before it.
    pub(super) fn wants_signal(&self) -> bool {
        self.silent + 1 >= self.max.div_ceil(2)
    }

    /// A request has been posted; `signaled`: the device will tell.
    pub(super) fn push(&mut self, mut entry: Entry, signaled: bool) {
        entry.told = signaled;
        self.barriers += usize::from(entry.kind.is_barrier());
        self.has_bound |= entry.kind.is_bind();
        self.silent = if signaled { 0 } else { self.silent + 1 };
        self.entries.push_back(entry);
    }

    /// The device says how a request ended. False: there is no such request.
    pub(super) fn complete(&mut self, number: u64, status: WcStatus) -> bool {
        let place = number
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| self.entries.get_mut(place));
        match place {
            Some(entry) => {
                entry.status = Some(status);
                self.told_to = self.told_to.max(number + 1);
                true
            }
            None => false,
        }
    }

    /// The device will say no more: what it has not told of was flushed.
    pub(super) fn flush(&mut self) {
        for entry in &mut self.entries {
            entry.status.get_or_insert(WcStatus::Flushed);
        }
    }

    /// The oldest request whose end is known, in the order of posting. (siw tells of a SEND before
    /// it tells of the READ in front of it.) One that the device does not tell of has ended if a
    /// later one has.
    pub(super) fn take_ended(&mut self) -> Option<(Entry, WcStatus)> {
        let front = self.entries.front()?;
        let status = match front.status {
            Some(status) => status,
            None if front.told => return None,
            None if self.first < self.told_to => WcStatus::Success,
            None => return None,
        };
        self.first += 1;
        let entry = self.entries.pop_front()?;
        self.barriers -= usize::from(entry.kind.is_barrier());
        Some((entry, status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(signaled: &[bool]) -> SendQueue {
        let mut queue = SendQueue::new(16);
        for (number, signaled) in (0..).zip(signaled) {
            queue.push(Entry::new(WrId(number), Kind::Send, *signaled), *signaled);
        }
        queue
    }

    fn ended(queue: &mut SendQueue) -> Vec<(u64, WcStatus)> {
        std::iter::from_fn(|| queue.take_ended())
            .map(|(entry, status)| (entry.wr_id.0, status))
            .collect()
    }

    /// Whatever order the device tells in, requests end in the order of posting.
    #[test]
    fn ends_keep_the_order_of_posting() {
        use WcStatus::Success;
        let mut queue = queue(&[true, false, true, false]);
        assert!(queue.complete(2, Success));
        assert_eq!(ended(&mut queue), []);
        assert!(queue.complete(0, Success));
        assert_eq!(
            ended(&mut queue),
            [(0, Success), (1, Success), (2, Success)]
        );
        assert_eq!((queue.len(), queue.next_number()), (1, 4));
        assert!(!queue.complete(0, Success) && !queue.complete(4, Success));
        queue.flush();
        assert_eq!(ended(&mut queue), [(3, WcStatus::Flushed)]);
        assert!(queue.is_empty());
    }

    /// Half a queue of silent requests is the most.
    #[test]
    fn silence_is_bounded() {
        let mut queue = SendQueue::new(8);
        let mut silent = 0;
        for number in 0..8 {
            let signaled = queue.wants_signal();
            silent = if signaled { 0 } else { silent + 1 };
            assert!(silent < 4);
            queue.push(Entry::new(WrId(number), Kind::Send, false), signaled);
        }
        assert!(queue.is_full());
    }
}
