//! Private memory that is handed out as if a peer could change it.

use std::ptr::NonNull;

use super::ForeignSlice;

/// Zeroed memory of its own.
#[derive(Debug)]
pub(crate) struct Block {
    mem: ForeignSlice,
    _heap: Vec<u8>,
}

impl Block {
    pub(crate) fn new(len: usize) -> Self {
        Self::aligned(len, 1)
    }

    /// Whole pages that hold `len` bytes.
    pub(crate) fn pages(len: usize) -> Self {
        let page = rustix::param::page_size();
        Self::aligned(len.max(1).next_multiple_of(page), page)
    }

    fn aligned(len: usize, align: usize) -> Self {
        let mut heap = vec![0; len + align];
        let start = heap.as_ptr().addr();
        let skip = start.next_multiple_of(align) - start;
        let ptr = NonNull::from(&mut heap[skip..]).cast();
        // SAFETY: the vector lives as long as this value and is never touched again, so that no
        // reference into it exists; whoever copies the name keeps this value alive.
        let mem = unsafe { ForeignSlice::new(ptr, len) };
        Self { mem, _heap: heap }
    }

    pub(crate) fn mem(&self) -> &ForeignSlice {
        &self.mem
    }

    /// Its first `len` bytes; no more than it has.
    pub(crate) fn bytes(&self, len: usize) -> Vec<u8> {
        copy_out(&self.mem, len)
    }

    /// Overwrites all of it with what nobody sends on purpose.
    pub(crate) fn scribble(&self) {
        self.mem.write(0, &vec![0xA5; self.mem.len()]);
    }
}

/// The first `len` bytes of `mem`; no more than it has.
pub(crate) fn copy_out(mem: &ForeignSlice, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.min(mem.len())];
    mem.read(0, &mut bytes);
    bytes
}
