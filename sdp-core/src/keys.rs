//! Keys given to the peer, from their making to their death.

use alloc::collections::VecDeque;

use crate::action::Action;
use crate::connection::Shared;
use crate::ids::{CallId, KeyId, WorkId};

/// Keys on their way to death. Those that are alive are known to whoever had them made.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    next: u32,
    /// To be killed, and the calls whose memory they show.
    doomed: VecDeque<(KeyId, CallId)>,
    /// Being killed.
    dying: VecDeque<(WorkId, CallId)>,
}

impl Keys {
    /// None is about to die.
    pub(crate) fn is_quiet(&self) -> bool {
        self.doomed.is_empty() && self.dying.is_empty()
    }

    /// Some are to be killed.
    pub(crate) fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// The queue pair is, or will be, in error, and its keys die with it.
    pub(crate) fn clear(&mut self) {
        self.doomed.clear();
        self.dying.clear();
    }
}

impl Shared {
    /// Has a key made of `len` bytes of a call's memory from `at` on.
    pub(crate) fn make_key(&mut self, call: CallId, at: usize, len: u32) -> KeyId {
        self.keys.next = self.keys.next.wrapping_add(1);
        let key = KeyId(self.keys.next);
        self.out.push_work(Action::BindKey { key, call, at, len });
        key
    }

    /// The key is to die.
    pub(crate) fn kill_key(&mut self, key: KeyId, call: CallId) {
        self.keys.doomed.push_back((key, call));
    }

    /// Kills what is to die, as far as there are slots.
    pub(crate) fn flush_kills(&mut self) {
        while self.out.has_slot() {
            let Some((key, call)) = self.keys.doomed.pop_front() else {
                return;
            };
            let work = self
                .out
                .push_signalled(|work| Action::InvalidateKey { key, work });
            self.keys.dying.push_back((work, call));
        }
    }

    /// A work request has ended well. If it was the killing of a key: whose.
    pub(crate) fn on_killed(&mut self, work: WorkId) -> Option<CallId> {
        let front = |dying: &mut VecDeque<(WorkId, CallId)>| {
            dying.pop_front_if(|(killing, _)| *killing == work)
        };
        front(&mut self.keys.dying).map(|(_, call)| call)
    }
}
