//! Keys: memory of a call that the peer may reach, for as long as the engine says.

use std::ptr::NonNull;
use std::sync::Arc;

use sdp_core::{CallId, CopyReason, Instant, KeyId, WorkId};
use sdp_verbs::{Access, Binding, Caps, SendFlags, SendOp, SendWr};

use super::actions::{Outcome, qp_of};
use super::regions::{CallMemory, KeyParts, sink_access, source_access};
use super::{Conn, Inner, work_wr_id};

/// The memory of a call, and what the peer may do with it.
fn memory_of(inner: &mut Inner, call: CallId) -> (&mut CallMemory, Access) {
    match call {
        CallId::Send(id) => (inner.calls.send_mut(id), Access::REMOTE_READ),
        CallId::Recv(id) => (inner.calls.recv_mut(id), Access::REMOTE_WRITE),
    }
}

impl Conn {
    /// Says in the log why bytes are copied instead.
    pub(super) fn cannot_show(&self, what: &str, error: &dyn std::fmt::Display) -> CopyReason {
        tracing::warn!(token = ?self.token, "{what} failed, copying instead: {error}");
        CopyReason::BindFailed
    }

    /// Makes a key over `at..at + len` of a call's memory.
    pub(super) fn bind_key(
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

    /// Kills a key; the engine hears of it when it is dead.
    pub(super) fn invalidate_key(
        &self,
        inner: &mut Inner,
        now: Instant,
        key: KeyId,
        work: WorkId,
    ) -> Outcome {
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
}
