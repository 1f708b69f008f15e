//! The sending half of an adapter: requests start, and their answers come back.

use super::{Answer, Kind, Packet};
use crate::memory::copy_out;
use crate::sim::clock::Nanos;
use crate::sim::cq::Cqe;
use crate::sim::faults::Fault;
use crate::sim::link::Leaving;
use crate::sim::options::wide;
use crate::sim::qp::State;
use crate::sim::request::{Data, Op, Request, Sges, Stage};
use crate::sim::world::{Event, NodeKey, World};
use crate::types::{Access, QpNum};
use crate::wr::{SendFlags, WcStatus, WorkCompletion};

/// What starting a request came to.
enum Started {
    Packet(Kind, usize),
    /// The adapter did it all by itself.
    Alone,
    Failed,
}

impl World {
    /// Starts what a send queue may start.
    pub(in crate::sim) fn start(&mut self, num: QpNum) {
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
                        early: self.is_early(num),
                    };
                    self.transmit(node, num, on_link, Leaving::Request(packet));
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
    pub(in crate::sim) fn gather(&self, node: NodeKey, sges: &Sges) -> Option<Vec<u8>> {
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

    /// The last byte of a packet leaves at a time.
    pub(in crate::sim) fn departs(&mut self, packet: Packet, leaves: Nanos) {
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

    /// The requester hears what became of a request.
    pub(in crate::sim) fn answered(&mut self, answer: Answer) {
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
    pub(super) fn report_first(&mut self, num: QpNum, status: WcStatus, byte_len: usize) {
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
}
