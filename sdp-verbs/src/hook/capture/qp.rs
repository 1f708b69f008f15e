//! Queue pairs that write down what is posted.

use std::sync::Arc;

use smallvec::SmallVec;

use super::flow::Flow;
use crate::error::{PostError, VerbsError};
use crate::memory::{RecvBuf, SendBuf};
use crate::mr::{Binding, MemoryWindow};
use crate::qp::QueuePair;
use crate::types::{QpNum, Rkey, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr};

/// See [`Capture`](super::Capture).
#[derive(Debug)]
pub(super) struct CaptureQp {
    inner: Arc<dyn QueuePair>,
    flow: Arc<Flow>,
}

impl CaptureQp {
    pub(super) fn new(inner: Arc<dyn QueuePair>, flow: &Arc<Flow>) -> Self {
        Self {
            inner,
            flow: Arc::clone(flow),
        }
    }
}

impl QueuePair for CaptureQp {
    fn num(&self) -> QpNum {
        self.inner.num()
    }

    fn alloc_recv(&self, len: usize) -> Result<RecvBuf, VerbsError> {
        self.inner.alloc_recv(len)
    }

    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError> {
        // Posted under the lock, so that its completion finds the note of it.
        let mut state = self.flow.lock();
        self.inner.post_recv(wr_id, buf)?;
        Flow::post_recv(&mut state, buf);
        Ok(())
    }

    fn reserve_send(&self, len: usize) -> Result<SendBuf, PostError> {
        self.inner.reserve_send(len)
    }

    fn unreserve_send(&self, buf: SendBuf) {
        self.inner.unreserve_send(buf);
    }

    fn post_send(&self, wr: SendWr<'_>) -> Result<(), PostError> {
        // Posted under the lock, so that the file has no answer before its question.
        let mut state = self.flow.lock();
        let solicited = wr.flags.contains(SendFlags::SOLICITED);
        let wr_id = wr.wr_id;
        match wr.op {
            SendOp::LocalInv { .. } => self.inner.post_send(wr),
            SendOp::Read {
                local,
                remote,
                rkey,
            } => {
                self.inner.post_send(wr)?;
                let local = SmallVec::from_slice(local);
                self.flow.read(&mut state, wr_id, local, remote, rkey);
                Ok(())
            }
            SendOp::Write {
                local,
                remote,
                rkey,
            } => {
                let sent = self.flow.write(local, remote, rkey);
                self.inner.post_send(wr)?;
                self.flow.sent(&mut state, sent, false);
                Ok(())
            }
            SendOp::Send {
                ref data,
                invalidate,
            } => {
                let sent = match data {
                    SendData::Inline(bytes) => {
                        self.flow.send(bytes.to_vec(), bytes.len(), invalidate)
                    }
                    SendData::Buf { buf, len } => self.flow.send_from(buf.mem(), *len, invalidate),
                    SendData::Sges(sges) => self.flow.send_gathered(sges, invalidate),
                };
                self.inner.post_send(wr)?;
                self.flow.sent(&mut state, sent, solicited);
                Ok(())
            }
        }
    }

    fn bind(
        &self,
        wr_id: WrId,
        flags: SendFlags,
        window: &dyn MemoryWindow,
        binding: Binding,
    ) -> Result<Rkey, PostError> {
        self.inner.bind(wr_id, flags, window, binding)
    }

    fn heap_reachable(&self) -> Result<(), String> {
        self.inner.heap_reachable()
    }

    fn set_error(&self) {
        self.inner.set_error();
    }
}
