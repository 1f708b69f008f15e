//! Write ZCopy, source side (clauses §4.5 to §4.7 and §4.9): bytes are written into memory that the
//! peer offers.

use alloc::collections::VecDeque;

use sdp_wire::{Body, RemoteAddr, Rkey, SinkAvail};

use crate::action::Action;
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::event::Completion;
use crate::ids::{SendId, WorkId};
use crate::mark::Mark;
use crate::mode::FlowMode;
use crate::outbox::Outgoing;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::Tx;
use super::pipeline::{Cancel, widen};
use super::zcopy::Advertise;

/// An RDMA WRITE outstanding.
#[derive(Clone, Copy, Debug)]
struct Write {
    work: WorkId,
    call: u32,
    /// Where it ends in the call's memory.
    end: usize,
    len: u32,
}

/// The peer's offers, and what is being written into them.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// Usable offers, oldest first.
    sinks: VecDeque<SinkAvail>,
    /// PotentialNonDiscards (§4.6): payload messages sent, less the offers found stale.
    unmatched: u32,
    /// As that was when Pipelined mode was left: the measure of offers that cross the change.
    unmatched_then: u32,
    /// Oldest first.
    posted: VecDeque<Write>,
    /// The driver has been asked to register memory of this call.
    registering: Option<u32>,
}

impl Writes {
    /// The peer's memory waits to be written to: there is no other way for large bytes (§4.7).
    pub(super) fn is_offered(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// Nothing is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.posted.is_empty() && self.registering.is_none()
    }

    /// Pipelined mode ends here.
    pub(super) fn on_leave(&mut self) {
        debug_assert!(self.sinks.is_empty(), "left Pipelined with offers in hand");
        self.unmatched_then = self.unmatched;
    }
}

impl Tx {
    /// A message with payload is sent. It uses up the oldest offer in hand at the peer, too.
    pub(super) fn count_payload(&mut self, sh: &mut Shared) {
        if self.writes.sinks.pop_front().is_some() {
            sh.reached(Mark::DataRetiredSink);
        } else {
            self.writes.unmatched = self.writes.unmatched.wrapping_add(1);
        }
    }

    /// The peer offers memory.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_sink_avail(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        offer: SinkAvail,
    ) -> Result<(), ConnectionError> {
        if sh.modes.tx != FlowMode::Pipelined {
            // It crossed the change of mode; what it counted is settled all the same.
            if offer.non_discards != self.writes.unmatched_then {
                self.writes.unmatched_then = self.writes.unmatched_then.wrapping_sub(1);
                self.writes.unmatched = self.writes.unmatched.wrapping_sub(1);
            }
            return Ok(());
        }
        if self.writes.sinks.len() >= usize::from(sh.config.adverts_max) {
            return Shared::misbehaved("§4.2: more adverts than MaxAdverts");
        }
        if offer.non_discards != self.writes.unmatched {
            let counted = u32::from(!mutant!(StaleAdvertNotCounted));
            self.writes.unmatched = self.writes.unmatched.wrapping_sub(counted);
            sh.reached(Mark::SinkStale);
            return Ok(());
        }
        if sh.life.tx_shut() && self.is_drained() && !sh.suspend.is_on() {
            // The peer takes our DisConn, which waits for nothing, for the end of it.
            return Ok(());
        }
        self.writes.sinks.push_back(offer);
        self.override_adverts(sh);
        self.on_progress(sh, now);
        Ok(())
    }

    /// The peer has discarded our adverts: write beats read (§4.7). What it has not reported is
    /// sent otherwise.
    fn override_adverts(&mut self, sh: &mut Shared) {
        while let Some(advert) = self.pipeline.pop_unposted() {
            self.withdraw(sh, &advert, false);
        }
        let Some(front) = self.pipeline.front() else {
            return;
        };
        sh.reached(Mark::Overridden);
        let skips = mutant!(ReadvertSkipsBytes);
        let taken_to = if skips { front.end() } else { front.taken_to() };
        self.pipeline.refused_at.get_or_insert(taken_to);
        // A cancel under way finds nothing at the peer, and is ignored there.
        self.pipeline.cancel = Cancel::No;
        while !self.pipeline.is_empty() {
            self.finish_front(sh, false);
        }
        self.resume(sh);
    }

    /// The head call's next bytes, if they may be shown to the peer at all, are written into its
    /// oldest offer. The driver is asked for their memory first.
    pub(super) fn write(&mut self, sh: &mut Shared) -> Advertise {
        let Some((id, call)) = self.calls.head() else {
            return Advertise::No;
        };
        if !self.pipe_is_clear() || !self.pipeline.is_empty() || !sh.can_payload() {
            return Advertise::Blocked;
        }
        if self.writes.registering.is_some() {
            return Advertise::Started;
        }
        let (at, len) = (call.pos, call.segment_rest());
        self.writes.registering = Some(id);
        sh.out.push(Action::Register {
            call: SendId(id),
            at,
            len,
        });
        Advertise::Started
    }

    /// The memory asked for is registered, or could not be.
    pub(crate) fn on_registered(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        id: SendId,
        result: Result<(), CopyReason>,
    ) {
        if self.writes.registering.take() != Some(id.0) || sh.life.is_over() {
            return;
        }
        match result {
            Ok(()) => self.post_writes(sh, now),
            Err(reason) => {
                if let Some(call) = self.calls.get_mut(id.0) {
                    call.copy_reason = Some(reason);
                }
            }
        }
        sh.wake.send = true;
    }

    /// Writes into the oldest offer as much of the head call's piece of memory as fits it, then
    /// says so: one RdmaWrCompl per offer, behind the writes of one call.
    fn post_writes(&mut self, sh: &mut Shared, now: Instant) {
        let threshold = sh.config.zcopy_threshold;
        let Some((id, call)) = self.calls.head() else {
            return;
        };
        // What may have changed since the memory was asked for.
        let good = call.is_free() && call.may_be_written(threshold);
        if !good || !self.pipe_is_clear() || !self.pipeline.is_empty() || !sh.can_payload() {
            return;
        }
        let mut at = call.pos;
        let Some(offer) = self.writes.sinks.pop_front() else {
            return;
        };
        let room = call.segment_rest().min(widen(offer.len));
        let mut written = 0;
        while widen(written) < room && sh.out.has_payload_slot() {
            let rest = u32::try_from(room - widen(written)).unwrap_or(u32::MAX);
            let len = rest.min(sh.config.advert_len_max.max(1));
            let remote = RemoteAddr(offer.addr.0 + u64::from(written));
            let work = sh.out.push_signalled(|work| Action::RdmaWrite {
                work,
                call: SendId(id),
                at,
                remote,
                rkey: offer.rkey,
                len,
            });
            at += widen(len);
            written += len;
            self.writes.posted.push_back(Write {
                work,
                call: id,
                end: at,
                len,
            });
        }
        if let Some(call) = self.calls.head_mut() {
            call.pos = at;
            call.writing += widen(written);
        }
        self.report_write(sh, written, offer.rkey);
        self.blocked_from = self.blocked_from.map(|_| now);
        sh.reached(Mark::Written);
    }

    fn report_write(&self, sh: &mut Shared, len: u32, rkey: Rkey) {
        let may_invalidate =
            sh.config.invalidate_cap && sh.peer.is_some_and(|peer| peer.invalidate_cap);
        sh.send(Outgoing {
            invalidate: may_invalidate.then_some(rkey),
            ..Outgoing::control(Body::RdmaWrCompl { len })
        });
    }

    /// A work request has ended. Says whether it was a write.
    ///
    /// # Errors
    /// A failure that ends the connection: RdmaWrCompl is already on its way.
    pub(crate) fn on_write_done(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        work: WorkId,
        result: Completion,
    ) -> Result<bool, ConnectionError> {
        let Some(write) = self.writes.posted.pop_front_if(|write| write.work == work) else {
            return Ok(false);
        };
        if let Some(call) = self.calls.get_mut(write.call) {
            call.writing -= widen(write.len);
            if result == Completion::Success {
                call.accepted = call.accepted.max(write.end);
            }
            if call.writing == 0 && self.pipeline.is_empty() {
                sh.timers.clear(Timer::Cancel);
            }
        }
        sh.wake.send = true;
        if sh.life.is_over() {
            return Ok(true);
        }
        match result {
            Completion::Success => {
                sh.stats.tx_bytes_written += u64::from(write.len);
                sh.stats.tx_bytes_zcopy += u64::from(write.len);
                self.on_progress(sh, now);
                Ok(true)
            }
            Completion::RemoteAccess => Err(ConnectionError::MemoryGone("§4.5 row 6")),
            Completion::Unanswered => Err(ConnectionError::SILENT),
            Completion::TransportFailed(why) => Err(ConnectionError::Transport(why)),
            Completion::RemoteFault | Completion::LocalFault | Completion::NoMemory => {
                Err(ConnectionError::Transport("a write failed"))
            }
            Completion::Flushed => Err(ConnectionError::Reset),
        }
    }

    /// The peer takes its offers back (§4.9 step 2). Writes under way have been reported already.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_sink_cancel(&mut self, sh: &mut Shared) -> Result<(), ConnectionError> {
        if !sh.modes.was_pipelined {
            return Shared::misbehaved(
                "§4.9: SinkAvailCancel although no SinkAvail was ever legal",
            );
        }
        if self.writes.is_offered() {
            self.writes.sinks.clear();
            sh.control.sink_cancel_ack = !mutant!(SinkCancelUnanswered);
        } else {
            sh.reached(Mark::SinkCancelLate);
        }
        Ok(())
    }

    /// This side has ended its half: offers are void (§2.3 step 4).
    pub(crate) fn drop_offers(&mut self) {
        self.writes.sinks.clear();
    }

    /// The connection is over. `never_posted`: writes that were queued only.
    pub(super) fn on_writes_over(&mut self, never_posted: &[WorkId]) {
        self.writes.sinks.clear();
        self.writes.registering = None;
        for write in core::mem::take(&mut self.writes.posted) {
            if !never_posted.contains(&write.work) {
                self.writes.posted.push_back(write);
            } else if let Some(call) = self.calls.get_mut(write.call) {
                call.writing -= widen(write.len);
            }
        }
    }
}
