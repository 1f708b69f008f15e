//! The sending half: calls taking turns, private send memory, and the adverts of the call whose
//! turn it is.
//!
//! Bytes leave in the order of the calls. What is ahead of a new byte is, from the front: messages
//! filled but not posted, a copy from private memory into a message, the rest of private memory.
//! Only when all of these are empty the *pipe is clear*, and a call may fill a message itself or
//! advertise.

mod at_once;
mod bcopy;
mod cancel;
mod paced;
mod pipeline;
mod private;
mod urgent;
mod write;
mod zcopy;

use alloc::collections::VecDeque;
use core::time::Duration;

use sdp_wire::{Body, Flags};

use crate::action::Payload;
use crate::call::{CopyTarget, EndCall, SendRequest, SendStep};
use crate::connection::Shared;
use crate::error::CallError;
use crate::ids::{GrantId, JobId, SendId, WorkId};
use crate::outbox::Outgoing;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;
use crate::turns::Turns;

use pipeline::{Cancel, Pipeline};
use private::Private;
use urgent::Urgent;
use write::Writes;

pub(crate) use urgent::Pend;

/// A message buffer with payload, waiting for a credit.
#[derive(Clone, Copy, Debug)]
struct Filled {
    grant: GrantId,
    len: u32,
    /// Its last byte is urgent.
    urgent: bool,
}

/// A send call in progress.
#[derive(Debug)]
struct SendCall {
    req: SendRequest,
    /// Bytes handed to some mechanism, those advertised included.
    pos: usize,
    /// Bytes accepted for certain.
    accepted: usize,
    /// The copy the caller is making.
    copying: Option<(CopyTarget, usize)>,
    /// Keys of this call's memory that are alive.
    keys: usize,
    /// Bytes of this call's memory that RDMA WRITEs under way take.
    writing: usize,
    /// Bytes up to here must be sent whatever happens: the peer refused an advert and expects
    /// them as Data (§4.4 row 10).
    owed_to: usize,
    /// Why the rest of the call is copied.
    copy_reason: Option<CopyReason>,
    /// The reason counted last.
    counted: Option<CopyReason>,
    end: Option<EndCall>,
    /// The caller's memory could not be read.
    fault: bool,
    /// No message buffer could be had.
    grant_failed: bool,
    /// No private memory could be had.
    private_failed: bool,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct Tx {
    calls: Turns<SendCall>,
    private: Private,
    filled: VecDeque<Filled>,
    pipeline: Pipeline,
    writes: Writes,
    urgent: Urgent,
    next_grant: u32,
    /// Since when the pipe has been blocked without progress at the peer.
    blocked_from: Option<Instant>,
    /// How far apart the last two signs of progress at the peer were, while it was blocked.
    pace: Duration,
    /// A non-blocking send was turned away.
    turned_away: bool,
    /// The next one shall wait until the peer's reader has made room.
    pacing: bool,
}

/// What the head call is to do.
enum Verdict {
    Go,
    Wait,
    Done(Result<usize, CallError>),
}

impl Tx {
    pub(crate) fn new() -> Self {
        Self {
            calls: Turns::new(),
            private: Private::default(),
            filled: VecDeque::with_capacity(4),
            pipeline: Pipeline::new(),
            writes: Writes::default(),
            urgent: Urgent::default(),
            next_grant: 0,
            blocked_from: None,
            pace: Duration::ZERO,
            turned_away: false,
            pacing: false,
        }
    }

    /// Takes a turn for a send.
    pub(crate) fn start(&mut self, mut req: SendRequest) -> SendId {
        if req.urgent && !mutant!(UrgentByRdma) {
            // The urgent byte never travels by RDMA (§4.11).
            req.copy_reason = Some(CopyReason::Urgent);
        }
        let call = SendCall {
            pos: 0,
            accepted: 0,
            copying: None,
            keys: 0,
            writing: 0,
            owed_to: 0,
            copy_reason: None,
            counted: None,
            end: None,
            fault: false,
            grant_failed: false,
            private_failed: false,
            req,
        };
        SendId(self.calls.push(call))
    }

    /// What call `id` needs next.
    pub(crate) fn step(&mut self, sh: &mut Shared, now: Instant, id: SendId) -> SendStep {
        let verdict = if self.calls.is_head(id.0) {
            self.judge_head(sh)
        } else {
            self.judge_waiting(sh, id)
        };
        let step = match verdict {
            Verdict::Go => self.next_step(sh, now),
            Verdict::Wait => SendStep::Wait,
            Verdict::Done(result) => SendStep::Done(result),
        };
        if let SendStep::Done(result) = step {
            self.forget(sh, now, id, result);
        }
        step
    }

    fn forget(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: SendId,
        result: Result<usize, CallError>,
    ) {
        self.turned_away |= result == Err(CallError::WouldBlock);
        let removed = self.calls.remove(id.0);
        if let Some(call) = removed.as_ref().filter(|call| call.req.nonblocking) {
            self.note_paced(sh, now, call.req.len);
        }
        assert!(
            removed.as_ref().is_none_or(|call| {
                let keyless = call.keys == 0 || sh.out.error_set() || mutant!(RegionReturnedEarly);
                call.writing == 0 && keyless
            }),
            "a call ends with a key of its memory alive or a write from it under way"
        );
        let passed_on = removed.is_none_or(|call| call.end.is_none() || !mutant!(TurnNotPassedOn));
        if !self.calls.is_empty() && passed_on {
            sh.wake.send = true;
        }
    }

    /// A call behind others: it can only end.
    fn judge_waiting(&mut self, sh: &mut Shared, id: SendId) -> Verdict {
        let Some(call) = self.calls.get_mut(id.0) else {
            return Verdict::Done(Err(CallError::NotConnected));
        };
        if sh.life.is_over() {
            return Verdict::Done(sh.life.call_error(Err(CallError::BrokenPipe)));
        }
        if sh.life.tx_shut() {
            return Verdict::Done(Err(CallError::BrokenPipe));
        }
        match call.end {
            Some(why) => Verdict::Done(Err(why.error())),
            None if call.req.nonblocking => Verdict::Done(Err(CallError::WouldBlock)),
            None => Verdict::Wait,
        }
    }

    /// The head call: whether it is over, must wait for a copy or a key, or may go on.
    fn judge_head(&mut self, sh: &mut Shared) -> Verdict {
        let Some(call) = self.calls.head_mut() else {
            return Verdict::Wait;
        };
        if call.copying.is_some() {
            return Verdict::Wait;
        }
        let (accepted, keys, writing) = (call.accepted, call.keys, call.writing);
        let count = |error| match accepted {
            0 => Err(error),
            n => Ok(n),
        };
        if sh.life.is_over() {
            // Keys die with the queue pair, once the driver has put it into error.
            return if writing > 0 || (keys > 0 && !sh.out.error_set()) {
                Verdict::Wait
            } else if accepted > 0 {
                Verdict::Done(Ok(accepted))
            } else {
                Verdict::Done(sh.life.call_error(Err(CallError::BrokenPipe)))
            };
        }
        let result = if !self.pipeline.is_empty() {
            return Verdict::Wait;
        } else if call.fault {
            // Bytes owed to the peer cannot be had either.
            count(CallError::Fault)
        } else if call.pos < call.owed_to {
            return Verdict::Go;
        } else if sh.life.tx_shut() {
            count(CallError::BrokenPipe)
        } else if call.pos == call.req.len {
            Ok(accepted)
        } else if let Some(why) = call.end.filter(|why| *why != EndCall::TimedOut) {
            count(why.error())
        } else if sh.life.is_up() {
            // When its time is over it leaves what there is room for, as TCP's has by then.
            let keyless = call.end.is_none() || (keys == 0 && writing == 0);
            return if keyless { Verdict::Go } else { Verdict::Wait };
        } else if call.req.nonblocking || call.end.is_some() {
            count(CallError::WouldBlock)
        } else {
            return Verdict::Wait;
        };
        if (keys > 0 && !mutant!(RegionReturnedEarly)) || writing > 0 {
            return Verdict::Wait;
        }
        Verdict::Done(result)
    }

    /// The caller has copied.
    pub(crate) fn copied(&mut self, sh: &mut Shared, id: SendId, len: usize, to: CopyTarget) {
        let over = sh.life.is_over();
        let Some(call) = self.calls.get_mut(id.0) else {
            return;
        };
        let asked = call.copying.take().map_or(0, |(_, asked)| asked);
        assert!(len <= asked, "more copied than asked for");
        call.fault |= len < asked;
        if over {
            // The bytes will not be sent, and count for nothing.
            if let CopyTarget::Message(grant) = to {
                sh.out.drop_grant(grant);
            }
            return;
        }
        call.pos += len;
        call.accepted = call.pos;
        call.grant_failed = false;
        call.private_failed = false;
        let reason = call.reason(sh);
        let transfers = u64::from(call.counted != Some(reason));
        call.counted = Some(reason);
        sh.stats.count_copy(reason, transfers, len);
        let ends_urgent = call.req.urgent && call.pos == call.req.len;
        match (to, u32::try_from(len)) {
            (CopyTarget::Message(grant), Ok(len)) if len > 0 => {
                let urgent = false;
                self.filled.push_back(Filled { grant, len, urgent });
            }
            (CopyTarget::Message(grant), _) => return sh.out.drop_grant(grant),
            (CopyTarget::Private, _) => self.private.push(len),
        }
        if ends_urgent {
            self.mark_last(sh, to != CopyTarget::Private);
        }
    }

    /// The caller had no memory to copy to.
    pub(crate) fn copy_failed(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: SendId,
        to: CopyTarget,
    ) {
        let Some(call) = self.calls.get_mut(id.0) else {
            return;
        };
        call.copying = None;
        match to {
            CopyTarget::Message(_) => call.grant_failed = true,
            CopyTarget::Private => call.private_failed = true,
        }
        sh.timers.set_once(Timer::Retry, now, crate::RETRY_WAIT);
    }

    /// Memory may be there again.
    pub(crate) fn on_retry(&mut self, sh: &mut Shared) {
        self.private.paused = false;
        if let Some(call) = self.calls.head_mut() {
            call.grant_failed = false;
            call.private_failed = false;
            sh.wake.send = true;
        }
    }

    /// Call `id` must end.
    pub(crate) fn end(&mut self, sh: &mut Shared, now: Instant, id: SendId, why: EndCall) {
        let Some(call) = self.calls.get_mut(id.0) else {
            return;
        };
        call.end.get_or_insert(why);
        if call.writing > 0 {
            sh.timers
                .set_once(Timer::Cancel, now, sh.config.cancel_wait);
        }
        self.end_adverts(sh, now, id.0);
    }

    /// The application sends no more.
    pub(crate) fn shut(&mut self, sh: &mut Shared, now: Instant) {
        if let Some(id) = self.calls.head().map(|(id, _)| id) {
            self.end_adverts(sh, now, id);
            sh.wake.send = true;
        }
    }

    /// The connection moves to another queue pair: adverts are taken back.
    pub(crate) fn quiesce(&mut self, sh: &mut Shared, now: Instant) {
        if !self.pipeline.is_empty() {
            self.cancel_all(sh);
        }
        if !self.pipeline.is_empty() {
            sh.timers
                .set_once(Timer::Cancel, now, sh.config.cancel_wait);
        }
    }

    /// Nothing of the queue pair's is in use: what is not sent lies in private memory.
    pub(crate) fn is_still(&self) -> bool {
        self.pipeline.is_empty()
            && self.pipeline.withdrawn.is_empty()
            && self.writes.is_quiet()
            && self.filled.is_empty()
            && !self.private.is_copying()
            && !self.is_filling()
    }

    /// A caller copies into a message buffer.
    fn is_filling(&self) -> bool {
        let copying = self.calls.head().and_then(|(_, call)| call.copying);
        matches!(copying, Some((CopyTarget::Message(_), _)))
    }

    /// There is a new queue pair. What the old one's peer had offered is forgotten on both sides. What it
    /// is owed as Data stays so: it may be counted as accepted already.
    pub(crate) fn begin_anew(&mut self) {
        debug_assert!(self.is_still(), "moved with something under way");
        self.pipeline = Pipeline::new();
        self.writes = Writes::default();
        if let Some(call) = self.calls.head_mut() {
            call.grant_failed = false;
        }
    }

    /// Adverts whose cancel the peer has to answer.
    pub(crate) fn awaited(&self) -> u32 {
        self.pipeline.awaited()
    }

    /// Moves on whatever can.
    pub(crate) fn pump(&mut self, sh: &mut Shared, now: Instant) {
        if self.is_unused() && !sh.keys.has_doomed() && !sh.modes.has_hints() {
            let waited_for = self.turned_away || self.pacing;
            if self.blocked_from.is_some() || waited_for || !sh.can_payload() {
                return self.note_block(sh, now);
            }
            return sh.timers.clear(Timer::TxStall);
        }
        self.unstage(sh);
        self.post_filled(sh);
        self.release_urgent(sh);
        self.stage(sh, now);
        self.flush_pend(sh);
        self.post_adverts(sh, now);
        self.flush_cancel(sh);
        sh.flush_kills();
        let settled = self.pipeline.is_empty() || mutant!(AdvertLostOnLeaving);
        let idle = settled && !self.writes.is_offered() && !sh.suspend.is_on();
        if idle && !sh.life.tx_shut() && sh.follow_hints() {
            if mutant!(AdvertLostOnLeaving) {
                self.pipeline.clear();
            }
            self.writes.on_leave();
        }
        self.advertise_ahead(sh);
        self.note_block(sh, now);
    }

    fn post_filled(&mut self, sh: &mut Shared) {
        while let Some(Filled { grant, len, urgent }) = self.filled.front().copied() {
            if !sh.can_payload() || self.private.is_unstaging() {
                return;
            }
            self.announce(sh);
            assert!(
                self.pipeline.is_empty(),
                "payload behind a source advert (§4.4 row 3)"
            );
            self.filled.pop_front();
            self.count_payload(sh);
            sh.stats.tx_bytes_bcopy += u64::from(len);
            sh.send(Outgoing {
                payload: Payload::Grant { grant, len },
                flags: if urgent {
                    Flags::OOB_PRES
                } else {
                    Flags::empty()
                },
                ..Outgoing::control(Body::Data)
            });
            if urgent {
                self.on_urgent_sent(sh);
            }
        }
    }

    /// A key of send call `id` is dead.
    pub(crate) fn key_died(&mut self, sh: &mut Shared, call: u32) {
        if let Some(call) = self.calls.get_mut(call) {
            call.keys -= 1;
            sh.wake.send = true;
        }
    }

    /// The peer gave credits or took bytes.
    pub(crate) fn on_progress(&mut self, sh: &mut Shared, now: Instant) {
        if let Some(from) = &mut self.blocked_from {
            self.pace = now.since(*from);
            *from = now;
        }
        sh.wake.send |= self.turned_away || !self.calls.is_empty();
    }

    /// The peer confirmed messages.
    pub(crate) fn on_ack(&mut self, sh: &Shared) {
        if let Some(mseq) = self.pipeline.unconfirmed
            && sh.credits.is_acked(mseq)
        {
            self.pipeline.unconfirmed = None;
        }
        self.credit_inline(sh);
    }

    /// Keeps track of since when nothing has moved.
    fn note_block(&mut self, sh: &mut Shared, now: Instant) {
        if self.pipe_is_clear() && sh.can_payload() && !self.keeps_last_call(sh) {
            if self.blocked_from.take().is_some() {
                sh.wake.send |= !self.calls.is_empty();
            }
        } else if self.blocked_from.is_none() && self.pipeline.is_empty() {
            self.blocked_from = Some(now);
            sh.stats.credit_stalls += u64::from(!sh.credits.payload_allowed());
        }
        let room = self.private.free(sh.send_buffer_len()) > 0;
        if self.turned_away && room && self.calls.is_empty() {
            self.turned_away = false;
            sh.wake.send = true;
        }
        self.look_at_pace(sh, now);
        self.set_stall_timer(sh, now);
    }

    fn pipe_is_clear(&self) -> bool {
        self.private.is_empty() && self.filled.is_empty() && self.urgent.is_empty()
    }

    /// Everything accepted has been posted, and no call can add to it.
    pub(crate) fn is_drained(&self) -> bool {
        self.pipe_is_clear()
            && self.pipeline.is_empty()
            && self.pipeline.withdrawn.is_empty()
            && self.writes.is_quiet()
            && self
                .calls
                .head()
                .is_none_or(|(_, call)| call.copying.is_none() && !call.is_owing())
    }

    /// There is no call, nothing of one that is over, and no advert.
    fn is_unused(&self) -> bool {
        self.calls.is_empty()
            && self.pipe_is_clear()
            && self.pipeline.is_empty()
            && self.pipeline.cancel == Cancel::No
    }

    /// A send is in progress.
    pub(crate) fn is_in_call(&self) -> bool {
        !self.calls.is_empty()
    }

    /// No payload is about to go.
    pub(crate) fn is_quiet(&self) -> bool {
        self.calls.is_empty() && self.is_drained()
    }

    /// Bytes of call `id` accepted so far.
    pub(crate) fn accepted(&self, id: SendId) -> usize {
        self.calls.get(id.0).map_or(0, |call| call.accepted)
    }

    /// Accepted bytes not yet posted, and bytes advertised.
    pub(crate) fn unsent_len(&self) -> usize {
        let filled: u64 = self.filled.iter().map(|f| u64::from(f.len)).sum();
        let filled = usize::try_from(filled).unwrap_or(usize::MAX);
        self.private.len() + self.urgent.len() + filled + self.pipeline.remaining()
    }

    /// Adverts that are not finished.
    pub(crate) fn adverts_open(&self) -> usize {
        self.pipeline.len()
    }

    /// Free private send memory.
    pub(crate) fn space(&self, sh: &Shared) -> usize {
        self.private.free(sh.send_buffer_len())
    }

    /// The connection is over: nothing will be sent any more. `jobs` and `writes` never begun.
    pub(crate) fn on_over(&mut self, sh: &mut Shared, jobs: &[JobId], writes: &[WorkId]) {
        for Filled { grant, .. } in self.filled.drain(..) {
            sh.out.drop_grant(grant);
        }
        self.private.on_over(jobs);
        self.urgent.clear();
        self.pipeline.clear();
        sh.sources_out = 0;
        self.on_writes_over(writes);
        sh.wake.send = true;
    }
}

impl EndCall {
    /// What a call is told that ends with nothing done.
    pub(crate) const fn error(self) -> CallError {
        match self {
            Self::TimedOut => CallError::WouldBlock,
            Self::Interrupted => CallError::Interrupted,
        }
    }
}
