//! Private memory of a connection: posted receives, granted messages, bytes waiting to be sent,
//! bytes read ahead.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sdp_core::{BufferId, GrantId, MemId};
use sdp_verbs::{RecvBuf, SendBuf};
use smallvec::SmallVec;

use super::regions::{CallMemory, PrivateMemory};

/// Small appends share a chunk of this size.
const CHUNK_LEN: usize = 16 << 10;

/// Posted and filled receive buffers, by id.
#[derive(Debug, Default)]
pub(crate) struct RecvBuffers(Vec<Option<Arc<RecvBuf>>>);

impl RecvBuffers {
    pub(crate) fn find(&self, id: BufferId) -> Option<&Arc<RecvBuf>> {
        self.0.get(usize::from(id.0))?.as_ref()
    }

    pub(crate) fn remove(&mut self, id: BufferId) {
        if let Some(place) = self.0.get_mut(usize::from(id.0)) {
            *place = None;
        }
    }

    /// The one that was there is dropped.
    pub(crate) fn insert(&mut self, id: BufferId, buf: RecvBuf) -> &Arc<RecvBuf> {
        let index = usize::from(id.0);
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].insert(Arc::new(buf))
    }
}

/// Things by a small id, few at a time: a linear list beats a hash.
#[derive(Debug)]
pub(crate) struct Few<K, V>(SmallVec<[(K, V); 4]>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<K: PartialEq, V> Few<K, V> {
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.0.push((key, value));
    }

    pub(crate) fn find(&self, key: &K) -> Option<&V> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub(crate) fn find_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub(crate) fn key_where(&self, test: impl Fn(&V) -> bool) -> Option<&K> {
        self.0.iter().find(|(_, v)| test(v)).map(|(k, _)| k)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = V> + '_ {
        self.0.drain(..).map(|(_, v)| v)
    }
}

/// Message buffers being filled.
pub(crate) type Grants = Few<GrantId, SendBuf>;

/// Read-ahead memory.
pub(crate) type ReadAhead = Few<MemId, Arc<PrivateMemory>>;

/// Private send memory: accepted bytes that wait for credits, in order.
#[derive(Debug, Default)]
pub(crate) struct PrivateSend {
    full: VecDeque<Bytes>,
    tail: BytesMut,
}

impl PrivateSend {
    /// Appends a few bytes of a call, under the connection's lock.
    pub(crate) fn append(&mut self, memory: &CallMemory, at: usize, len: usize) {
        if self.tail.capacity() - self.tail.len() < len {
            self.seal_tail();
            self.tail.reserve(CHUNK_LEN.max(len));
        }
        memory.append_to(at, len, &mut self.tail);
    }

    /// Appends a chunk that was filled without the lock.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.seal_tail();
        self.full.push_back(chunk);
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.full.push_back(self.tail.split().freeze());
        }
    }

    /// Takes the oldest `len` bytes.
    pub(crate) fn take(&mut self, mut len: usize) -> SmallVec<[Bytes; 4]> {
        let mut taken = SmallVec::new();
        self.seal_tail();
        while len > 0 {
            let front = self
                .full
                .front_mut()
                .expect("the engine counts private bytes");
            let piece = front.split_to(len.min(front.len()));
            if front.is_empty() {
                self.full.pop_front();
            }
            len -= piece.len();
            taken.push(piece);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;

    /// Bytes leave private send memory in the order they came, whatever the pieces.
    #[test]
    fn private_send_keeps_order() {
        let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let memory = CallMemory::of_send(&[IoSlice::new(&all)]);
        let mut private = PrivateSend::default();
        private.append(&memory, 0, 10);
        private.push(Bytes::copy_from_slice(&all[10..70_000]));
        private.append(&memory, 70_000, 4_000);
        private.append(&memory, 74_000, 26_000);
        let mut out = Vec::new();
        for len in [1, 20, 40_000, 59_979] {
            let taken = private.take(len);
            assert_eq!(taken.iter().map(Bytes::len).sum::<usize>(), len);
            out.extend(taken.into_iter().flatten());
        }
        assert!(out == all);
    }
}
