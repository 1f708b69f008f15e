//! Write ZCopy, sink side (clauses §4.5 to §4.7 and §4.9): the memory of a waiting receive is
//! offered to the peer to write into.
//!
//! At most one offer is out: a receive returns with the first bytes that come, so a second one
//! would only be taken back.

use sdp_wire::{Body, Flags, RemoteAddr, Rkey, SinkAvail};

use crate::action::Action;
use crate::connection::Shared;
use crate::error::ConnectionError;
use crate::ids::{CallId, KeyId, RecvId};
use crate::mark::Mark;
use crate::mode::FlowMode;
use crate::outbox::Outgoing;
use crate::stats::CopyReason;
use crate::time::Instant;
use crate::timer::Timer;

use super::Rx;
use super::call::RecvCall;

/// Large transfers in a row after which the next is expected to be large too.
const APPETITE_MIN: u8 = 2;
/// What one more of them adds nothing to.
const APPETITE_MAX: u8 = 4;

/// Where an offer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SinkState {
    /// The driver is making a key.
    Binding,
    /// As before, but the offer is not wanted any more.
    Withdrawn,
    /// There is a key; SinkAvail waits for a credit.
    Bound(Rkey, RemoteAddr),
    /// The peer may write.
    Open,
    /// The peer may write; SinkAvailCancel waits for a credit.
    CancelWanted,
    /// SinkAvailCancel was sent.
    Cancelling,
}

/// An offer of the head call's memory.
#[derive(Debug)]
pub(super) struct Sink {
    call: u32,
    key: KeyId,
    rkey: Option<Rkey>,
    len: u32,
    state: SinkState,
}

impl Sink {
    /// The peer has been told of it.
    const fn is_out(&self) -> bool {
        matches!(
            self.state,
            SinkState::Open | SinkState::CancelWanted | SinkState::Cancelling
        )
    }
}

/// The offer, and what decides about the next one.
#[derive(Debug, Default)]
pub(super) struct Offers {
    sink: Option<Sink>,
    /// Payload messages received that used up no offer (§4.6).
    non_discards: u32,
    /// Large transfers in a row.
    appetite: u8,
}

impl Offers {
    /// An offer is being made or is out.
    pub(super) const fn is_some(&self) -> bool {
        self.sink.is_some()
    }

    /// The peer has been told of an offer, and has not ended it.
    pub(super) fn is_out(&self) -> bool {
        self.sink.as_ref().is_some_and(Sink::is_out)
    }

    /// There is a new queue pair: the count of both sides begins at zero.
    pub(super) fn begin_anew(&mut self) {
        self.non_discards = 0;
    }

    /// `len` bytes came, or are offered, by RDMA.
    pub(super) fn on_large(&mut self, sh: &Shared, len: u32) {
        if len > sh.config.recv_buffer_len {
            self.appetite = APPETITE_MAX.min(self.appetite + 1);
        }
    }
}

impl RecvCall {
    /// Its memory might be offered to the peer: whatever part of it is filled ends the call.
    fn is_plain(&self) -> bool {
        let plain = !self.req.peek && !self.req.wait_all && !self.req.nonblocking;
        plain && self.req.copy_reason.is_none() && self.sink_failed.is_none()
    }

    /// Its memory may be offered to the peer now: it is larger than any message.
    fn takes_sink(&self, sh: &Shared) -> bool {
        let len = u32::try_from(self.segment_rest()).unwrap_or(u32::MAX);
        self.is_plain() && !self.is_ended() && len > sh.config.recv_buffer_len
    }

    /// It found nothing when it looked, and would rather have offered its memory.
    fn would_offer(&self, sh: &Shared) -> bool {
        let len = u32::try_from(self.req.len).unwrap_or(u32::MAX);
        self.waited && self.is_plain() && len > sh.config.recv_buffer_len
    }
}

impl Rx {
    /// Offers the head call's memory if large data are to be expected and nothing is ahead of them.
    pub(super) fn offer(&mut self, sh: &mut Shared) {
        let dry = self.adverts.is_empty()
            && !self.adverts.is_owed()
            && self.held() == 0
            && self.reads.is_empty();
        let life = &sh.life;
        let going = life.is_open() && !life.peer_fin && !life.rx_shut;
        let Some((id, call)) = self.calls.head() else {
            return;
        };
        if sh.modes.rx == FlowMode::Buffered && call.takes_sink(sh) {
            return sh.call_back();
        }
        let offers = &self.offers;
        let wanted = !offers.is_some() && offers.appetite >= APPETITE_MIN && call.takes_sink(sh);
        let adverts_max = sh.peer.map_or(0, |peer| usize::from(peer.adverts_max));
        let legal = sh.modes.rx == FlowMode::Pipelined && sh.sources_out < adverts_max;
        if !dry || !going || !wanted || !legal || !sh.can_payload() {
            return;
        }
        let (at, len) = (call.got, call.segment_rest());
        let len = u32::try_from(len)
            .unwrap_or(u32::MAX)
            .min(sdp_wire::ADVERT_LEN_MAX);
        let key = sh.make_key(CallId::Recv(RecvId(id)), at, len);
        sh.sinks_out += 1;
        if let Some(call) = self.calls.head_mut() {
            call.keys += 1;
        }
        self.offers.sink = Some(Sink {
            call: id,
            key,
            rkey: None,
            len,
            state: SinkState::Binding,
        });
    }

    /// The driver has made the key, or could not.
    pub(crate) fn on_bound(
        &mut self,
        sh: &mut Shared,
        key: KeyId,
        result: Result<(Rkey, RemoteAddr), CopyReason>,
    ) {
        let Some(sink) = self.offers.sink.as_mut().filter(|sink| sink.key == key) else {
            // The connection ended meanwhile, and the key with it.
            return;
        };
        match result {
            Ok((rkey, addr)) => {
                sink.rkey = Some(rkey);
                if sink.state == SinkState::Withdrawn {
                    return self.close_sink(sh, None);
                }
                sink.state = SinkState::Bound(rkey, addr);
            }
            Err(reason) => {
                let id = sink.call;
                self.offers.sink = None;
                sh.sinks_out -= 1;
                if let Some(call) = self.calls.get_mut(id) {
                    call.sink_failed = Some(reason);
                }
                self.key_died(sh, id);
            }
        }
    }

    /// Sends what waits for credits: SinkAvail, or SinkAvailCancel.
    pub(super) fn flush_sink(&mut self, sh: &mut Shared) {
        let Some(sink) = &mut self.offers.sink else {
            return;
        };
        if !sh.can_control() {
            return;
        }
        match sink.state {
            SinkState::Bound(rkey, addr) => {
                sink.state = SinkState::Open;
                let body = Body::SinkAvail(SinkAvail {
                    len: sink.len,
                    rkey,
                    addr,
                    non_discards: self.offers.non_discards,
                });
                sh.send(Outgoing::control(body));
                sh.reached(Mark::SinkOffered);
            }
            SinkState::CancelWanted => {
                sink.state = SinkState::Cancelling;
                sh.send(Outgoing::control(Body::SinkAvailCancel));
                sh.reached(Mark::SinkCancelled);
            }
            _ => {}
        }
    }

    /// The offer is over. `invalidated`: the peer has killed its key.
    fn close_sink(&mut self, sh: &mut Shared, invalidated: Option<Rkey>) {
        let Some(sink) = self.offers.sink.take() else {
            return;
        };
        sh.sinks_out -= 1;
        sh.timers.clear(Timer::SinkCancel);
        if invalidated.is_some() {
            sh.out.push(Action::ForgetKey(sink.key));
            self.key_died(sh, sink.call);
        } else {
            sh.kill_key(sink.key, CallId::Recv(RecvId(sink.call)));
        }
        sh.wake.recv = true;
    }

    /// A key of receive call `id` is dead.
    pub(crate) fn key_died(&mut self, sh: &mut Shared, id: u32) {
        if let Some(call) = self.calls.get_mut(id) {
            call.keys -= 1;
        }
        sh.wake.recv = true;
    }

    /// An offer the peer has not heard of is not made.
    pub(super) fn withdraw_sink(&mut self, sh: &mut Shared) {
        match self.offers.sink.as_mut().map(|sink| (sink.state, sink)) {
            Some((SinkState::Binding, sink)) => sink.state = SinkState::Withdrawn,
            Some((SinkState::Bound(..), _)) => self.close_sink(sh, None),
            _ => {}
        }
    }

    /// The peer will not use the offer any more: it has ended its half, or left Pipelined mode.
    pub(crate) fn forget_sink(&mut self, sh: &mut Shared) {
        self.withdraw_sink(sh);
        if self.offers.is_out() {
            self.close_sink(sh, None);
        }
    }

    /// The call that made the offer must end: it is taken back, and the peer's answer is waited for
    /// at most `cancel_wait`.
    pub(crate) fn cancel_sink(&mut self, sh: &mut Shared, now: Instant) {
        self.withdraw_sink(sh);
        if let Some(sink) = &mut self.offers.sink
            && sink.state == SinkState::Open
        {
            sink.state = SinkState::CancelWanted;
            let wait = sh.config.cancel_wait;
            sh.timers.set_once(Timer::SinkCancel, now, wait);
        }
    }

    /// Payload came in a message (§4.6). The oldest offer is used up by it; the bytes reach the
    /// call as all others do, once its key is dead.
    pub(super) fn count_payload(&mut self, sh: &mut Shared, len: u32) {
        if self.offers.is_out() && !mutant!(PayloadInWrongSinkAvail) {
            sh.reached(Mark::SinkUsedByData);
            self.offers.appetite = 0;
            self.close_sink(sh, None);
            return;
        }
        self.withdraw_sink(sh);
        self.offers.non_discards = self.offers.non_discards.wrapping_add(1);
        if len < sh.config.recv_buffer_len / 2 {
            self.offers.appetite = self.offers.appetite.saturating_sub(1);
        }
    }

    /// The peer has written `len` bytes (§4.5 row 5).
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_wr_compl(
        &mut self,
        sh: &mut Shared,
        len: u32,
        invalidated: Option<Rkey>,
    ) -> Result<(), ConnectionError> {
        let Some(sink) = self.offers.sink.as_ref().filter(|sink| sink.is_out()) else {
            return Shared::misbehaved("§4.5 row 5: RdmaWrCompl without an open sink advert");
        };
        if len > sink.len {
            return Shared::misbehaved("§4.5 row 4: RdmaWrCompl beyond the advertised room");
        }
        if invalidated.is_some() && invalidated != sink.rkey {
            return Shared::misbehaved(
                "§4.4 row 12: a key was invalidated that was not advertised",
            );
        }
        if sink.state == SinkState::Cancelling {
            sh.reached(Mark::WriteCrossedSinkCancel);
        }
        if len < sink.len {
            sh.reached(Mark::PartialWrite);
        }
        sh.stats.rx_bytes_written += u64::from(len);
        sh.stats.rx_bytes_zcopy += u64::from(len);
        if let Some(call) = self.calls.get_mut(sink.call) {
            call.got += usize::try_from(len).unwrap_or(usize::MAX);
        }
        self.offers.on_large(sh, len);
        self.close_sink(sh, invalidated);
        Ok(())
    }

    /// The peer gives the offer back (§4.9 step 3).
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_sink_cancel_ack(&mut self, sh: &mut Shared) -> Result<(), ConnectionError> {
        let cancelling = |sink: &Sink| sink.state == SinkState::Cancelling;
        if !self.offers.sink.as_ref().is_some_and(cancelling) {
            return Shared::misbehaved("§4.9: SinkCancelAck without SinkAvailCancel");
        }
        self.close_sink(sh, None);
        Ok(())
    }

    /// The flags of a report: a receive that waited for it would rather have been written to.
    pub(super) fn report_flags(&self, sh: &Shared) -> Flags {
        let asks = sh.modes.rx == FlowMode::Combined
            && sh.config.adverts_max >= 2
            && self
                .calls
                .head()
                .is_some_and(|(_, call)| call.would_offer(sh));
        if asks {
            Flags::REQ_PIPE
        } else {
            Flags::empty()
        }
    }

    /// The connection is over; keys die with the queue pair.
    pub(super) fn drop_sink(&mut self, sh: &mut Shared) {
        if self.offers.sink.take().is_some() {
            sh.sinks_out -= 1;
        }
    }
}
