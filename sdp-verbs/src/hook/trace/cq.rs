//! Completion queues that count what they hand out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::TARGET;
use super::counters::{Counter, Counts, failure_counter};
use super::ledger::Ledger;
use crate::cq::{ArmFor, ArmToken, CompletionQueue, Wake};
use crate::hook::forward::forward;
use crate::hook::per_qp::PerQp;
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

/// See [`Trace`](super::Trace).
#[derive(Debug)]
pub(super) struct TraceCq {
    inner: Arc<dyn CompletionQueue>,
    counts: Arc<Counts>,
    ledgers: PerQp<Ledger>,
}

impl TraceCq {
    pub(super) fn new(inner: Arc<dyn CompletionQueue>, counts: &Arc<Counts>) -> Self {
        Self {
            inner,
            counts: Arc::clone(counts),
            ledgers: PerQp::new(),
        }
    }

    pub(super) fn inner(&self) -> &Arc<dyn CompletionQueue> {
        &self.inner
    }

    /// The RDMA to be counted of the queue pairs that complete here.
    pub(super) fn ledgers(&self) -> &PerQp<Ledger> {
        &self.ledgers
    }

    fn count(&self, wc: &WorkCompletion) {
        if let Some(counter) = failure_counter(wc.status) {
            self.counts.add(counter, 1);
        }
        if wc.status == WcStatus::Flushed
            && let Some(ledger) = self.ledgers.find(wc.qp)
        {
            ledger.on_flushed(&self.counts);
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
        if let Some(ledger) = self.ledgers.find(wc.qp) {
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

    forward!(CompletionQueue: disarm_channel);

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
