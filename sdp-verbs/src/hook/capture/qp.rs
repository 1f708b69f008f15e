//! Queue pairs that write down what is posted.

use std::sync::Arc;

use smallvec::SmallVec;

use super::flow::Flow;
use crate::error::PostError;
use crate::hook::forward::forward;
use crate::memory::RecvBuf;
use crate::qp::QueuePair;
use crate::types::WrId;
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
    forward!(
        QueuePair: num, alloc_recv, keep_send, reserve_send, unreserve_send, bind, heap_reachable,
        has_refused_peer, queued_len, lend_token_socket, set_error
    );

    fn post_recv(&self, wr_id: WrId, buf: &RecvBuf) -> Result<(), PostError> {
        // Posted under the lock, so that its completion finds the note of it.
        let mut state = self.flow.lock();
        self.inner.post_recv(wr_id, buf)?;
        Flow::post_recv(&mut state, buf);
        Ok(())
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
}
