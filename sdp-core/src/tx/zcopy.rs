//! Read ZCopy, source side (clause §4.4): a key for the peer, SrcAvail, and the bytes it reports.

use core::time::Duration;

use sdp_wire::{Body, RemoteAddr, Rkey, SrcAvail};

use crate::action::{Action, Payload};
use crate::config::ZcopyThreshold;
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::ids::{KeyId, SendId};
use crate::mode::FlowMode;
use crate::outbox::Outgoing;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::{SendCall, Tx};

/// One advert may always be this long, however small the send buffer.
const ADVERT_FLOOR: usize = 256 << 10;

/// Where an advert stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AdvertState {
    /// The driver is making a key.
    Binding,
    /// There is a key; SrcAvail waits for credits.
    Bound(Rkey, RemoteAddr),
    /// The peer may read.
    Open {
        /// MSeq of SrcAvail.
        mseq: u32,
    },
    /// The peer was, or is about to be, told to stop.
    Cancelling {
        /// MSeq of SrcAvailCancel, once it is queued.
        cancel: Option<u32>,
    },
}

/// The advert of the head call.
#[derive(Debug)]
pub(super) struct SrcAdvert {
    pub(super) call: u32,
    pub(super) key: KeyId,
    /// Offset in the call's memory.
    pub(super) at: usize,
    pub(super) len: u32,
    /// Bytes that travelled inside SrcAvail.
    pub(super) inline: u32,
    /// Bytes the peer has reported.
    pub(super) read: u32,
    pub(super) rkey: Option<Rkey>,
    pub(super) state: AdvertState,
    /// Since when no byte was reported.
    pub(super) moved_at: Instant,
    /// Without progress for so long, nobody reads.
    pub(super) wait: Duration,
    /// Policy 3 has been applied since then.
    pub(super) judged: bool,
}

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

fn widen(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl SrcAdvert {
    /// Bytes the peer has not taken.
    pub(super) fn remaining(&self) -> usize {
        widen(self.len - self.inline - self.read)
    }

    /// Bytes of the call taken by this advert and before.
    pub(super) fn taken_to(&self) -> usize {
        self.at + widen(self.inline + self.read)
    }

    fn is_posted(&self) -> bool {
        matches!(
            self.state,
            AdvertState::Open { .. } | AdvertState::Cancelling { .. }
        )
    }
}

impl SendCall {
    /// Length of the advert that starts at `pos`.
    fn advert_len(&self, sh: &Shared, threshold: usize) -> usize {
        let rest = self.segment_rest();
        let len_max = widen(sh.config.advert_len_max);
        let len = rest
            .min(len_max)
            .min(sh.config.send_buffer_len.max(ADVERT_FLOOR));
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
        let clear = self.pipe_is_clear();
        let allowed = sh.modes.tx == FlowMode::Combined && self.cancel_unconfirmed.is_none();
        let Some(id) = self.calls.head().map(|(id, _)| id) else {
            return Advertise::No;
        };
        let Some(call) = self.calls.head_mut() else {
            return Advertise::No;
        };
        let ZcopyThreshold::Bytes(threshold) = sh.config.zcopy_threshold else {
            return Advertise::No;
        };
        let ended = call.end.is_some() || call.fault || call.pos < call.owed_to;
        if ended || !allowed || call.why_copied(sh.config.zcopy_threshold).is_some() {
            return Advertise::No;
        }
        let len = call.advert_len(sh, threshold);
        // At least one byte goes inline and one by advert.
        let Some(len) = u32::try_from(len).ok().filter(|len| *len >= 2) else {
            return Advertise::No;
        };
        if !clear || !sh.can_payload() {
            return Advertise::Blocked;
        }
        call.keys += 1;
        self.next_key = self.next_key.wrapping_add(1);
        let (key, at) = (KeyId(self.next_key), call.pos);
        self.advert = Some(SrcAdvert {
            call: id,
            key,
            at,
            len,
            inline: 0,
            read: 0,
            rkey: None,
            state: AdvertState::Binding,
            moved_at: Instant::default(),
            wait: Duration::ZERO,
            judged: false,
        });
        sh.out.push_work(Action::BindKey {
            key,
            call: SendId(id),
            at,
            len,
        });
        Advertise::Started
    }

    /// The head call's next chunk is advertised without waiting for its thread.
    pub(super) fn advertise_ahead(&mut self, sh: &mut Shared, _now: Instant) {
        let idle = self.advert.is_none()
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

    /// The driver has made the key, or could not.
    pub(crate) fn on_bound(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        key: KeyId,
        result: Result<(Rkey, RemoteAddr), CopyReason>,
    ) {
        let waiting =
            |advert: &&mut SrcAdvert| advert.key == key && advert.state == AdvertState::Binding;
        let Some(advert) = self.advert.as_mut().filter(waiting) else {
            // The connection ended meanwhile, and the key with it.
            return;
        };
        match result {
            Ok((rkey, addr)) => {
                advert.rkey = Some(rkey);
                advert.state = AdvertState::Bound(rkey, addr);
                self.post_advert(sh, now);
            }
            Err(reason) => {
                let call = advert.call;
                self.advert = None;
                if let Some(call) = self.calls.get_mut(call) {
                    call.copy_reason = Some(reason);
                }
                self.key_died(sh, call);
            }
        }
    }

    /// Sends SrcAvail once there is a key and a credit.
    pub(super) fn post_advert(&mut self, sh: &mut Shared, now: Instant) {
        let Some(advert) = &mut self.advert else {
            return;
        };
        let AdvertState::Bound(rkey, addr) = advert.state else {
            return;
        };
        if !sh.can_payload() {
            return;
        }
        let body = Body::SrcAvail(SrcAvail {
            len: advert.len,
            rkey,
            addr,
        });
        let recv_len = sh.peer.map_or(0, |peer| peer.recv_buffer_len);
        let room = widen(recv_len).saturating_sub(body.head_len());
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let inline = sh.config.inline_len.max(1).min(room).min(advert.len - 1);
        let (mseq, _) = sh.send(Outgoing {
            payload: Payload::Call {
                call: SendId(advert.call),
                at: advert.at,
                len: inline,
            },
            ..Outgoing::control(body)
        });
        advert.inline = inline;
        advert.state = AdvertState::Open { mseq };
        advert.moved_at = now;
        advert.wait = sh.patience.next();
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
        let Some(advert) = self.advert.as_mut().filter(|advert| advert.is_posted()) else {
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
        advert.moved_at = now;
        if !advert.judged {
            // Not what the peer was asked to read ahead.
            sh.patience.was_read();
        }
        advert.judged = false;
        sh.control.nudge = false;
        sh.stats.tx_bytes_zcopy += u64::from(len);
        let (id, taken_to, finished) = (advert.call, advert.taken_to(), advert.remaining() == 0);
        if let Some(call) = self.calls.get_mut(id) {
            call.accepted = taken_to;
        }
        if finished {
            // A cancel that crossed this is ignored by the peer and needs no answer (§4.8).
            self.finish_advert(sh, invalidated.is_some());
        }
        self.on_progress(sh, now);
        Ok(())
    }

    /// The advert is over: bytes up to `taken_to` are the peer's. Its key dies.
    pub(super) fn finish_advert(&mut self, sh: &mut Shared, key_dead: bool) {
        let Some(advert) = self.advert.take() else {
            return;
        };
        sh.stats.tx_bytes_inline += u64::from(advert.inline);
        sh.control.nudge = false;
        sh.timers.clear(Timer::Cancel);
        if let Some(call) = self.calls.get_mut(advert.call) {
            call.pos = advert.taken_to();
            call.accepted = call.pos;
        }
        if key_dead {
            sh.out.push(Action::ForgetKey(advert.key));
            self.key_died(sh, advert.call);
        } else {
            self.to_kill.push_back((advert.key, advert.call));
        }
        sh.wake.send = true;
    }

    /// The inline bytes are the peer's as soon as it has confirmed SrcAvail.
    pub(super) fn credit_inline(&mut self, sh: &Shared) {
        let Some(advert) = &self.advert else {
            return;
        };
        if let AdvertState::Open { mseq } = advert.state
            && sh.credits.is_acked(mseq)
            && let Some(call) = self.calls.get_mut(advert.call)
        {
            call.accepted = advert.taken_to();
        }
    }
}
