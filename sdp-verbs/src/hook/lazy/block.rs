//! Private memory that is handed out as if a peer could change it.

use std::ptr::NonNull;

use crate::error::VerbsError;
use crate::memory::ForeignSlice;

/// Zeroed memory of its own.
#[derive(Debug)]
pub(super) struct Block {
    mem: ForeignSlice,
    _map: memmap2::MmapMut,
}

impl Block {
    pub(super) fn new(len: usize) -> Result<Self, VerbsError> {
        let mut map = memmap2::MmapMut::map_anon(len.max(1))
            .map_err(|error| VerbsError::os("mapping a private buffer", error))?;
        let Some(ptr) = NonNull::new(map.as_mut_ptr()) else {
            return Err(VerbsError::os(
                "mapping a private buffer",
                std::io::ErrorKind::OutOfMemory,
            ));
        };
        // SAFETY: the mapping lives as long as this value, whoever copies the name keeps this
        // value alive, and no reference into the mapping is made after this point.
        let mem = unsafe { ForeignSlice::new(ptr, len) };
        Ok(Self { mem, _map: map })
    }

    pub(super) fn mem(&self) -> &ForeignSlice {
        &self.mem
    }

    /// Its first `len` bytes; no more than it has.
    pub(super) fn bytes(&self, len: usize) -> Vec<u8> {
        copy_out(&self.mem, len)
    }

    /// Overwrites all of it with what nobody sends on purpose.
    pub(super) fn scribble(&self) {
        self.mem.write(0, &vec![0xA5; self.mem.len()]);
    }
}

/// The first `len` bytes of `mem`; no more than it has.
pub(super) fn copy_out(mem: &ForeignSlice, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.min(mem.len())];
    mem.read(0, &mut bytes);
    bytes
}
