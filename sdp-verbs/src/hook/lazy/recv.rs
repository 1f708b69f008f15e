//! Receives: private buffers in front of the wrapped provider's.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::VerbsError;
use crate::memory::{Block, RecvBuf, copy_out};
use crate::types::WrId;
use crate::wr::{WcStatus, WorkCompletion};

/// Memory of one receive: what the peer fills, and what the caller sees.
#[derive(Debug)]
pub(super) struct RecvPair {
    pub(super) inner: RecvBuf,
    shown: Block,
    token: u64,
    book: Weak<RecvBook>,
}

impl Drop for RecvPair {
    fn drop(&mut self) {
        if let Some(book) = self.book.upgrade() {
            book.with(|known| known.remove(&self.token));
        }
    }
}

impl RecvPair {
    fn deliver(&self, len: usize) {
        let bytes = copy_out(self.inner.mem(), len.min(self.shown.mem().len()));
        self.shown.mem().write(0, &bytes);
    }
}

/// Tokens differ over all queue pairs, or a buffer posted to the wrong one would be mistaken for
/// one of its own.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(0);

type Known = HashMap<u64, Weak<RecvPair>>;

/// The receive buffers of one queue pair. A `RecvBuf` says nothing of itself but its token, so
/// this is how a posted one is found again.
#[derive(Debug, Default)]
pub(super) struct RecvBook(Mutex<Known>);

impl RecvBook {
    /// A buffer for the caller in front of `inner`.
    pub(super) fn add(self: &Arc<Self>, inner: RecvBuf) -> Result<RecvBuf, VerbsError> {
        let shown = Block::new(inner.mem().len());
        let mem = *shown.mem();
        let pair = Arc::new(RecvPair {
            inner,
            shown,
            token: NEXT_TOKEN.fetch_add(1, Ordering::Relaxed),
            book: Arc::downgrade(self),
        });
        self.with(|known| known.insert(pair.token, Arc::downgrade(&pair)));
        Ok(RecvBuf::new(mem, pair.token, pair))
    }

    /// The pair behind a caller's buffer, if it is one of this queue pair's.
    pub(super) fn find(&self, buf: &RecvBuf) -> Option<Arc<RecvPair>> {
        self.with(|known| known.get(&buf.token()).and_then(Weak::upgrade))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        // A panic elsewhere leaves the map whole: every change is one call on it.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A receive completion that is being held back, with the buffer to fill when it is let go.
#[derive(Debug)]
pub(super) struct HeldRecv {
    wc: WorkCompletion,
    pair: Arc<RecvPair>,
}

/// Receives posted and receives held back. Guarded by its queue pair's lock.
#[derive(Debug, Default)]
pub(super) struct RecvQueue {
    posted: HashMap<u64, (WrId, Arc<RecvPair>)>,
    next_id: u64,
    held: VecDeque<HeldRecv>,
}

impl RecvQueue {
    /// Notes a receive that is about to be posted and gives its id below.
    pub(super) fn begin(&mut self, wr_id: WrId, pair: &Arc<RecvPair>) -> WrId {
        let id = self.next_id;
        self.next_id += 1;
        self.posted.insert(id, (wr_id, Arc::clone(pair)));
        pair.shown.scribble();
        WrId(id)
    }

    /// It was refused after all.
    pub(super) fn refused(&mut self, id: WrId) {
        self.posted.remove(&id.0);
    }

    /// Takes a completion from below. False if no such receive is posted.
    pub(super) fn complete(&mut self, wc: &WorkCompletion) -> bool {
        let Some((wr_id, pair)) = self.posted.remove(&wc.wr_id.0) else {
            return false;
        };
        let wc = WorkCompletion { wr_id, ..*wc };
        self.held.push_back(HeldRecv { wc, pair });
        true
    }

    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Lets go of what is held back: only now do the bytes appear.
    pub(super) fn release(&mut self, out: &mut VecDeque<WorkCompletion>) {
        for HeldRecv { wc, pair } in self.held.drain(..) {
            if wc.status == WcStatus::Success {
                pair.deliver(wc.byte_len);
            }
            out.push_back(wc);
        }
    }
}
