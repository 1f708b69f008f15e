//! The receiving half of an adapter: packets arrive and are carried out.

use std::sync::atomic::Ordering;

use super::{Kind, Packet};
use crate::memory::copy_out;
use crate::sim::cq::Cqe;
use crate::sim::faults::Fault;
use crate::sim::link::Leaving;
use crate::sim::options::wide;
use crate::sim::qp::{Receive, State};
use crate::sim::watch::Passing;
use crate::sim::world::{Event, World};
use crate::types::{Access, QpNum, Rkey};
use crate::wr::{WcOpcode, WcStatus, WorkCompletion};

/// The number of retries that has no end.
const RNR_ENDLESS: u8 = 7;

impl World {
    /// A packet arrives.
    pub(in crate::sim) fn arrive(&mut self, packet: Packet) {
        if packet.early {
            self.give_up(&packet, WcStatus::RetryExceeded);
            return self.end_opening(&packet);
        }
        for packet in self.seen(packet) {
            self.take(packet);
        }
    }

    fn take(&mut self, packet: Packet) {
        let breaks = self.dice.fires(Fault::QpBreak);
        let Some(qp) = self.qps.get_mut(&packet.to) else {
            return self.give_up(&packet, WcStatus::RetryExceeded);
        };
        let hears = matches!(qp.state, State::ReadyToReceive | State::ReadyToSend);
        if !hears || qp.deaf {
            return self.give_up(&packet, WcStatus::RetryExceeded);
        }
        if breaks {
            let num = packet.to;
            self.give_up(&packet, WcStatus::RetryExceeded);
            return self.break_qp(num);
        }
        let id = qp.id;
        if qp.state == State::ReadyToReceive {
            // The first message says that the connector has confirmed.
            self.first_message_came(id);
        }
        match self.qps.get_mut(&packet.to) {
            Some(qp) if !qp.stalled.is_empty() => qp.stalled.push_back(packet),
            _ => self.execute(packet),
        }
    }

    /// Looks again at what has stalled.
    pub(in crate::sim) fn retry(&mut self, num: QpNum) {
        loop {
            let Some(qp) = self.qps.get_mut(&num) else {
                return;
            };
            let Some(packet) = qp.stalled.pop_front() else {
                return;
            };
            // What still waits for this one must stay behind it.
            let behind = std::mem::take(&mut qp.stalled);
            self.execute(packet);
            let Some(qp) = self.qps.get_mut(&num) else {
                return;
            };
            if qp.state == State::Error || qp.deaf {
                for packet in &behind {
                    self.give_up(packet, WcStatus::RetryExceeded);
                }
                return;
            }
            let stalled_again = !qp.stalled.is_empty();
            qp.stalled.extend(behind);
            if stalled_again {
                return;
            }
        }
    }

    /// The responder carries a packet out, or lets it stall.
    fn execute(&mut self, packet: Packet) {
        match &packet.kind {
            Kind::Send { .. } => self.execute_send(packet),
            Kind::Read { remote, rkey, len } => {
                let (remote, rkey, len) = (*remote, *rkey, *len);
                let Some(qp) = self.qps.get(&packet.to) else {
                    return;
                };
                let node = qp.node;
                let access = Access::REMOTE_READ;
                let found = len == 0
                    || self
                        .regions
                        .remote(node, packet.to, rkey, remote, len, access)
                        .is_ok();
                if found {
                    let num = packet.to;
                    self.transmit(node, num, len, Leaving::Response(packet));
                } else {
                    self.deny(&packet, WcStatus::RemoteAccess);
                }
            }
            Kind::Write {
                bytes,
                remote,
                rkey,
            } => {
                if bytes.is_empty() {
                    return self.answer(&packet, WcStatus::Success, Vec::new());
                }
                let Some(qp) = self.qps.get(&packet.to) else {
                    return;
                };
                let (node, access) = (qp.node, Access::REMOTE_WRITE);
                let target =
                    self.regions
                        .remote(node, packet.to, *rkey, *remote, bytes.len(), access);
                match target {
                    Ok(mem) => {
                        mem.write(0, bytes);
                        self.answer(&packet, WcStatus::Success, Vec::new());
                    }
                    Err(_) => self.deny(&packet, WcStatus::RemoteAccess),
                }
            }
        }
    }

    fn execute_send(&mut self, mut packet: Packet) {
        let not_ready = self.dice.fires(Fault::Rnr);
        // A queue pair in error, or gone, sends nothing again.
        let sender = self.qps.get(&packet.from);
        let sender = sender.filter(|qp| qp.state != State::Error);
        let retries = sender.map_or(0, |qp| qp.rnr_retry);
        let Some(qp) = self.qps.get_mut(&packet.to) else {
            return;
        };
        if not_ready || qp.receives.is_empty() {
            if retries != RNR_ENDLESS && packet.attempts >= retries {
                // Nobody sends it again, and nothing behind it is taken.
                qp.deaf = true;
                return self.answer(&packet, WcStatus::RnrRetryExceeded, Vec::new());
            }
            packet.attempts = packet.attempts.saturating_add(1);
            let (num, timer) = (packet.to, not_ready || retries != RNR_ENDLESS);
            qp.stalled.push_front(packet);
            if timer {
                self.after(self.timing.rnr_timer, Event::Retry(num));
            }
            return;
        }
        let Some(receive) = qp.receives.pop_front() else {
            return;
        };
        receive.buf.posted.store(false, Ordering::Relaxed);
        self.fill(&packet, &receive);
    }

    /// A message meets its receive.
    fn fill(&mut self, packet: &Packet, receive: &Receive) {
        let Kind::Send {
            bytes,
            invalidate,
            solicited,
        } = &packet.kind
        else {
            return;
        };
        let killed = invalidate.is_none_or(|rkey| self.regions.kill(packet.to, rkey));
        let status = if bytes.len() > receive.buf.block.mem().len() {
            WcStatus::LocalLength
        } else if !killed {
            WcStatus::RemoteAccess
        } else {
            WcStatus::Success
        };
        if status != WcStatus::Success {
            self.received(packet.to, receive, status, 0, None, false);
            return self.deny(packet, WcStatus::RemoteOperation);
        }
        let (now, kind) = (self.now(), bytes.first().copied().unwrap_or_default());
        let about = [u64::from(kind), wide(bytes.len())];
        self.trace
            .note(now, "message", u64::from(packet.to.0), about);
        receive.buf.block.mem().write(0, bytes);
        receive.buf.filled.store(bytes.len(), Ordering::Relaxed);
        if self.watcher.is_some()
            && let Some(qp) = self.qps.get_mut(&packet.to)
        {
            let head = &bytes[..bytes.len().min(Passing::HEAD_LEN)];
            qp.untold.push_back((head.to_vec(), bytes.len()));
        }
        if let Some(qp) = self.qps.get_mut(&packet.to) {
            qp.opening = None;
        }
        let len = bytes.len();
        self.received(packet.to, receive, status, len, *invalidate, *solicited);
        self.answer(packet, WcStatus::Success, Vec::new());
    }

    /// The bytes of a READ leave: the key must still be good.
    pub(in crate::sim) fn respond(&mut self, packet: Packet) {
        let Kind::Read { remote, rkey, len } = packet.kind else {
            return;
        };
        let Some(qp) = self.qps.get(&packet.to) else {
            return self.give_up(&packet, WcStatus::RetryExceeded);
        };
        let (node, alive) = (qp.node, qp.state != State::Error);
        if !alive {
            return self.give_up(&packet, WcStatus::RetryExceeded);
        }
        if len == 0 {
            return self.answer(&packet, WcStatus::Success, Vec::new());
        }
        let access = Access::REMOTE_READ;
        match self
            .regions
            .remote(node, packet.to, rkey, remote, len, access)
        {
            Ok(mem) => {
                let bytes = copy_out(&mem, len);
                self.answer(&packet, WcStatus::Success, bytes);
            }
            Err(_) => self.deny(&packet, WcStatus::RemoteAccess),
        }
    }

    /// The responder refuses a request: both ends are in error.
    fn deny(&mut self, packet: &Packet, status: WcStatus) {
        self.answer(packet, status, Vec::new());
        self.fail_qp(packet.to);
    }

    /// A request that the responder has and does not carry out yet: of a READ nothing can be said.
    pub(in crate::sim) fn acknowledge(&mut self, packet: &Packet) {
        if !matches!(packet.kind, Kind::Read { .. }) {
            self.answer(packet, WcStatus::Success, Vec::new());
        }
    }

    /// The responder answers.
    fn answer(&mut self, packet: &Packet, status: WcStatus, bytes: Vec<u8>) {
        let mut at = self.now() + self.timing.latency;
        if let Some(qp) = self.qps.get_mut(&packet.to) {
            at = at.max(qp.answer_floor);
            qp.answer_floor = at;
        }
        self.answer_at(at, packet.from, packet.seq, status, bytes);
    }

    pub(super) fn received(
        &mut self,
        num: QpNum,
        receive: &Receive,
        status: WcStatus,
        byte_len: usize,
        invalidated: Option<Rkey>,
        solicited: bool,
    ) {
        let Some(qp) = self.qps.get(&num) else {
            return;
        };
        let (queue, floor) = (qp.queue, qp.recv_floor);
        let wc = WorkCompletion {
            wr_id: receive.wr_id,
            status,
            opcode: WcOpcode::Recv,
            byte_len,
            invalidated,
            qp: num,
        };
        let cqe = Cqe {
            wc,
            seq: None,
            solicited,
        };
        let shown = self.complete(queue, cqe, floor);
        if let Some(qp) = self.qps.get_mut(&num) {
            qp.recv_floor = shown;
        }
    }
}
