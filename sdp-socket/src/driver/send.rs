//! The send call: the engine says what is next, this thread does it.

use std::io::{self, IoSlice};

use bytes::{Bytes, BytesMut};
use sdp_core::{
    CallError, CopyReason, CopyTarget, GrantId, Instant, SendId, SendRequest, SendStep,
};
use sdp_verbs::Caps;
use sdp_wire::BSDH_LEN;

use super::regions::CallMemory;
use super::{COPY_LOCKED_MAX, Conn};
use crate::options::Threshold;
use crate::park::Spinner;

impl Conn {
    /// Sends `bufs`, or as much as may be taken now or until the time-out.
    ///
    /// # Errors
    /// As `send(2)`.
    pub(crate) fn send(&self, bufs: &[IoSlice<'_>], nonblocking: bool) -> io::Result<usize> {
        let memory = CallMemory::of_send(bufs);
        let deadline = self.options.write_timeout().map(|t| self.context.now() + t);
        let caller = self.enter();
        let result = self.send_loop(&memory, nonblocking, deadline);
        drop(caller);
        result.map_err(|error| crate::error::call_error(&error))
    }

    fn send_loop(
        &self,
        memory: &CallMemory,
        nonblocking: bool,
        deadline: Option<Instant>,
    ) -> Result<usize, CallError> {
        let mut spinner = Spinner::new(self.options.spin());
        let request = SendRequest {
            len: memory.len(),
            segment_ends: memory.segment_ends(),
            nonblocking,
            copy_reason: self.copy_reason(memory),
        };
        let mut inner = self.lock();
        let id = inner.engine.send_start(self.context.now(), request);
        inner.calls.add_send(id, memory.clone());
        loop {
            let now = self.context.now();
            match inner.engine.send_poll(now, id) {
                SendStep::Copy { at, len, to } => {
                    drop(inner);
                    self.copy_for_send(id, memory, at, len, to);
                }
                SendStep::Wait => {
                    let seen = self.tx.seen();
                    self.after(inner, now);
                    if let Some(why) = self.wait(&self.tx, seen, deadline, &mut spinner) {
                        self.with_engine(|engine, now| engine.send_end(now, id, why));
                    }
                }
                SendStep::Done(result) => {
                    inner.calls.remove_send(id);
                    self.after(inner, now);
                    return result;
                }
            }
            inner = self.lock();
        }
    }

    fn copy_for_send(
        &self,
        id: SendId,
        memory: &CallMemory,
        at: usize,
        len: usize,
        to: CopyTarget,
    ) {
        let copied = match to {
            CopyTarget::Message(grant) => self.fill_message(grant, memory, at, len),
            CopyTarget::Private => {
                self.fill_private(memory, at, len);
                true
            }
        };
        self.with_engine(|engine, now| {
            if copied {
                engine.send_copied(now, id, len, to);
            } else {
                engine.send_copy_failed(now, id, to);
            }
        });
    }

    fn fill_message(&self, grant: GrantId, memory: &CallMemory, at: usize, len: usize) -> bool {
        let Some(qp) = self.qp.get() else {
            return false;
        };
        let Ok(buf) = qp.reserve_send(BSDH_LEN + len) else {
            return false;
        };
        memory.copy_out(at, len, buf.mem(), BSDH_LEN);
        self.lock().grants.insert(grant, buf);
        true
    }

    fn fill_private(&self, memory: &CallMemory, at: usize, len: usize) {
        if len <= COPY_LOCKED_MAX {
            self.lock().private.append(memory, at, len);
            return;
        }
        let mut chunk = BytesMut::with_capacity(len);
        memory.append_to(at, len, &mut chunk);
        let chunk: Bytes = chunk.freeze();
        self.lock().private.push(chunk);
    }

    /// Why this memory may not be shown to the peer, if so.
    fn copy_reason(&self, memory: &CallMemory) -> Option<CopyReason> {
        let threshold = self.options.threshold();
        let Threshold::Auto = threshold else {
            return match threshold {
                Threshold::Off => Some(CopyReason::ThresholdOff),
                _ if self.exposable(memory) => None,
                _ => Some(CopyReason::MemoryUnreachable),
            };
        };
        let registered = memory
            .ranges()
            .all(|(at, len)| self.context.is_registered(at, len));
        if registered {
            return None;
        }
        // Reading a stranger's heap page by page costs more than two copies through the link.
        if self.context.provider().caps().contains(Caps::SAME_HOST) {
            return Some(CopyReason::ThresholdOff);
        }
        (!self.exposable(memory)).then_some(CopyReason::MemoryUnreachable)
    }

    fn exposable(&self, memory: &CallMemory) -> bool {
        memory
            .ranges()
            .all(|(at, len)| self.context.is_registered(at, len))
            || self.qp.get().is_some_and(|qp| qp.heap_reachable().is_ok())
    }
}
