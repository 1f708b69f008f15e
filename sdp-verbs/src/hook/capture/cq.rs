//! Completion queues that write down what has come.

use std::sync::Arc;

use super::flow::Flow;
use crate::cq::CompletionQueue;
use crate::hook::forward::forward;
use crate::hook::per_qp::PerQp;
use crate::wr::WorkCompletion;

/// See [`Capture`](super::Capture).
#[derive(Debug)]
pub(super) struct CaptureCq {
    inner: Arc<dyn CompletionQueue>,
    flows: PerQp<Flow>,
}

impl CaptureCq {
    pub(super) fn new(inner: Arc<dyn CompletionQueue>) -> Self {
        Self {
            inner,
            flows: PerQp::new(),
        }
    }

    pub(super) fn inner(&self) -> &Arc<dyn CompletionQueue> {
        &self.inner
    }

    /// The connections of the queue pairs that complete here.
    pub(super) fn flows(&self) -> &PerQp<Flow> {
        &self.flows
    }
}

impl CompletionQueue for CaptureCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let count = self.inner.poll(out);
        for wc in &out[..count] {
            if let Some(flow) = self.flows.find(wc.qp) {
                flow.complete(wc);
            }
        }
        count
    }

    forward!(CompletionQueue: arm, disarm_channel, recall_tokens, wait, wake);
}
