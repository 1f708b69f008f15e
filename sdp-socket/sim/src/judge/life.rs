//! The phases of a connection, by what its side does and hears.

use sdp_wire::{Body, Head};

use super::legal::Case;

const HANDSHAKE: &str = "Handshake";
const OPEN: &str = "Open";
const MOVING: &str = "Moving";
const CLOSING: &str = "Closing";
const CLOSED: &str = "Closed";

/// A stream's last handle goes; a program ends its sending half; a connection that no program has
/// is given up. By their names in the snapshot of phases.
pub(crate) const CLOSE: &str = "close()";
pub(crate) const SHUTDOWN: &str = "shutdown()";
pub(crate) const ABORT: &str = "abort()";

/// Where one side stands.
#[derive(Debug)]
pub(super) struct Life {
    phase: &'static str,
    /// One of the halves has ended, or is to.
    closes: bool,
    /// What the program does just now.
    act: Option<&'static str>,
    /// AbortConn has been sent.
    aborts: bool,
    /// It was over from this phase on, and nobody has said why.
    fell_from: Option<&'static str>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            phase: HANDSHAKE,
            closes: false,
            act: None,
            aborts: false,
            fell_from: None,
        }
    }
}

impl Life {
    fn go(&mut self, input: &'static str, to: &'static str) -> Option<Case> {
        let from = std::mem::replace(&mut self.phase, to);
        self.closes |= to == CLOSING;
        (from != to).then_some(Case::Step { from, input, to })
    }

    /// The other side has answered, or has confirmed the answer.
    pub(super) fn confirmed(&mut self) -> Option<Case> {
        match self.phase {
            HANDSHAKE => self.go("confirmation", OPEN),
            MOVING => self.go("confirmation", self.on_the_next()),
            _ => None,
        }
    }

    /// On its next queue pair it is what it was.
    const fn on_the_next(&self) -> &'static str {
        if self.closes { CLOSING } else { OPEN }
    }

    /// A message has come.
    pub(super) fn hears(&mut self, head: &Head, said_fin: bool) -> Option<Case> {
        match (head.body, self.phase) {
            (_, CLOSED) => None,
            (Body::AbortConn, _) => self.go("AbortConn", CLOSED),
            (Body::DisConn, _) if said_fin => self.go("DisConn", CLOSED),
            (Body::DisConn, _) => self.go("DisConn", CLOSING),
            (Body::SuspCommAck, _) => self.go("SuspCommAck", MOVING),
            (_, HANDSHAKE) => self.go("first message", OPEN),
            (_, MOVING) => self.go("first message", self.on_the_next()),
            _ => None,
        }
    }

    /// SuspCommAck goes, behind which nothing comes on this queue pair.
    pub(super) const fn leaves(&mut self) {
        self.phase = MOVING;
    }

    /// AbortConn goes: by whatever limit or call, the engine aborts.
    pub(super) const fn aborts(&mut self) {
        self.aborts = true;
    }

    /// The queue pair is in error.
    pub(super) fn falls(&mut self) -> Option<Case> {
        let aborted = self.aborts.then_some(ABORT);
        match self.act.or(aborted) {
            // A call that ends a connection between two queue pairs is one that aborts it.
            Some(_) if self.phase == MOVING => self.go(ABORT, CLOSED),
            Some(input) => self.go(input, CLOSED),
            None => {
                let from = std::mem::replace(&mut self.phase, CLOSED);
                self.fell_from = (from != CLOSED).then_some(from);
                None
            }
        }
    }

    pub(super) const fn begins(&mut self, act: &'static str) {
        self.act = Some(act);
    }

    /// The program has done what it began. If that did not end the connection, it is closing.
    pub(super) fn has_done(&mut self, act: &'static str) -> Option<Case> {
        self.act = None;
        match self.phase {
            OPEN if act != ABORT => self.go(act, CLOSING),
            MOVING => {
                self.closes = true;
                None
            }
            _ => None,
        }
    }

    /// What ended it was this.
    pub(super) fn blamed(&mut self, input: &'static str) -> Option<Case> {
        let from = self.fell_from.take()?;
        let to = CLOSED;
        Some(Case::Step { from, input, to })
    }
}
