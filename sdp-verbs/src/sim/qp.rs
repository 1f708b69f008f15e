//! Queue pairs: what the fabric knows of them, and their handles.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::adapter::Packet;
use super::clock::Nanos;
use super::cm::IdKey;
use super::cq::{CqKey, SimCq};
use super::fabric::Fabric;
use super::faults::Fault;
use super::opening::Opening;
use super::options::SimOptions;
use super::processors::Work;
use super::region::SimWindow;
use super::request::{Data, Op, Request, Sges, Stage};
use super::watch::Passing;
use super::world::{Event, NodeKey, World};
use crate::caps::Caps;
use crate::error::{PostError, VerbsError};
use crate::memory::{Block, RecvBuf, SendBuf};
use crate::mr::{Binding, MemoryWindow};
use crate::qp::{QpAttr, QueuePair};
use crate::types::{Lkey, QpNum, Rkey, Sge, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr};

/// A posted receive.
#[derive(Debug)]
pub(super) struct Receive {
    pub(super) wr_id: WrId,
    pub(super) buf: Arc<RecvBlock>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Receives may be posted.
    Init,
    /// Messages arrive.
    ReadyToReceive,
    /// Messages may be sent too.
    ReadyToSend,
    Error,
}

/// A queue pair on the fabric.
#[derive(Debug)]
pub(super) struct Qp {
    pub(super) num: QpNum,
    pub(super) node: NodeKey,
    pub(super) queue: CqKey,
    pub(super) id: IdKey,
    pub(super) peer: Option<QpNum>,
    pub(super) state: State,
    pub(super) rnr_retry: u8,
    send_wr_max: u64,
    recv_wr_max: usize,
    /// Requests not completed yet. The first one has the number `first`.
    pub(super) requests: VecDeque<Request>,
    pub(super) first: u64,
    /// Requests up to this number, without it, have been polled for.
    polled: u64,
    reserved: u64,
    pub(super) reads_open: u32,
    /// A packet was lost for good: none behind it is heard.
    pub(super) cut: bool,
    /// The peer will not send again what is missing, so nothing behind it is taken.
    pub(super) deaf: bool,
    pub(super) receives: VecDeque<Receive>,
    /// Arrived, and waiting for a receive or behind one that does.
    pub(super) stalled: VecDeque<Packet>,
    /// Heads and lengths of messages whose completions nobody has polled, for who watches.
    pub(super) untold: VecDeque<(Vec<u8>, usize)>,
    /// Packets, answers and completions keep their order: none comes before these times.
    pub(super) arrive_floor: Nanos,
    pub(super) answer_floor: Nanos,
    pub(super) send_floor: Nanos,
    pub(super) recv_floor: Nanos,
    /// It has accepted and heard nothing, where the other side must send first.
    pub(super) opening: Option<Opening>,
    /// It ends when everything posted has been sent.
    pub(super) draining: bool,
    /// The program has let go of it.
    pub(super) dropped: bool,
}

impl Qp {
    /// Requests that take a place.
    fn occupied(&self) -> u64 {
        self.next() - self.polled
    }

    /// The number of the next request.
    fn next(&self) -> u64 {
        self.first + self.requests.len() as u64
    }

    /// A completion was polled: its place, and those of silent requests before it, are free.
    pub(super) fn reaped(&mut self, seq: u64) {
        self.polled = self.polled.max(seq + 1);
    }

    pub(super) fn request(&mut self, seq: u64) -> Option<&mut Request> {
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.requests.get_mut(place)
    }

    /// Whether a request that may still be carried out names a region.
    pub(super) fn uses(&self, lkey: Lkey) -> bool {
        let open = |request: &&Request| !matches!(request.stage, Stage::Done { .. });
        let mut open = self.requests.iter().filter(open);
        self.state != State::Error
            && open.any(|request| request.op.sges().iter().any(|sge| sge.lkey == lkey))
    }

    /// Everything posted has been carried out.
    pub(super) fn is_drained(&self) -> bool {
        self.requests.is_empty()
    }

    fn may_send(&self) -> Result<(), PostError> {
        if self.state != State::ReadyToSend || self.draining || self.dropped {
            Err(PostError::WrongState)
        } else {
            Ok(())
        }
    }
}

impl World {
    pub(super) fn create_qp(
        &mut self,
        id: IdKey,
        node: NodeKey,
        queue: CqKey,
        attr: &QpAttr,
    ) -> Result<QpNum, VerbsError> {
        let limits = self.nodes[node].options.limits;
        if attr.send_wr_max > limits.send_wr_max || attr.recv_wr_max > limits.recv_wr_max {
            return Err(VerbsError::Limit {
                what: "creating a queue pair",
                limit: format!("{limits:?}"),
                remedy: "ask for shorter queues",
            });
        }
        let num = QpNum(u32::try_from(self.new_key()).unwrap_or(u32::MAX));
        let qp = Qp {
            num,
            node,
            queue,
            id,
            peer: None,
            state: State::Init,
            rnr_retry: attr.rnr_retry,
            send_wr_max: u64::from(attr.send_wr_max),
            recv_wr_max: usize::try_from(attr.recv_wr_max).unwrap_or(usize::MAX),
            requests: VecDeque::new(),
            first: 0,
            polled: 0,
            reserved: 0,
            reads_open: 0,
            cut: false,
            deaf: false,
            receives: VecDeque::new(),
            stalled: VecDeque::new(),
            untold: VecDeque::new(),
            arrive_floor: 0,
            answer_floor: 0,
            send_floor: 0,
            recv_floor: 0,
            opening: None,
            draining: false,
            dropped: false,
        };
        self.qps.insert(num, qp);
        Ok(num)
    }

    /// Posts a request, for which the processor has copied so many bytes.
    fn post(&mut self, num: QpNum, request: Request, copied: usize) -> Result<(), PostError> {
        let qp = self.qps.get_mut(&num).ok_or(PostError::WrongState)?;
        qp.may_send()?;
        if qp.occupied() >= qp.send_wr_max {
            return Err(PostError::QueueFull);
        }
        let node = qp.node;
        let about = [request.op.opcode() as u64, u64::from(request.flags.bits())];
        self.show_post(node, num, &request.op);
        let qp = self.qps.get_mut(&num).ok_or(PostError::WrongState)?;
        qp.requests.push_back(request);
        let now = self.now();
        self.trace.note(now, "post", u64::from(num.0), about);
        let post = self.timing.post;
        self.charge_copy(node, copied);
        let at = self.charge(node, Work::Post, post);
        self.at(at, Event::Start(num));
        Ok(())
    }

    fn show_post(&mut self, node: NodeKey, num: QpNum, op: &Op) {
        if self.watcher.is_none() {
            return;
        }
        let total = |sges: &Sges| sges.iter().map(|sge| sge.len).sum();
        let gathered;
        let what = match op {
            Op::Send { data, invalidate } => Passing::Send {
                bytes: match data {
                    Data::Taken(bytes) => bytes,
                    Data::Gather(sges) => {
                        gathered = self.gather(node, sges).unwrap_or_default();
                        &gathered
                    }
                },
                invalidate: *invalidate,
            },
            Op::Read {
                local,
                remote,
                rkey,
            } => Passing::Read {
                remote: *remote,
                rkey: *rkey,
                len: total(local),
            },
            Op::Write {
                local,
                remote,
                rkey,
            } => Passing::Write {
                remote: *remote,
                rkey: *rkey,
                len: total(local),
            },
            Op::Bind(_) | Op::LocalInv(_) => return,
        };
        self.show(node, Some(num), what);
    }

    fn post_recv(&mut self, num: QpNum, receive: Receive) -> Result<(), PostError> {
        let qp = self.qps.get_mut(&num).ok_or(PostError::WrongState)?;
        if qp.state == State::Error {
            return Err(PostError::WrongState);
        }
        if qp.receives.len() >= qp.recv_wr_max {
            return Err(PostError::QueueFull);
        }
        if receive.buf.posted.swap(true, Ordering::Relaxed) {
            return Err(PostError::LocalProtection);
        }
        let len = receive.buf.block.mem().len();
        qp.receives.push_back(receive);
        let node = qp.node;
        let waits = !qp.stalled.is_empty();
        self.show(node, Some(num), Passing::Receive { len });
        let post = self.timing.post;
        let at = self.charge(node, Work::Post, post);
        if waits {
            self.at(at, Event::Retry(num));
        }
        Ok(())
    }

    /// The program lets go of a queue pair. One that is still sending its last words goes later.
    fn drop_qp(&mut self, num: QpNum) {
        let Some(qp) = self.qps.get_mut(&num) else {
            return;
        };
        qp.dropped = true;
        if qp.state == State::ReadyToSend && qp.draining {
            return;
        }
        let id = qp.id;
        self.fail_qp(num);
        self.qps.remove(&num);
        self.qp_gone(id);
    }
}

/// Memory of a receive.
#[derive(Debug)]
pub(super) struct RecvBlock {
    pub(super) block: Block,
    qp: QpNum,
    pub(super) posted: AtomicBool,
    /// Bytes of the message in it, which the program has copied out by the time it posts again.
    pub(super) filled: std::sync::atomic::AtomicUsize,
}

/// Memory of a message to be sent.
#[derive(Debug)]
struct SendBlock {
    block: Block,
    qp: QpNum,
}

/// See [`QueuePair`].
#[derive(Debug)]
pub(super) struct SimQp {
    fabric: Arc<Fabric>,
    node: NodeKey,
    num: QpNum,
    options: SimOptions,
    _cq: Arc<SimCq>,
}

impl SimQp {
    pub(super) fn new(
        fabric: &Arc<Fabric>,
        node: NodeKey,
        num: QpNum,
        options: SimOptions,
        cq: Arc<SimCq>,
    ) -> Self {
        Self {
            fabric: Arc::clone(fabric),
            node,
            num,
            options,
            _cq: cq,
        }
    }

    fn need(&self, caps: Caps) -> Result<(), PostError> {
        if self.options.caps.contains(caps) {
            Ok(())
        } else {
            Err(PostError::Unsupported)
        }
    }

    fn take_sges(&self, sges: &[Sge], len_max: usize) -> Result<Sges, PostError> {
        let bytes = sges
            .iter()
            .try_fold(0usize, |sum, sge| sum.checked_add(sge.len));
        if sges.len() > self.options.limits.sge_max || bytes.is_none_or(|bytes| bytes > len_max) {
            return Err(PostError::TooLarge);
        }
        Ok(Sges::from_slice(sges))
    }

    /// The bytes of a message, and how many of them the processor has copied.
    fn take_data(&self, data: SendData<'_>) -> Result<(Data, usize), PostError> {
        let max = self.options.limits.recv_len_max;
        match data {
            SendData::Inline(bytes) if bytes.len() > max => Err(PostError::TooLarge),
            SendData::Inline(bytes) => Ok((Data::Taken(bytes.to_vec()), bytes.len())),
            SendData::Buf { buf, len } => {
                let block = self.own(&buf)?;
                self.unreserve();
                if len > block.block.mem().len() {
                    return Err(PostError::TooLarge);
                }
                Ok((Data::Taken(block.block.bytes(len)), len))
            }
            SendData::Sges(sges) => Ok((Data::Gather(self.take_sges(sges, max)?), 0)),
        }
    }

    fn own(&self, buf: &SendBuf) -> Result<Arc<SendBlock>, PostError> {
        let block = Arc::clone(buf.keep()).downcast::<SendBlock>();
        let block = block.map_err(|_| PostError::LocalProtection)?;
        if block.qp == self.num {
            Ok(block)
        } else {
            Err(PostError::LocalProtection)
        }
    }

    fn unreserve(&self) {
        self.fabric.with(|world| {
            if let Some(qp) = world.qps.get_mut(&self.num) {
                qp.reserved = qp.reserved.saturating_sub(1);
            }
        });
    }

    fn take_op(&self, op: SendOp<'_>) -> Result<(Op, usize), PostError> {
        let rdma_max = self.options.limits.rdma_len_max;
        match op {
            SendOp::Send { data, invalidate } => {
                if invalidate.is_some() {
                    self.need(Caps::SEND_WITH_INV)?;
                }
                let (data, copied) = self.take_data(data)?;
                Ok((Op::Send { data, invalidate }, copied))
            }
            SendOp::Read {
                local,
                remote,
                rkey,
            } => {
                self.need(Caps::RDMA_READ)?;
                let local = self.take_sges(local, rdma_max)?;
                let op = Op::Read {
                    local,
                    remote,
                    rkey,
                };
                Ok((op, 0))
            }
            SendOp::Write {
                local,
                remote,
                rkey,
            } => {
                self.need(Caps::RDMA_WRITE)?;
                let local = self.take_sges(local, rdma_max)?;
                let op = Op::Write {
                    local,
                    remote,
                    rkey,
                };
                Ok((op, 0))
            }
            SendOp::LocalInv { rkey } => {
                self.need(Caps::LOCAL_INV)?;
                Ok((Op::LocalInv(rkey), 0))
            }
        }
    }
}

impl Drop for SimQp {
    fn drop(&mut self) {
        self.fabric.with(|world| world.drop_qp(self.num));
    }
}

impl QueuePair for SimQp {
    fn num(&self) -> QpNum {
        self.num
    }

    fn alloc_recv(&self, len: usize) -> Result<RecvBuf, VerbsError> {
        let max = self.options.limits.recv_len_max;
        let failed = self
            .fabric
            .with(|world| world.dice.fires(Fault::NoRecvMemory));
        if len > max || failed {
            return Err(VerbsError::Limit {
                what: "memory of a receive",
                limit: format!("{max} bytes"),
                remedy: "ask for less",
            });
        }
        let block = Arc::new(RecvBlock {
            block: Block::new(len),
            qp: self.num,
            posted: AtomicBool::new(false),
            filled: std::sync::atomic::AtomicUsize::new(0),
        });
        Ok(RecvBuf::new(*block.block.mem(), 0, block))
    }

    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError> {
        let buf = Arc::clone(buf.keep()).downcast::<RecvBlock>();
        let buf = buf.ok().filter(|buf| buf.qp == self.num);
        let buf = buf.ok_or(PostError::LocalProtection)?;
        let copied = buf.filled.swap(0, Ordering::Relaxed);
        self.fabric.with(|world| {
            world.charge_copy(self.node, copied);
            world.post_recv(self.num, Receive { wr_id, buf })
        })
    }

    /// What is kept may be under way, so there need not be any in spite of it.
    fn keep_send(&self, _: usize) -> Result<(), VerbsError> {
        Ok(())
    }

    fn reserve_send(&self, len: usize) -> Result<SendBuf, PostError> {
        if len > self.options.limits.recv_len_max {
            return Err(PostError::TooLarge);
        }
        self.fabric.with(|world| {
            let qp = world.qps.get_mut(&self.num).ok_or(PostError::WrongState)?;
            qp.may_send()?;
            if qp.reserved >= qp.send_wr_max {
                return Err(PostError::QueueFull);
            }
            if world.dice.fires(Fault::NoSendMemory) {
                return Err(PostError::NoMemory);
            }
            qp.reserved += 1;
            Ok(())
        })?;
        let block = Arc::new(SendBlock {
            block: Block::new(len),
            qp: self.num,
        });
        Ok(SendBuf::new(*block.block.mem(), 0, block))
    }

    fn unreserve_send(&self, buf: SendBuf) {
        if self.own(&buf).is_ok() {
            self.unreserve();
        }
    }

    fn post_send(&self, wr: SendWr<'_>) -> Result<(), PostError> {
        let SendWr { wr_id, op, flags } = wr;
        let (op, copied) = self.take_op(op)?;
        let request = Request {
            wr_id,
            flags,
            op,
            stage: Stage::Queued,
        };
        self.fabric
            .with(|world| world.post(self.num, request, copied))
    }

    fn bind(
        &self,
        wr_id: WrId,
        flags: SendFlags,
        window: &dyn MemoryWindow,
        binding: Binding,
    ) -> Result<Rkey, PostError> {
        self.need(Caps::MEMORY_WINDOW)?;
        let window = window.as_any().downcast_ref::<SimWindow>();
        let window = window.filter(|window| window.is_on(&self.fabric, self.node));
        let window = window.ok_or(PostError::LocalProtection)?;
        let heap = self.options.caps.contains(Caps::HEAP_WINDOW);
        self.fabric.with(|world| {
            if window.live(world).is_some() {
                return Err(PostError::LocalProtection);
            }
            let qp = world.qps.get(&self.num).ok_or(PostError::WrongState)?;
            qp.may_send()?;
            let rkey = world.prepare_bind(self.node, self.num, &binding, heap)?;
            let request = Request {
                wr_id,
                flags,
                op: Op::Bind(rkey),
                stage: Stage::Queued,
            };
            if let Err(error) = world.post(self.num, request, 0) {
                world.regions.forget(rkey);
                return Err(error);
            }
            window.set(rkey);
            Ok(rkey)
        })
    }

    fn heap_reachable(&self) -> Result<(), String> {
        if self.options.caps.contains(Caps::HEAP_WINDOW) {
            Ok(())
        } else {
            Err("this adapter binds windows over its own memory only".to_owned())
        }
    }

    fn set_error(&self) {
        self.fabric.with(|world| world.fail_qp(self.num));
    }
}
