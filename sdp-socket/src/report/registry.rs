//! What a process has that a report is about, and whether somebody hands out reports.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use crate::context::Context;
use crate::park::{GENERATIONS_MAX, generation};
use crate::sync::lock;

/// Named numbers that a program, or a library above this one, adds to the report of its process.
pub type Counters = fn() -> Vec<(&'static str, u64)>;

/// One process's. It has a lock of its own, which nobody holds for long: that of opened providers
/// is held while devices are being opened.
#[derive(Debug)]
pub(super) struct Registry {
    contexts: Mutex<Vec<Weak<Context>>>,
    claimed: AtomicBool,
}

/// A forked child starts anew.
static REGISTRIES: [Registry; GENERATIONS_MAX] = [const {
    Registry {
        contexts: Mutex::new(Vec::new()),
        claimed: AtomicBool::new(false),
    }
}; GENERATIONS_MAX];

/// What is added; in a forked child too.
static COUNTERS: OnceLock<(&'static str, Counters)> = OnceLock::new();

/// This process's registry; `None` where no process of this depth of forks may have sockets.
fn registry() -> Option<&'static Registry> {
    REGISTRIES.get(generation().ok()?)
}

/// A context of this process is to be in its reports.
pub(crate) fn add_context(context: &Arc<Context>) {
    let Some(registry) = registry() else { return };
    let mut contexts = lock(&registry.contexts);
    contexts.retain(|context| context.strong_count() > 0);
    contexts.push(Arc::downgrade(context));
}

/// Those of this process that are there.
pub(super) fn contexts() -> Vec<Arc<Context>> {
    let contexts = registry().map(|registry| lock(&registry.contexts).clone());
    let contexts = contexts.unwrap_or_default();
    contexts.iter().filter_map(Weak::upgrade).collect()
}

/// The right to hand out this process's reports, which one at a time has.
#[derive(Debug)]
pub(crate) struct Claim(&'static Registry);

/// Takes that right for whoever serves `context`, if it is in reports and nobody has it.
pub(crate) fn claim(context: &Arc<Context>) -> Option<Claim> {
    let registry = registry()?;
    let wanted = Arc::downgrade(context);
    let is_known = lock(&registry.contexts).iter().any(|it| it.ptr_eq(&wanted));
    let taken = is_known && !registry.claimed.swap(true, Ordering::AcqRel);
    taken.then_some(Claim(registry))
}

#[cfg(test)]
impl Claim {
    /// One that nobody else can want.
    pub(crate) fn for_test() -> Self {
        let registry = Registry {
            contexts: Mutex::default(),
            claimed: AtomicBool::new(true),
        };
        Self(Box::leak(Box::new(registry)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

/// Adds numbers to the reports of this process, in an object of this name: what `sdp stat` shows of
/// a library above this one. The function is called on the progress thread, so it must not wait; if it
/// panics the process is aborted.
/// The first to call this is the one that is asked.
pub fn set_counters(name: &'static str, counters: Counters) {
    // Somebody else was first.
    let _ = COUNTERS.set((name, counters));
}

/// The name of what was added, and its numbers.
pub(super) fn counters() -> Option<(&'static str, Vec<(&'static str, u64)>)> {
    COUNTERS.get().map(|(name, counters)| (*name, counters()))
}
