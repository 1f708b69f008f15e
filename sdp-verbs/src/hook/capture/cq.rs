//! Completion queues that write down what has come.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::flow::Flow;
use crate::cq::{ArmFor, ArmToken, CompletionQueue, Wake};
use crate::types::QpNum;
use crate::wr::WorkCompletion;

/// See [`Capture`](super::Capture).
#[derive(Debug)]
pub(super) struct CaptureCq {
    inner: Arc<dyn CompletionQueue>,
    /// Queue pairs that complete here. Written when one is created or found to be gone.
    flows: RwLock<HashMap<QpNum, Weak<Flow>>>,
}

impl CaptureCq {
    pub(super) fn new(inner: Arc<dyn CompletionQueue>) -> Self {
        Self {
            inner,
            flows: RwLock::default(),
        }
    }

    pub(super) fn inner(&self) -> &Arc<dyn CompletionQueue> {
        &self.inner
    }

    pub(super) fn watch(&self, num: QpNum, flow: &Arc<Flow>) {
        let mut flows = self.flows.write().unwrap_or_else(PoisonError::into_inner);
        flows.retain(|_, known| known.strong_count() > 0);
        flows.insert(num, Arc::downgrade(flow));
    }

    fn flow(&self, num: QpNum) -> Option<Arc<Flow>> {
        let flows = self.flows.read().unwrap_or_else(PoisonError::into_inner);
        flows.get(&num).and_then(Weak::upgrade)
    }
}

impl CompletionQueue for CaptureCq {
    fn poll(&self, out: &mut [WorkCompletion]) -> usize {
        let count = self.inner.poll(out);
        for wc in &out[..count] {
            if let Some(flow) = self.flow(wc.qp) {
                flow.complete(wc);
            }
        }
        count
    }

    fn arm(&self, who: ArmFor) -> ArmToken {
        self.inner.arm(who)
    }

    fn disarm_channel(&self) {
        self.inner.disarm_channel();
    }

    fn wait(&self, token: ArmToken, timeout: Option<Duration>) -> io::Result<Wake> {
        self.inner.wait(token, timeout)
    }

    fn wake(&self) {
        self.inner.wake();
    }
}
