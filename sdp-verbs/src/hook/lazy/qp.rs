//! Queue pairs that let their requests out late.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Setup;
use super::cq::LazyCq;
use super::recv::{RecvBook, RecvQueue};
use super::send::{Forwarded, OwnedOp, SendQueue};
use crate::caps::Caps;
use crate::error::{PostError, VerbsError};
use crate::memory::{Block, RecvBuf, SendBuf};
use crate::mr::{Binding, MemoryWindow};
use crate::qp::QueuePair;
use crate::types::{QpNum, Rkey, Sge, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WorkCompletion};

#[derive(Debug)]
struct State {
    send: SendQueue,
    recv: RecvQueue,
    /// A request has been accepted below, so the queue pair is connected or was.
    connected: bool,
}

static NEXT_SEND_TOKEN: AtomicU64 = AtomicU64::new(1);

/// What the queue pair, its completion queue and its id share.
#[derive(Debug)]
pub(super) struct QpCore {
    inner: Arc<dyn QueuePair>,
    /// Taken after the completion queue's lock, never before it.
    state: Mutex<State>,
    book: Arc<RecvBook>,
    /// Marks reserved buffers as this queue pair's.
    send_token: u64,
}

impl QpCore {
    pub(super) fn new(inner: Arc<dyn QueuePair>, send_wr_max: u32) -> Self {
        let capacity = usize::try_from(send_wr_max).unwrap_or(usize::MAX);
        Self {
            inner,
            state: Mutex::new(State {
                send: SendQueue::new(capacity),
                recv: RecvQueue::default(),
                connected: false,
            }),
            book: Arc::default(),
            send_token: NEXT_SEND_TOKEN.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(super) fn num(&self) -> QpNum {
        self.inner.num()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Poisoned only by a panic of the provider below, which the panic reports.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.lock().send.in_flight()
    }

    /// Whether a poll would move something on.
    pub(super) fn holds(&self) -> bool {
        let state = self.lock();
        state.send.holds() || state.recv.holds()
    }

    /// Lets up to `count` requests out.
    pub(super) fn forward(&self, count: usize) {
        let outcome = self.lock().send.forward(&*self.inner, count);
        if outcome == Forwarded::Refused {
            self.inner.set_error();
        }
    }

    /// Takes a completion from below. False if it belongs to nothing known.
    pub(super) fn complete(&self, wc: &WorkCompletion) -> bool {
        let mut state = self.lock();
        if wc.status.breaks() {
            state.send.fail();
        }
        match wc.opcode {
            WcOpcode::Recv => state.recv.complete(wc),
            _ => state.send.settle(wc),
        }
    }

    /// Hands out completions that were held back.
    pub(super) fn release(&self, sends: bool, recvs: bool, out: &mut VecDeque<WorkCompletion>) {
        let mut state = self.lock();
        if sends {
            state.send.release(self.inner.num(), out);
        }
        if recvs {
            state.recv.release(out);
        }
    }
}

/// See [`Lazy`](super::Lazy).
#[derive(Debug)]
pub(super) struct LazyQp {
    core: Arc<QpCore>,
    cq: Arc<LazyCq>,
    setup: Arc<Setup>,
}

impl LazyQp {
    pub(super) fn new(core: Arc<QpCore>, cq: Arc<LazyCq>, setup: Arc<Setup>) -> Self {
        Self { core, cq, setup }
    }

    /// What can be known to be wrong with a request without looking at keys.
    fn check(&self, op: &SendOp<'_>) -> Result<(), PostError> {
        let limits = &self.setup.limits;
        let total = |sges: &[Sge], max: usize| {
            let bytes = sges
                .iter()
                .try_fold(0usize, |sum, sge| sum.checked_add(sge.len));
            match bytes {
                Some(bytes) if bytes <= max && sges.len() <= limits.sge_max => Ok(()),
                _ => Err(PostError::TooLarge),
            }
        };
        match op {
            SendOp::Send { data, invalidate } => {
                if invalidate.is_some() {
                    self.setup.need_to_post(Caps::SEND_WITH_INV)?;
                }
                match data {
                    SendData::Sges(sges) => total(sges, limits.recv_len_max),
                    SendData::Inline(bytes) if bytes.len() > limits.recv_len_max => {
                        Err(PostError::TooLarge)
                    }
                    SendData::Buf { buf, .. } if buf.token() != self.core.send_token => {
                        Err(PostError::LocalProtection)
                    }
                    SendData::Inline(_) | SendData::Buf { .. } => Ok(()),
                }
            }
            SendOp::Read { local, .. } => {
                self.setup.need_to_post(Caps::RDMA_READ)?;
                total(local, limits.rdma_len_max)
            }
            SendOp::Write { local, .. } => {
                self.setup.need_to_post(Caps::RDMA_WRITE)?;
                total(local, limits.rdma_len_max)
            }
            SendOp::LocalInv { .. } => self.setup.need_to_post(Caps::LOCAL_INV),
        }
    }
}

impl QueuePair for LazyQp {
    fn num(&self) -> QpNum {
        self.core.num()
    }

    fn alloc_recv(&self, len: usize) -> Result<RecvBuf, VerbsError> {
        self.core.book.add(self.core.inner.alloc_recv(len)?)
    }

    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError> {
        let pair = self.core.book.find(buf).ok_or(PostError::LocalProtection)?;
        // Posted under the lock, so that a poll finds the note of it.
        let mut state = self.core.lock();
        let id = state.recv.begin(wr_id, &pair);
        let posted = self.core.inner.post_recv(id, &pair.inner);
        if posted.is_err() {
            state.recv.refused(id);
        }
        posted
    }

    fn keep_send(&self, len: usize) -> Result<(), VerbsError> {
        self.core.inner.keep_send(len)
    }

    fn reserve_send(&self, len: usize) -> Result<SendBuf, PostError> {
        if len > self.setup.limits.recv_len_max {
            return Err(PostError::TooLarge);
        }
        let state = self.core.lock();
        state.send.check_room()?;
        if !state.connected {
            // Only the queue pair below knows whether it is connected.
            let probe = self.core.inner.reserve_send(len)?;
            self.core.inner.unreserve_send(probe);
        }
        // Out of memory is the one way to fail, and it passes as a full queue does.
        let block = Arc::new(Block::new(len));
        Ok(SendBuf::new(*block.mem(), self.core.send_token, block))
    }

    fn unreserve_send(&self, buf: SendBuf) {
        drop(buf);
    }

    fn post_send(&self, wr: SendWr<'_>) -> Result<(), PostError> {
        self.check(&wr.op)?;
        let mut state = self.core.lock();
        state.send.check_room()?;
        let op = OwnedOp::new(wr.op)?;
        if state.connected {
            state.send.hold(wr.wr_id, wr.flags, op);
            drop(state);
            self.cq.on_held();
        } else {
            // Not held back, because only the queue pair below knows whether it is connected.
            state
                .send
                .pass_op(&*self.core.inner, wr.wr_id, wr.flags, &op)?;
            state.connected = true;
        }
        Ok(())
    }

    fn bind(
        &self,
        wr_id: WrId,
        flags: SendFlags,
        window: &dyn MemoryWindow,
        binding: Binding,
    ) -> Result<Rkey, PostError> {
        self.setup.need_to_post(Caps::MEMORY_WINDOW)?;
        if self.setup.heap.find(binding.lkey).is_some() {
            self.setup.need_to_post(Caps::HEAP_WINDOW)?;
        }
        let mut state = self.core.lock();
        state.send.check_room()?;
        state.send.pass(wr_id, flags, WcOpcode::Bind, |id, flags| {
            self.core.inner.bind(id, flags, window, binding)
        })
    }

    fn heap_reachable(&self) -> Result<(), String> {
        if !self.setup.caps.contains(Caps::HEAP_WINDOW) {
            return Err("windows over heap memory are switched off by the lazy hook".to_owned());
        }
        self.core.inner.heap_reachable()
    }

    fn has_refused_peer(&self) -> bool {
        self.core.inner.has_refused_peer()
    }

    fn queued_len(&self) -> usize {
        self.core.inner.queued_len() + self.core.lock().send.held_len()
    }

    fn set_error(&self) {
        self.core.inner.set_error();
        self.core.lock().send.fail();
        self.cq.on_held();
    }
}
