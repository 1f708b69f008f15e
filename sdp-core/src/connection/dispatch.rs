//! Received messages and completions: whom they concern, and whether they may come now.

use sdp_wire::{Body, Flags, Head, ModeChange, Rkey};

use crate::error::ConnectionError;
use crate::event::{Completion, Received};
use crate::ids::{BufferId, CallId, RecvId, SendId, WorkId};
use crate::keepalive::Liveness;
use crate::mode::FlowMode;
use crate::resize::Change;
use crate::stats::mid_index;
use crate::time::Instant;

use super::state::Stage;
use super::{Connection, Shared};

impl Connection {
    /// A message.
    ///
    /// # Errors
    /// The rule it breaks, or that it ends the connection.
    pub(super) fn on_message(
        &mut self,
        now: Instant,
        buf: BufferId,
        msg: Received<'_>,
    ) -> Result<(), ConnectionError> {
        let is_first = match self.sh.life.stage {
            Stage::Open => {
                self.sh.opening.answered();
                self.sh.credits.is_muted()
            }
            // The confirmation was lost or comes later: the message is proof enough (§2.1 row 7).
            Stage::Accepting | Stage::Reaccepting => {
                self.establish(now);
                true
            }
            Stage::Connecting | Stage::Recalling => {
                return Shared::misbehaved("§2.1 row 6: a message before the handshake was over");
            }
            // Credits that crossed the end of the old queue pair are of no use any more.
            Stage::Moving | Stage::Aborting(_) | Stage::Dead => return Ok(()),
        };
        if self.sh.suspend.has_left() {
            return Shared::misbehaved("§2.8: a message after SuspCommAck");
        }
        let head = Head::decode(msg.head, msg.len).map_err(ConnectionError::Malformed)?;
        let is_update = head.body == Body::Data && head.payload_len == 0;
        let gain = self
            .sh
            .credits
            .on_receive(&head, is_update)
            .map_err(ConnectionError::PeerMisbehaved)?;
        if is_first {
            self.hear_first(now);
        }
        self.sh.resize.on_message();
        if let Some(count) = self.sh.stats.received.get_mut(mid_index(head.mid())) {
            *count += 1;
        }
        self.check_order(&head, msg.invalidated)?;
        if gain.acks {
            self.tx.on_ack(&self.sh);
        }
        if gain.credits {
            self.tx.on_progress(&mut self.sh, now);
        }
        self.on_body(now, buf, &head, msg.invalidated)
    }

    /// The first message has come to the side that has accepted, which may send now if it had to wait.
    fn hear_first(&mut self, now: Instant) {
        if self.sh.credits.is_muted() {
            self.sh.wake.recv = true;
            self.tx.on_progress(&mut self.sh, now);
        }
        self.sh.answer_first();
    }

    /// Rules on what may come at all in this state of the connection.
    fn check_order(&self, head: &Head, invalidated: Option<Rkey>) -> Result<(), ConnectionError> {
        if self.sh.life.peer_fin {
            if head.payload_len > 0 {
                return Shared::misbehaved("§2.3 step 1: payload after DisConn");
            }
            if head.body == Body::DisConn {
                return Shared::misbehaved("§2.3 step 2: a second DisConn");
            }
        }
        if self.sh.life.app_closed && head.payload_len > 0 {
            // Nobody will read it, and the peer must know (as TCP's reset after close).
            return Err(ConnectionError::LocallyAborted);
        }
        let begins = head.payload_len > 0
            || matches!(
                head.body,
                Body::SrcAvail(_)
                    | Body::SinkAvail(_)
                    | Body::ModeChange(_)
                    | Body::ChRcvBuf { .. }
                    | Body::DisConn
            );
        if begins && self.sh.suspend.is_asked() {
            return Shared::misbehaved("§2.8: something new after SuspComm");
        }
        if invalidated.is_none() {
            return Ok(());
        }
        if !self.sh.config.invalidate_cap {
            return Shared::misbehaved("§1.9: Send with Invalidate although it was not offered");
        }
        match head.body {
            Body::RdmaRdCompl { .. } | Body::SendSm | Body::RdmaWrCompl { .. } => Ok(()),
            _ => Shared::misbehaved("§4.4 row 12: a message that may not invalidate a key did"),
        }
    }

    fn on_body(
        &mut self,
        now: Instant,
        buf: BufferId,
        head: &Head,
        invalidated: Option<Rkey>,
    ) -> Result<(), ConnectionError> {
        let sh = &mut self.sh;
        if head.flags.contains(Flags::OOB_PEND) && !is_payload_data(head) {
            self.rx.on_urgent_announced(sh, buf, head.flags);
        }
        match head.body {
            Body::Data => return self.rx.on_data(sh, buf, head.flags, head.payload_len),
            Body::SrcAvail(advert) => {
                let inline = head.payload_len;
                return self.rx.on_src_avail(sh, now, buf, advert, inline);
            }
            Body::SinkAvail(offer) => {
                if sh.modes.tx != FlowMode::Pipelined && !sh.crosses_leaving() {
                    return Shared::misbehaved(
                        "§4.2: SinkAvail while the sending half is not Pipelined",
                    );
                }
                let (head_len, len) = (head.body.head_len(), head.payload_len);
                self.rx.on_transaction(sh, buf, head_len, len)?;
                return self.tx.on_sink_avail(sh, now, offer);
            }
            Body::DisConn => return self.on_disconn(buf),
            Body::AbortConn => return self.on_abort_conn(buf),
            _ => self.rx.on_control(sh, buf),
        }
        if head.flags.contains(Flags::REQ_PIPE) {
            sh.modes.pipe_asked = true;
        }
        match head.body {
            Body::RdmaRdCompl { len } => self.tx.on_rd_compl(sh, now, len, invalidated),
            Body::SendSm => self.tx.on_send_sm(sh, now, head.mseq_ack, invalidated),
            Body::SrcAvailCancel => {
                self.rx.on_cancel(sh);
                Ok(())
            }
            Body::ModeChange(change) => self.on_mode_change(change),
            Body::ChRcvBuf { size } => {
                match sh.on_resize_request(now, size, head.mseq_ack)? {
                    Change::Grown(times) => self.rx.need_fewer(times),
                    Change::Shrunk => self.rx.shrink(),
                    Change::None => {}
                }
                Ok(())
            }
            Body::ChRcvBufAck { size } => sh.on_resize_ack(size),
            Body::SuspComm { service_id } => self.on_susp_comm(now, service_id, head.mseq_ack),
            Body::SuspCommAck => self.on_susp_comm_ack(),
            Body::RdmaWrCompl { len } => self.rx.on_wr_compl(sh, len, invalidated),
            Body::SinkAvailCancel => self.tx.on_sink_cancel(sh),
            Body::SinkCancelAck => self.rx.on_sink_cancel_ack(sh),
            Body::SinkAvail(_)
            | Body::Data
            | Body::SrcAvail(_)
            | Body::DisConn
            | Body::AbortConn => Ok(()),
        }
    }

    fn on_mode_change(&mut self, change: ModeChange) -> Result<(), ConnectionError> {
        let sh = &mut self.sh;
        sh.modes.on_change(change, self.rx.advert_open())?;
        match change {
            // A receive that waits may offer its memory now.
            ModeChange::RecvPipelined => sh.wake.recv = true,
            ModeChange::RecvCombined => self.rx.forget_sink(sh),
            ModeChange::RecvBuffered | ModeChange::SendCombined => {}
        }
        Ok(())
    }

    /// A key is dead.
    fn on_key_died(&mut self, call: CallId) {
        match call {
            CallId::Send(SendId(id)) => self.tx.key_died(&mut self.sh, id),
            CallId::Recv(RecvId(id)) => self.rx.key_died(&mut self.sh, id),
        }
    }

    /// A signalled work request has ended: there are more slots.
    pub(super) fn on_completed(&mut self, work: WorkId) {
        let was_full = !self.sh.out.has_payload_slot();
        self.sh.out.on_completion(work);
        if was_full {
            self.sh.wake.send = true;
            self.sh.wake.recv = true;
        }
    }

    /// What became of work that the engine named.
    pub(super) fn on_work_done(&mut self, now: Instant, work: WorkId, result: Completion) {
        let sh = &mut self.sh;
        let known = match self.rx.on_completion(sh, now, work, result) {
            Ok(false) => self.tx.on_write_done(sh, now, work, result),
            known => known,
        };
        match known {
            Ok(true) => return,
            Ok(false) => {}
            Err(ConnectionError::Reset) => return self.on_transport_end(ConnectionError::Reset),
            Err(error) => return self.fail(error),
        }
        let good = result == Completion::Success;
        if self.sh.liveness.on_completion(work) {
            return match result {
                Completion::Success => self.sh.start_keepalive(now),
                Completion::Flushed => self.on_transport_end(ConnectionError::Reset),
                _ => self.on_transport_end(Liveness::unanswered()),
            };
        }
        if self.on_close_completion(work, good) || self.on_move_completion(work, good) {
            return;
        }
        if good && let Some(call) = self.sh.on_killed(work) {
            return self.on_key_died(call);
        }
        match result {
            Completion::Success => {}
            Completion::Unanswered => self.on_transport_end(ConnectionError::SILENT),
            Completion::TransportFailed(why) => {
                self.on_transport_end(ConnectionError::Transport(why));
            }
            Completion::RemoteAccess
            | Completion::RemoteFault
            | Completion::LocalFault
            | Completion::NoMemory
            | Completion::Flushed => self.on_transport_end(ConnectionError::Reset),
        }
    }
}

/// Data whose urgent byte, if any, belongs to its own payload.
fn is_payload_data(head: &Head) -> bool {
    head.body == Body::Data && head.payload_len > 0
}
