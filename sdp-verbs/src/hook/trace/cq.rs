//! Completion queues that count what they hand out.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::TARGET;
use super::counters::{Counter, Counts, failure_counter};
use super::ledger::Ledger;
use crate::cq::{ArmFor, ArmToken, CompletionQueue, Wake};
use crate::types::QpNum;
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

/// See [`Trace`](super::Trace).
#[derive(Debug)]
pub(super) struct TraceCq {
    inner: Arc<dyn CompletionQueue>,
    counts: Arc<Counts>,
    /// Queue pairs that complete here. Written when one is created or found to be gone.
    ledgers: RwLock<HashMap<QpNum, Weak<Ledger>>>,
}

impl TraceCq {
    pub(super) fn new(inner: Arc<dyn CompletionQueue>, counts: &Arc<Counts>) -> Self {
        Self {
            inner,
            counts: Arc::clone(counts),
            ledgers: RwLock::new(HashMap::new()),
        }
    }

    pub(super) fn inner(&self) -> &Arc<dyn CompletionQueue> {
        &self.inner
    }

    /// Starts to count the RDMA of a queue pair.
    pub(super) fn watch(&self, ledger: &Arc<Ledger>) {
        let mut ledgers = self.ledgers.write().unwrap_or_else(PoisonError::into_inner);
        ledgers.retain(|_, known| known.strong_count() > 0);
        ledgers.insert(ledger.qp(), Arc::downgrade(ledger));
    }

    fn ledger(&self, qp: QpNum) -> Option<Arc<Ledger>> {
        let ledgers = self.ledgers.read().unwrap_or_else(PoisonError::into_inner);
        ledgers.get(&qp).and_then(Weak::upgrade)
    }

    fn count(&self, wc: &WorkCompletion) {
        if let Some(counter) = failure_counter(wc.status) {
            self.counts.add(counter, 1);
        }
        if wc.opcode == WcOpcode::Recv {
            if wc.status == WcStatus::Success {
                self.counts.add(Counter::RecvCount, 1);
                self.counts.add_len(Counter::RecvBytes, wc.byte_len);
            }
            if wc.invalidated.is_some() {
                self.counts.add(Counter::InvalidatedCount, 1);
            }
            return;
        }
        if wc.opcode == WcOpcode::Read && wc.status == WcStatus::Success {
            self.counts.add(Counter::ReadCount, 1);
            self.counts.add_len(Counter::ReadBytes, wc.byte_len);
        }
        if let Some(ledger) = self.ledger(wc.qp) {
            ledger.on_completion(wc, &self.counts);
        }
    }
}

impl CompletionQueue for TraceCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let count = self.inner.poll(out);
        for wc in &out[..count] {
            self.count(wc);
            tracing::trace!(target: TARGET, ?wc, "completion");
        }
        count
    }

    fn arm(&self, who: ArmFor) -> ArmToken {
        self.counts.add(Counter::ArmCount, 1);
        tracing::trace!(target: TARGET, ?who, "arm");
        self.inner.arm(who)
    }

    fn disarm_channel(&self) {
        self.inner.disarm_channel();
    }

    fn wait(&self, token: ArmToken, timeout: Option<Duration>) -> io::Result<Wake> {
        self.counts.add(Counter::WaitCount, 1);
        let wake = self.inner.wait(token, timeout);
        tracing::trace!(target: TARGET, ?token, ?timeout, ?wake, "wait");
        wake
    }

    fn wake(&self) {
        self.counts.add(Counter::WakeCount, 1);
        tracing::trace!(target: TARGET, "wake");
        self.inner.wake();
    }
}
