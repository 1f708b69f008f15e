//! The source adverts of the head call: several at a time if the peer takes them, in stream order.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use sdp_wire::{RemoteAddr, Rkey};

use crate::ids::KeyId;
use crate::time::Instant;

/// Where an advert stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AdvertState {
    /// The driver is making a key.
    Binding,
    /// There is a key; SrcAvail waits for credits.
    Bound(Rkey, RemoteAddr),
    /// The peer may read.
    Open {
        /// MSeq of SrcAvail.
        mseq: u32,
    },
}

/// One advert.
#[derive(Debug)]
pub(super) struct SrcAdvert {
    pub(super) call: u32,
    pub(super) key: KeyId,
    /// Offset in the call's memory.
    pub(super) at: usize,
    pub(super) len: u32,
    /// Bytes that travelled inside SrcAvail.
    pub(super) inline: u32,
    /// Bytes the peer has reported.
    pub(super) read: u32,
    pub(super) rkey: Option<Rkey>,
    pub(super) state: AdvertState,
}

/// `n` bytes of memory.
pub(super) fn widen(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl SrcAdvert {
    /// Bytes the peer has not taken.
    pub(super) fn remaining(&self) -> usize {
        widen(self.len - self.inline - self.read)
    }

    /// Bytes of the call taken by this advert and before.
    pub(super) fn taken_to(&self) -> usize {
        self.at + widen(self.inline + self.read)
    }

    /// Where the advert ends in the call's memory.
    pub(super) fn end(&self) -> usize {
        self.at + widen(self.len)
    }

    pub(super) const fn is_posted(&self) -> bool {
        matches!(self.state, AdvertState::Open { .. })
    }
}

/// Whether the adverts are being taken back (§4.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cancel {
    /// No.
    No,
    /// SrcAvailCancel waits for a credit.
    Wanted,
    /// It was sent, with this MSeq.
    Sent(u32),
}

/// The adverts, oldest first: those the peer may read, then those it has not heard of. All are of
/// one call, and each begins where the one before ends.
#[derive(Debug)]
pub(super) struct Pipeline {
    list: VecDeque<SrcAdvert>,
    /// Keys being made whose adverts are not wanted any more, and their calls.
    pub(super) withdrawn: Vec<(KeyId, u32)>,
    pub(super) cancel: Cancel,
    /// A SrcAvailCancel that the peer may still have to ignore; no advert before it has (§4.8).
    pub(super) unconfirmed: Option<u32>,
    /// The first byte that the peer has refused: from there on the call is sent otherwise, once no
    /// advert is open.
    pub(super) refused_at: Option<usize>,
    /// Since when no byte was reported.
    pub(super) moved_at: Instant,
    /// Without progress for so long, nobody reads.
    pub(super) wait: Duration,
    /// Policy 3 has been applied since then.
    pub(super) judged: bool,
}

impl Pipeline {
    pub(super) const fn new() -> Self {
        Self {
            list: VecDeque::new(),
            withdrawn: Vec::new(),
            cancel: Cancel::No,
            unconfirmed: None,
            refused_at: None,
            moved_at: Instant::from_nanos(0),
            wait: Duration::ZERO,
            judged: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Adverts that the peer has been told are taken back, and has not answered for.
    pub(super) fn awaited(&self) -> u32 {
        match self.cancel {
            Cancel::Sent(_) => u32::try_from(self.len()).unwrap_or(u32::MAX),
            Cancel::No | Cancel::Wanted => 0,
        }
    }

    /// The oldest advert, if the peer has heard of it.
    pub(super) fn open_front(&mut self) -> Option<&mut SrcAdvert> {
        self.list.front_mut().filter(|advert| advert.is_posted())
    }

    pub(super) fn front(&self) -> Option<&SrcAdvert> {
        self.list.front()
    }

    /// The oldest advert that the peer has not heard of, and how many it has.
    pub(super) fn next_unposted(&mut self) -> Option<(usize, &mut SrcAdvert)> {
        self.list
            .iter_mut()
            .enumerate()
            .find(|(_, advert)| !advert.is_posted())
    }

    pub(super) fn push(&mut self, advert: SrcAdvert) {
        debug_assert!(
            self.list
                .back()
                .is_none_or(|last| last.call == advert.call && last.end() == advert.at),
            "adverts follow each other in one call's memory"
        );
        self.list.push_back(advert);
    }

    pub(super) fn pop(&mut self) -> Option<SrcAdvert> {
        self.list.pop_front()
    }

    /// Takes the newest advert if the peer has not heard of it.
    pub(super) fn pop_unposted(&mut self) -> Option<SrcAdvert> {
        if self.list.back().is_none_or(SrcAdvert::is_posted) {
            return None;
        }
        self.list.pop_back()
    }

    /// The advert whose key is being made.
    pub(super) fn binding(&mut self, key: KeyId) -> Option<&mut SrcAdvert> {
        self.list
            .iter_mut()
            .find(|advert| advert.key == key && advert.state == AdvertState::Binding)
    }

    /// Removes advert `key` and all behind it, newest first.
    pub(super) fn pop_from(&mut self, key: KeyId) -> Option<SrcAdvert> {
        self.list.iter().find(|advert| advert.key == key)?;
        self.list.pop_back()
    }

    /// The oldest advert has a key: from now on a reader is waited for, for `wait`.
    pub(super) fn await_reader(&mut self, now: Instant, wait: Duration) {
        self.moved_at = now;
        self.wait = wait;
        self.judged = false;
    }

    /// When the oldest advert will have waited long enough for a reader. One that still waits for
    /// a credit waits for a reader too: the peer holds so much that it gives none.
    pub(super) fn wait_ends(&self) -> Option<Instant> {
        let waits = self
            .front()
            .is_some_and(|advert| advert.state != AdvertState::Binding)
            && self.cancel == Cancel::No
            && !self.judged;
        waits.then(|| self.moved_at + self.wait)
    }

    /// Bytes advertised and not taken.
    pub(super) fn remaining(&self) -> usize {
        self.list.iter().map(SrcAdvert::remaining).sum()
    }

    /// The connection is over.
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.withdrawn.clear();
        self.cancel = Cancel::No;
    }
}
