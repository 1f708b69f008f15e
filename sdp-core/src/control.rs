//! Control messages that wait for a credit or a slot. They wait as facts, not as messages, so
//! that the wait needs no memory and what can be merged is.

use sdp_wire::Body;

use crate::connection::Shared;
use crate::outbox::Outgoing;

/// What is owed to the peer.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Ask the peer's progress thread to take part (policy 3).
    pub(crate) nudge: bool,
    /// SinkCancelAck is owed. It goes before any later payload, which the peer would otherwise take
    /// for an end of the offer (§4.6).
    pub(crate) sink_cancel_ack: bool,
}

impl Control {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Shared {
    /// Sends the answers that are owed, as far as credits and slots allow.
    pub(crate) fn flush_control(&mut self) {
        if self.control.sink_cancel_ack && self.can_control() {
            self.control.sink_cancel_ack = false;
            self.send(Outgoing::control(Body::SinkCancelAck));
        }
        self.flush_resize_ack();
    }

    /// Sends a nudge. It leaves two credits, so that a cancel can follow it.
    pub(crate) fn flush_nudge(&mut self) {
        let may = self.credits.payload_allowed() && self.out.has_slot() && !self.suspend.is_on();
        if self.control.nudge && may {
            self.control.nudge = false;
            self.send_update(true);
        }
    }

    /// Sends a credit update if one is due and nothing else carries the credits.
    #[inline]
    pub(crate) fn flush_update(&mut self) {
        let silent = self.suspend.is_silent();
        if !silent && !self.out.has_messages() && self.credits.update_due() && self.out.has_slot() {
            self.send_update(false);
        }
    }
}
