//! Private memory of a connection: posted receives, granted messages, bytes waiting to be sent,
//! bytes read ahead.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sdp_core::{BufferId, GrantId, MemId};
use sdp_verbs::{RecvBuf, SendBuf};
use smallvec::SmallVec;

use super::regions::{CallMemory, PrivateMemory};
use crate::budget::Held;

/// Small appends share a chunk of this size.
const CHUNK_LEN: usize = 16 << 10;

/// Posted and filled receive buffers, by id.
#[derive(Debug, Default)]
pub(crate) struct RecvBuffers(Vec<Option<(Arc<RecvBuf>, Held)>>);

impl RecvBuffers {
    pub(crate) fn find(&self, id: BufferId) -> Option<&Arc<RecvBuf>> {
        let place = self.0.get(usize::from(id.0))?;
        place.as_ref().map(|(buf, _)| buf)
    }

    pub(crate) fn remove(&mut self, id: BufferId) {
        if let Some(place) = self.0.get_mut(usize::from(id.0)) {
            *place = None;
        }
    }

    /// The one that was there is dropped.
    pub(crate) fn insert(&mut self, id: BufferId, buf: RecvBuf, held: Held) -> &Arc<RecvBuf> {
        let index = usize::from(id.0);
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        let (buf, _) = self.0[index].insert((Arc::new(buf), held));
        buf
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

/// Bytes that wait to be sent, and their share of the process's memory.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    pub(crate) held: Held,
}

impl Chunk {
    /// The first `len` bytes. The memory stays in use until the last of it is taken.
    fn split_to(&mut self, len: usize) -> Self {
        let bytes = self.bytes.split_to(len);
        let held = match self.bytes.is_empty() {
            true => self.held.split(usize::MAX),
            false => self.held.split(0),
        };
        Self { bytes, held }
    }
}

/// Private send memory: accepted bytes that wait for credits, in order.
#[derive(Debug, Default)]
pub(crate) struct PrivateSend {
    full: VecDeque<Chunk>,
    tail: BytesMut,
    /// For the tail, what it has room for included.
    tail_held: Option<Held>,
}

impl PrivateSend {
    /// Appends a few bytes of a call, under the connection's lock.
    ///
    /// # Errors
    /// That of `reserve`, which is asked for memory.
    pub(crate) fn append<E>(
        &mut self,
        memory: &CallMemory,
        (at, len): (usize, usize),
        reserve: impl FnOnce(usize) -> Result<Held, E>,
    ) -> Result<(), E> {
        if self.tail.capacity() - self.tail.len() < len {
            self.seal_tail();
            let room = CHUNK_LEN.max(len);
            self.tail_held = Some(reserve(room)?);
            self.tail.reserve(room);
        }
        memory.append_to(at, len, &mut self.tail);
        Ok(())
    }

    /// Appends a chunk that was filled without the lock.
    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.seal_tail();
        self.full.push_back(chunk);
    }

    /// Puts a chunk back before all others.
    pub(crate) fn push_front(&mut self, chunk: Chunk) {
        self.full.push_front(chunk);
    }

    fn seal_tail(&mut self) {
        if let Some(held) = self.tail_held.as_mut().filter(|_| !self.tail.is_empty()) {
            let held = held.split(self.tail.len());
            let bytes = self.tail.split().freeze();
            self.full.push_back(Chunk { bytes, held });
        }
    }

    /// Takes the oldest `len` bytes.
    pub(crate) fn take(&mut self, mut len: usize) -> SmallVec<[Chunk; 4]> {
        let mut taken = SmallVec::new();
        self.seal_tail();
        while len > 0 {
            let front = self
                .full
                .front_mut()
                .expect("the engine counts private bytes");
            let piece = front.split_to(len.min(front.bytes.len()));
            if front.bytes.is_empty() {
                self.full.pop_front();
            }
            len -= piece.bytes.len();
            taken.push(piece);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Allowance, Budget};
    use std::io::IoSlice;

    /// Bytes leave private send memory in the order they came, whatever the pieces.
    #[test]
    fn private_send_keeps_order() {
        let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let memory = CallMemory::of_send(&[IoSlice::new(&all)]);
        let budget = Budget::new(200_000);
        let allowance = Allowance::new(&budget);
        let reserve = |len| allowance.reserve(len);
        let mut private = PrivateSend::default();
        private.append(&memory, (0, 10), reserve).unwrap();
        private.push(Chunk {
            bytes: Bytes::copy_from_slice(&all[10..70_000]),
            held: reserve(69_990).unwrap(),
        });
        private.append(&memory, (70_000, 4_000), reserve).unwrap();
        private.append(&memory, (74_000, 26_000), reserve).unwrap();
        assert!(budget.account().used >= all.len());
        let mut out = Vec::new();
        for len in [1, 20, 40_000, 59_979] {
            let taken = private.take(len);
            assert_eq!(taken.iter().map(|c| c.bytes.len()).sum::<usize>(), len);
            out.extend(taken.into_iter().flat_map(|c| c.bytes));
        }
        assert!(out == all);
        drop(private);
        assert_eq!(budget.account().used, 0);
    }

    /// Memory that is refused changes nothing, and counts as used until its last byte is taken.
    #[test]
    fn private_send_accounts_for_its_memory() {
        let memory = CallMemory::of_send(&[IoSlice::new(&[7; 100])]);
        let budget = Budget::new(CHUNK_LEN);
        let allowance = Allowance::new(&budget);
        let mut private = PrivateSend::default();
        let none = |_| Err(());
        assert_eq!(private.append(&memory, (0, 100), none), Err(()));
        let reserve = |len| allowance.reserve(len);
        private.append(&memory, (0, 100), reserve).unwrap();
        assert_eq!(budget.account().used, CHUNK_LEN);
        let first = private.take(60);
        drop(first);
        assert_eq!(budget.account().used, CHUNK_LEN);
        drop(private.take(40));
        assert_eq!(budget.account().used, CHUNK_LEN - 100);
    }
}
