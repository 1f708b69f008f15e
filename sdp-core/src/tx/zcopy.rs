//! Read ZCopy, source side (clause §4.4): a key for the peer, SrcAvail, and the bytes it reports.

use sdp_wire::{Body, RemoteAddr, Rkey, SrcAvail};

use crate::action::{Action, Payload};
use crate::config::ZcopyThreshold;
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::ids::{CallId, KeyId, SendId};
use crate::mark::Mark;
use crate::mode::FlowMode;
use crate::outbox::{HoldEnd, Outgoing};
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::pipeline::{AdvertState, Cancel, SrcAdvert, widen};
use super::{SendCall, Tx};

/// One advert may always be this long, however small the send buffer.
const ADVERT_FLOOR: usize = 256 << 10;

/// Whether the head call's next bytes go by advert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Advertise {
    /// A key is being made.
    Started,
    /// They should, when the pipe is clear.
    Blocked,
    /// They are to be copied.
    No,
}

impl SendCall {
    /// Length of the advert that starts at `pos`.
    fn advert_len(&self, sh: &Shared, threshold: usize) -> usize {
        let rest = self.segment_rest();
        let len_max = widen(sh.config.advert_len_max);
        let len = rest
            .min(len_max)
            .min(sh.send_buffer_len().max(ADVERT_FLOOR));
        // A tail too short for an advert of its own goes with the last one.
        let tail = rest - len;
        if tail < threshold && tail <= len {
            rest
        } else {
            len
        }
    }
}

impl Tx {
    /// Starts an advert for the head call if its next bytes are to go that way.
    pub(super) fn advertise(&mut self, sh: &mut Shared) -> Advertise {
        let Some((id, call)) = self.calls.head() else {
            return Advertise::No;
        };
        if self.writes.is_offered() {
            let good = call.is_free() && call.may_be_written(sh.config.zcopy_threshold);
            return if good { self.write(sh) } else { Advertise::No };
        }
        let ZcopyThreshold::Bytes(threshold) = sh.config.zcopy_threshold else {
            return Advertise::No;
        };
        let barred = sh.modes.tx == FlowMode::Buffered
            || self.pipeline.unconfirmed.is_some()
            || self.pipeline.cancel != Cancel::No
            || self.pipeline.refused_at.is_some();
        if !call.is_free() || barred || call.why_copied(sh.config.zcopy_threshold).is_some() {
            return Advertise::No;
        }
        // In Combined mode at least one byte goes inline and one by advert.
        let len = u32::try_from(call.advert_len(sh, threshold)).ok();
        let Some(len) = len.filter(|len| *len >= 2) else {
            return Advertise::No;
        };
        let at = call.pos;
        if !self.pipe_is_clear() || !sh.can_payload() || !self.may_place(sh, len) {
            return Advertise::Blocked;
        }
        let key = sh.make_key(CallId::Send(SendId(id)), at, len);
        sh.sources_out += 1;
        self.pipeline.push(SrcAdvert {
            call: id,
            key,
            at,
            len,
            inline: 0,
            read: 0,
            rkey: None,
            state: AdvertState::Binding,
        });
        if let Some(call) = self.calls.head_mut() {
            call.pos += widen(len);
            call.keys += 1;
        }
        Advertise::Started
    }

    /// An advert of `len` bytes may be open beside those that are. A second one makes the half
    /// Pipelined.
    fn may_place(&self, sh: &mut Shared, len: u32) -> bool {
        let open = sh.sources_out + sh.sinks_out;
        if self.pipeline.is_empty() {
            return sh.sinks_out == 0 || open < sh.peer.map_or(1, |p| usize::from(p.adverts_max));
        }
        let open_max = sh.peer.map_or(1, |peer| usize::from(peer.adverts_max));
        let fits = self.pipeline.remaining() + widen(len) <= sh.send_buffer_len();
        open < open_max && fits && sh.enter_pipelined()
    }

    /// The head call's next chunk is advertised without waiting for its thread. One key is made at
    /// a time: keys take slots of the send queue that only the messages behind them give back.
    pub(super) fn advertise_ahead(&mut self, sh: &mut Shared) {
        let idle = self.pipeline.next_unposted().is_none()
            && sh.life.is_open()
            && !sh.life.tx_shut()
            && self
                .calls
                .head()
                .is_some_and(|(_, call)| call.copying.is_none() && call.pos > 0 && call.rest() > 0);
        if idle {
            self.advertise(sh);
        }
    }

    /// The driver has made the key, or could not. Says whether it was one of this half's.
    pub(crate) fn on_bound(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        key: KeyId,
        result: Result<(Rkey, RemoteAddr), CopyReason>,
    ) -> bool {
        let withdrawn = &mut self.pipeline.withdrawn;
        if let Some(index) = withdrawn.iter().position(|(other, _)| *other == key) {
            let (_, call) = withdrawn.swap_remove(index);
            match result {
                Ok(_) => sh.kill_key(key, CallId::Send(SendId(call))),
                Err(_) => self.key_died(sh, call),
            }
            return true;
        }
        let Some(advert) = self.pipeline.binding(key) else {
            return false;
        };
        match result {
            Ok((rkey, addr)) => {
                advert.rkey = Some(rkey);
                advert.state = AdvertState::Bound(rkey, addr);
                self.post_adverts(sh, now);
                if self
                    .pipeline
                    .front()
                    .is_some_and(|front| front.key == key && !front.is_posted())
                {
                    self.pipeline.await_reader(now, sh.patience.wait());
                }
            }
            Err(reason) => {
                let id = advert.call;
                if let Some(call) = self.calls.get_mut(id) {
                    call.copy_reason = Some(reason);
                }
                // Those behind it are not wanted either: what is copied comes first.
                while let Some(advert) = self.pipeline.pop_from(key) {
                    self.withdraw(sh, &advert, advert.key == key);
                }
                self.resume(sh);
            }
        }
        true
    }

    /// An advert that the peer has not heard of is not wanted any more. `failed`: its key could
    /// not be made.
    pub(super) fn withdraw(&mut self, sh: &mut Shared, advert: &SrcAdvert, failed: bool) {
        if let Some(call) = self.calls.get_mut(advert.call) {
            call.pos = advert.at;
        }
        sh.sources_out -= 1;
        match advert.state {
            _ if failed => self.key_died(sh, advert.call),
            AdvertState::Binding => self.pipeline.withdrawn.push((advert.key, advert.call)),
            _ => sh.kill_key(advert.key, CallId::Send(SendId(advert.call))),
        }
    }

    /// Sends SrcAvails for which there are a key and a credit, in order.
    pub(super) fn post_adverts(&mut self, sh: &mut Shared, now: Instant) {
        let cancel = self.pipeline.cancel != Cancel::No;
        while !cancel && sh.can_payload() {
            let Some((open, advert)) = self.pipeline.next_unposted() else {
                return;
            };
            let AdvertState::Bound(rkey, addr) = advert.state else {
                return;
            };
            let body = Body::SrcAvail(SrcAvail {
                len: advert.len,
                rkey,
                addr,
            });
            let inline = match sh.modes.tx {
                FlowMode::Pipelined => 0,
                _ => sh.inline_len(&body).min(advert.len - 1),
            };
            assert!(
                open == 0 || sh.modes.tx == FlowMode::Pipelined,
                "a second source advert in Combined mode"
            );
            assert!(
                !self.writes.is_offered(),
                "a source advert with an offer in hand (§4.7)"
            );
            let payload = match inline {
                0 => Payload::None,
                len => Payload::Call {
                    call: SendId(advert.call),
                    at: advert.at,
                    len,
                },
            };
            // It must not seem to know of a refusal that comes before it leaves.
            sh.credits.hold_refusal();
            let (mseq, _) = sh.send(Outgoing {
                payload,
                hold: HoldEnd::After,
                ..Outgoing::control(body)
            });
            advert.inline = inline;
            advert.state = AdvertState::Open { mseq };
            sh.stats.tx_adverts_open_max = sh.stats.tx_adverts_open_max.max(open as u64 + 1);
            if inline > 0 {
                self.count_payload(sh);
            }
            if open > 0 {
                sh.reached(Mark::SeveralAdverts);
            } else {
                self.pipeline.await_reader(now, sh.patience.next());
            }
        }
    }

    /// The peer has read `len` bytes more (§4.4 rows 7 and 8).
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_rd_compl(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        len: u32,
        invalidated: Option<Rkey>,
    ) -> Result<(), ConnectionError> {
        if self.pipeline.refused_at.is_some() {
            return Shared::misbehaved("§4.4 row 11: RdmaRdCompl before the refused bytes came");
        }
        let Some(advert) = self.pipeline.open_front() else {
            return Shared::misbehaved("§4.4 row 7: RdmaRdCompl without an open source advert");
        };
        if widen(len) > advert.remaining() {
            return Shared::misbehaved("§4.4 row 8: RdmaRdCompl beyond the advertised bytes");
        }
        if invalidated.is_some() && invalidated != advert.rkey {
            return Shared::misbehaved(
                "§4.4 row 12: a key was invalidated that was not advertised",
            );
        }
        advert.read += len;
        let (id, taken_to, finished) = (advert.call, advert.taken_to(), advert.remaining() == 0);
        self.pipeline.moved_at = now;
        if !self.pipeline.judged {
            // Not what the peer was asked to read ahead.
            sh.patience.was_read();
        } else if finished && matches!(self.pipeline.cancel, Cancel::Sent(_)) {
            sh.patience.was_being_read();
        }
        self.pipeline.judged = false;
        sh.control.nudge = false;
        sh.stats.tx_bytes_zcopy += u64::from(len);
        if let Some(call) = self.calls.get_mut(id) {
            call.accepted = taken_to;
        }
        if finished {
            self.finish_front(sh, invalidated.is_some());
            // A cancel that crossed this is ignored by the peer and needs no answer (§4.8).
            self.resume(sh);
            self.credit_inline(sh);
        }
        self.on_progress(sh, now);
        Ok(())
    }

    /// The oldest advert is over: its key dies.
    pub(super) fn finish_front(&mut self, sh: &mut Shared, key_dead: bool) {
        let Some(advert) = self.pipeline.pop() else {
            return;
        };
        sh.sources_out -= 1;
        sh.stats.tx_bytes_inline += u64::from(advert.inline);
        if key_dead {
            sh.out.push(Action::ForgetKey(advert.key));
            self.key_died(sh, advert.call);
        } else {
            sh.kill_key(advert.key, CallId::Send(SendId(advert.call)));
        }
        sh.wake.send = true;
    }

    /// If no advert is open any more, the head call goes on behind the last byte the peer took.
    pub(super) fn resume(&mut self, sh: &mut Shared) {
        if !self.pipeline.is_empty() {
            return;
        }
        sh.control.nudge = false;
        if self.writes.is_quiet() {
            sh.timers.clear(Timer::Cancel);
        }
        let cancel = core::mem::replace(&mut self.pipeline.cancel, Cancel::No);
        if matches!(cancel, Cancel::Sent(_)) {
            sh.reached(match self.pipeline.refused_at {
                Some(_) => Mark::RefusalCrossedCancel,
                None => Mark::ReportCrossedCancel,
            });
        }
        if let Some(at) = self.pipeline.refused_at.take() {
            if let Some(call) = self.calls.head_mut() {
                call.pos = at;
            }
            // The refusal crossed the cancel, which the peer has yet to ignore.
            if let Cancel::Sent(mseq) = cancel
                && !sh.credits.is_acked(mseq)
            {
                self.pipeline.unconfirmed = Some(mseq);
            }
        }
        sh.wake.send = true;
    }

    /// The inline bytes are the peer's as soon as it has confirmed SrcAvail.
    pub(super) fn credit_inline(&mut self, sh: &Shared) {
        if let Some(advert) = self.pipeline.open_front()
            && let AdvertState::Open { mseq } = advert.state
            && sh.credits.is_acked(mseq)
            && !mutant!(PartialCountWithoutInline)
        {
            let (id, taken_to) = (advert.call, advert.taken_to());
            if let Some(call) = self.calls.get_mut(id) {
                call.accepted = call.accepted.max(taken_to);
            }
        }
    }
}
