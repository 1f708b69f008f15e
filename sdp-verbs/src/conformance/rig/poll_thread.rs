//! A thread that serves one completion queue by the rule: arm, poll until empty, wait.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::end::{Inbox, NOTHING};
use crate::cq::{ArmFor, CompletionQueue};

/// Only a lost wake-up makes a wait last as long; the case then fails by being slow.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Completions moved.
    moved: AtomicU64,
}

#[derive(Debug)]
pub(super) struct PollThread {
    cq: Arc<dyn CompletionQueue>,
    shared: Arc<Shared>,
    seen: std::cell::Cell<u64>,
    thread: Option<JoinHandle<()>>,
}

impl PollThread {
    pub(super) fn start(cq: &Arc<dyn CompletionQueue>, inbox: &Inbox) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (their_cq, theirs, inbox) = (Arc::clone(cq), Arc::clone(&shared), Arc::clone(inbox));
        let thread = std::thread::Builder::new()
            .name("conformance-poll".to_owned())
            .spawn(move || serve(&*their_cq, &inbox, &theirs))?;
        Ok(Self {
            cq: Arc::clone(cq),
            shared,
            seen: std::cell::Cell::new(0),
            thread: Some(thread),
        })
    }

    /// Whether completions have been moved since the last call.
    pub(super) fn has_progressed(&self) -> bool {
        let moved = self.shared.moved.load(Ordering::Acquire);
        self.seen.replace(moved) != moved
    }
}

fn serve(cq: &dyn CompletionQueue, inbox: &Inbox, shared: &Shared) {
    let mut out = [NOTHING; 16];
    while !shared.stop.load(Ordering::Acquire) {
        let token = cq.arm(ArmFor::Waiter);
        let count = cq.poll(&mut out);
        if count > 0 {
            inbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(&out[..count]);
            shared.moved.fetch_add(count as u64, Ordering::Release);
        } else if !shared.stop.load(Ordering::Acquire)
            && let Err(error) = cq.wait(token, Some(WAIT_MAX))
        {
            tracing::error!(%error, "conformance: waiting for completions failed");
            return;
        }
    }
}

impl Drop for PollThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.cq.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed by then, and the case fails for want of completions.
            let _ = thread.join();
        }
    }
}
