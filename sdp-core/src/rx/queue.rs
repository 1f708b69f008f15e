//! Bytes received and not yet taken, in stream order, and the private memory they lie in.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::call::CopySource;
use crate::ids::{BufferId, JobId, MemId};

/// A run of received bytes.
#[derive(Clone, Copy, Debug)]
struct Segment {
    source: CopySource,
    len: usize,
    /// The copy that moves them to private memory.
    job: Option<JobId>,
}

/// What the bytes just taken leave behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// There is more in the same buffer.
    Part,
    /// A buffer that may be posted again.
    Buffer(BufferId),
    /// That many bytes of a piece of private memory.
    Mem(MemId, usize),
}

/// Bytes received and not yet taken.
#[derive(Debug)]
pub(super) struct Queue {
    segments: VecDeque<Segment>,
    len: usize,
    /// Segments that lie in receive buffers.
    buffers: usize,
}

/// `source`, `by` bytes further on.
fn advance(source: CopySource, by: usize) -> CopySource {
    match source {
        CopySource::Buffer { buf, offset } => {
            let by = u32::try_from(by).unwrap_or(u32::MAX);
            CopySource::Buffer {
                buf,
                offset: offset.saturating_add(by),
            }
        }
        CopySource::Mem { mem, offset } => CopySource::Mem {
            mem,
            offset: offset + by,
        },
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            segments: VecDeque::with_capacity(32),
            len: 0,
            buffers: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Receive buffers that hold unread bytes.
    pub(super) const fn buffers(&self) -> usize {
        self.buffers
    }

    /// Payload of a message.
    pub(super) fn push_buffer(&mut self, buf: BufferId, offset: u32, len: usize) {
        self.buffers += 1;
        self.len += len;
        self.segments.push_back(Segment {
            source: CopySource::Buffer { buf, offset },
            len,
            job: None,
        });
    }

    /// Bytes read ahead.
    pub(super) fn push_mem(&mut self, mem: MemId, offset: usize, len: usize) {
        self.len += len;
        self.segments.push_back(Segment {
            source: CopySource::Mem { mem, offset },
            len,
            job: None,
        });
        self.merge(self.segments.len() - 1);
    }

    /// Joins segment `index` with the one before, if they are neighbours in one piece of memory.
    fn merge(&mut self, index: usize) {
        let Some(before) = index.checked_sub(1) else {
            return;
        };
        let (Some(a), Some(b)) = (self.segments.get(before), self.segments.get(index)) else {
            return;
        };
        let in_mem = matches!(a.source, CopySource::Mem { .. });
        if in_mem && advance(a.source, a.len) == b.source {
            let len = b.len;
            self.segments.remove(index);
            if let Some(a) = self.segments.get_mut(before) {
                a.len += len;
            }
        }
    }

    /// The run that holds byte `at` of the queue, from there on. `Err`: it is being moved.
    pub(super) fn run_at(&self, at: usize) -> Option<Result<(CopySource, usize), ()>> {
        let mut start = 0;
        for segment in &self.segments {
            if at < start + segment.len {
                if segment.job.is_some() {
                    return Some(Err(()));
                }
                let by = at - start;
                return Some(Ok((advance(segment.source, by), segment.len - by)));
            }
            start += segment.len;
        }
        None
    }

    /// Takes `len` bytes, all of the first run.
    pub(super) fn take(&mut self, len: usize) -> Taken {
        let Some(segment) = self.segments.front_mut() else {
            return Taken::Part;
        };
        assert!(len <= segment.len, "more taken than there was in the run");
        self.len -= len;
        segment.len -= len;
        let source = segment.source;
        segment.source = advance(source, len);
        let empty = segment.len == 0;
        if empty {
            self.segments.pop_front();
        }
        match source {
            CopySource::Mem { mem, .. } => Taken::Mem(mem, len),
            CopySource::Buffer { buf, .. } if empty => {
                self.buffers -= 1;
                Taken::Buffer(buf)
            }
            CopySource::Buffer { .. } => Taken::Part,
        }
    }

    /// The first run that lies in a receive buffer and is not being moved.
    pub(super) fn movable(&self) -> Option<(usize, BufferId, u32, usize)> {
        self.segments
            .iter()
            .enumerate()
            .find_map(|(index, segment)| match segment.source {
                CopySource::Buffer { buf, offset } if segment.job.is_none() => {
                    Some((index, buf, offset, segment.len))
                }
                _ => None,
            })
    }

    /// The first run is being moved.
    pub(super) fn is_front_moving(&self) -> bool {
        self.segments.front().is_some_and(|run| run.job.is_some())
    }

    /// Run `index` is being moved by `job`.
    pub(super) fn move_begins(&mut self, index: usize, job: JobId) {
        if let Some(segment) = self.segments.get_mut(index) {
            segment.job = Some(job);
        }
    }

    /// `job` has moved its run to `to`, or failed. Gives the buffer that became free, and the
    /// length of the run.
    pub(super) fn move_ends(
        &mut self,
        job: JobId,
        to: Option<(MemId, usize)>,
    ) -> Option<(BufferId, usize)> {
        let index = self
            .segments
            .iter()
            .position(|segment| segment.job == Some(job))?;
        let segment = self.segments.get_mut(index)?;
        segment.job = None;
        let CopySource::Buffer { buf, .. } = segment.source else {
            return None;
        };
        let len = segment.len;
        if let Some((mem, offset)) = to {
            segment.source = CopySource::Mem { mem, offset };
            self.buffers -= 1;
            self.merge(index + 1);
            self.merge(index);
        }
        Some((buf, len))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
        self.buffers = 0;
    }
}

/// A piece of private receive memory.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    mem: MemId,
    capacity: usize,
    /// Bytes given out for writing, from the front.
    used: usize,
    /// Of these, bytes not yet taken again.
    live: usize,
}

/// Where new bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    pub(super) mem: MemId,
    pub(super) at: usize,
    pub(super) capacity: usize,
}

/// The pieces of private receive memory, oldest first. New bytes go behind the old ones of the
/// last piece while it has room.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    list: Vec<Chunk>,
    next: u32,
}

impl Chunks {
    /// Room for `len` bytes in one run. A new piece has `capacity` bytes at least.
    pub(super) fn reserve(&mut self, len: usize, capacity: usize) -> Room {
        let fits = |chunk: &&mut Chunk| chunk.capacity - chunk.used >= len;
        if let Some(chunk) = self.list.last_mut().filter(fits) {
            let at = chunk.used;
            chunk.used += len;
            chunk.live += len;
            return Room {
                mem: chunk.mem,
                at,
                capacity: chunk.capacity,
            };
        }
        self.next = self.next.wrapping_add(1);
        let (mem, capacity) = (MemId(self.next), capacity.max(len));
        self.list.push(Chunk {
            mem,
            capacity,
            used: len,
            live: len,
        });
        Room {
            mem,
            at: 0,
            capacity,
        }
    }

    /// `len` bytes of `mem` were taken or never came. A piece that is empty then is written from
    /// its start again if it is the last one and `keep` is set; otherwise it is to be freed.
    pub(super) fn release(&mut self, mem: MemId, len: usize, keep: bool) -> Option<MemId> {
        let index = self.list.iter().position(|chunk| chunk.mem == mem)?;
        let last = index + 1 == self.list.len();
        let chunk = self.list.get_mut(index)?;
        chunk.live -= len;
        if chunk.live > 0 {
            return None;
        }
        if last && keep {
            chunk.used = 0;
            return None;
        }
        self.list.remove(index);
        Some(mem)
    }

    /// Pieces without bytes, to be freed.
    pub(super) fn trim(&mut self) -> Option<MemId> {
        let index = self.list.iter().position(|chunk| chunk.live == 0)?;
        Some(self.list.remove(index).mem)
    }

    /// All pieces but those in `busy`, to be freed.
    pub(super) fn clear(&mut self, busy: &[MemId]) -> Vec<MemId> {
        let (stay, go) = self
            .list
            .iter()
            .partition::<Vec<Chunk>, _>(|chunk| busy.contains(&chunk.mem));
        self.list = stay;
        go.into_iter().map(|chunk| chunk.mem).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BufferId = BufferId(1);
    const B: BufferId = BufferId(2);
    const JOB: JobId = JobId(7);

    #[test]
    fn runs_are_taken_in_order_and_leave_their_buffers() {
        let mut queue = Queue::new();
        queue.push_buffer(A, 16, 10);
        queue.push_mem(MemId(1), 0, 5);
        queue.push_mem(MemId(1), 5, 5);
        assert_eq!((queue.len(), queue.buffers()), (20, 1));
        let source = CopySource::Buffer { buf: A, offset: 19 };
        assert_eq!(queue.run_at(3), Some(Ok((source, 7))));
        let source = CopySource::Mem {
            mem: MemId(1),
            offset: 2,
        };
        assert_eq!(queue.run_at(12), Some(Ok((source, 8))));
        assert_eq!(queue.run_at(20), None);
        assert_eq!(queue.take(4), Taken::Part);
        assert_eq!(queue.take(6), Taken::Buffer(A));
        assert_eq!(queue.take(10), Taken::Mem(MemId(1), 10));
        assert_eq!((queue.len(), queue.buffers()), (0, 0));
    }

    #[test]
    fn a_run_being_moved_is_not_given_out_and_joins_its_neighbours() {
        let mut queue = Queue::new();
        queue.push_mem(MemId(1), 0, 4);
        queue.push_buffer(A, 16, 10);
        queue.push_buffer(B, 16, 3);
        assert_eq!(queue.movable(), Some((1, A, 16, 10)));
        queue.move_begins(1, JOB);
        assert_eq!(queue.run_at(4), Some(Err(())));
        assert_eq!(queue.movable(), Some((2, B, 16, 3)));
        assert_eq!(queue.move_ends(JOB, Some((MemId(1), 4))), Some((A, 10)));
        let source = CopySource::Mem {
            mem: MemId(1),
            offset: 0,
        };
        assert_eq!(queue.run_at(0), Some(Ok((source, 14))));
        assert_eq!((queue.len(), queue.buffers()), (17, 1));
        // A move that fails leaves the bytes where they are.
        queue.move_begins(1, JOB);
        assert_eq!(queue.move_ends(JOB, None), Some((B, 3)));
        assert_eq!(queue.movable(), Some((1, B, 16, 3)));
    }

    #[test]
    fn pieces_are_filled_up_kept_and_freed() {
        let mut chunks = Chunks::default();
        let first = chunks.reserve(10, 64);
        assert_eq!((first.at, first.capacity), (0, 64));
        let second = chunks.reserve(54, 64);
        assert_eq!((second.mem, second.at), (first.mem, 10));
        let third = chunks.reserve(100, 64);
        assert_eq!((third.at, third.capacity), (0, 100));
        assert_eq!(chunks.release(first.mem, 10, true), None);
        assert_eq!(chunks.release(first.mem, 54, true), Some(first.mem));
        assert_eq!(chunks.release(third.mem, 100, true), None);
        assert_eq!(chunks.reserve(100, 64), third);
        assert_eq!(chunks.trim(), None);
        assert_eq!(chunks.release(third.mem, 100, true), None);
        assert_eq!(chunks.trim(), Some(third.mem));
    }
}
