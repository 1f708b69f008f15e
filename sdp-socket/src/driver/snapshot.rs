//! What a connection is and has done, for a report on it.

use std::sync::Arc;

use sdp_core::Phase;
use sdp_verbs::CmToken;
use smallvec::SmallVec;

use super::Conn;
use crate::stats::{Choice, Stats};

/// A connection at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) phase: Phase,
    pub(crate) stats: Stats,
    /// Messages that the peer has room for.
    pub(crate) credits: u32,
    /// Receives posted.
    pub(crate) posted: u32,
    /// Bytes accepted and not yet with the peer, those advertised among them.
    pub(crate) unsent: usize,
    /// Bytes that a receive gets now.
    pub(crate) unread: usize,
    pub(crate) adverts_open: usize,
    pub(crate) peer_adverts_open: usize,
}

/// What is kept of a connection that its context lets go of.
#[derive(Debug)]
pub(crate) struct Parting {
    /// What connection management names it by.
    pub(crate) ids: SmallVec<[CmToken; 3]>,
    pub(crate) stats: sdp_core::Stats,
    pub(crate) memory_refused: u64,
}

impl Conn {
    /// The state now. `None` if somebody else has the lock: nobody is waited for. The lock is held
    /// while numbers are copied, and nothing of the connection is moved on.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let inner = self.inner.try_lock().ok()?;
        let engine = &inner.engine;
        let (counters, choices) = (engine.stats().clone(), engine.choices());
        let snapshot = Snapshot {
            phase: engine.phase(),
            stats: Stats::default(),
            credits: engine.credits(),
            posted: engine.posted(),
            unsent: engine.unsent_len(),
            unread: engine.readable_len(),
            adverts_open: engine.adverts_open(),
            peer_adverts_open: engine.peer_adverts_open(),
        };
        let qp = inner.pair.as_ref().map(|pair| Arc::clone(&pair.qp));
        drop(inner);
        let stats = Stats {
            tx_bytes_queued: qp.map_or(0, |qp| qp.queued_len()) as u64,
            memory_refused: self.memory.refused(),
            choices: choices.into_iter().map(Choice::from).collect(),
            ..Stats::from(&counters)
        };
        Some(Snapshot { stats, ..snapshot })
    }

    /// What is to be kept of it.
    pub(crate) fn parting(&self) -> Parting {
        let inner = self.lock();
        let pair = inner.pair.as_ref().map(|pair| pair.id.token());
        Parting {
            ids: pair.into_iter().chain(inner.moving.tokens()).collect(),
            stats: inner.engine.stats().clone(),
            memory_refused: self.memory.refused(),
        }
    }
}
