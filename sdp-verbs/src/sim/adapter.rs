//! What adapters do: requests start, packets arrive, answers come back.

use std::sync::atomic::Ordering;

use super::cq::Cqe;
use super::faults::Fault;
use super::options::wide;
use super::qp::{Data, Op, Receive, Request, Sges, Stage, State};
use super::world::{Event, NodeKey, World};
use crate::memory::copy_out;
use crate::types::{Access, QpNum, RemoteAddr, Rkey};
use crate::wr::{SendFlags, WcOpcode, WcStatus, WorkCompletion};

/// A request on its way to the responder.
#[derive(Debug)]
pub(super) struct Packet {
    from: QpNum,
    to: QpNum,
    /// Its number in the requester's send queue.
    seq: u64,
    kind: Kind,
    /// How often it has met no receive.
    attempts: u8,
}

#[derive(Debug)]
enum Kind {
    Send {
        bytes: Vec<u8>,
        invalidate: Option<Rkey>,
        solicited: bool,
    },
    Read {
        remote: RemoteAddr,
        rkey: Rkey,
        len: usize,
    },
    Write {
        bytes: Vec<u8>,
        remote: RemoteAddr,
        rkey: Rkey,
    },
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Answer {
    qp: QpNum,
    seq: u64,
    status: WcStatus,
    /// Bytes of a READ.
    bytes: Vec<u8>,
}

/// What starting a request came to.
enum Started {
    Packet(Kind, usize),
    /// The adapter did it all by itself.
    Alone,
    Failed,
}

/// A request of this kind never finds out whether it was heard; an endless number of retries.
const RNR_ENDLESS: u8 = 7;

impl World {
    /// Starts what a send queue may start.
    pub(super) fn start(&mut self, num: QpNum) {
        while let Some(place) = self.startable(num) {
            let Some(qp) = self.qps.get_mut(&num) else {
                return;
            };
            let seq = qp.first + wide(place);
            let (node, peer) = (qp.node, qp.peer);
            let request = &mut qp.requests[place];
            request.stage = Stage::Started;
            let started = self.start_request(num, node, place);
            match (started, peer) {
                (Started::Failed, _) | (Started::Packet(..), None) => {
                    self.settle(num, seq, WcStatus::LocalProtection, 0);
                    return;
                }
                (Started::Alone, _) => {
                    let at = self.now() + self.timing.bind;
                    self.answer_at(at, num, seq, WcStatus::Success, Vec::new());
                }
                (Started::Packet(kind, on_link), Some(peer)) => {
                    let packet = Packet {
                        from: num,
                        to: peer,
                        seq,
                        kind,
                        attempts: 0,
                    };
                    self.send_packet(node, packet, on_link);
                }
            }
        }
    }

    /// The place of the request that may start next.
    fn startable(&self, num: QpNum) -> Option<usize> {
        let qp = self.qps.get(&num)?;
        if qp.state != State::ReadyToSend {
            return None;
        }
        let depth = self.nodes[qp.node].options.limits.read_depth_max;
        let queued = |request: &Request| request.stage == Stage::Queued;
        let place = qp.requests.iter().position(queued)?;
        let request = &qp.requests[place];
        let fenced = request.flags.contains(SendFlags::FENCE) && qp.reads_open > 0;
        let full = matches!(request.op, Op::Read { .. }) && qp.reads_open >= depth;
        (!fenced && !full).then_some(place)
    }

    fn start_request(&mut self, num: QpNum, node: NodeKey, place: usize) -> Started {
        let Some(qp) = self.qps.get_mut(&num) else {
            return Started::Failed;
        };
        let request = &mut qp.requests[place];
        let solicited = request.flags.contains(SendFlags::SOLICITED);
        match &mut request.op {
            Op::Send { data, invalidate } => {
                let invalidate = *invalidate;
                let bytes = match data {
                    Data::Taken(bytes) => Some(std::mem::take(bytes)),
                    Data::Gather(sges) => {
                        let sges = sges.clone();
                        self.gather(node, &sges)
                    }
                };
                let Some(bytes) = bytes else {
                    return Started::Failed;
                };
                let len = bytes.len();
                let kind = Kind::Send {
                    bytes,
                    invalidate,
                    solicited,
                };
                Started::Packet(kind, len)
            }
            Op::Read {
                local,
                remote,
                rkey,
            } => {
                let (remote, rkey, local) = (*remote, *rkey, local.clone());
                qp.reads_open += 1;
                let len = local.iter().map(|sge| sge.len).sum();
                match self.writable(node, &local) {
                    true => Started::Packet(Kind::Read { remote, rkey, len }, 0),
                    false => Started::Failed,
                }
            }
            Op::Write {
                local,
                remote,
                rkey,
            } => {
                let (remote, rkey, local) = (*remote, *rkey, local.clone());
                let Some(bytes) = self.gather(node, &local) else {
                    return Started::Failed;
                };
                let len = bytes.len();
                let kind = Kind::Write {
                    bytes,
                    remote,
                    rkey,
                };
                Started::Packet(kind, len)
            }
            Op::Bind(rkey) => match self.regions.bound(*rkey) {
                true => Started::Alone,
                false => Started::Failed,
            },
            Op::LocalInv(rkey) => match self.regions.kill(num, *rkey) {
                true => Started::Alone,
                false => Started::Failed,
            },
        }
    }

    /// The bytes of local memory, if the keys cover it.
    fn gather(&self, node: NodeKey, sges: &Sges) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for sge in sges {
            let mem = self.regions.local(node, sge, Access::empty()).ok()?;
            bytes.extend(copy_out(&mem, sge.len));
        }
        Some(bytes)
    }

    fn writable(&self, node: NodeKey, sges: &Sges) -> bool {
        let access = Access::LOCAL_WRITE;
        sges.iter()
            .all(|sge| self.regions.local(node, sge, access).is_ok())
    }

    /// Puts a packet on the link.
    fn send_packet(&mut self, node: NodeKey, packet: Packet, on_link: usize) {
        let leaves = self.transmit(node, on_link);
        let mut at = leaves + self.timing.latency;
        if self.dice.fires(Fault::Reorder) {
            at += self.dice.lateness();
        }
        let lost = self.dice.fires(Fault::RetryExceeded);
        if let Some(qp) = self.qps.get_mut(&packet.from) {
            at = at.max(qp.arrive_floor);
            qp.arrive_floor = at;
            qp.cut |= lost;
            if qp.cut {
                return self.give_up(&packet, WcStatus::RetryExceeded);
            }
        }
        self.at(at, Event::Arrive(packet));
    }

    /// A request that nobody answers.
    fn give_up(&mut self, packet: &Packet, status: WcStatus) {
        let at = self.now() + self.timing.retry_time;
        self.answer_at(at, packet.from, packet.seq, status, Vec::new());
    }

    fn answer_at(&mut self, at: u64, qp: QpNum, seq: u64, status: WcStatus, bytes: Vec<u8>) {
        let answer = Answer {
            qp,
            seq,
            status,
            bytes,
        };
        self.at(at, Event::Answer(answer));
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

    /// A packet arrives.
    pub(super) fn arrive(&mut self, packet: Packet) {
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
            self.cm_message_came(id);
        }
        match self.qps.get_mut(&packet.to) {
            Some(qp) if !qp.stalled.is_empty() => qp.stalled.push_back(packet),
            _ => self.execute(packet),
        }
    }

    /// Looks again at what has stalled.
    pub(super) fn retry(&mut self, num: QpNum) {
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
            if qp.state == State::Error {
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
                    let leaves = self.transmit(node, len);
                    self.at(leaves, Event::Respond(packet));
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

    /// The responder refuses a request: both ends are in error.
    fn deny(&mut self, packet: &Packet, status: WcStatus) {
        self.answer(packet, status, Vec::new());
        self.fail_qp(packet.to);
    }

    fn execute_send(&mut self, mut packet: Packet) {
        let not_ready = self.dice.fires(Fault::Rnr);
        let retries = self.qps.get(&packet.from).map_or(0, |qp| qp.rnr_retry);
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
        let len = bytes.len();
        self.received(packet.to, receive, status, len, *invalidate, *solicited);
        self.answer(packet, WcStatus::Success, Vec::new());
    }

    /// The bytes of a READ leave: the key must still be good.
    pub(super) fn respond(&mut self, packet: Packet) {
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

    /// The requester hears what became of a request.
    pub(super) fn answered(&mut self, answer: Answer) {
        let Answer {
            qp: num,
            seq,
            status,
            bytes,
        } = answer;
        if status == WcStatus::Success && self.dice.fires(Fault::QpBreak) {
            return self.break_qp(num);
        }
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        let (node, failed) = (qp.node, qp.state == State::Error);
        let Some(request) = qp.request(seq).filter(|_| !failed) else {
            return;
        };
        let (mut status, mut byte_len) = (status, 0);
        if let Op::Read { local, .. } = &request.op {
            let local = local.clone();
            if status == WcStatus::Success {
                byte_len = bytes.len();
                if !self.scatter(node, &local, &bytes) {
                    (status, byte_len) = (WcStatus::LocalProtection, 0);
                }
            }
        }
        self.settle(num, seq, status, byte_len);
        self.start(num);
    }

    /// Puts the bytes of a READ where they belong.
    fn scatter(&self, node: NodeKey, sges: &Sges, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for sge in sges {
            let Ok(mem) = self.regions.local(node, sge, Access::LOCAL_WRITE) else {
                return false;
            };
            let (part, behind) = rest.split_at(sge.len.min(rest.len()));
            mem.write(0, part);
            rest = behind;
        }
        true
    }

    /// A request is over; it completes when those before it have.
    fn settle(&mut self, num: QpNum, seq: u64, status: WcStatus, byte_len: usize) {
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        let Some(request) = qp.request(seq) else {
            return;
        };
        request.stage = Stage::Done { status, byte_len };
        if matches!(request.op, Op::Read { .. }) {
            qp.reads_open -= 1;
        }
        self.retire(num);
    }

    /// Reports what is over, oldest first.
    fn retire(&mut self, num: QpNum) {
        loop {
            let Some(qp) = self.qps.get_mut(&num) else {
                return;
            };
            let Some(Stage::Done { status, byte_len }) = qp.requests.front().map(|r| r.stage)
            else {
                break;
            };
            self.report_first(num, status, byte_len);
            if status != WcStatus::Success {
                return self.fail_qp(num);
            }
        }
        self.drained_if_empty(num);
    }

    /// Takes the first request out of the queue and reports it.
    fn report_first(&mut self, num: QpNum, status: WcStatus, byte_len: usize) {
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        let Some(request) = qp.requests.pop_front() else {
            return;
        };
        let seq = qp.first;
        qp.first += 1;
        if !request.flags.contains(SendFlags::SIGNALED) && status == WcStatus::Success {
            return;
        }
        let wc = WorkCompletion {
            wr_id: request.wr_id,
            status,
            opcode: request.op.opcode(),
            byte_len,
            invalidated: None,
            qp: num,
        };
        let (queue, floor) = (qp.queue, qp.send_floor);
        let cqe = Cqe {
            wc,
            seq: Some(seq),
            solicited: false,
        };
        let shown = self.complete(queue, cqe, floor);
        if let Some(qp) = self.qps.get_mut(&num) {
            qp.send_floor = shown;
        }
    }

    fn received(
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

    /// A queue pair breaks for no fault of anybody's: its oldest request fails.
    fn break_qp(&mut self, num: QpNum) {
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        if qp.state == State::Error {
            return;
        }
        if !qp.requests.is_empty() {
            self.report_first(num, WcStatus::RetryExceeded, 0);
        }
        self.fail_qp(num);
    }

    /// Into the error state: keys die, everything is flushed, the peer's requests are lost.
    pub(super) fn fail_qp(&mut self, num: QpNum) {
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        if std::mem::replace(&mut qp.state, State::Error) == State::Error {
            return;
        }
        let (peer, id, draining) = (qp.peer, qp.id, qp.draining);
        let count = qp.requests.len();
        let receives = std::mem::take(&mut qp.receives);
        let stalled = std::mem::take(&mut qp.stalled);
        let now = self.now();
        self.trace
            .note(now, "queue pair in error", u64::from(num.0), [0, 0]);
        self.regions.kill_all(num);
        for _ in 0..count {
            let status = match self.qps[&num].requests.front().map(|r| r.stage) {
                // It was carried out, though one before it was not reported yet.
                Some(Stage::Done { status, .. }) if status != WcStatus::Success => status,
                _ => WcStatus::Flushed,
            };
            self.report_first(num, status, 0);
        }
        for receive in &receives {
            receive.buf.posted.store(false, Ordering::Relaxed);
            self.received(num, receive, WcStatus::Flushed, 0, None, false);
        }
        for packet in &stalled {
            self.give_up(packet, WcStatus::RetryExceeded);
        }
        if let Some(peer) = peer.and_then(|peer| self.qps.get_mut(&peer)) {
            // What waits for a receive will not be sent again.
            let before = peer.stalled.len();
            peer.stalled.retain(|packet| packet.from != num);
            peer.deaf |= peer.stalled.len() != before;
        }
        if draining {
            self.say_goodbye(id);
        }
    }

    /// Ends a draining queue pair whose last words are out.
    fn drained_if_empty(&mut self, num: QpNum) {
        let over = self
            .qps
            .get(&num)
            .is_some_and(|qp| qp.draining && qp.is_drained());
        if over {
            self.drained(num);
        }
    }

    /// A draining queue pair ends, whatever is left.
    pub(super) fn drained(&mut self, num: QpNum) {
        if !self.qps.get(&num).is_some_and(|qp| qp.draining) {
            return;
        }
        self.fail_qp(num);
        if self.qps.get(&num).is_some_and(|qp| qp.dropped) {
            self.qps.remove(&num);
        }
    }

    /// Lets a queue pair send what was posted, then ends it.
    pub(super) fn drain(&mut self, num: QpNum) {
        const DRAIN_MAX: u64 = 5_000_000_000;
        if let Some(qp) = self.qps.get_mut(&num) {
            qp.draining = true;
        }
        self.after(DRAIN_MAX, Event::DrainOver(num));
        self.drained_if_empty(num);
    }
}
