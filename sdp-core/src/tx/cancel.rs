//! When adverts are given up: policy 3 (no reader), policy 4 (the call must end), SendSm, and the
//! cancel with its races (clause §4.8).

use sdp_wire::{Body, Rkey};

use crate::connection::Shared;
use crate::credits::distance;
use crate::error::ConnectionError;
use crate::mark::Mark;
use crate::outbox::Outgoing;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::Tx;
use super::paced::READ_ON;
use super::pipeline::Cancel;

impl Tx {
    /// The pipe has been blocked for `rendezvous_wait` without progress at the peer.
    pub(super) fn is_stalled(&self, sh: &Shared, now: Instant) -> bool {
        self.stalls_at(sh).is_some_and(|at| at <= now)
    }

    /// When it will have been.
    fn stalls_at(&self, sh: &Shared) -> Option<Instant> {
        let wait = sh.patience.for_pace(self.pace);
        let wait = if self.waits_a_moment(sh) {
            wait.min(READ_ON)
        } else {
            wait
        };
        self.blocked_from.map(|from| from + wait)
    }

    /// When policy 3 is to be applied next.
    pub(super) fn set_stall_timer(&self, sh: &mut Shared, now: Instant) {
        let at = if self.pipeline.is_empty() {
            // Only who waits, in a call or polling, needs to be told, and only once.
            let in_call = self.stalls_at(sh).filter(|_| !self.calls.is_empty());
            let ends = [in_call, self.gives_up_at(sh)].into_iter().flatten();
            ends.filter(|at| *at > now).min()
        } else {
            self.pipeline.wait_ends()
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
        if self.pipeline.wait_ends().is_none_or(|at| at > now) {
            return;
        }
        self.pipeline.judged = true;
        sh.patience.was_not_read();
        let Some((taken_to, posted)) = self
            .pipeline
            .front()
            .map(|front| (front.taken_to(), front.is_posted()))
        else {
            return;
        };
        let Some(call) = self.calls.head_mut() else {
            return;
        };
        let messages = sh.credits.available().saturating_sub(2);
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        let room = sh.send_buffer_len() + messages.saturating_mul(sh.data_len_max());
        if call.req.len - taken_to <= room {
            if !posted {
                // There will be no answer that says so.
                call.copy_reason = Some(CopyReason::NoReader);
            }
            self.cancel_all(sh);
        } else {
            sh.control.nudge = true;
        }
    }

    /// Takes back every advert. Those the peer has not heard of go at once.
    pub(super) fn cancel_all(&mut self, sh: &mut Shared) {
        while let Some(advert) = self.pipeline.pop_unposted() {
            sh.reached(Mark::Withdrawn);
            self.withdraw(sh, &advert, false);
        }
        if self.pipeline.is_empty() {
            self.resume(sh);
        } else if self.pipeline.cancel == Cancel::No {
            self.pipeline.cancel = Cancel::Wanted;
        }
    }

    /// Policy 4: the call is to end, so its adverts are taken back. The peer's answer is waited
    /// for at most `cancel_wait`.
    pub(super) fn end_adverts(&mut self, sh: &mut Shared, now: Instant, call: u32) {
        if self
            .pipeline
            .front()
            .is_none_or(|advert| advert.call != call)
        {
            return;
        }
        self.cancel_all(sh);
        if !self.pipeline.is_empty() {
            sh.timers
                .set_once(Timer::Cancel, now, sh.config.cancel_wait);
        }
    }

    /// Sends SrcAvailCancel. It goes behind all data: while an advert is open there is none.
    pub(super) fn flush_cancel(&mut self, sh: &mut Shared) {
        if self.pipeline.cancel != Cancel::Wanted || !sh.can_control() {
            return;
        }
        sh.control.nudge = false;
        let (mseq, _) = sh.send(Outgoing::control(Body::SrcAvailCancel));
        if self.pipeline.len() > 1 {
            sh.reached(Mark::CancelOfSeveral);
        }
        self.pipeline.cancel = Cancel::Sent(mseq);
        sh.credits.set_awaited(self.pipeline.awaited());
    }

    /// The peer gives adverts back (§4.4 rows 9 and 10, §4.8 step 5).
    ///
    /// If it answers the cancel, all are given back and nothing more is owed. Otherwise it refuses
    /// the oldest and expects the rest of that one as Data, even if a cancel of ours is on its way
    /// to it. Adverts behind the refused one are taken back: their bytes follow it in the stream.
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
        let Some(advert) = self.pipeline.open_front() else {
            return Shared::misbehaved("§4.4 row 9: SendSm without an open source advert");
        };
        if invalidated.is_some() && invalidated != advert.rkey {
            return Shared::misbehaved(
                "§4.4 row 12: a key was invalidated that was not advertised",
            );
        }
        let (taken_to, end) = (advert.taken_to(), advert.end());
        self.pipeline.refused_at.get_or_insert(taken_to);
        let answered = matches!(self.pipeline.cancel,
            Cancel::Sent(cancel) if mutant!(RefusalTakenForAnswer) || distance(mseq_ack, cancel) >= 0);
        self.finish_front(sh, invalidated.is_some());
        if let Some(call) = self.calls.head_mut() {
            let interrupted = !self.urgent.is_empty() || sh.suspend.is_on();
            if answered && (!interrupted || self.pipeline.judged) {
                call.copy_reason = Some(CopyReason::NoReader);
            } else if !answered {
                call.copy_reason = Some(CopyReason::PeerRefused);
                call.owed_to = end;
            }
        }
        if answered {
            self.pipeline.cancel = Cancel::No;
            while !self.pipeline.is_empty() {
                self.finish_front(sh, false);
            }
            self.resume(sh);
        } else {
            sh.modes.pipe_declined = true;
            if !self.pipeline.is_empty() {
                sh.reached(Mark::RefusedBeforeOthers);
            }
            self.cancel_all(sh);
        }
        self.on_progress(sh, now);
        Ok(())
    }
}
