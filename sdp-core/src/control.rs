//! Control messages that wait for a credit or a slot. They wait as facts, not as messages, so
//! that the wait needs no memory and what can be merged is.

use sdp_wire::{Body, Rkey};

use crate::connection::Shared;
use crate::outbox::Outgoing;
use crate::resize::Resize;

/// Bytes of the peer's advert that were read and not yet reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ReadReport {
    len: u32,
    /// This completes the advert, and its key may be invalidated with the report.
    invalidate: Option<Rkey>,
}

/// What is owed to the peer.
#[derive(Debug, Default)]
pub(crate) struct Control {
    read_report: Option<ReadReport>,
    send_sm: bool,
    /// Ask the peer's progress thread to take part (policy 3).
    pub(crate) nudge: bool,
    pub(crate) resize: Resize,
    /// MSeqAck is held below a SrcAvailCancel, and the next answer ends that.
    answers_cancel: bool,
}

impl Control {
    /// `len` bytes of the open advert were read. Reports that wait are merged: each counts what
    /// is new since the last one sent (§4.4 row 7).
    pub(crate) fn report_read(&mut self, len: u32, invalidate: Option<Rkey>) {
        let waiting = self.read_report.map_or(0, |report| report.len);
        self.read_report = Some(ReadReport {
            len: waiting + len,
            invalidate,
        });
    }

    /// The open advert is given back unread, as far as not reported.
    pub(crate) fn send_sm(&mut self) {
        self.send_sm = true;
    }

    /// The answer queued, or the last one that is sent, ends the hold on MSeqAck.
    pub(crate) fn answers_cancel(&mut self) {
        self.answers_cancel = true;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Shared {
    /// Sends the answers that are owed, as far as credits and slots allow. Their order is that of
    /// the rules: bytes read, then SendSm (§4.4 row 9).
    pub(crate) fn flush_control(&mut self) {
        if let Some(report) = self.control.read_report {
            if !self.can_control() {
                return;
            }
            let last = !self.control.send_sm;
            let releases_ack = last && core::mem::take(&mut self.control.answers_cancel);
            self.control.read_report = None;
            self.send(Outgoing {
                invalidate: report.invalidate,
                releases_ack,
                ..Outgoing::control(Body::RdmaRdCompl { len: report.len })
            });
        }
        if self.control.send_sm {
            if !self.can_control() {
                return;
            }
            self.control.send_sm = false;
            let releases_ack = core::mem::take(&mut self.control.answers_cancel);
            self.send(Outgoing {
                releases_ack,
                ..Outgoing::control(Body::SendSm)
            });
        }
        if self.control.resize.ack_due() && self.can_control() {
            self.control.resize.on_ack_sent();
            let size = self.config.recv_buffer_len;
            self.send(Outgoing::control(Body::ChRcvBufAck { size }));
        }
    }

    /// Sends a nudge. It leaves two credits, so that a cancel can follow it.
    pub(crate) fn flush_nudge(&mut self) {
        if self.control.nudge && self.credits.payload_allowed() && self.out.has_slot() {
            self.control.nudge = false;
            self.send_update(true);
        }
    }

    /// Sends a credit update if one is due and nothing else carries the credits.
    pub(crate) fn flush_update(&mut self) {
        if !self.out.has_messages() && self.credits.update_due() && self.out.has_slot() {
            self.send_update(false);
        }
    }
}
