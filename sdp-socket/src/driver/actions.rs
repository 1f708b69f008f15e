//! Carrying out the engine's actions.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sdp_core::{
    Action, BufferId, CallId, CopyJob, CopyReason, CopyWhat, Instant, KeyId, Payload, PostSend,
    ReadInto, SendId, WorkId,
};
use sdp_verbs::{
    Access, Binding, Caps, PostError, QueuePair, RecvBuf, RemoteAddr, Rkey, SendData, SendFlags,
    SendOp, SendWr, Sge, VerbsError,
};
use sdp_wire::{BSDH_LEN, HEAD_LEN_MAX};

use super::buffers::Chunk;
use super::moving::Pair;
use super::regions::{
    CallMemory, KeyParts, PrivateMemory, copy_foreign, sink_access, source_access,
};
use super::{Conn, Inner, recv_wr_id, work_wr_id};
use crate::budget::Held;

/// Inline payload of a SrcAvail at most, so that header and payload fit a stack buffer.
const INLINE_MAX: usize = 256;

/// The memory of a call, and what the peer may do with it.
fn memory_of(inner: &mut Inner, call: CallId) -> (&mut CallMemory, Access) {
    match call {
        CallId::Send(id) => (inner.calls.send_mut(id), Access::REMOTE_READ),
        CallId::Recv(id) => (inner.calls.recv_mut(id), Access::REMOTE_WRITE),
    }
}

/// The queue pair. There is none to post on only when a connection between two of them has ended.
fn qp_of(pair: &Option<Pair>) -> Result<&Arc<dyn QueuePair>, PostError> {
    let pair = pair.as_ref().ok_or(PostError::WrongState)?;
    Ok(&pair.qp)
}

/// Whether a request could be posted. A refusal is our own miscount or a dead queue pair; either
/// way the connection ends.
type Outcome = Result<(), PostError>;

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
            Action::Probe { work } => Self::Work(*work),
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
        if let Some(scarce) = self.memory.news() {
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
        let fits = |memory: &&Arc<RecvBuf>| memory.mem().len() == len;
        let first = inner.first_recvs.pop();
        let memory = match inner.recv_bufs.find(buf).filter(fits) {
            Some(memory) => memory,
            None => match self.recv_buffer(inner, &**qp, len, first) {
                Ok((memory, held)) => inner.recv_bufs.insert(buf, memory, held),
                Err(error) => {
                    tracing::warn!(token = ?self.token, "no receive buffer: {error}");
                    inner.engine.buffer_unavailable(now, buf);
                    return Ok(());
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
        Ok(PrivateMemory::new(len, held))
    }

    fn post_message(&self, inner: &mut Inner, send: PostSend) -> Outcome {
        let qp = qp_of(&inner.pair)?;
        let head = &send.head[..send.head_len];
        let mut flags = SendFlags::empty();
        flags.set(SendFlags::SIGNALED, send.work.is_some());
        flags.set(SendFlags::SOLICITED, send.solicited);
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
        };
        let invalidate = send.invalidate.map(|k| Rkey(k.0));
        let op = SendOp::Send { data, invalidate };
        qp.post_send(SendWr {
            wr_id: work_wr_id(send.work),
            op,
            flags,
        })?;
        if send.work.is_some() {
            inner.posted_work();
        }
        Ok(())
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

    /// Says in the log why bytes are copied instead.
    fn cannot_show(&self, what: &str, error: &dyn std::fmt::Display) -> CopyReason {
        tracing::warn!(token = ?self.token, "{what} failed, copying instead: {error}");
        CopyReason::BindFailed
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
                memory.sge(at, len, self.context.provider())
            }
        }
    }

    fn bind_key(
        &self,
        inner: &mut Inner,
        key: KeyId,
        call: CallId,
        at: usize,
        len: usize,
    ) -> Result<(sdp_wire::Rkey, sdp_wire::RemoteAddr), CopyReason> {
        let failed = |error: &dyn std::fmt::Display| self.cannot_show("making a key", error);
        let caps = self.context.provider().caps();
        let (parts, addr) = if caps.contains(Caps::MEMORY_WINDOW) {
            self.bind_window(inner, call, at, len)
                .map_err(|error| failed(&*error))?
        } else {
            let (memory, right) = memory_of(inner, call);
            let (region, addr) = memory
                .expose(at, len, right, &self.context)
                .map_err(|e| failed(&e))?;
            let rkey = region
                .rkey()
                .ok_or_else(|| failed(&"the region has no key for the peer"))?;
            let window = None;
            (
                KeyParts {
                    rkey,
                    window,
                    region,
                },
                addr,
            )
        };
        let rkey = parts.rkey;
        inner.calls.add_key(key, call, parts);
        Ok((
            sdp_wire::Rkey(rkey.0),
            sdp_wire::RemoteAddr(addr.as_ptr() as u64),
        ))
    }

    /// A key by a memory window over `at..at + len` of a call's memory.
    fn bind_window(
        &self,
        inner: &mut Inner,
        call: CallId,
        at: usize,
        len: usize,
    ) -> Result<(KeyParts, NonNull<u8>), Box<dyn std::error::Error>> {
        let qp = Arc::clone(qp_of(&inner.pair)?);
        let local = match call {
            CallId::Send(_) => source_access(self.context.provider()),
            CallId::Recv(_) => sink_access(self.context.provider()),
        };
        let (memory, remote) = memory_of(inner, call);
        let (region, addr) = memory.register(at, len, local, &self.context)?;
        let window = match inner.calls.spare_window() {
            Some(window) => window,
            None => self.context.provider().alloc_window()?,
        };
        let binding = Binding {
            lkey: region.lkey(),
            addr,
            len,
            access: remote,
        };
        let rkey = qp.bind(work_wr_id(None), SendFlags::empty(), &*window, binding)?;
        let parts = KeyParts {
            rkey,
            window: Some(window),
            region,
        };
        Ok((parts, addr))
    }

    fn invalidate_key(&self, inner: &mut Inner, now: Instant, key: KeyId, work: WorkId) -> Outcome {
        if inner.calls.deregister(key) {
            inner
                .engine
                .handle_unposted(now, work, sdp_core::Completion::Success);
            return Ok(());
        }
        let Some(rkey) = inner.calls.start_invalidate(key, work) else {
            // The queue pair is in error: its keys died with it.
            inner
                .engine
                .handle_unposted(now, work, sdp_core::Completion::Flushed);
            return Ok(());
        };
        qp_of(&inner.pair)?.post_send(SendWr {
            wr_id: work_wr_id(Some(work)),
            op: SendOp::LocalInv { rkey },
            flags: SendFlags::SIGNALED,
        })?;
        inner.posted_work();
        Ok(())
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
        let (remote, rkey) = (RemoteAddr(0), Rkey(0));
        let op = if caps.contains(Caps::REMOTE_STATUS) {
            SendOp::Write {
                local: &[],
                remote,
                rkey,
            }
        } else {
            // There a write completes when it has left; only a read is answered.
            SendOp::Read {
                local: &[],
                remote,
                rkey,
            }
        };
        qp_of(&inner.pair)?.post_send(SendWr {
            wr_id: work_wr_id(Some(work)),
            op,
            flags: SendFlags::SIGNALED,
        })?;
        inner.posted_work();
        Ok(())
    }

    /// Carries a copy out without the lock. False: it could not be done.
    pub(super) fn run_job(&self, job: &CopyJob) -> bool {
        match job.what {
            CopyWhat::Stage { grant, len } => self.stage(grant, len as usize),
            CopyWhat::Unstage { grant, len } => {
                self.unstage(grant, len as usize);
                true
            }
            CopyWhat::Compact {
                buf,
                offset,
                len,
                mem,
                at,
                capacity,
            } => self.compact(buf, (offset as usize, len as usize), mem, (at, capacity)),
        }
    }

    fn stage(&self, grant: sdp_core::GrantId, len: usize) -> bool {
        let Some(qp) = self.qp() else { return false };
        let Ok(buf) = qp.reserve_send(BSDH_LEN + len) else {
            return false;
        };
        let taken = self.lock().private.take(len);
        let mut offset = BSDH_LEN;
        for piece in &taken {
            buf.mem().write(offset, &piece.bytes);
            offset += piece.bytes.len();
        }
        self.lock().grants.insert(grant, buf);
        true
    }

    fn unstage(&self, grant: sdp_core::GrantId, len: usize) {
        // It is gone if the connection has ended meanwhile.
        let Some(buf) = self.lock().grants.remove(&grant) else {
            return;
        };
        let mut bytes = vec![0; len];
        buf.mem().read(BSDH_LEN, &mut bytes);
        let chunk = Chunk {
            bytes: bytes.into(),
            held: self.memory.take(len),
        };
        let mut inner = self.lock();
        inner.private.push_front(chunk);
        if let Some(pair) = &inner.pair {
            pair.qp.unreserve_send(buf);
        }
    }

    fn compact(
        &self,
        buf: BufferId,
        (offset, len): (usize, usize),
        mem: sdp_core::MemId,
        (at, capacity): (usize, usize),
    ) -> bool {
        let (from, to) = {
            let mut inner = self.lock();
            if inner.read_ahead.find(&mem).is_none() {
                // A move waits for it, and the peer with it.
                let held = if inner.engine.is_moving() {
                    Ok(self.memory.take(capacity))
                } else {
                    self.memory.reserve(capacity)
                };
                match held.map(|held| PrivateMemory::new(capacity, held)) {
                    Ok(memory) => inner.read_ahead.insert(mem, Arc::new(memory)),
                    Err(error) => {
                        tracing::warn!("no memory to buffer received bytes: {error}");
                        return false;
                    }
                }
            }
            let from = inner.recv_bufs.find(buf).expect("a filled buffer exists");
            let to = inner.read_ahead.find(&mem).expect("inserted above");
            (Arc::clone(from), Arc::clone(to))
        };
        copy_foreign(from.mem(), offset, to.mem(), at, len);
        true
    }
}
