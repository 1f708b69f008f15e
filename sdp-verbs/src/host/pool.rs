//! Our own shared memory on one link: chunks that both sides map, and areas in them.
//!
//! Each side allocates what the peer writes into: its inbound rings and its posted receives. The
//! memory of a queue pair is used again only when the peer can no longer touch it: it has said
//! so in the queue pair's block, it never knew the block, or the link is dead.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::layout::{Block, HEADER_LEN};
use super::plane::{ControlOut, PlaneMsg};
use super::shm::{self, Mapping, SEALS_SHARED};
use super::words::{MappedSleepWord, MappedWords};
use crate::error::VerbsError;

/// Bytes of the first chunk.
const BASE_LEN: usize = 256 << 10;

/// Largest chunk that is not made for one large area.
const CHUNK_LEN_MAX: usize = 4 << 20;

/// Chunks of one side of a link.
pub(crate) const CHUNKS_MAX: usize = 4096;

/// Areas start and end on cache lines.
const LINE: usize = 64;

/// Retired queue pairs looked at by one allocation.
const REAP_MAX: usize = 64;

/// A range of a chunk of ours. It does not free itself: see [`LocalPool::free`].
#[derive(Clone, Debug)]
pub(crate) struct Area {
    pub(crate) chunk: u32,
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) map: Arc<Mapping>,
}

#[derive(Debug)]
struct Chunk {
    map: Arc<Mapping>,
    /// Free ranges by offset; neighbours are always joined.
    free: BTreeMap<usize, usize>,
}

/// What a queue pair leaves behind while the peer may still write to it.
#[derive(Debug)]
pub(crate) struct Retired {
    /// Where the peer says that it is done.
    pub(crate) block: Block,
    /// To be freed then.
    pub(crate) areas: Vec<Area>,
    /// To be dropped then.
    pub(crate) _cell: Arc<WaitCell>,
}

/// The word on which waiters of one completion queue sleep for one link's sake.
#[derive(Debug)]
pub(crate) struct WaitCell {
    word: MappedSleepWord,
    area: Area,
    pool: Arc<LocalPool>,
}

impl WaitCell {
    /// A word of its own cache line.
    pub(crate) fn new(pool: &Arc<LocalPool>) -> Result<Self, VerbsError> {
        let area = pool.alloc(LINE)?;
        let words = MappedWords::new(&area.map, area.offset, LINE / 8).ok_or_else(too_large)?;
        words.clear();
        let word = MappedSleepWord::new(&area.map, area.offset).ok_or_else(too_large)?;
        Ok(Self {
            word,
            area,
            pool: Arc::clone(pool),
        })
    }

    /// The word.
    pub(crate) fn word(&self) -> &MappedSleepWord {
        &self.word
    }

    /// Where it is.
    pub(crate) fn area(&self) -> &Area {
        &self.area
    }
}

impl Drop for WaitCell {
    fn drop(&mut self) {
        self.pool.free(&self.area);
    }
}

#[derive(Debug)]
struct Inner {
    chunks: Vec<Chunk>,
    next_len: usize,
    retired: Vec<Retired>,
    /// The peer is gone: nothing needs to rest.
    closed: bool,
}

/// All chunks of our side of a link.
pub(crate) struct LocalPool {
    inner: Mutex<Inner>,
    out: OnceLock<Arc<dyn ControlOut>>,
}

impl fmt::Debug for LocalPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("LocalPool");
        // Who asks may hold the lock.
        if let Ok(inner) = self.inner.try_lock() {
            f.field("chunks", &inner.chunks.len())
                .field("retired", &inner.retired.len())
                .field("closed", &inner.closed);
        }
        f.finish_non_exhaustive()
    }
}

impl LocalPool {
    /// A pool with its base chunk, and that chunk's descriptor.
    pub(crate) fn new() -> Result<(Self, OwnedFd), VerbsError> {
        let (fd, chunk) = make_chunk(BASE_LEN, HEADER_LEN)?;
        let pool = Self {
            inner: Mutex::new(Inner {
                chunks: vec![chunk],
                next_len: 2 * BASE_LEN,
                retired: Vec::new(),
                closed: false,
            }),
            out: OnceLock::new(),
        };
        Ok((pool, fd))
    }

    /// The base chunk's mapping.
    pub(crate) fn base_map(&self) -> Arc<Mapping> {
        Arc::clone(&self.lock().chunks[0].map)
    }

    /// Bytes of the base chunk.
    pub(crate) fn base_len(&self) -> u64 {
        BASE_LEN as u64
    }

    /// Where new chunks are announced, from now on.
    pub(crate) fn announce_to(&self, out: Arc<dyn ControlOut>) {
        let fresh = self.out.set(out).is_ok();
        debug_assert!(fresh, "a side is linked once");
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no panic happens under the pool's lock")
    }

    /// Takes an area of at least `len` bytes. Its contents are left over from earlier use.
    ///
    /// # Errors
    /// [`VerbsError::Limit`], or what the control socket says to a new chunk.
    pub(crate) fn alloc(&self, len: usize) -> Result<Area, VerbsError> {
        let len = len
            .max(1)
            .checked_next_multiple_of(LINE)
            .ok_or_else(too_large)?;
        let mut inner = self.lock();
        let reaped = inner.reap();
        let area = match inner.take(len) {
            Some(area) => Ok(area),
            None => self
                .grow(&mut inner, len)
                .and_then(|()| inner.take(len).ok_or_else(too_large)),
        };
        // A wait cell among it gives itself back, which takes the lock.
        drop(inner);
        drop(reaped);
        area
    }

    fn grow(&self, inner: &mut Inner, len: usize) -> Result<(), VerbsError> {
        if inner.chunks.len() >= CHUNKS_MAX {
            return Err(VerbsError::Limit {
                what: "shared memory of a link",
                limit: format!("{CHUNKS_MAX} chunks"),
                remedy: "use fewer or smaller receive buffers",
            });
        }
        let rounded = shm::page_round(len).ok_or_else(too_large)?;
        let (fd, chunk) = make_chunk(inner.next_len.max(rounded), 0)?;
        let id = u32::try_from(inner.chunks.len()).map_err(|_| too_large())?;
        let msg = PlaneMsg::Chunk {
            id,
            len: chunk.map.len() as u64,
        };
        let out = self.out.get().ok_or(VerbsError::State {
            op: "allocating shared memory",
            state: "not linked",
        })?;
        out.send(msg, &[fd.as_fd()])?;
        inner.next_len = (inner.next_len * 2).min(CHUNK_LEN_MAX);
        inner.chunks.push(chunk);
        Ok(())
    }

    /// Gives an area back that the peer cannot touch.
    pub(crate) fn free(&self, area: &Area) {
        self.lock().give(area);
    }

    /// Gives areas back once the peer is done with `retired.block`.
    pub(crate) fn retire(&self, retired: Retired) {
        let mut inner = self.lock();
        if inner.closed || retired.block.is_gone() {
            inner.give_all(&retired.areas);
            drop(inner);
            drop(retired);
        } else {
            inner.retired.push(retired);
        }
    }

    /// The peer is dead: it touches nothing any more.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let all = std::mem::take(&mut inner.retired);
        for retired in &all {
            inner.give_all(&retired.areas);
        }
        drop(inner);
        drop(all);
    }
}

impl Inner {
    fn take(&mut self, len: usize) -> Option<Area> {
        for (id, chunk) in self.chunks.iter_mut().enumerate() {
            let found = chunk.free.iter().find(|(_, free)| **free >= len);
            let Some((&offset, &free)) = found else {
                continue;
            };
            chunk.free.remove(&offset);
            if free > len {
                chunk.free.insert(offset + len, free - len);
            }
            return Some(Area {
                chunk: u32::try_from(id).ok()?,
                offset,
                len,
                map: Arc::clone(&chunk.map),
            });
        }
        None
    }

    fn give(&mut self, area: &Area) {
        let Some(chunk) = usize::try_from(area.chunk)
            .ok()
            .and_then(|c| self.chunks.get_mut(c))
        else {
            debug_assert!(false, "an area of another pool");
            return;
        };
        let (mut offset, mut len) = (area.offset, area.len);
        if let Some((&before, &before_len)) = chunk.free.range(..offset).next_back()
            && before + before_len == offset
        {
            chunk.free.remove(&before);
            offset = before;
            len += before_len;
        }
        if let Some(after_len) = chunk.free.remove(&(offset + len)) {
            len += after_len;
        }
        chunk.free.insert(offset, len);
    }

    fn give_all(&mut self, areas: &[Area]) {
        for area in areas {
            self.give(area);
        }
    }

    /// Takes back what peers are done with; the caller drops the rest unlocked.
    fn reap(&mut self) -> Vec<Retired> {
        let mut done = Vec::new();
        let mut at = 0;
        for _ in 0..REAP_MAX.min(self.retired.len()) {
            if self.retired[at].block.is_gone() {
                let retired = self.retired.swap_remove(at);
                self.give_all(&retired.areas);
                done.push(retired);
            } else {
                at += 1;
            }
        }
        // What was not looked at comes first next time.
        self.retired.rotate_left(at);
        done
    }
}

fn make_chunk(len: usize, used: usize) -> Result<(OwnedFd, Chunk), VerbsError> {
    let fd = shm::create("sdp-link", len, len)?;
    shm::seal(fd.as_fd(), SEALS_SHARED)?;
    let map = Arc::new(Mapping::read_write(fd.as_fd(), len)?);
    let free = BTreeMap::from([(used, len - used)]);
    Ok((fd, Chunk { map, free }))
}

fn too_large() -> VerbsError {
    VerbsError::Argument {
        what: "length of a receive buffer",
        reason: "larger than a chunk can be".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_do_not_overlap_and_join_again() {
        let pool = LocalPool::new().unwrap().0;
        let whole = pool.alloc(BASE_LEN - HEADER_LEN).unwrap();
        assert!(
            matches!(pool.alloc(1), Err(VerbsError::State { .. })),
            "no link to grow by"
        );
        pool.free(&whole);
        let mut areas: Vec<_> = (1..40).map(|n| pool.alloc(n * 100).unwrap()).collect();
        areas.sort_by_key(|a| a.offset);
        assert!(
            areas
                .windows(2)
                .all(|w| w[0].offset + w[0].len <= w[1].offset)
        );
        assert!(areas[0].offset >= HEADER_LEN);
        for area in areas
            .iter()
            .step_by(2)
            .chain(areas.iter().skip(1).step_by(2))
        {
            pool.free(area);
        }
        pool.alloc(BASE_LEN - HEADER_LEN).unwrap();
    }
}
