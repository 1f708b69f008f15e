//! What a wrapper keeps for each queue pair whose completions it sees.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::types::QpNum;

/// Things by queue pair, until whoever else holds them lets go. Written only when a queue pair is
/// created.
#[derive(Debug)]
pub(super) struct PerQp<T>(RwLock<HashMap<QpNum, Weak<T>>>);

impl<T> PerQp<T> {
    pub(super) fn new() -> Self {
        Self(RwLock::default())
    }

    /// Finds `thing` for completions of `qp` from now on.
    pub(super) fn insert(&self, qp: QpNum, thing: &Arc<T>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, thing| thing.strong_count() > 0);
        known.insert(qp, Arc::downgrade(thing));
    }

    pub(super) fn find(&self, qp: QpNum) -> Option<Arc<T>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&qp).and_then(Weak::upgrade)
    }
}
