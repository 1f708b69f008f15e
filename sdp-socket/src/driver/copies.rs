//! Copies between private memory and messages, carried out without the connection's lock.

use std::sync::Arc;

use sdp_core::{BufferId, CopyJob, CopyWhat};
use sdp_wire::BSDH_LEN;

use super::Conn;
use super::buffers::Chunk;
use super::regions::{PrivateMemory, copy_foreign};

impl Conn {
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
        let Some(buf) = self.message(&*qp, len) else {
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
        self.context.runtime().copied(len);
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
                match held.and_then(|held| PrivateMemory::new(capacity, held)) {
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
