//! Who may send first on a queue pair.

use sdp_core::Action;

use super::World;

/// The upper five bits of an input's third byte where only the side that connected may send first, as on
/// iWARP. No input of the corpus has them that was found where both may, so that each stays what it was.
const CALLER_FIRST: u8 = 0xf0;

/// What is allowed, and what has been heard, on the present queue pair.
pub(super) struct Opening {
    caller_first: bool,
    /// The engine has accepted.
    is_called: bool,
    /// A message has come to the engine.
    heard: bool,
}

/// Whether an input with this third byte has the choice made.
pub(super) const fn is_caller_first(byte: u8) -> bool {
    byte & 0xf8 == CALLER_FIRST
}

impl Opening {
    pub(super) const fn new(caller_first: bool, is_called: bool) -> Self {
        Self {
            caller_first,
            is_called,
            heard: false,
        }
    }
}

impl World {
    /// A message comes to the engine.
    pub(super) fn hears(&mut self) {
        self.opening.heard = true;
    }

    /// There is a new queue pair, on which the engine is called, or calls.
    pub(super) fn reopen(&mut self, is_called: bool) {
        self.opening = Opening::new(self.opening.caller_first, is_called);
    }

    /// Who has accepted waits for a message, and who is heard does not knock.
    pub(super) fn check_opening(&self, action: &Action) {
        let Opening {
            caller_first,
            is_called,
            heard,
        } = self.opening;
        let knocks = matches!(action, Action::Knock { .. });
        let sends = knocks
            || matches!(
                action,
                Action::PostSend(_)
                    | Action::RdmaRead { .. }
                    | Action::RdmaWrite { .. }
                    | Action::Probe { .. }
            );
        assert!(
            !(caller_first && is_called && !heard && sends),
            "before it has heard: {action:?}"
        );
        assert!(
            !knocks || (caller_first && !is_called && !heard),
            "a knock where nobody waits for one"
        );
    }
}
