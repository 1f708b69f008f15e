//! The beginning of a connection on iWARP: only the side that connected may send first, and
//! Soft-iWARP does not see at once what comes soon after it has answered.

use std::vec::Vec;

use super::{Happening, World};
use crate::Action;

/// What a side that has accepted may do, and what it sees.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// It has heard nothing on this queue pair, and so must be silent.
    must_wait: bool,
    /// What comes before this time lies there until something comes later.
    deaf_until: u64,
    unseen: Vec<Happening>,
}

impl World {
    /// `side` has answered.
    pub(super) fn begin_opening(&mut self, side: usize) {
        let Some(deaf_max) = self.laws.opening else {
            return;
        };
        self.openings[side] = Opening {
            must_wait: true,
            deaf_until: self.now + self.rng.below(deaf_max + 1),
            unseen: Vec::new(),
        };
    }

    /// A message has come to `side`.
    pub(super) fn has_heard(&mut self, side: usize) {
        self.openings[side].must_wait = false;
    }

    /// Something comes to `side` from the other one: gives what it sees now, in order.
    pub(super) fn seen(&mut self, side: usize, what: Happening) -> Vec<Happening> {
        let opening = &mut self.openings[side];
        opening.unseen.push(what);
        if self.now < opening.deaf_until {
            return Vec::new();
        }
        core::mem::take(&mut opening.unseen)
    }

    /// # Panics
    /// If `side` sends something before it may.
    pub(super) fn assert_may_send(&self, side: usize, action: &Action) {
        let sends = matches!(
            action,
            Action::PostSend(_)
                | Action::RdmaRead { .. }
                | Action::RdmaWrite { .. }
                | Action::Probe { .. }
                | Action::Knock { .. }
        );
        let may = !sends || !self.openings[side].must_wait || self.nics[side].in_error;
        assert!(
            may,
            "side {side} has accepted and sends before it hears: {action:?}"
        );
    }
}
