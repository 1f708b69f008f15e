//! When an advert is given up: policy 3 (no reader), policy 4 (the call must end), SendSm, and
//! the cancel with its races (clause §4.8).

use sdp_wire::{Body, Rkey};

use crate::connection::Shared;
use crate::credits::distance;
use crate::error::ConnectionError;
use crate::outbox::Outgoing;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::Tx;
use super::zcopy::AdvertState;

impl Tx {
    /// The pipe has been blocked for `rendezvous_wait` without progress at the peer.
    pub(super) fn is_stalled(&self, sh: &Shared, now: Instant) -> bool {
        self.blocked_from
            .is_some_and(|from| from + sh.patience.wait() <= now)
    }

    /// When policy 3 is to be applied next.
    pub(super) fn set_stall_timer(&self, sh: &mut Shared, now: Instant) {
        let at = match &self.advert {
            Some(advert) => match advert.state {
                AdvertState::Open { .. } if !advert.judged => Some(advert.moved_at + advert.wait),
                _ => None,
            },
            // Only a waiting call needs to be told, and only once.
            None => self
                .blocked_from
                .filter(|_| !self.calls.is_empty())
                .map(|from| from + sh.patience.wait())
                .filter(|at| *at > now),
        };
        match at {
            Some(at) => sh.timers.set(Timer::TxStall, at),
            None => sh.timers.clear(Timer::TxStall),
        }
    }

    /// Policy 3: nobody has taken a byte for `rendezvous_wait`. If the rest of the call fits the
    /// buffers of this side and the messages the peer can take, it is copied; otherwise the peer's
    /// progress thread is asked to read ahead.
    pub(crate) fn on_stall(&mut self, sh: &mut Shared, now: Instant) {
        sh.wake.send |= !self.calls.is_empty();
        let Some(advert) = &mut self.advert else {
            return;
        };
        if !matches!(advert.state, AdvertState::Open { .. }) || advert.judged {
            return;
        }
        if advert.moved_at + advert.wait > now {
            return;
        }
        advert.judged = true;
        sh.patience.was_not_read();
        let taken_to = advert.taken_to();
        let Some(call) = self.calls.get_mut(advert.call) else {
            return;
        };
        let messages = sh.credits.available().saturating_sub(2);
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        let room = sh.config.send_buffer_len + messages.saturating_mul(sh.data_len_max());
        if call.req.len - taken_to <= room {
            advert.state = AdvertState::Cancelling { cancel: None };
        } else {
            sh.control.nudge = true;
        }
    }

    /// Policy 4: the call is to end, so its advert is taken back. The peer's answer is waited for
    /// at most `cancel_wait`.
    pub(super) fn end_advert(&mut self, sh: &mut Shared, now: Instant, call: u32) {
        let Some(advert) = self.advert.as_mut().filter(|advert| advert.call == call) else {
            return;
        };
        match advert.state {
            AdvertState::Binding => return,
            AdvertState::Bound(..) => {
                // The peer has not heard of it.
                self.finish_advert(sh, false);
                return;
            }
            AdvertState::Open { .. } => {
                advert.state = AdvertState::Cancelling { cancel: None };
            }
            AdvertState::Cancelling { .. } => {}
        }
        sh.timers
            .set_once(Timer::Cancel, now, sh.config.cancel_wait);
    }

    /// Sends SrcAvailCancel. It goes behind all data: while an advert is open there is none.
    pub(super) fn flush_cancel(&mut self, sh: &mut Shared) {
        let Some(advert) = &mut self.advert else {
            return;
        };
        if advert.state != (AdvertState::Cancelling { cancel: None }) || !sh.can_control() {
            return;
        }
        sh.control.nudge = false;
        let (mseq, _) = sh.send(Outgoing::control(Body::SrcAvailCancel));
        advert.state = AdvertState::Cancelling { cancel: Some(mseq) };
    }

    /// The peer gives the advert back (§4.4 rows 9 and 10, §4.8 step 5).
    ///
    /// If it answers the cancel, nothing more is owed. Otherwise it expects the rest as Data, even
    /// if a cancel of ours is on its way to it: that one finds nothing to cancel and is ignored.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_send_sm(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        mseq_ack: u32,
        invalidated: Option<Rkey>,
    ) -> Result<(), ConnectionError> {
        let Some(advert) = &mut self.advert else {
            return Shared::misbehaved("§4.4 row 9: SendSm without an open source advert");
        };
        let cancel = match advert.state {
            AdvertState::Binding | AdvertState::Bound(..) => {
                return Shared::misbehaved("§4.4 row 9: SendSm without an open source advert");
            }
            AdvertState::Open { .. } => None,
            AdvertState::Cancelling { cancel } => cancel,
        };
        if invalidated.is_some() && invalidated != advert.rkey {
            return Shared::misbehaved(
                "§4.4 row 12: a key was invalidated that was not advertised",
            );
        }
        let (id, end) = (advert.call, advert.taken_to() + advert.remaining());
        let answered = cancel.is_some_and(|cancel| distance(mseq_ack, cancel) >= 0);
        self.finish_advert(sh, invalidated.is_some());
        if let Some(call) = self.calls.get_mut(id) {
            if answered {
                call.copy_reason = Some(CopyReason::NoReader);
            } else {
                call.copy_reason = Some(CopyReason::PeerRefused);
                call.owed_to = end;
            }
        }
        if !answered {
            self.cancel_unconfirmed = cancel;
        }
        self.on_progress(sh, now);
        Ok(())
    }
}
