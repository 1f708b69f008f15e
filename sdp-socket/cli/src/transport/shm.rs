//! Memory that two processes share: the only unsafe code of this program.
//!
//! The peer may change any byte at any time, so no reference to shared payload is ever made here:
//! words are atomics, payload is copied through raw pointers. The exception is
//! [`Segment::own_part`], a part that by the floor's protocol only its own process writes.

use std::fs::File;
use std::io;
use std::ops::DerefMut;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::AtomicU32;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

/// A shared mapping.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    map: MmapRaw,
}

impl Segment {
    /// New shared memory of `len` zeroed bytes.
    ///
    /// # Errors
    /// Those of memfd_create, ftruncate and mmap.
    pub(super) fn create(len: usize) -> io::Result<Self> {
        let fd = memfd_create("sdp-perf-floor", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, len as u64)?;
        Self::open(fd, len)
    }

    /// Maps the first `len` bytes of shared memory of the peer.
    ///
    /// # Errors
    /// `InvalidData` if it is smaller, else those of mmap.
    pub(super) fn open(fd: OwnedFd, len: usize) -> io::Result<Self> {
        let size = u64::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        if size < len as u64 {
            let message = format!("{size} bytes of shared memory where {len} are needed");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let file = File::from(fd);
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        Ok(Self { file, map })
    }

    /// The descriptor, to pass on.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The word at byte `offset`.
    ///
    /// # Panics
    /// If it is outside the segment or not aligned.
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "word at {offset}");
        let at = self.at(offset, 4).cast::<u32>();
        // SAFETY: `at` is inside the mapping (checked above), which lives as long as `self`, and
        // aligned, as the mapping starts at a page. Both processes access words as atomics only.
        unsafe { AtomicU32::from_ptr(at) }
    }

    /// Copies `from` to byte `offset`.
    ///
    /// # Panics
    /// If it does not fit.
    pub(super) fn copy_in(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: `to` has room for `from.len()` bytes (checked above), and `from` is memory of
        // this process outside the mapping or its own part, which `to` never is: the floor copies
        // into slots and staging areas only. The peer does not read before the word that
        // publishes these bytes is stored.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
    }

    /// Copies from byte `offset` to `to`.
    ///
    /// # Panics
    /// If the source is not inside the segment.
    pub(super) fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len()).cast_const();
        // SAFETY: `from` has `to.len()` bytes (checked above), and `to` is memory of this process
        // that the mapping does not overlap. A peer that breaks the protocol and writes meanwhile
        // gives wrong bytes, which verification reports; no byte value is invalid.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) }
    }

    /// A second mapping of `len` bytes from `offset`, as memory of this process.
    ///
    /// # Errors
    /// Those of mmap.
    pub(super) fn own_part(
        &self,
        offset: usize,
        len: usize,
    ) -> io::Result<impl DerefMut<Target = [u8]> + Send + use<>> {
        let mut options = MmapOptions::new();
        options.offset(offset as u64).len(len);
        // SAFETY: the part belongs to this process: the peer only reads it, while this process
        // waits for it (kept by `floor`), and the file never shrinks.
        unsafe { options.map_mut(&self.file) }
    }

    /// The address of `len` bytes at `offset`.
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.map.len()),
            "{len} bytes at {offset} of {}",
            self.map.len()
        );
        self.map.as_mut_ptr().wrapping_add(offset)
    }
}
