//! The caller's memory while a call is in progress: the only unsafe code of this crate.
//!
//! A call's memory is named by raw pointers that are derived once from the caller's borrow. That
//! borrow is not used again until the call has returned, and the call does not return (nor unwind:
//! `park::AbortOnUnwind`) before no work request and no live key names the memory.

use std::alloc::{Layout, alloc_zeroed};
use std::io::{IoSlice, IoSliceMut};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use bytes::BufMut;
use sdp_core::{CallId, KeyId, RecvId, SendId, WorkId};
use sdp_verbs::{
    Access, Caps, ForeignSlice, MemoryRegion, MemoryWindow, Provider, Rkey, Sge, VerbsError,
};
use smallvec::SmallVec;

use super::buffers::Few;
use crate::budget::Held;
use crate::context::Context;

/// Bytes of a call's memory that are registered at once: a large call's first bytes move while the
/// memory behind them is being registered.
const REGISTERED_AT_ONCE: usize = 1 << 20;

/// One contiguous piece of a call's memory.
#[derive(Clone, Copy, Debug)]
struct Piece {
    ptr: NonNull<u8>,
    start: usize,
    end: usize,
}

/// A registered part of a call's memory.
#[derive(Debug)]
struct Registered {
    start: usize,
    end: usize,
    region: Arc<dyn MemoryRegion>,
}

impl Piece {
    /// Where `at` is.
    fn ptr_at(&self, at: usize) -> NonNull<u8> {
        assert!(self.start <= at && at <= self.end, "outside of the piece");
        // SAFETY: within the piece, as was just checked.
        unsafe { self.ptr.add(at - self.start) }
    }
}

/// The memory of one call, as raw pointers.
///
/// Invariant, kept by the loops in `send.rs` and `recv.rs`: while a value of this
/// type exists, the caller's borrow from which it was made is alive and unused.
#[derive(Debug, Default)]
pub(crate) struct CallMemory {
    pieces: SmallVec<[Piece; 1]>,
    regions: Vec<Registered>,
}

// SAFETY: the pointers are names; the invariant above keeps them valid until the value is gone,
// whichever thread carries a piece of the call's work out.
unsafe impl Send for CallMemory {}
// SAFETY: as for `Send`; the copies below go through `ForeignSlice` or an opaque copy only.
unsafe impl Sync for CallMemory {}

impl CallMemory {
    /// The memory of a send.
    pub(crate) fn of_send(bufs: &[IoSlice<'_>]) -> Self {
        let mut memory = Self::default();
        for buf in bufs {
            memory.push(NonNull::from(&**buf).cast(), buf.len());
        }
        memory
    }

    /// The memory of a receive.
    pub(crate) fn of_recv(bufs: &mut [IoSliceMut<'_>]) -> Self {
        let mut memory = Self::default();
        for buf in bufs {
            let len = buf.len();
            memory.push(NonNull::from(&mut **buf).cast(), len);
        }
        memory
    }

    fn push(&mut self, ptr: NonNull<u8>, len: usize) {
        if len == 0 {
            return;
        }
        let start = self.len();
        self.pieces.push(Piece {
            ptr,
            start,
            end: start + len,
        });
    }

    /// The same memory, of which nothing is registered yet.
    pub(crate) fn alias(&self) -> Self {
        Self {
            pieces: SmallVec::from_slice(&self.pieces),
            regions: Vec::new(),
        }
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.pieces.last().map_or(0, |p| p.end)
    }

    /// Where the contiguous pieces end, if there are several.
    pub(crate) fn segment_ends(&self) -> SmallVec<[usize; 2]> {
        match &self.pieces[..] {
            [_] => SmallVec::new(),
            pieces => pieces.iter().map(|piece| piece.end).collect(),
        }
    }

    /// Address ranges of the pieces.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.pieces
            .iter()
            .map(|p| (p.ptr.as_ptr() as usize, p.end - p.start))
    }

    /// The parts of the pieces that cover `at..at + len`: pointer and length.
    fn parts(&self, at: usize, len: usize) -> impl Iterator<Item = (NonNull<u8>, usize)> + '_ {
        let end = at + len;
        assert!(end <= self.len(), "a copy outside of the call's memory");
        self.pieces
            .iter()
            .filter(move |p| p.start < end && at < p.end)
            .map(move |p| {
                let from = at.max(p.start);
                (p.ptr_at(from), end.min(p.end) - from)
            })
    }

    /// Copies `at..at + len` of a send's memory into a message buffer.
    pub(crate) fn copy_out(&self, at: usize, len: usize, to: &ForeignSlice, mut offset: usize) {
        for (ptr, n) in self.parts(at, len) {
            // SAFETY: readable by the invariant of this type; a message buffer is the provider's
            // own memory and overlaps no caller's.
            unsafe { to.write_from(offset, ptr.as_ptr(), n) };
            offset += n;
        }
    }

    /// Copies `at..at + len` of a send's memory to the end of `to`.
    pub(crate) fn append_to(&self, at: usize, len: usize, to: &mut impl BufMut) {
        for (ptr, n) in self.parts(at, len) {
            // SAFETY: readable by the invariant of this type, and the bytes are the caller's own
            // borrow, which nobody writes.
            let bytes = unsafe { std::slice::from_raw_parts(ptr.as_ptr(), n) };
            to.put_slice(bytes);
        }
    }

    /// Copies a send's memory from its beginning on.
    pub(crate) fn copy_to(&self, to: &mut [u8]) {
        let mut at = 0;
        for (ptr, n) in self.parts(0, to.len()) {
            // SAFETY: readable by the invariant of this type, and the bytes are the caller's own
            // borrow, which nobody writes.
            let bytes = unsafe { std::slice::from_raw_parts(ptr.as_ptr(), n) };
            to[at..at + n].copy_from_slice(bytes);
            at += n;
        }
    }

    /// Copies from a receive buffer to `at..at + len` of a receive's memory.
    pub(crate) fn copy_in(&self, at: usize, len: usize, from: &ForeignSlice, mut offset: usize) {
        for (ptr, n) in self.parts(at, len) {
            // SAFETY: writable by the invariant of this type (made by `of_recv`).
            unsafe { from.read_to(offset, ptr.as_ptr(), n) };
            offset += n;
        }
    }

    /// Memory that holds `at..at + len`, registered with `access` if it is not yet.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) fn register(
        &mut self,
        at: usize,
        len: usize,
        access: Access,
        context: &Context,
    ) -> Result<(Arc<dyn MemoryRegion>, NonNull<u8>), VerbsError> {
        if let Some((region, ptr)) = self.registered(at, len) {
            return Ok((Arc::clone(region), ptr));
        }
        let piece = self
            .piece_of(at, len)
            .expect("the engine respects segment ends");
        let ptr = piece.ptr_at(at);
        let whole = piece.end - piece.start;
        let registered = context
            .registered(piece.ptr.as_ptr() as usize, whole)
            .filter(|region| region.access().contains(access));
        let part = match registered {
            Some(region) => Registered {
                start: piece.start,
                end: piece.end,
                region,
            },
            None => {
                let end = (at + len.max(REGISTERED_AT_ONCE)).min(piece.end);
                let share = context.lent().take(end - at)?;
                // SAFETY: the invariant of this type keeps the memory valid and unreferenced; the
                // region goes with this value, and the call does not end before its requests and
                // keys.
                let region = unsafe { context.provider().register(ptr, end - at, access) }?;
                Registered {
                    start: at,
                    end,
                    region: share.with(region),
                }
            }
        };
        let region = Arc::clone(&part.region);
        self.regions.push(part);
        Ok((region, ptr))
    }

    /// Memory that holds `at..at + len`, if it is registered.
    pub(crate) fn registered(
        &self,
        at: usize,
        len: usize,
    ) -> Option<(&Arc<dyn MemoryRegion>, NonNull<u8>)> {
        let holds = |part: &&Registered| part.start <= at && at + len <= part.end;
        let part = self.regions.iter().find(holds)?;
        Some((&part.region, self.piece_of(at, len)?.ptr_at(at)))
    }

    fn piece_of(&self, at: usize, len: usize) -> Option<Piece> {
        let holds = |p: &&Piece| p.start <= at && at + len <= p.end;
        self.pieces.iter().find(holds).copied()
    }
}

impl CallMemory {
    /// Registers `at..at + len` anew, with a right for the peer that ends with the region.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) fn expose(
        &self,
        at: usize,
        len: usize,
        right: Access,
        context: &Context,
    ) -> Result<(Arc<dyn MemoryRegion>, NonNull<u8>), VerbsError> {
        let (ptr, whole) = self.parts(at, len).next().expect("an advert has bytes");
        assert_eq!(whole, len, "the engine respects segment ends");
        // Who may be written to by others may be written to by its own adapter (verbs ask for it).
        let access = match right {
            Access::REMOTE_WRITE => right | Access::LOCAL_WRITE,
            _ => right,
        };
        let share = context.lent().take(len)?;
        // SAFETY: the invariant of this type keeps the memory valid and unreferenced, and the call
        // does not end before the key of this region is dead, which is when it is deregistered.
        let region = unsafe { context.provider().register(ptr, len, access) }?;
        Ok((share.with(region), ptr))
    }
}

/// The rights of memory that windows are made over, where there are windows.
fn window_access(provider: &dyn Provider) -> Access {
    if provider.caps().contains(Caps::MEMORY_WINDOW) {
        Access::MW_BIND
    } else {
        Access::empty()
    }
}

/// The rights of a send's memory: keys are made over it, and WRITEs take from it.
pub(crate) fn source_access(provider: &dyn Provider) -> Access {
    window_access(provider)
}

/// The rights of memory that READs store into, and that keys are made over. On iWARP the peer's adapter writes into it by a key
/// that the request names, so it is exposed for as long as it is registered: to the end of the
/// call, or of the read-ahead.
pub(crate) fn sink_access(provider: &dyn Provider) -> Access {
    if provider.caps().contains(Caps::EXPOSED_SINK) {
        Access::LOCAL_WRITE | Access::REMOTE_WRITE | window_access(provider)
    } else {
        Access::LOCAL_WRITE | window_access(provider)
    }
}

/// A key given to the peer.
#[derive(Debug)]
struct LiveKey {
    call: CallId,
    rkey: Rkey,
    /// None: the key is the region's own, and dies with it.
    window: Option<Box<dyn MemoryWindow>>,
    invalidation: Option<WorkId>,
    /// The window shows this region: it must not go first.
    _region: Arc<dyn MemoryRegion>,
}

/// How a key over the caller's memory came about.
#[derive(Debug)]
pub(crate) struct KeyParts {
    pub(crate) rkey: Rkey,
    pub(crate) window: Option<Box<dyn MemoryWindow>>,
    pub(crate) region: Arc<dyn MemoryRegion>,
}

/// Calls in progress and the keys to their memory.
#[derive(Debug, Default)]
pub(crate) struct CallTable {
    sends: Few<SendId, CallMemory>,
    recvs: Few<RecvId, CallMemory>,
    keys: Few<KeyId, LiveKey>,
    spare: Vec<Box<dyn MemoryWindow>>,
}

impl CallTable {
    pub(crate) fn add_send(&mut self, id: SendId, memory: CallMemory) {
        self.sends.insert(id, memory);
    }

    /// The call is over. No key of its memory is left; should one be, it dies here.
    pub(crate) fn remove_send(&mut self, id: SendId) {
        self.bury_keys(CallId::Send(id));
        self.sends.remove(&id);
    }

    fn bury_keys(&mut self, id: CallId) {
        while let Some(key) = self.keys.key_where(|live| live.call == id).copied() {
            tracing::error!("{key:?} outlived its call");
            self.keys.remove(&key);
        }
    }

    pub(crate) fn send_mut(&mut self, id: SendId) -> &mut CallMemory {
        self.sends
            .find_mut(&id)
            .expect("the engine names calls in progress")
    }

    pub(crate) fn add_recv(&mut self, id: RecvId, memory: CallMemory) {
        self.recvs.insert(id, memory);
    }

    /// As [`remove_send`](Self::remove_send).
    pub(crate) fn remove_recv(&mut self, id: RecvId) {
        self.bury_keys(CallId::Recv(id));
        self.recvs.remove(&id);
    }

    pub(crate) fn recv_mut(&mut self, id: RecvId) -> &mut CallMemory {
        self.recvs
            .find_mut(&id)
            .expect("the engine names calls in progress")
    }

    /// Copies a few bytes of a send call's memory.
    pub(crate) fn copy_inline(&mut self, id: SendId, at: usize, out: &mut [u8]) {
        let mut done = 0;
        for (ptr, n) in self.send_mut(id).parts(at, out.len()) {
            let to = out[done..done + n].as_mut_ptr();
            // SAFETY: readable by the invariant of `CallMemory`; `to` is a live exclusive slice of
            // `n` bytes on this thread's stack, so it does not overlap.
            unsafe { ptr.as_ptr().copy_to_nonoverlapping(to, n) };
            done += n;
        }
    }

    pub(crate) fn spare_window(&mut self) -> Option<Box<dyn MemoryWindow>> {
        self.spare.pop()
    }

    pub(crate) fn add_key(&mut self, key: KeyId, call: CallId, parts: KeyParts) {
        let live = LiveKey {
            call,
            rkey: parts.rkey,
            window: parts.window,
            invalidation: None,
            _region: parts.region,
        };
        self.keys.insert(key, live);
    }

    /// The key is dead; its window may be bound again.
    pub(crate) fn forget_key(&mut self, key: KeyId) {
        if let Some(live) = self.keys.remove(&key) {
            self.spare.extend(live.window);
        }
    }

    /// Kills a key that is a region's own. False: it is a window's.
    pub(crate) fn deregister(&mut self, key: KeyId) -> bool {
        let own = |live: &LiveKey| live.window.is_none();
        let is_own = self.keys.find(&key).is_some_and(own);
        if is_own {
            self.keys.remove(&key);
        }
        is_own
    }

    /// The queue pair is in error, so every key bound on it is dead.
    pub(crate) fn forget_all_keys(&mut self) {
        self.keys.drain().for_each(drop);
        self.spare.clear();
    }

    /// Notes that `work` will kill the key.
    pub(crate) fn start_invalidate(&mut self, key: KeyId, work: WorkId) -> Option<Rkey> {
        let live = self.keys.find_mut(&key)?;
        live.invalidation = Some(work);
        Some(live.rkey)
    }

    /// If `work` was to kill a key: it has (`done`), and its window is spare again; or the request
    /// was flushed, which proves nothing, and the window goes, which kills its key.
    pub(crate) fn finish_invalidate(&mut self, work: WorkId, done: bool) {
        let killed = self
            .keys
            .key_where(|live| live.invalidation == Some(work))
            .copied();
        let live = killed.and_then(|key| self.keys.remove(&key));
        if let Some(live) = live
            && done
        {
            self.spare.extend(live.window);
        }
    }
}

/// `len` zeros, if the system has the memory. What nobody writes to is not touched.
fn zeroed(len: usize) -> Option<Vec<u8>> {
    let layout = Layout::array::<u8>(len).ok()?;
    if len == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout is of more than no bytes.
    let at = NonNull::new(unsafe { alloc_zeroed(layout) })?;
    // SAFETY: allocated as the vector itself would have, with `len` bytes, all of which have a value.
    Some(unsafe { Vec::from_raw_parts(at.as_ptr(), len, len) })
}

/// Says that the system has no `len` bytes of ordinary memory.
pub(super) fn no_memory(len: usize) -> VerbsError {
    VerbsError::Limit {
        what: "private memory of a connection",
        limit: format!("no {len} bytes to be had"),
        remedy: "free memory, or raise RLIMIT_AS (ulimit -v)",
    }
}

/// Private memory that bytes wait in for their reader: copied there, or put there by RDMA READs.
#[derive(Debug)]
pub(crate) struct PrivateMemory {
    /// Made for the first READ: copies need none, and must get on where no more can be registered.
    region: OnceLock<Arc<dyn MemoryRegion>>,
    mem: ForeignSlice,
    _heap: Vec<u8>,
    _held: Held,
}

impl PrivateMemory {
    /// Allocates `len` bytes, which `held` accounts for.
    ///
    /// # Errors
    /// [`VerbsError::Limit`]: the system has none.
    pub(crate) fn new(len: usize, held: Held) -> Result<Self, VerbsError> {
        let mut heap = zeroed(len).ok_or_else(|| no_memory(len))?;
        let addr = NonNull::new(heap.as_mut_ptr()).expect("a vector's pointer is not null");
        // SAFETY: the vector lives as long as the slice beside it and is never touched through a
        // reference again; callers hold the `Arc` around `self` while they copy.
        let mem = unsafe { ForeignSlice::new(addr, len) };
        Ok(Self {
            region: OnceLock::new(),
            mem,
            _heap: heap,
            _held: held,
        })
    }

    /// Its bytes.
    pub(crate) const fn mem(&self) -> &ForeignSlice {
        &self.mem
    }

    /// Scatter element for `at..at + len`. The memory is registered if it is not yet.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) fn sge(&self, at: usize, len: usize, context: &Context) -> Result<Sge, VerbsError> {
        let part = self
            .mem
            .slice(at, len)
            .expect("the engine keeps to the capacity it asked for");
        let region = match self.region.get() {
            Some(region) => region,
            None => {
                let addr = NonNull::new(self.mem.as_ptr()).expect("made from one that is not null");
                let whole = self.mem.len();
                let provider = context.provider();
                let share = context.lent().take(whole)?;
                // SAFETY: the vector lives as long as the region, which is dropped before it, and
                // is never touched through a reference.
                let made = unsafe { provider.register(addr, whole, sink_access(provider)) }?;
                self.region.get_or_init(|| share.with(made))
            }
        };
        Ok(Sge {
            addr: part.as_ptr(),
            len,
            lkey: region.lkey(),
        })
    }
}

/// Copies payload from a receive buffer into private memory.
pub(crate) fn copy_foreign(
    from: &ForeignSlice,
    from_offset: usize,
    to: &ForeignSlice,
    to_offset: usize,
    len: usize,
) {
    let target = to
        .slice(to_offset, len)
        .expect("the engine keeps to the capacity it asked for");
    // SAFETY: `target` is valid for writes by its constructor's contract; private memory and
    // receive buffers are distinct allocations.
    unsafe { from.read_to(from_offset, target.as_ptr(), len) };
}

/// The bytes of a registered region, for its one owner.
pub(crate) fn region_bytes(region: &dyn MemoryRegion) -> &[u8] {
    // SAFETY: the region's memory is valid and initialised (zeroed) while the region exists, and
    // nobody writes it but the owner of the exclusive handle through `region_bytes_mut`: peers see
    // it read-only.
    unsafe { std::slice::from_raw_parts(region.addr().as_ptr(), region.len()) }
}

/// The bytes of a registered region, for its one owner, for writing.
#[expect(
    clippy::mut_from_ref,
    reason = "`&mut SdpBuffer`, the only caller, is the exclusive borrow"
)]
pub(crate) fn region_bytes_mut(region: &dyn MemoryRegion) -> &mut [u8] {
    // SAFETY: as for `region_bytes`; `SdpBuffer` gives this out for `&mut self` only.
    unsafe { std::slice::from_raw_parts_mut(region.addr().as_ptr(), region.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Allowance, Budget};

    /// Memory that the system does not have is refused, and the process lives on.
    #[test]
    fn private_memory_may_be_lacking() {
        let allowance = Allowance::new(&Budget::unbounded());
        let error = PrivateMemory::new(usize::MAX / 4, allowance.take(0)).unwrap_err();
        assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
        let memory = PrivateMemory::new(1 << 20, allowance.take(0)).unwrap();
        assert_eq!(memory.mem().len(), 1 << 20);
    }
}
