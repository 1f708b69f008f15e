//! What one queue pair has outstanding, as far as counting needs it.
//!
//! A completion of an RDMA WRITE does not say its length, and an unsignalled request completes
//! without a word when a later signalled one does. So WRITEs and unsignalled READs are noted when
//! posted, together with the number of the signalled request that will report them. Everything
//! else needs no note, and the common SEND costs at most one addition here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

use super::counters::{Counter, Counts};
use crate::qp::QueuePair;
use crate::types::{QpNum, WrId};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

/// An RDMA request that counts when it has completed.
#[derive(Clone, Copy, Debug)]
struct Note {
    wr_id: WrId,
    opcode: WcOpcode,
    bytes: usize,
    /// Its signalled completion, or the first behind it, has this number on the queue pair.
    due: u64,
}

/// Outstanding RDMA requests of one queue pair.
///
/// Two threads that post to one queue pair at once may have a WRITE counted one signalled
/// completion early or late; with one poster it is exact.
#[derive(Debug)]
pub(super) struct Ledger {
    qp: QpNum,
    /// What it is kept for.
    of: Weak<dyn QueuePair>,
    /// Counted as one that has refused a request of the peer's.
    has_refused: AtomicBool,
    /// Signalled requests posted.
    posted: AtomicU64,
    /// Signalled requests completed.
    completed: AtomicU64,
    /// Length of `notes`, readable without the lock.
    noted: AtomicUsize,
    notes: Mutex<VecDeque<Note>>,
}

impl Ledger {
    pub(super) fn new(qp: QpNum, of: Weak<dyn QueuePair>) -> Self {
        Self {
            qp,
            of,
            has_refused: AtomicBool::new(false),
            posted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            noted: AtomicUsize::new(0),
            notes: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn qp(&self) -> QpNum {
        self.qp
    }

    /// Called before a request is posted, so that its completion cannot come first.
    pub(super) fn before_post(
        &self,
        wr_id: WrId,
        opcode: WcOpcode,
        bytes: usize,
        signaled: bool,
    ) -> Posting<'_> {
        let due = if signaled {
            self.posted.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.posted.load(Ordering::Relaxed) + 1
        };
        let noted = opcode == WcOpcode::Write || (opcode == WcOpcode::Read && !signaled);
        if noted {
            let note = Note {
                wr_id,
                opcode,
                bytes,
                due,
            };
            self.with_notes(|notes| notes.push_back(note));
        }
        Posting {
            ledger: self,
            signaled,
            noted: noted.then_some((wr_id, due)),
        }
    }

    /// Something has been flushed: counts the queue pair if the peer has given the reason.
    pub(super) fn on_flushed(&self, counts: &Counts) {
        let refused = self.of.upgrade().is_some_and(|qp| qp.has_refused_peer());
        if refused && !self.has_refused.swap(true, Ordering::Relaxed) {
            counts.add(Counter::RefusedPeer, 1);
        }
    }

    /// Counts what a completion of the send queue says has been done.
    pub(super) fn on_completion(&self, wc: &WorkCompletion, counts: &Counts) {
        if wc.status == WcStatus::Success {
            let done = self.completed.fetch_add(1, Ordering::Relaxed) + 1;
            if self.noted.load(Ordering::Relaxed) > 0 {
                self.with_notes(|notes| {
                    while let Some(note) = notes.pop_front_if(|note| note.due <= done) {
                        count(&note, counts);
                    }
                });
            }
        } else if self.noted.load(Ordering::Relaxed) > 0 {
            // Requests complete in order, so what was posted before the failed one was done. Of
            // what comes after it nothing will succeed.
            self.with_notes(|notes| {
                let failed = notes
                    .iter()
                    .position(|note| (note.wr_id, note.opcode) == (wc.wr_id, wc.opcode));
                if wc.status != WcStatus::Flushed {
                    notes
                        .iter()
                        .take(failed.unwrap_or(0))
                        .for_each(|note| count(note, counts));
                }
                notes.clear();
            });
        }
    }

    fn with_notes(&self, work: impl FnOnce(&mut VecDeque<Note>)) {
        // A panic elsewhere leaves the notes whole: every change is one call on the deque.
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut notes);
        self.noted.store(notes.len(), Ordering::Relaxed);
    }
}

fn count(note: &Note, counts: &Counts) {
    let (times, bytes) = match note.opcode {
        WcOpcode::Write => (Counter::WriteCount, Counter::WriteBytes),
        _ => (Counter::ReadCount, Counter::ReadBytes),
    };
    counts.add(times, 1);
    counts.add_len(bytes, note.bytes);
}

/// A request that is being posted.
#[derive(Debug)]
#[must_use]
pub(super) struct Posting<'a> {
    ledger: &'a Ledger,
    signaled: bool,
    noted: Option<(WrId, u64)>,
}

impl Posting<'_> {
    /// It was refused: nothing will complete.
    pub(super) fn refused(self) {
        if self.signaled {
            self.ledger.posted.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some((wr_id, due)) = self.noted {
            self.ledger.with_notes(|notes| {
                let at = notes
                    .iter()
                    .rposition(|note| (note.wr_id, note.due) == (wr_id, due));
                if let Some(at) = at {
                    notes.remove(at);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::qp::TraceQp;
    use super::*;

    fn wc(wr_id: u64, opcode: WcOpcode, status: WcStatus) -> WorkCompletion {
        WorkCompletion {
            wr_id: WrId(wr_id),
            status,
            opcode,
            byte_len: 0,
            invalidated: None,
            qp: QpNum(1),
        }
    }

    fn post(ledger: &Ledger, wr_id: u64, opcode: WcOpcode, bytes: usize, signaled: bool) {
        let _kept = ledger.before_post(WrId(wr_id), opcode, bytes, signaled);
    }

    fn ledger() -> Ledger {
        Ledger::new(QpNum(1), Weak::<TraceQp>::new())
    }

    #[test]
    fn a_write_counts_when_a_signalled_request_behind_it_completes() {
        let (ledger, counts) = (ledger(), Counts::new());
        post(&ledger, 1, WcOpcode::Send, 9, true);
        post(&ledger, 2, WcOpcode::Write, 100, false);
        post(&ledger, 3, WcOpcode::Read, 10, false);
        post(&ledger, 4, WcOpcode::Send, 9, true);
        post(&ledger, 5, WcOpcode::Write, 1000, true);
        ledger.on_completion(&wc(1, WcOpcode::Send, WcStatus::Success), &counts);
        assert_eq!(counts.snapshot().write_count, 0);
        ledger.on_completion(&wc(4, WcOpcode::Send, WcStatus::Success), &counts);
        let sums = counts.snapshot();
        assert_eq!((sums.write_bytes, sums.read_bytes), (100, 10));
        ledger.on_completion(&wc(5, WcOpcode::Write, WcStatus::Success), &counts);
        assert_eq!(counts.snapshot().write_bytes, 1100);
    }

    #[test]
    fn a_failure_counts_what_came_before_it_and_nothing_behind() {
        let (ledger, counts) = (ledger(), Counts::new());
        post(&ledger, 1, WcOpcode::Write, 1, false);
        post(&ledger, 2, WcOpcode::Write, 2, false);
        post(&ledger, 3, WcOpcode::Write, 4, true);
        ledger.on_completion(&wc(2, WcOpcode::Write, WcStatus::RemoteAccess), &counts);
        ledger.on_completion(&wc(3, WcOpcode::Write, WcStatus::Flushed), &counts);
        assert_eq!(counts.snapshot().write_bytes, 1);
    }

    #[test]
    fn a_refused_request_leaves_no_note() {
        let (ledger, counts) = (ledger(), Counts::new());
        ledger
            .before_post(WrId(1), WcOpcode::Write, 50, true)
            .refused();
        post(&ledger, 2, WcOpcode::Send, 1, true);
        ledger.on_completion(&wc(2, WcOpcode::Send, WcStatus::Success), &counts);
        assert_eq!(counts.snapshot().write_count, 0);
        assert_eq!(ledger.noted.load(Ordering::Relaxed), 0);
    }
}
