//! Which descriptors are ours: by number, since a descriptor is the kernel's own.
//!
//! Whether a number is ours costs two loads, takes no lock and allocates nothing, so that it may
//! be asked in a signal handler. A chunk of the table is made when the first of its numbers is
//! used, and stays.
//!
//! What a forked child finds was its parent's: each slot carries the generation that filled it, and
//! one of another generation is turned at its first use into what the child may have of it
//! ([`Entry::inherited`]), in memory of the child's own, as locks of the parent's may be held by
//! threads that the child does not have. A child of vfork shares the table and is not its owner: it
//! changes nothing.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use libc::c_int;
use sdp::posix::Failure;
use sdp_socket::{hide_descriptors, watch_sleepers};

use crate::entry::{Entry, lock};
use crate::{fork, report};

const CHUNK_LEN: usize = 1024;
/// Numbers up to 2^20 are ours to have: a socket with a greater one stays TCP's.
const CHUNKS_MAX: usize = 1024;

/// Somebody is turning an inherited slot into one of this generation.
const BUSY: u32 = 1 << 31;

/// What a number is, by the generation that made the cell.
struct Cell {
    generation: u32,
    entry: RwLock<Option<Arc<Entry>>>,
}

/// One number. All zero: nobody's.
struct Slot {
    /// The generation that filled it; zero if it is empty.
    mark: AtomicU32,
    /// Made at the first use in each generation, and never freed.
    cell: AtomicPtr<Cell>,
}

type Chunk = [Slot; CHUNK_LEN];

static CHUNKS: [AtomicPtr<Chunk>; CHUNKS_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS_MAX];

/// Forks since the program's start, from 1 on.
static GENERATION: AtomicU32 = AtomicU32::new(1);
/// Set by the first [`start`] that succeeds.
static STARTED: AtomicBool = AtomicBool::new(false);
/// The process whose table this is.
static OWNER: AtomicI32 = AtomicI32::new(0);

fn slot(fd: c_int) -> Option<&'static Slot> {
    let at = usize::try_from(fd).ok()?;
    let chunk = CHUNKS.get(at / CHUNK_LEN)?.load(Ordering::Acquire);
    // SAFETY: chunks come from boxes that are never freed.
    let chunk = unsafe { chunk.as_ref() }?;
    Some(&chunk[at % CHUNK_LEN])
}

/// The slot, which is made if need be; `None` for numbers beyond the table.
fn made_slot(fd: c_int) -> Option<&'static Slot> {
    if let Some(slot) = slot(fd) {
        return Some(slot);
    }
    let at = usize::try_from(fd).ok()?;
    let place = CHUNKS.get(at / CHUNK_LEN)?;
    let new: Chunk = std::array::from_fn(|_| Slot {
        mark: AtomicU32::new(0),
        cell: AtomicPtr::new(ptr::null_mut()),
    });
    let new = Box::into_raw(Box::new(new));
    let stored = place.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
    if stored.is_err() {
        // SAFETY: it came from a box above, and nobody else has seen it.
        drop(unsafe { Box::from_raw(new) });
    }
    slot(fd)
}

/// Whether a number is ours, as far as two loads tell.
#[inline]
pub(crate) fn holds(fd: c_int) -> bool {
    slot(fd).is_some_and(|slot| slot.mark.load(Ordering::Acquire) != 0)
}

/// Whether a number can be ours.
pub(crate) fn has_room(fd: c_int) -> bool {
    usize::try_from(fd).is_ok_and(|at| at < CHUNKS_MAX * CHUNK_LEN)
}

/// What a number is, if it is ours.
pub(crate) fn get(fd: c_int) -> Option<Arc<Entry>> {
    let entry = slot(fd)?.entry()?;
    entry.settle();
    if entry.is_kernels() {
        // Another number of the socket has found out.
        remove(fd);
        return None;
    }
    Some(entry)
}

/// Makes the table this process's, and has its children looked after; once.
///
/// # Errors
/// `ENOMEM` without memory for a fork handler, for as long as that is so. There may be no number of ours
/// then: a child would use what is its parent's.
pub(crate) fn start() -> Result<(), Failure> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    if is_used() {
        return Ok(());
    }
    let _one_at_a_time = lock(&ONE_AT_A_TIME);
    if is_used() {
        return Ok(());
    }
    let (before, in_parent) = (Some(fork::prepare as _), Some(fork::in_parent as _));
    // SAFETY: in the child only atomics are stored to and system calls made, which is allowed
    // there, and the library is never unloaded (build.rs).
    let failed = unsafe { libc::pthread_atfork(before, in_parent, Some(in_child)) };
    if failed != 0 {
        return Err(Failure::new(failed, "no memory for a fork handler"));
    }
    OWNER.store(own_pid(), Ordering::Relaxed);
    hide_descriptors();
    watch_sleepers();
    report::at_exit();
    report::tell_when_asked();
    STARTED.store(true, Ordering::Release);
    Ok(())
}

/// Whether there may be a number of ours, or a hidden one.
pub(crate) fn is_used() -> bool {
    STARTED.load(Ordering::Acquire)
}

/// Makes a number ours. One that was, and of which we were not told that it is closed, is closed
/// now. False: there is no room for it, or the table cannot [`start`].
pub(crate) fn insert(fd: c_int, entry: &Arc<Entry>) -> bool {
    if start().is_err() {
        return false;
    }
    let Some(slot) = made_slot(fd) else {
        return false;
    };
    slot.adopt();
    entry.add_number();
    if let Some(before) = slot.replace(Some(Arc::clone(entry))) {
        before.drop_number();
    }
    true
}

/// A number is not ours any more; the last one of a socket closes it.
pub(crate) fn remove(fd: c_int) {
    let Some(slot) = slot(fd) else { return };
    if slot.mark.load(Ordering::Acquire) == 0 {
        return;
    }
    slot.adopt();
    if let Some(before) = slot.replace(None) {
        before.drop_number();
    }
}

/// Numbers from `first` to `last` that are ours.
pub(crate) fn within(first: c_int, last: c_int) -> impl Iterator<Item = c_int> {
    let len = c_int::try_from(CHUNK_LEN).unwrap_or(c_int::MAX);
    let count = c_int::try_from(CHUNKS_MAX).unwrap_or(c_int::MAX);
    let chunks = (first.max(0) / len)..=(last.max(0) / len).min(count - 1);
    chunks
        .filter(move |chunk| slot(chunk * len).is_some())
        .flat_map(move |chunk| (chunk * len).max(first)..=(chunk * len + (len - 1)).min(last))
        .filter(|fd| holds(*fd))
}

/// Whether the table is this process's: not in a child of vfork.
pub(crate) fn is_owner() -> bool {
    OWNER.load(Ordering::Relaxed) == own_pid()
}

fn own_pid() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() }
}

fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

extern "C" fn in_child() {
    let next = generation() % (BUSY - 1) + 1;
    GENERATION.store(next, Ordering::Relaxed);
    OWNER.store(own_pid(), Ordering::Relaxed);
    report::start_anew();
    sdp_socket::list_anew();
    sdp_socket::hidden::forget_all();
    fork::in_child();
}

/// Whether a number was that of `entry` in the parent, as a child asks right after the fork.
pub(crate) fn was(fd: c_int, entry: &Arc<Entry>) -> bool {
    let Some(slot) = slot(fd) else { return false };
    if slot.mark.load(Ordering::Acquire) == 0 {
        return false;
    }
    // SAFETY: cells are never freed.
    let cell = unsafe { slot.cell.load(Ordering::Acquire).as_ref() };
    let place = cell.and_then(|cell| cell.entry.try_read().ok());
    place.is_some_and(|place| place.as_ref().is_some_and(|it| Arc::ptr_eq(it, entry)))
}

impl Slot {
    fn entry(&self) -> Option<Arc<Entry>> {
        if self.mark.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.adopt();
        self.read()
    }

    fn read(&self) -> Option<Arc<Entry>> {
        let entry = &self.cell().entry;
        entry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts something else there; what was there.
    fn replace(&self, entry: Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        let place = &self.cell().entry;
        let mut place = place.write().unwrap_or_else(PoisonError::into_inner);
        let mark = if entry.is_some() { generation() } else { 0 };
        self.mark.store(mark, Ordering::Release);
        std::mem::replace(&mut *place, entry)
    }

    /// The cell of this generation.
    fn cell(&self) -> &Cell {
        let now = generation();
        loop {
            let at = self.cell.load(Ordering::Acquire);
            // SAFETY: cells come from boxes that are never freed.
            match unsafe { at.as_ref() } {
                Some(cell) if cell.generation == now => return cell,
                _ => {}
            }
            let new = Box::into_raw(Box::new(Cell {
                generation: now,
                entry: RwLock::default(),
            }));
            let stored = self
                .cell
                .compare_exchange(at, new, Ordering::AcqRel, Ordering::Acquire);
            if stored.is_err() {
                // SAFETY: it came from a box above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }

    /// Turns what a forefather left here into what this process may have of it.
    fn adopt(&self) {
        loop {
            let now = generation();
            let mark = self.mark.load(Ordering::Acquire);
            if mark == now || mark == 0 {
                return;
            }
            if mark == now | BUSY {
                std::hint::spin_loop();
                continue;
            }
            let claimed =
                self.mark
                    .compare_exchange(mark, now | BUSY, Ordering::AcqRel, Ordering::Relaxed);
            if claimed.is_ok() {
                let old = self.cell.load(Ordering::Acquire);
                // SAFETY: cells are never freed.
                let old = unsafe { old.as_ref() };
                let old = old.and_then(|old| old.entry.try_read().ok()?.clone());
                let mine = old.as_ref().and_then(|entry| entry.inherited());
                // The parent's memory is not for this process to free.
                std::mem::forget(old);
                self.replace(mine);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdp::posix::{Family, Socket};

    fn entry() -> Arc<Entry> {
        let socket = Socket::new(libc::AF_INET, Family::V4, false);
        Arc::new(Entry::new(socket, Family::V4, false, false).unwrap())
    }

    /// Numbers lead to what they are until they are removed; strangers are nobody's.
    #[test]
    fn numbers() {
        // Beyond what this test's process has open.
        let (a, b) = (700_000, 700_001);
        let one = entry();
        assert!(insert(a, &one) && insert(b, &one));
        assert!(holds(a) && Arc::ptr_eq(&get(b).unwrap(), &one));
        let found: Vec<c_int> = within(600_000, c_int::MAX).collect();
        assert_eq!(found, [a, b]);
        remove(a);
        remove(a);
        assert!(!holds(a) && get(a).is_none() && holds(b));
        remove(b);
        for stranger in [-1, 0, c_int::MIN, c_int::MAX, 700_002, 1 << 20] {
            assert!(!holds(stranger) && get(stranger).is_none());
            remove(stranger);
        }
        assert!(!insert(1 << 20, &one) && !insert(-1, &one));
        assert!(has_room((1 << 20) - 1) && !has_room(1 << 20) && !has_room(-1));
    }

    /// In a child a socket that is new is the child's own, and one that was closed stays closed.
    #[test]
    fn generations() {
        let fd = 800_000;
        let parents = entry();
        assert!(insert(fd, &parents));
        let slot = slot(fd).unwrap();
        slot.mark.store(BUSY - 1, Ordering::Relaxed);
        let childs = get(fd).unwrap();
        assert!(!Arc::ptr_eq(&childs, &parents));
        assert!(Arc::ptr_eq(&get(fd).unwrap(), &childs));
        remove(fd);
        slot.mark.store(0, Ordering::Relaxed);
        assert!(get(fd).is_none());
    }
}
