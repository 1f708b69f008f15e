//! The table of remote keys of one instance: its owner's view, and a peer's.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::cells::{self, CELL_WORDS, Cell, CellState};
use super::region::RegionInner;
use super::shm::{self, Mapping, SEALS_OWNED};
use super::words::MappedWords;
use crate::error::VerbsError;
use crate::types::{Access, Rkey};

/// Cells of a table: an rkey has 16 bits for the index.
const CELL_COUNT: usize = 1 << 16;

/// Bytes of a cell.
const CELL_LEN: usize = CELL_WORDS * 8;

/// Bytes of a table.
pub(crate) const TABLE_LEN: usize = CELL_COUNT * CELL_LEN;

/// Cells whose memory is reserved in one step.
const RESERVE_CELLS: usize = 1024;

/// Cell 0 never holds a key: it names the instance, for probes.
const FIRST_KEY: usize = 1;

fn index_of(rkey: Rkey) -> usize {
    usize::from((rkey.0 >> 16) as u16)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is the generation"
)]
fn generation_of(rkey: Rkey) -> u16 {
    rkey.0 as u16
}

/// A living key, as its owner knows it.
#[derive(Clone, Debug)]
pub(crate) struct LiveKey {
    pub(crate) cell: Cell,
    pub(crate) region: Arc<RegionInner>,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u16,
    live: Option<LiveKey>,
    /// Peers' writes being carried out through the key right now, by our own threads.
    users: u32,
    /// Its place in its queue pair's list.
    place: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// One per cell ever used; cell 0 is there from the start.
    entries: Vec<Entry>,
    /// Cells reserved so far.
    reserved: usize,
    /// Cells that are free, the one used last on top.
    free: Vec<u16>,
    /// Cells whose generations have all been used once. Taken, longest rested first, only when
    /// nothing else is left: a key comes back after some four thousand million others.
    rested: VecDeque<u16>,
    by_qp: HashMap<u32, Vec<Rkey>>,
}

impl Inner {
    fn list(&mut self, qp: u32, rkey: Rkey) {
        let keys = self.by_qp.entry(qp).or_default();
        self.entries[index_of(rkey)].place = keys.len();
        keys.push(rkey);
    }

    fn unlist(&mut self, qp: u32, rkey: Rkey) {
        let Some(keys) = self.by_qp.get_mut(&qp) else {
            return;
        };
        let place = self.entries[index_of(rkey)].place;
        debug_assert_eq!(keys.get(place), Some(&rkey));
        keys.swap_remove(place);
        if let Some(moved) = keys.get(place) {
            self.entries[index_of(*moved)].place = place;
        } else if keys.is_empty() {
            self.by_qp.remove(&qp);
        }
    }
}

/// The owner's view.
#[derive(Debug)]
pub(crate) struct KeyTable {
    tag: u128,
    fd: OwnedFd,
    map: Arc<Mapping>,
    words: MappedWords,
    inner: Mutex<Inner>,
    idle: Condvar,
}

impl KeyTable {
    /// An empty table for the instance named `tag`.
    pub(crate) fn new(tag: u128) -> Result<Self, VerbsError> {
        let fd = shm::create("sdp-keys", TABLE_LEN, RESERVE_CELLS * CELL_LEN)?;
        let map = Arc::new(Mapping::read_write(fd.as_fd(), TABLE_LEN)?);
        shm::seal(fd.as_fd(), SEALS_OWNED)?;
        let words = MappedWords::new(&map, 0, CELL_COUNT * CELL_WORDS)
            .expect("a mapping is page aligned and as long as asked for");
        cells::name(&words, 0, tag);
        let inner = Inner {
            entries: vec![Entry::default()],
            reserved: RESERVE_CELLS,
            ..Inner::default()
        };
        Ok(Self {
            tag,
            fd,
            map,
            words,
            inner: Mutex::new(inner),
            idle: Condvar::new(),
        })
    }

    /// The table's descriptor, to be shown to peers of our own user.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its address in our memory.
    pub(crate) fn addr(&self) -> u64 {
        self.map.ptr().as_ptr().expose_provenance() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no panic happens under the key table's lock")
    }

    /// Brings a key to life.
    ///
    /// # Errors
    /// [`VerbsError::Limit`] if every cell is taken or no memory is left for more.
    pub(crate) fn bind(&self, live: LiveKey) -> Result<Rkey, VerbsError> {
        let mut inner = self.lock();
        let index = self.take_cell(&mut inner)?;
        let entry = &mut inner.entries[usize::from(index)];
        entry.generation = entry.generation.wrapping_add(1);
        let generation = entry.generation;
        let cell = live.cell;
        entry.live = Some(live);
        let rkey = Rkey(u32::from(index) << 16 | u32::from(generation));
        inner.list(cell.qp, rkey);
        cells::publish(&self.words, usize::from(index), generation, &cell);
        Ok(rkey)
    }

    fn take_cell(&self, inner: &mut Inner) -> Result<u16, VerbsError> {
        if let Some(index) = inner.free.pop() {
            return Ok(index);
        }
        let fresh = inner.entries.len();
        if let Ok(index) = u16::try_from(fresh) {
            if fresh >= inner.reserved {
                let offset = (inner.reserved * CELL_LEN) as u64;
                let len = (RESERVE_CELLS * CELL_LEN) as u64;
                shm::reserve_range(self.fd.as_fd(), offset, len)?;
                inner.reserved += RESERVE_CELLS;
            }
            cells::name(&self.words, fresh, self.tag);
            inner.entries.push(Entry::default());
            return Ok(index);
        }
        inner.rested.pop_front().ok_or_else(|| VerbsError::Limit {
            what: "remote keys",
            limit: format!("{} at once", CELL_COUNT - FIRST_KEY),
            remedy: "have fewer transfers open",
        })
    }

    /// Whether a key lives.
    pub(crate) fn is_alive(&self, rkey: Rkey) -> bool {
        let inner = self.lock();
        inner
            .entries
            .get(index_of(rkey))
            .is_some_and(|e| e.live.is_some() && e.generation == generation_of(rkey))
    }

    /// Kills a key; with `qp`, only if it is bound there. False if there was no such living key.
    /// When this returns, no access through it can succeed or change memory: a peer's write that
    /// was under way has been waited for, which is bounded by one copy.
    pub(crate) fn kill(&self, rkey: Rkey, qp: Option<u32>) -> bool {
        let mut inner = self.lock();
        let index = index_of(rkey);
        let Some(entry) = inner.entries.get_mut(index) else {
            return false;
        };
        if entry.generation != generation_of(rkey) {
            return false;
        }
        let Some(bound_on) = entry.live.as_ref().map(|live| live.cell.qp) else {
            // Somebody else is killing it, or has: dead means dead for this caller too.
            drop(self.wait_unused(inner, rkey));
            return false;
        };
        if qp.is_some_and(|qp| qp != bound_on) {
            return false;
        }
        entry.live = None;
        cells::kill(&self.words, index);
        let mut inner = self.wait_unused(inner, rkey);
        inner.unlist(bound_on, rkey);
        let cell = u16::try_from(index).expect("an index has 16 bits");
        if generation_of(rkey) == u16::MAX {
            inner.rested.push_back(cell);
        } else {
            inner.free.push(cell);
        }
        true
    }

    fn wait_unused<'a>(
        &'a self,
        inner: MutexGuard<'a, Inner>,
        rkey: Rkey,
    ) -> MutexGuard<'a, Inner> {
        let in_use = |inner: &mut Inner| {
            let entry = &inner.entries[index_of(rkey)];
            entry.generation == generation_of(rkey) && entry.users > 0
        };
        self.idle
            .wait_while(inner, in_use)
            .expect("no panic happens under the key table's lock")
    }

    /// Kills every key bound on a queue pair.
    pub(crate) fn kill_all_of(&self, qp: u32) {
        loop {
            let next = self
                .lock()
                .by_qp
                .get(&qp)
                .and_then(|keys| keys.last().copied());
            let Some(rkey) = next else { return };
            if !self.kill(rkey, Some(qp)) {
                // Another thread is about to take it off the list.
                std::thread::yield_now();
            }
        }
    }

    /// Starts a peer's write through a key of ours. The key may be killed meanwhile, but whoever
    /// kills it waits until the use is dropped.
    pub(crate) fn use_for_write(
        self: &Arc<Self>,
        rkey: Rkey,
        qp: u32,
        addr: u64,
        len: u64,
    ) -> Option<KeyUse> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(index_of(rkey))?;
        let live = entry.live.as_ref()?;
        if entry.generation != generation_of(rkey)
            || live.cell.qp != qp
            || !covers(&live.cell, Access::REMOTE_WRITE, addr, len)
        {
            return None;
        }
        let region = Arc::clone(&live.region);
        entry.users += 1;
        Some(KeyUse {
            table: Arc::clone(self),
            index: index_of(rkey),
            region,
        })
    }
}

/// Whether a key's cell allows an access.
pub(crate) fn covers(cell: &Cell, access: Access, addr: u64, len: u64) -> bool {
    let start = addr.checked_sub(cell.addr);
    cell.access & access.bits() != 0
        && start
            .and_then(|start| start.checked_add(len))
            .is_some_and(|end| end <= cell.len)
}

/// A peer's write in progress through a key of ours.
#[derive(Debug)]
pub(crate) struct KeyUse {
    table: Arc<KeyTable>,
    index: usize,
    region: Arc<RegionInner>,
}

impl KeyUse {
    /// The region written to.
    pub(crate) fn region(&self) -> &Arc<RegionInner> {
        &self.region
    }
}

impl Drop for KeyUse {
    fn drop(&mut self) {
        self.table.lock().entries[self.index].users -= 1;
        self.table.idle.notify_all();
    }
}

/// A peer's table, as we see it.
#[derive(Debug)]
pub(crate) struct PeerKeys {
    tag: u128,
    addr: u64,
    words: MappedWords,
}

/// A key of the peer's found alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerKey {
    /// What it names.
    pub(crate) cell: Cell,
    index: usize,
    state: CellState,
}

impl PeerKeys {
    /// Maps what the peer's handshake carried.
    pub(crate) fn new(fd: &OwnedFd, tag: u128, addr: u64, len: u64) -> Result<Self, VerbsError> {
        let what = "key table of the peer";
        if len != TABLE_LEN as u64 || !addr.is_multiple_of(CELL_LEN as u64) || addr == 0 {
            return Err(VerbsError::Protocol {
                what,
                rule: format!("{len} bytes at {addr:#x}"),
            });
        }
        shm::verify(fd.as_fd(), what, len, SEALS_OWNED, false)?;
        let map = Arc::new(Mapping::read_only(fd.as_fd(), TABLE_LEN)?);
        let words = MappedWords::new(&map, 0, CELL_COUNT * CELL_WORDS)
            .expect("a mapping is page aligned and as long as asked for");
        Ok(Self { tag, addr, words })
    }

    /// A living key.
    pub(crate) fn look(&self, rkey: Rkey) -> Option<PeerKey> {
        let index = index_of(rkey);
        if index < FIRST_KEY {
            return None;
        }
        let (state, cell) = cells::look(&self.words, index, generation_of(rkey))?;
        Some(PeerKey { cell, index, state })
    }

    /// Whether the key was alive until now, for copies made through a mapping.
    pub(crate) fn still(&self, key: &PeerKey) -> bool {
        cells::still(&self.words, key.index, key.state)
    }

    /// Where the key's cell is in the peer's memory, and what it must say there, for copies made
    /// by the kernel.
    pub(crate) fn proof(&self, key: &PeerKey) -> (u64, [u8; cells::PROOF_LEN]) {
        let at = self.addr + (key.index * CELL_LEN) as u64;
        (at, key.state.proof(self.tag))
    }
}
