//! Sending by copy: into a message if it can be sent, else into private memory.

use crate::call::{CopyTarget, SendStep};
use crate::config::ZcopyThreshold;
use crate::connection::Shared;
use crate::error::CallError;
use crate::ids::GrantId;
use crate::stats::CopyReason;
use crate::time::Instant;

use super::paced::Private;
use super::urgent::PEND_REACH;
use super::zcopy::Advertise;
use super::{SendCall, Tx};

/// Bytes copied to private memory at a time, so that the first can be on their way before the
/// last are copied.
const PRIVATE_COPY_MAX: usize = 256 << 10;

/// From so many bytes on what remains of a send waits a moment for the credits that a reader gives, if
/// nothing is buffered yet: in private memory it would be copied once more, which costs more than the wait.
/// What fills a message waits as long as it is worth.
const WORTH_A_MOMENT: usize = 16 << 10;

impl SendCall {
    /// Bytes not yet handed to a mechanism.
    pub(super) const fn rest(&self) -> usize {
        self.req.len - self.pos
    }

    /// The peer still expects bytes of a refused advert.
    pub(super) const fn is_owing(&self) -> bool {
        self.pos < self.owed_to && !self.fault
    }

    /// Bytes of this call that are sent before anything else is: those of the copy being made, and
    /// those owed to the peer, from where it has refused on if other adverts are still to come back.
    pub(super) fn under_way(&self, refused_at: Option<usize>) -> usize {
        let copying = self.copying.map_or(0, |(_, len)| len);
        let from = refused_at.map_or(self.pos, |at| at.min(self.pos));
        copying.max(self.owed_to.saturating_sub(from))
    }

    /// Nothing stands in the way of handing on its next bytes.
    pub(super) fn is_free(&self) -> bool {
        let ended = self.end.is_some() || self.fault || self.pos < self.owed_to;
        !ended && self.copying.is_none() && self.rest() > 0
    }

    /// Its bytes may be written straight into memory that the peer offers, the last few of them
    /// included.
    pub(super) fn may_be_written(&self, threshold: ZcopyThreshold) -> bool {
        let ZcopyThreshold::Bytes(threshold) = threshold else {
            return false;
        };
        let barred = self.copy_reason.or(self.req.copy_reason).is_some();
        !barred && !self.req.nonblocking && self.req.len >= threshold
    }

    /// Bytes from here to the end of the contiguous piece that `pos` lies in.
    pub(super) fn segment_rest(&self) -> usize {
        let ends = &self.req.segment_ends;
        let end = ends.iter().copied().find(|end| *end > self.pos);
        end.unwrap_or(self.req.len).min(self.req.len) - self.pos
    }

    /// Why the bytes at `pos` are copied, if nothing else stands against an advert than the
    /// request and the settings: `None`.
    pub(super) fn why_copied(&self, threshold: ZcopyThreshold) -> Option<CopyReason> {
        if self.copy_reason.is_some() {
            return self.copy_reason;
        }
        if self.req.copy_reason.is_some() {
            return self.req.copy_reason;
        }
        if self.req.nonblocking {
            return Some(CopyReason::NonBlocking);
        }
        let ZcopyThreshold::Bytes(threshold) = threshold else {
            return Some(CopyReason::ThresholdOff);
        };
        if self.segment_rest() >= threshold {
            None
        } else if self.req.len < threshold {
            Some(CopyReason::BelowThreshold)
        } else {
            Some(CopyReason::Tail)
        }
    }

    /// The reason to be counted for bytes that were copied.
    pub(super) fn reason(&self, sh: &Shared) -> CopyReason {
        self.why_copied(sh.config.zcopy_threshold)
            .unwrap_or(CopyReason::NoAdvertAllowed)
    }

    /// Bytes from `pos` on that are to be copied: up to a piece that may be advertised.
    fn copy_run(&self, threshold: ZcopyThreshold) -> usize {
        let ZcopyThreshold::Bytes(threshold) = threshold else {
            return self.rest();
        };
        if self.copy_reason.is_some() || self.req.copy_reason.is_some() || self.req.nonblocking {
            return self.rest();
        }
        let mut start = self.pos + self.segment_rest();
        for end in &self.req.segment_ends {
            if *end > start {
                if *end - start >= threshold {
                    break;
                }
                start = *end;
            }
        }
        start.min(self.req.len) - self.pos
    }
}

impl Tx {
    /// The head call has bytes left: advertise or copy them.
    pub(super) fn next_step(&mut self, sh: &mut Shared, now: Instant) -> SendStep {
        let advertise = self.advertise(sh);
        if advertise == Advertise::Started {
            return SendStep::Wait;
        }
        self.copy_step(sh, now, advertise == Advertise::Blocked)
    }

    /// The head call's rest is short of a message, and yet too long to be copied twice while its reader may
    /// be about to make room.
    pub(super) fn waits_a_moment(&self, sh: &Shared) -> bool {
        (WORTH_A_MOMENT..sh.data_len_max()).contains(&self.head_rest()) && self.private.is_empty()
    }

    fn head_rest(&self) -> usize {
        self.calls.head().map_or(0, |(_, call)| call.rest())
    }

    fn copy_step(&mut self, sh: &mut Shared, now: Instant, advert_blocked: bool) -> SendStep {
        let clear = self.pipe_is_clear() && !self.leaves_last_call(sh, now);
        let free = self.private.free(sh.send_buffer_len());
        let stalled = self.is_stalled(sh, now);
        let is_long = self.waits_a_moment(sh) || self.head_rest() >= sh.data_len_max();
        let behind_urgent = !self.urgent.is_empty();
        let buffered = match self.calls.head() {
            Some((_, call)) if call.req.nonblocking && !(clear && sh.can_payload()) => {
                self.may_buffer(sh, now)
            }
            _ => Private::Yes,
        };
        let Some(call) = self.calls.head_mut() else {
            return SendStep::Wait;
        };
        let at = call.pos;
        let owed = call.owed_to.saturating_sub(call.pos);
        let run = match owed {
            // What interrupted this call goes first, and does not take long.
            0 if behind_urgent => return SendStep::Wait,
            0 => call.copy_run(sh.config.zcopy_threshold),
            owed => owed,
        };
        let data_max = sh.data_len_max();
        let run = match call.rest().checked_sub(PEND_REACH + 1) {
            // The message with the urgent byte can announce it.
            Some(before) if call.req.urgent && before > 0 => run.min(before),
            _ => run,
        };
        // Only a small call is held back for others: a large one has enough to fill messages, or nearly.
        let gather = call.rest() < data_max.min(WORTH_A_MOMENT) && sh.coalesce();
        if clear && sh.can_payload() && !call.grant_failed && !advert_blocked && !gather {
            self.next_grant = self.next_grant.wrapping_add(1);
            let to = CopyTarget::Message(GrantId(self.next_grant));
            let len = run.min(data_max);
            call.copying = Some((to, len));
            return SendStep::Copy { at, len, to };
        }
        // Owed bytes may exceed the send buffer: the advert they belonged to was bounded by it.
        let free = free.max(owed);
        let nonblocking = call.req.nonblocking || call.end.is_some();
        let patient = !nonblocking && owed == 0;
        let wait = if advert_blocked {
            // What does not fit waits for credits, and is advertised then.
            !stalled || call.rest() > free
        } else {
            patient && !stalled && is_long && !call.grant_failed
        };
        let free = match buffered {
            Private::Yes => free,
            _ if owed > 0 || call.grant_failed => free,
            Private::Message => free.min(data_max),
            Private::No => 0,
        };
        if free > 0 && !wait && !call.private_failed {
            if sh.out.has_urgent() {
                // Those bytes go to private memory first. A driver may do several copies before it
                // polls the next action.
                sh.wake.send = true;
                return SendStep::Wait;
            }
            if advert_blocked {
                call.copy_reason = Some(CopyReason::NoReader);
            }
            let (to, len) = (CopyTarget::Private, run.min(free).min(PRIVATE_COPY_MAX));
            call.copying = Some((to, len));
            return SendStep::Copy { at, len, to };
        }
        if nonblocking && owed == 0 {
            return SendStep::Done(match call.accepted {
                0 => Err(CallError::WouldBlock),
                accepted => Ok(accepted),
            });
        }
        self.blocked_from.get_or_insert(now);
        self.set_stall_timer(sh, now);
        self.hurry(sh, now);
        SendStep::Wait
    }
}
