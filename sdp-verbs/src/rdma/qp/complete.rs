//! The ends of requests: what the device tells of, and what it leaves out.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::send::{Entry, Kind};
use super::wr::status_of;
use super::{ERROR, READY, RECV, RdmaQp};
use crate::rdma::device::Transport;
use crate::rdma::sys;
use crate::types::{QpNum, Rkey, WrId};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

impl RdmaQp {
    /// A completion of the device: adds to `out` what the caller is to see of it.
    pub(in crate::rdma) fn complete(&self, wc: &sys::ibv_wc, out: &mut VecDeque<WorkCompletion>) {
        let is_recv = wc.wr_id & RECV != 0;
        let status = status_of(wc.status, is_recv);
        if status != WcStatus::Success {
            let before = self.state.swap(ERROR, Ordering::AcqRel);
            self.note_error(before, status);
        }
        if is_recv {
            if let Some(done) = self.complete_recv(wc, status) {
                out.push_back(done);
            }
        } else if self.send_queue().complete(wc.wr_id, status) {
            self.go_on(out);
        } else {
            self.told_again("a request");
        }
    }

    /// The device tells of the end of what has ended already. One that forgets to flush may have been
    /// slow instead, and told after [`Self::flush`]; so may one that is being removed.
    fn told_again(&self, what: &str) {
        let qp = format_args!("{:#x}", self.number);
        let may_be_late = self.device.forgets_to_flush
            || self.device.repeats_binds
            || self.lost_device.load(Ordering::Acquire);
        if may_be_late && self.state.load(Ordering::Acquire) == ERROR {
            tracing::debug!(%qp, "{what} was flushed late");
        } else {
            tracing::error!(%qp, "{what} completed twice");
        }
    }

    /// Flushed is what follows an error. If neither this side nor a request of its own has caused
    /// it, the peer has; TCP's end is another reason on iWARP.
    fn note_error(&self, before: u8, status: WcStatus) {
        if before == READY && status == WcStatus::Flushed && self.device.transport == Transport::Ib
        {
            self.refused_peer.store(true, Ordering::Release);
            let number = format_args!("{:#x}", self.number);
            tracing::warn!(qp = %number, "the device has refused a request of the peer's");
        }
    }

    /// The device has nothing more to say about this queue pair, which is in error.
    pub(in crate::rdma) fn flush(&self, out: &mut VecDeque<WorkCompletion>) {
        self.send_queue().flush();
        self.go_on(out);
        loop {
            let flushed = self.recv_queue().flush_one();
            let Some(wr_id) = flushed else { break };
            self.cq.free_places(1);
            out.push_back(self.completion(wr_id, WcStatus::Flushed, WcOpcode::Recv));
        }
    }

    /// Requests have ended: reports them, and posts what has waited for them.
    fn go_on(&self, out: &mut VecDeque<WorkCompletion>) {
        self.take_ended(out);
        if self.release() {
            self.take_ended(out);
        }
    }

    fn take_ended(&self, out: &mut VecDeque<WorkCompletion>) {
        loop {
            let ended = self.send_queue().take_ended();
            let Some((entry, status)) = ended else { break };
            self.cq.free_places(1);
            if let Some(done) = self.complete_send(&entry, status) {
                out.push_back(done);
            }
        }
    }

    fn completion(&self, wr_id: WrId, status: WcStatus, opcode: WcOpcode) -> WorkCompletion {
        WorkCompletion {
            wr_id,
            status,
            opcode,
            byte_len: 0,
            invalidated: None,
            qp: QpNum(self.number),
        }
    }

    fn complete_recv(&self, wc: &sys::ibv_wc, status: WcStatus) -> Option<WorkCompletion> {
        let done = self.recv_queue().complete(wc.wr_id & !RECV);
        let Some(wr_id) = done else {
            self.told_again("a receive");
            return None;
        };
        self.cq.free_places(1);
        let success = status == WcStatus::Success;
        let mut invalidated = None;
        if success {
            self.id.first_message();
            if wc.wc_flags & self.device.invalidated_flag != 0 {
                // SAFETY: the flag says which of the two the field is.
                let rkey = unsafe { wc.__bindgen_anon_1.invalidated_rkey };
                self.invalidated(rkey);
                invalidated = Some(Rkey(rkey));
            }
        }
        Some(WorkCompletion {
            byte_len: if success { wc.byte_len as usize } else { 0 },
            invalidated,
            ..self.completion(wr_id, status, WcOpcode::Recv)
        })
    }

    fn complete_send(&self, entry: &Entry, status: WcStatus) -> Option<WorkCompletion> {
        let success = status == WcStatus::Success;
        match &entry.kind {
            Kind::Marker => {
                self.id.drained();
                return None;
            }
            Kind::Barrier => return None,
            Kind::LocalInv { rkey } if success => self.invalidated(*rkey),
            Kind::Bind { rkey } if !success => self.bind_failed(*rkey),
            _ => {}
        }
        if success && !entry.signaled {
            return None;
        }
        let (opcode, byte_len) = entry.kind.report();
        Some(WorkCompletion {
            byte_len: if success { byte_len } else { 0 },
            ..self.completion(entry.wr_id, status, opcode)
        })
    }

    fn bind_failed(&self, rkey: u32) {
        if let Some(window) = self.forget_key(rkey) {
            window.kill(rkey);
        }
    }
}
