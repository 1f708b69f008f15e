//! Carrying out the engine's actions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sdp_core::{
    Action, BufferId, CopyReason, Instant, Payload, PostSend, ReadInto, SendId, WorkId,
};
use sdp_verbs::{
    Caps, Limits, PostError, QueuePair, RecvBuf, RemoteAddr, Rkey, SendData, SendFlags, SendOp,
    SendWr, Sge, VerbsError,
};
use sdp_wire::{BSDH_LEN, HEAD_LEN_MAX};

use super::moving::Pair;
use super::regions::{CallMemory, PrivateMemory, sink_access, source_access};
use super::{COPY_LOCKED_MAX, Conn, Inner, recv_wr_id, work_wr_id};
use crate::budget::Held;

/// Inline payload of a SrcAvail at most, so that header and payload fit a stack buffer.
const INLINE_MAX: usize = 256;

/// So few bytes are sent at once by way of a short stack buffer, which is cleared faster.
const AT_ONCE_FEW: usize = 240;

/// Bytes that a call may send at once: a message that cannot be refused for want of memory.
pub(super) fn at_once_max(limits: &Limits) -> usize {
    COPY_LOCKED_MAX.min(limits.inline_max.saturating_sub(BSDH_LEN))
}

/// The queue pair. There is none to post on only when a connection between two of them has ended.
pub(super) fn qp_of(pair: &Option<Pair>) -> Result<&Arc<dyn QueuePair>, PostError> {
    let pair = pair.as_ref().ok_or(PostError::WrongState)?;
    Ok(&pair.qp)
}

/// Whether a request could be posted. A refusal is our own miscount or a dead queue pair; either
/// way the connection ends.
pub(super) type Outcome = Result<(), PostError>;

/// What an action names that the engine expects back.
#[derive(Clone, Copy)]
enum Names {
    Work(WorkId),
    Receive(BufferId),
    Nothing,
}

impl Names {
    fn of(action: &Action) -> Self {
        match action {
            Action::RdmaRead { work, .. }
            | Action::RdmaWrite { work, .. }
            | Action::InvalidateKey { work, .. } => Self::Work(*work),
            Action::Probe { work } | Action::Knock { work } => Self::Work(*work),
            Action::PostSend(send) => send.work.map_or(Self::Nothing, Self::Work),
            Action::PostRecv { buf, .. } => Self::Receive(*buf),
            _ => Self::Nothing,
        }
    }
}

impl Conn {
    /// Polls and carries out actions until there are none, then tells of events. Copies are
    /// collected in `inner.jobs`.
    pub(super) fn drain(&self, inner: &mut Inner, now: Instant) {
        if let Some(scarce) = self.memory.news(now) {
            inner.engine.set_memory_scarce(now, scarce);
        }
        loop {
            while let Some(action) = inner.engine.poll_action() {
                let names = Names::of(&action);
                match self.carry_out(inner, now, action) {
                    Ok(()) => {}
                    Err(error) => self.post_failed(inner, error, names),
                }
            }
            if inner.moving.is_idle() || !self.step_move(inner, now) {
                break;
            }
        }
        self.tell(inner);
    }

    /// A request was not accepted, so no completion will ever come for it. The transport is gone;
    /// the engine hears of that, and that the request was flushed, when what the peer had sent
    /// before has been taken out of the completion queue.
    fn post_failed(&self, inner: &mut Inner, error: PostError, names: Names) {
        if error != PostError::WrongState {
            tracing::error!(token = ?self.token, "a work request was refused: {error}");
            // Nothing that follows may reach the peer with a gap before it.
            if let Some(pair) = &inner.pair {
                pair.qp.set_error();
            }
        }
        match names {
            Names::Work(work) => inner.flushed_works.push(work),
            Names::Receive(buf) => inner.flushed_receives.push(buf),
            Names::Nothing => {}
        }
        self.transport_down.store(true, Ordering::Release);
        inner.local_work = true;
    }

    fn carry_out(&self, inner: &mut Inner, now: Instant, action: Action) -> Outcome {
        match action {
            Action::PostRecv { buf, len } => self.post_recv(inner, now, buf, len as usize),
            Action::FreeRecv(buf) => {
                inner.recv_bufs.remove(buf);
                Ok(())
            }
            Action::PostSend(send) => self.post_message(inner, send),
            Action::RdmaRead {
                work,
                remote,
                rkey,
                into,
                len,
            } => self.post_read(inner, now, work, (remote, rkey), into, len as usize),
            Action::RdmaWrite {
                work,
                call,
                at,
                remote,
                rkey,
                len,
            } => self.post_write(inner, work, (call, at, len as usize), (remote, rkey)),
            Action::Register { call, at, len } => {
                let registered = self.register(inner, call, at, len);
                inner.engine.handle_registered(now, call, registered);
                Ok(())
            }
            Action::BindKey { key, call, at, len } => {
                let bound = self.bind_key(inner, key, call, at, len as usize);
                inner.engine.handle_bound(now, key, bound);
                Ok(())
            }
            Action::InvalidateKey { key, work } => self.invalidate_key(inner, now, key, work),
            Action::Probe { work } => self.post_probe(inner, now, work),
            Action::Knock { work } => post_empty(inner, EMPTY_WRITE, work),
            Action::ForgetKey(key) => {
                inner.calls.forget_key(key);
                Ok(())
            }
            Action::Copy(job) => {
                inner.jobs.push(job);
                Ok(())
            }
            Action::FreeMem(mem) => {
                inner.read_ahead.remove(&mem);
                Ok(())
            }
            Action::SendUrgent { len } => {
                for piece in inner.urgent.take(len) {
                    inner.private.push(piece);
                }
                Ok(())
            }
            Action::KeepUrgent { buf, offset } => {
                inner.keep_urgent(buf, offset as usize);
                Ok(())
            }
            Action::DropGrant(grant) => {
                if let (Some(buf), Some(pair)) = (inner.grants.remove(&grant), &inner.pair) {
                    pair.qp.unreserve_send(buf);
                }
                Ok(())
            }
            other => {
                self.manage(inner, now, other);
                Ok(())
            }
        }
    }

    /// Actions of connection management. Their failures end the connection.
    fn manage(&self, inner: &mut Inner, now: Instant, action: Action) {
        if let Action::Leave { call } = action {
            return self.leave(inner, call);
        }
        let Some(Pair { id, qp }) = &inner.pair else {
            // Between two queue pairs there is nothing to be torn down.
            return tracing::debug!(token = ?self.token, "{action:?} without a queue pair");
        };
        let result = match &action {
            Action::Connect(data) => id.connect(data),
            Action::Accept(data) => id.accept(data),
            Action::Establish => id.establish(),
            Action::Reject(data) => id.reject(data),
            Action::Disconnect => {
                id.disconnect();
                Ok(())
            }
            Action::SetError => {
                qp.set_error();
                inner.calls.forget_all_keys();
                Ok(())
            }
            unknown => {
                tracing::error!("the engine asked for {unknown:?}, which this driver cannot do");
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::warn!(token = ?self.token, "{action:?}: {error}");
            let errno = error.errno();
            inner
                .engine
                .handle_cm(now, sdp_core::CmInput::Unreachable { errno });
        }
    }

    fn post_recv(&self, inner: &mut Inner, now: Instant, buf: BufferId, len: usize) -> Outcome {
        let qp = qp_of(&inner.pair)?;
        let first = inner.first_recvs.pop();
        let of_len = |memory: &&Arc<RecvBuf>| memory.mem().len() == len;
        let memory = match inner.recv_bufs.find(buf).filter(of_len) {
            Some(memory) => memory,
            None => match self.recv_buffer(inner, &**qp, len, first) {
                Ok((memory, held)) => inner.recv_bufs.insert(buf, memory, held),
                Err(error) => {
                    let longer = |memory: &&Arc<RecvBuf>| memory.mem().len() > len;
                    // Of a length that was not granted in the end, or is not wanted any more.
                    let Some(memory) = inner.recv_bufs.find(buf).filter(longer) else {
                        tracing::warn!(token = ?self.token, "no receive buffer: {error}");
                        inner.engine.buffer_unavailable(now, buf);
                        return Ok(());
                    };
                    memory
                }
            },
        };
        qp.post_recv(recv_wr_id(buf), memory)?;
        inner.receives += 1;
        Ok(())
    }

    /// Memory for a receive. The first few of a connection are not refused.
    fn recv_buffer(
        &self,
        inner: &Inner,
        qp: &dyn QueuePair,
        len: usize,
        first: Option<RecvBuf>,
    ) -> Result<(RecvBuf, Held), VerbsError> {
        let needed = inner.receives < usize::from(inner.engine.config().recv_buffers_initial);
        let held = if needed {
            self.memory.take(len)
        } else {
            self.memory.reserve(len)?
        };
        let memory = match first.filter(|first| first.mem().len() == len) {
            Some(first) => first,
            None => qp.alloc_recv(len)?,
        };
        Ok((memory, held))
    }

    /// Memory to receive into ahead of the reader.
    fn private_memory(&self, len: usize) -> Result<PrivateMemory, VerbsError> {
        let held = self.memory.reserve(len)?;
        PrivateMemory::new(len, held)
    }

    fn post_message(&self, inner: &mut Inner, send: PostSend) -> Outcome {
        let head = &send.head[..send.head_len];
        let mut bytes;
        let data = match send.payload {
            Payload::Grant { grant, len } => {
                let buf = inner.grants.remove(&grant).expect("a grant is posted once");
                buf.mem().write(0, head);
                SendData::Buf {
                    buf,
                    len: send.head_len + len as usize,
                }
            }
            Payload::None => SendData::Inline(head),
            Payload::Call { call, at, len } => {
                let len = len as usize;
                bytes = [0; HEAD_LEN_MAX + INLINE_MAX];
                bytes[..head.len()].copy_from_slice(head);
                inner
                    .calls
                    .copy_inline(call, at, &mut bytes[head.len()..head.len() + len]);
                SendData::Inline(&bytes[..head.len() + len])
            }
            Payload::AtOnce { .. } => unreachable!("posted by the call that asked for it"),
        };
        post_send(inner, &send, data)
    }

    /// Posts what the engine has a call send at once: all of its `memory`. Only what goes wrong
    /// leaves anything to do.
    pub(super) fn post_at_once(&self, inner: &mut Inner, send: &PostSend, memory: &CallMemory) {
        let posted = match send.payload.byte_len() as usize {
            ..=AT_ONCE_FEW => post_copy::<{ BSDH_LEN + AT_ONCE_FEW }>(inner, send, memory),
            _ => post_copy::<{ BSDH_LEN + COPY_LOCKED_MAX }>(inner, send, memory),
        };
        if let Err(error) = posted {
            self.post_failed(inner, error, Names::Nothing);
        }
    }

    fn post_read(
        &self,
        inner: &mut Inner,
        now: Instant,
        work: WorkId,
        (remote, rkey): (sdp_wire::RemoteAddr, sdp_wire::Rkey),
        into: ReadInto,
        len: usize,
    ) -> Outcome {
        let qp = Arc::clone(qp_of(&inner.pair)?);
        let local = match self.read_target(inner, into, len) {
            Ok(sge) => sge,
            Err(error) => {
                tracing::warn!(token = ?self.token, "no memory to read into: {error}");
                inner
                    .engine
                    .handle_unposted(now, work, sdp_core::Completion::NoMemory);
                return Ok(());
            }
        };
        qp.post_send(SendWr {
            wr_id: work_wr_id(Some(work)),
            op: SendOp::Read {
                local: &[local],
                remote: RemoteAddr(remote.0),
                rkey: Rkey(rkey.0),
            },
            flags: SendFlags::SIGNALED,
        })?;
        inner.posted_work();
        Ok(())
    }

    /// Registers memory of a send for the writes that follow.
    fn register(
        &self,
        inner: &mut Inner,
        call: SendId,
        at: usize,
        len: usize,
    ) -> Result<(), CopyReason> {
        let memory = inner.calls.send_mut(call);
        let access = source_access(self.context.provider());
        match memory.register(at, len, access, &self.context) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.cannot_show("registering memory to write from", &error)),
        }
    }

    fn post_write(
        &self,
        inner: &mut Inner,
        work: WorkId,
        (call, at, len): (SendId, usize, usize),
        (remote, rkey): (sdp_wire::RemoteAddr, sdp_wire::Rkey),
    ) -> Outcome {
        let qp = qp_of(&inner.pair)?;
        let memory = inner.calls.send_mut(call);
        let (region, addr) = memory
            .registered(at, len)
            .expect("the engine has memory registered before it writes from it");
        let local = Sge {
            addr: addr.as_ptr(),
            len,
            lkey: region.lkey(),
        };
        qp.post_send(SendWr {
            wr_id: work_wr_id(Some(work)),
            op: SendOp::Write {
                local: &[local],
                remote: RemoteAddr(remote.0),
                rkey: Rkey(rkey.0),
            },
            flags: SendFlags::SIGNALED,
        })?;
        inner.posted_work();
        Ok(())
    }

    fn read_target(
        &self,
        inner: &mut Inner,
        into: ReadInto,
        len: usize,
    ) -> Result<Sge, VerbsError> {
        match into {
            ReadInto::Call { call, at } => {
                let memory = inner.calls.recv_mut(call);
                let access = sink_access(self.context.provider());
                let (region, ptr) = memory.register(at, len, access, &self.context)?;
                Ok(Sge {
                    addr: ptr.as_ptr(),
                    len,
                    lkey: region.lkey(),
                })
            }
            ReadInto::Mem { mem, at, capacity } => {
                if inner.read_ahead.find(&mem).is_none() {
                    let memory = self.private_memory(capacity)?;
                    inner.read_ahead.insert(mem, Arc::new(memory));
                }
                let memory = inner.read_ahead.find(&mem).expect("inserted above");
                memory.sge(at, len, &self.context)
            }
        }
    }

    /// Asks the peer's adapter for a sign of life, by a request without bytes. On one machine the
    /// kernel has told already if the peer is gone; and a stopped process, which could not answer,
    /// is not.
    fn post_probe(&self, inner: &mut Inner, now: Instant, work: WorkId) -> Outcome {
        let caps = self.context.provider().caps();
        if caps.contains(Caps::SAME_HOST) {
            let alive = sdp_core::Completion::Success;
            inner.engine.handle_unposted(now, work, alive);
            return Ok(());
        }
        let op = if caps.contains(Caps::REMOTE_STATUS) {
            EMPTY_WRITE
        } else {
            // There a write completes when it has left; only a read is answered.
            SendOp::Read {
                local: &[],
                remote: RemoteAddr(0),
                rkey: Rkey(0),
            }
        };
        post_empty(inner, op, work)
    }
}

/// Posts a message of up to `N` bytes, whose payload is the call's, by way of this stack.
fn post_copy<const N: usize>(inner: &mut Inner, send: &PostSend, memory: &CallMemory) -> Outcome {
    let len = BSDH_LEN + send.payload.byte_len() as usize;
    let mut bytes = [0; N];
    bytes[..BSDH_LEN].copy_from_slice(&send.head[..BSDH_LEN]);
    memory.copy_to(&mut bytes[BSDH_LEN..len]);
    post_send(inner, send, SendData::Inline(&bytes[..len]))
}

/// Posts a message of the engine's.
fn post_send(inner: &mut Inner, send: &PostSend, data: SendData<'_>) -> Outcome {
    let mut flags = SendFlags::empty();
    flags.set(SendFlags::SIGNALED, send.work.is_some());
    flags.set(SendFlags::SOLICITED, send.solicited);
    let payload = matches!(send.payload, Payload::Grant { .. } | Payload::AtOnce { .. });
    flags.set(SendFlags::PAYLOAD, payload);
    flags.set(SendFlags::QUIET, send.update);
    let invalidate = send.invalidate.map(|k| Rkey(k.0));
    qp_of(&inner.pair)?.post_send(SendWr {
        wr_id: work_wr_id(send.work),
        op: SendOp::Send { data, invalidate },
        flags,
    })?;
    if send.work.is_some() {
        inner.posted_work();
    }
    Ok(())
}

const EMPTY_WRITE: SendOp<'static> = SendOp::Write {
    local: &[],
    remote: RemoteAddr(0),
    rkey: Rkey(0),
};

/// Posts a request without bytes.
fn post_empty(inner: &mut Inner, op: SendOp<'_>, work: WorkId) -> Outcome {
    qp_of(&inner.pair)?.post_send(SendWr {
        wr_id: work_wr_id(Some(work)),
        op,
        flags: SendFlags::SIGNALED,
    })?;
    inner.posted_work();
    Ok(())
}
