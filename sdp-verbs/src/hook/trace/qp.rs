//! Queue pairs that count what is posted.

use std::sync::Arc;

use super::TARGET;
use super::counters::{Counter, Counts};
use super::ledger::Ledger;
use crate::error::PostError;
use crate::hook::forward::forward;
use crate::hook::sge_bytes;
use crate::memory::{RecvBuf, SendBuf};
use crate::mr::{Binding, MemoryWindow};
use crate::qp::QueuePair;
use crate::types::{Rkey, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode};

/// See [`Trace`](super::Trace).
#[derive(Debug)]
pub(super) struct TraceQp {
    inner: Arc<dyn QueuePair>,
    ledger: Arc<Ledger>,
    counts: Arc<Counts>,
}

impl TraceQp {
    pub(super) fn new(
        inner: Arc<dyn QueuePair>,
        ledger: Arc<Ledger>,
        counts: &Arc<Counts>,
    ) -> Self {
        Self {
            inner,
            ledger,
            counts: Arc::clone(counts),
        }
    }

    fn refused(&self, error: PostError) -> PostError {
        self.counts.add(Counter::RefusedCount, 1);
        tracing::trace!(target: TARGET, qp = ?self.num(), ?error, "refused");
        error
    }

    fn count_posted(&self, opcode: WcOpcode, bytes: usize, invalidates: bool) {
        match opcode {
            WcOpcode::Send => {
                self.counts.add(Counter::SendCount, 1);
                self.counts.add_len(Counter::SendBytes, bytes);
                if invalidates {
                    self.counts.add(Counter::SendInvCount, 1);
                }
            }
            WcOpcode::Read => self.counts.add(Counter::ReadPosted, 1),
            WcOpcode::Write => self.counts.add(Counter::WritePosted, 1),
            WcOpcode::Bind => self.counts.add(Counter::BindCount, 1),
            WcOpcode::LocalInv => self.counts.add(Counter::LocalInvCount, 1),
            WcOpcode::Recv => self.counts.add(Counter::PostRecvCount, 1),
        }
    }
}

fn opcode_and_bytes(op: &SendOp<'_>) -> (WcOpcode, usize) {
    match op {
        SendOp::Send { data, .. } => {
            let bytes = match data {
                SendData::Inline(bytes) => bytes.len(),
                SendData::Buf { len, .. } => *len,
                SendData::Sges(sges) => sge_bytes(sges),
            };
            (WcOpcode::Send, bytes)
        }
        SendOp::Read { local, .. } => (WcOpcode::Read, sge_bytes(local)),
        SendOp::Write { local, .. } => (WcOpcode::Write, sge_bytes(local)),
        SendOp::LocalInv { .. } => (WcOpcode::LocalInv, 0),
    }
}

impl QueuePair for TraceQp {
    forward!(
        QueuePair: num, alloc_recv, keep_send, heap_reachable, has_refused_peer, queued_len,
        lend_token_socket
    );

    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError> {
        self.inner
            .post_recv(wr_id, buf)
            .map_err(|error| self.refused(error))?;
        self.count_posted(WcOpcode::Recv, 0, false);
        tracing::trace!(target: TARGET, qp = ?self.num(), ?wr_id, ?buf, "post_recv");
        Ok(())
    }

    fn reserve_send(&self, len: usize) -> Result<SendBuf, PostError> {
        let buf = self
            .inner
            .reserve_send(len)
            .map_err(|error| self.refused(error))?;
        self.counts.add(Counter::ReserveCount, 1);
        tracing::trace!(target: TARGET, qp = ?self.num(), len, "reserve_send");
        Ok(buf)
    }

    fn unreserve_send(&self, buf: SendBuf) {
        self.counts.add(Counter::UnreserveCount, 1);
        tracing::trace!(target: TARGET, qp = ?self.num(), "unreserve_send");
        self.inner.unreserve_send(buf);
    }

    fn post_send(&self, wr: SendWr<'_>) -> Result<(), PostError> {
        let (wr_id, flags) = (wr.wr_id, wr.flags);
        let (opcode, bytes) = opcode_and_bytes(&wr.op);
        let invalidate = match &wr.op {
            SendOp::Send { invalidate, .. } => *invalidate,
            _ => None,
        };
        let signaled = flags.contains(SendFlags::SIGNALED);
        let posting = self.ledger.before_post(wr_id, opcode, bytes, signaled);
        if let Err(error) = self.inner.post_send(wr) {
            posting.refused();
            return Err(self.refused(error));
        }
        self.count_posted(opcode, bytes, invalidate.is_some());
        tracing::trace!(
            target: TARGET, qp = ?self.num(), ?wr_id, ?opcode, bytes, ?flags, ?invalidate,
            "post_send"
        );
        Ok(())
    }

    fn bind(
        &self,
        wr_id: WrId,
        flags: SendFlags,
        window: &dyn MemoryWindow,
        binding: Binding,
    ) -> Result<Rkey, PostError> {
        let signaled = flags.contains(SendFlags::SIGNALED);
        let posting = self.ledger.before_post(wr_id, WcOpcode::Bind, 0, signaled);
        match self.inner.bind(wr_id, flags, window, binding) {
            Ok(rkey) => {
                self.count_posted(WcOpcode::Bind, 0, false);
                tracing::trace!(target: TARGET, qp = ?self.num(), ?wr_id, ?binding, ?rkey, "bind");
                Ok(rkey)
            }
            Err(error) => {
                posting.refused();
                Err(self.refused(error))
            }
        }
    }

    fn set_error(&self) {
        tracing::trace!(target: TARGET, qp = ?self.num(), "set_error");
        self.inner.set_error();
    }
}
