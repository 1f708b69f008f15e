//! The send call: the engine says what is next, this thread does it.

use std::io::{self, IoSlice};

use bytes::Bytes;
use sdp_core::{
    CallError, Connection, CopyReason, CopyTarget, Instant, SendId, SendRequest, SendStep,
};
use sdp_verbs::{PostError, QueuePair, SendBuf, VerbsError};
use sdp_wire::BSDH_LEN;

use super::buffers::Chunk;
use super::regions::{CallMemory, no_memory};
use super::wait::{Caller, Until};
use super::{COPY_LOCKED_MAX, Conn, Inner};
use crate::budget::Held;
use crate::options::{THRESHOLD_MIN, Threshold};
use crate::park::{AbortOnUnwind, Spinner};

/// How to send, in one call.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SendFlags {
    /// Send what may be taken now (O_NONBLOCK, MSG_DONTWAIT).
    pub nonblocking: bool,
}

impl Conn {
    /// Sends `bufs`, or as much as may be taken now or until the time-out.
    ///
    /// # Errors
    /// As `send(2)`.
    pub(crate) fn send(&self, bufs: &[IoSlice<'_>], nonblocking: bool) -> io::Result<usize> {
        self.send_memory(&CallMemory::of_send(bufs), nonblocking, false)
    }

    /// Sends in turn. `urgent`: the last byte is.
    pub(super) fn send_memory(
        &self,
        memory: &CallMemory,
        nonblocking: bool,
        urgent: bool,
    ) -> io::Result<usize> {
        if !urgent && self.send_at_once(memory) {
            return Ok(memory.len());
        }
        let deadline = self.options.write_timeout().map(|t| self.context.now() + t);
        let nonblocking = nonblocking || self.is_interrupted();
        let caller = self.enter();
        let result = self.send_loop(&caller, memory, (nonblocking, urgent), deadline);
        drop(caller);
        result.map_err(|error| crate::error::call_error(&error))
    }

    /// Sends few bytes without a turn, if nothing stands in the way: the call waits for nobody, so it is
    /// none that anybody would have to know of.
    fn send_at_once(&self, memory: &CallMemory) -> bool {
        let len = memory.len();
        if len > self.at_once_max {
            return false;
        }
        let _guard = AbortOnUnwind::new();
        let mut inner = self.lock();
        let below = (len < THRESHOLD_MIN).then_some(CopyReason::BelowThreshold);
        let Some(send) = inner.engine.send_at_once(len, below) else {
            return false;
        };
        self.post_at_once(&mut inner, &send, memory);
        if inner.local_work {
            let now = self.context.now();
            self.after(inner, now);
        }
        true
    }

    fn send_loop(
        &self,
        caller: &Caller<'_>,
        memory: &CallMemory,
        (nonblocking, urgent): (bool, bool),
        mut deadline: Option<Instant>,
    ) -> Result<usize, CallError> {
        let mut ended = false;
        let mut spinner = Spinner::new(self.options.spin());
        let request = SendRequest {
            len: memory.len(),
            segment_ends: memory.segment_ends(),
            nonblocking,
            urgent,
            registered: self.is_registered(memory),
            copy_reason: self.copy_reason(memory),
        };
        // What is only copied is copied here: no action of the engine's names it.
        let shown = request.copy_reason.is_none();
        if shown {
            // The peer may have offered memory to write into: better to know before advertising.
            self.look_if_free();
        }
        let mut inner = self.lock();
        let mut now = self.context.now();
        let id = inner.engine.send_start(now, request);
        if shown {
            inner.calls.add_send(id, memory.alias());
        }
        loop {
            match inner.engine.send_poll(now, id) {
                SendStep::Copy { at, len, to } if len <= COPY_LOCKED_MAX => {
                    self.copy_locked(&mut inner, now, id, memory, (at, len), to);
                    continue;
                }
                SendStep::Copy { at, len, to } => {
                    drop(inner);
                    self.copy_from_call(id, memory, (at, len), to);
                    // Credits may have come: better a message buffer than private memory.
                    self.look_if_free();
                }
                SendStep::Wait => {
                    let seen = self.tx.seen();
                    let partly = inner.engine.send_accepted(id) > 0;
                    self.after(inner, now);
                    let until = Until { deadline, partly };
                    if let Some(why) = self.wait(&self.tx, seen, until, &mut spinner)
                        && !ended
                    {
                        // It is told once; what remains is bounded by the engine's own time-out.
                        ended = true;
                        deadline = None;
                        self.with_engine(|engine, now| engine.send_end(now, id, why));
                    }
                }
                SendStep::Done(result) => {
                    if shown {
                        inner.calls.remove_send(id);
                    }
                    self.after(inner, now);
                    caller.note_time(now);
                    return result;
                }
            }
            inner = self.lock();
            now = self.context.now();
        }
    }

    /// A small copy: letting go of the lock would cost more. What the engine wants done because
    /// of it is carried out when the call waits or ends.
    fn copy_locked(
        &self,
        inner: &mut Inner,
        now: Instant,
        id: SendId,
        memory: &CallMemory,
        (at, len): (usize, usize),
        to: CopyTarget,
    ) {
        let copied = match to {
            CopyTarget::Message(grant) => {
                let pair = inner.pair.as_ref();
                let filled = pair.and_then(|pair| self.fill(&*pair.qp, memory, at, len));
                filled.map(|buf| inner.grants.insert(grant, buf)).is_some()
            }
            CopyTarget::Private => {
                let reserve = |len| self.memory.reserve(len);
                let appended = inner.private.append(memory, (at, len), reserve);
                self.context.runtime().copied(len);
                self.had_memory(appended).is_some()
            }
        };
        tell_copied(&mut inner.engine, now, id, len, to, copied);
    }

    fn copy_from_call(
        &self,
        id: SendId,
        memory: &CallMemory,
        (at, len): (usize, usize),
        to: CopyTarget,
    ) {
        let copied = match to {
            CopyTarget::Message(grant) => {
                let filled = self.qp().and_then(|qp| self.fill(&*qp, memory, at, len));
                filled
                    .map(|buf| self.lock().grants.insert(grant, buf))
                    .is_some()
            }
            CopyTarget::Private => match self.had_memory(self.private_chunk(len)) {
                Some((mut chunk, held)) => {
                    memory.append_to(at, len, &mut chunk);
                    self.context.runtime().copied(len);
                    let bytes = Bytes::from(chunk);
                    self.lock().private.push(Chunk { bytes, held });
                    true
                }
                None => false,
            },
        };
        self.with_engine(|engine, now| tell_copied(engine, now, id, len, to, copied));
    }

    /// Room for `len` bytes that wait to be sent.
    fn private_chunk(&self, len: usize) -> Result<(Vec<u8>, Held), VerbsError> {
        let held = self.memory.reserve(len)?;
        let mut chunk = Vec::new();
        chunk.try_reserve_exact(len).map_err(|_| no_memory(len))?;
        Ok((chunk, held))
    }

    /// Says in the log why a send is not buffered.
    fn had_memory<T>(&self, result: Result<T, VerbsError>) -> Option<T> {
        result
            .inspect_err(
                |error| tracing::debug!(token = ?self.token, "no memory to send from: {error}"),
            )
            .ok()
    }

    /// A new message buffer with `at..at + len` of the call's memory as its payload.
    fn fill(
        &self,
        qp: &dyn QueuePair,
        memory: &CallMemory,
        at: usize,
        len: usize,
    ) -> Option<SendBuf> {
        let buf = self.message(qp, len)?;
        memory.copy_out(at, len, buf.mem(), BSDH_LEN);
        Some(buf)
    }

    /// Memory of a message with `len` bytes of payload, if there is some.
    pub(super) fn message(&self, qp: &dyn QueuePair, len: usize) -> Option<SendBuf> {
        let had = qp.reserve_send(BSDH_LEN + len);
        if let Err(PostError::NoMemory) = had {
            self.memory.note_short(self.context.now());
        }
        had.ok()
    }

    /// Why this memory may not be shown to the peer, if so.
    fn copy_reason(&self, memory: &CallMemory) -> Option<CopyReason> {
        if memory.len() < THRESHOLD_MIN {
            return Some(CopyReason::BelowThreshold);
        }
        if self.options.threshold() == Threshold::Off {
            return Some(CopyReason::ThresholdOff);
        }
        (!self.exposable(memory)).then_some(CopyReason::MemoryUnreachable)
    }

    fn is_registered(&self, memory: &CallMemory) -> bool {
        memory.len() >= THRESHOLD_MIN
            && memory
                .ranges()
                .all(|(at, len)| self.context.is_registered(at, len))
    }

    fn exposable(&self, memory: &CallMemory) -> bool {
        self.is_registered(memory) || self.qp().is_some_and(|qp| qp.heap_reachable().is_ok())
    }
}

fn tell_copied(
    engine: &mut Connection,
    now: Instant,
    id: SendId,
    len: usize,
    to: CopyTarget,
    copied: bool,
) {
    if copied {
        engine.send_copied(now, id, len, to);
    } else {
        engine.send_copy_failed(now, id, to);
    }
}
