//! The first message, where the side that connected must send it: on iWARP. There MPA forbids the other
//! side to send before (RFC 5044 §7.1; RFC 6581 §1), and Soft-iWARP ends a connection whose
//! answer is followed by a message before it has been read.
//!
//! The side that connected sends an empty Data at once; by it the other side knows that it may send,
//! and answers by an empty Data.

use core::time::Duration;

use crate::action::Action;
use crate::connection::Shared;
use crate::time::Instant;
use crate::timer::Timer;

/// When the side that connected looks for the answer; later ever twice as late.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// How often it looks: for 1.3 s in all. Whoever has not heard by then hears nothing.
const LOOKS_MAX: u32 = 8;

/// How long the side that accepted waits for the first message.
const FIRST_MESSAGE_MAX: Duration = Duration::from_secs(10);

/// What the side that connected has done to be heard.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    looks: u32,
    /// It has spoken, and nothing shows yet that it was heard.
    unheard: bool,
}

impl Opening {
    /// Something has come from the other side, which sends nothing before it hears.
    pub(crate) fn answered(&mut self) {
        self.unheard = false;
    }

    /// What was sent may lie there unseen, and is lost if the connection ends now.
    pub(crate) const fn is_unheard(&self) -> bool {
        self.unheard
    }
}

impl Shared {
    /// The connection is there, and this side has connected: sends the message that lets the other one
    /// send.
    pub(crate) fn speak_first(&mut self, now: Instant) {
        if self.config.caller_first {
            self.send_update(true);
            self.opening.unheard = true;
            self.timers.set(Timer::Opening, now + FIRST_LOOK);
        }
    }

    /// This side has accepted, and may not send yet.
    pub(crate) fn await_first_message(&mut self, now: Instant) {
        if self.config.caller_first && !mutant!(AcceptorFirst) {
            self.credits.mute(true);
            self.timers.set(Timer::Opening, now + FIRST_MESSAGE_MAX);
        }
    }

    /// The first message has come to the side that has accepted. If that leaves it no credit for an
    /// answer, whatever it sends next is one.
    pub(crate) fn answer_first(&mut self) {
        if self.config.caller_first {
            self.credits.mute(false);
            self.timers.clear(Timer::Opening);
            if self.can_control() {
                self.send_update(true);
            }
        }
    }

    /// There should have been an answer. Soft-iWARP puts its functions under the accepting socket only
    /// after the reply that lets this side send (siw_cm.c, `siw_accept`): what comes in between lies
    /// there until something else comes, such as a knock.
    pub(crate) fn on_opening(&mut self, now: Instant) {
        if !self.opening.unheard || self.opening.looks == LOOKS_MAX {
            return;
        }
        if self.out.has_slot() && !mutant!(NeverKnocks) {
            self.out.push_signalled(|work| Action::Knock { work });
        }
        self.opening.looks += 1;
        let wait = FIRST_LOOK * (1 << self.opening.looks);
        self.timers.set(Timer::Opening, now + wait);
    }
}
