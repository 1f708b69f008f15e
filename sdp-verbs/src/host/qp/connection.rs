//! The rings of the peer's that the sending half uses.

use std::sync::Arc;

use super::HostQp;
use super::buf::PeerSlot;
use super::remote::Remote;
use crate::host::cache;
use crate::host::layout::{IN_WORDS, PostedSlot, RECV_WORDS};
use crate::host::pool::CHUNKS_MAX;
use crate::host::ring::{RingReader, RingWriter};
use crate::host::shm::Mapping;
use crate::host::words::MappedWords;
use crate::memory::ForeignSlice;
use crate::sync::{Ordering, fence};

/// A rule of the rings that the peer broke.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken(pub(super) &'static str);

/// What is there when a connection exists.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) remote: Arc<Remote>,
    pub(super) ring: RingWriter<MappedWords, IN_WORDS>,
    slots: RingReader<MappedWords, RECV_WORDS>,
    /// The link's list, as far as needed: saves its lock on the fast path.
    chunks: Vec<Arc<Mapping>>,
    /// Slots taken and given back unused.
    pub(super) returned: Vec<PeerSlot>,
}

/// A posted receive of the peer's that is next. Its memory stays mapped as long as the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) number: u32,
    pub(super) mem: ForeignSlice,
    chunk: usize,
}

impl Connection {
    /// With the peer's half.
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        let (in_words, in_log) = remote.block().in_ring();
        let (recv_words, recv_log) = remote.block().recv_ring();
        Self {
            ring: RingWriter::new(in_words, in_log),
            slots: RingReader::new(recv_words, recv_log),
            chunks: Vec::new(),
            returned: Vec::new(),
            remote,
        }
    }

    /// The peer's next posted receive, if there is one whose memory is mapped.
    pub(super) fn take_slot(&mut self, qp: &HostQp) -> Result<Option<PeerSlot>, Broken> {
        if let Some(slot) = self.returned.pop() {
            return Ok(Some(slot));
        }
        let Some(found) = self.find_slot(qp)? else {
            return Ok(None);
        };
        self.take_found();
        Ok(Some(PeerSlot {
            number: found.number,
            mem: found.mem,
            _map: Arc::clone(&self.chunks[found.chunk]),
        }))
    }

    /// Looks for it without taking it. `None` too while slots given back are to be used first.
    pub(super) fn find_slot(&mut self, qp: &HostQp) -> Result<Option<Found>, Broken> {
        if !self.returned.is_empty() {
            return Ok(None);
        }
        let words = match self.slots.peek() {
            Some(words) => words,
            None => {
                // Ask to be woken, and look again: one of the two sides sees the other.
                self.remote.block().want_receive();
                fence(Ordering::SeqCst);
                match self.slots.peek() {
                    Some(words) => words,
                    None => return Ok(None),
                }
            }
        };
        let posted = PostedSlot::from_words(&words);
        let Some(chunk) = self.chunk(qp, posted.chunk)? else {
            // Its message is on the way; the link wakes us when it has come.
            return Ok(None);
        };
        let mem = usize::try_from(posted.offset)
            .ok()
            .zip(usize::try_from(posted.len).ok())
            .and_then(|(at, len)| self.chunks[chunk].part(at, len))
            .ok_or(Broken("a posted receive does not lie within its chunk"))?;
        Ok(Some(Found {
            number: posted.slot,
            mem,
            chunk,
        }))
    }

    /// Hints for the message after this one: its receive's first line, and the entry after that.
    pub(super) fn prefetch(&self) {
        self.slots.words().prefetch(self.slots.place(2));
        let Some(words) = self.slots.peek() else {
            return;
        };
        let posted = PostedSlot::from_words(&words);
        let chunk = usize::try_from(posted.chunk).ok();
        let mem = chunk
            .and_then(|at| self.chunks.get(at))
            .zip(usize::try_from(posted.offset).ok())
            .and_then(|(map, at)| map.part(at, 1));
        if let Some(mem) = mem {
            cache::prefetch_write(mem.as_ptr());
        }
    }

    /// Takes what was found last.
    pub(super) fn take_found(&mut self) {
        self.slots.advance();
    }

    /// The place of a chunk in `chunks`, once it has been passed.
    fn chunk(&mut self, qp: &HostQp, id: u32) -> Result<Option<usize>, Broken> {
        let at = usize::try_from(id).unwrap_or(usize::MAX);
        if at >= CHUNKS_MAX {
            return Err(Broken("a posted receive is in a chunk that cannot be"));
        }
        while self.chunks.len() <= at {
            let next = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
            let Some(map) = qp.link().peer_chunk(next) else {
                return Ok(None);
            };
            self.chunks.push(map);
        }
        Ok(Some(at))
    }
}
