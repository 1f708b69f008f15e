//! The only door to memory that another process may write.
//!
//! Two rules (after vm-memory): no Rust reference to such memory ever exists, and bytes are first
//! copied out, then judged. Payload goes through one copy function that the compiler cannot see
//! into; indices and flags are atomics and live elsewhere ([`crate::host`]). Rust has no formal
//! rule yet for a plain copy that races with another *process*; what makes it sound on our
//! compilers is that the racing bytes are only ever the source or the target of an opaque
//! `memcpy`, so no value that Rust reasons about can change under it.

use std::ffi::c_void;
use std::ptr::NonNull;

/// A range of memory that somebody else may be changing. A name, not a reference.
#[derive(Clone, Copy, Debug)]
pub struct ForeignSlice {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: the slice is a name; all access goes through the copies below, which are sound from any
// thread because the constructor's contract keeps the range mapped.
unsafe impl Send for ForeignSlice {}
// SAFETY: as above; racing copies may tear bytes, never memory safety.
unsafe impl Sync for ForeignSlice {}

impl ForeignSlice {
    /// Names a range.
    ///
    /// # Safety
    /// `ptr..ptr + len` stays mapped for reading and writing for as long as this value or a copy
    /// of it is used, and no Rust reference to any of it exists meanwhile.
    #[must_use]
    pub unsafe fn new(ptr: NonNull<u8>, len: usize) -> Self {
        Self { ptr, len }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if it names no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// First byte, for the provider that made it.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// As [`as_ptr`](Self::as_ptr).
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The part `offset..offset + len`, or `None` if it does not lie within.
    #[must_use]
    #[inline]
    pub fn slice(&self, offset: usize, len: usize) -> Option<Self> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `offset` is within the range that the constructor's contract covers.
        let ptr = unsafe { self.ptr.add(offset) };
        Some(Self { ptr, len })
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    /// If the range does not lie within: the caller's own lengths are wrong.
    #[inline]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        // SAFETY: `out` is a live exclusive slice, so valid for writes of its length.
        unsafe { self.read_to(offset, out.as_mut_ptr(), out.len()) }
    }

    /// Copies bytes in, to `offset`.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: `bytes` is a live slice, so valid for reads of its length.
        unsafe { self.write_from(offset, bytes.as_ptr(), bytes.len()) }
    }

    /// Copies `len` bytes from `offset` on to `dst`.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    ///
    /// # Safety
    /// `dst` is valid for writes of `len` bytes and does not overlap this range.
    #[inline]
    pub unsafe fn read_to(&self, offset: usize, dst: *mut u8, len: usize) {
        let from = self
            .slice(offset, len)
            .expect("read outside of a foreign range");
        // SAFETY: source by the constructor's contract, target by this function's.
        unsafe { opaque_copy(dst, from.as_ptr(), len) }
    }

    /// Copies `len` bytes from `src` to `offset`.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    ///
    /// # Safety
    /// `src` is valid for reads of `len` bytes and does not overlap this range.
    #[inline]
    pub unsafe fn write_from(&self, offset: usize, src: *const u8, len: usize) {
        let to = self
            .slice(offset, len)
            .expect("write outside of a foreign range");
        // SAFETY: target by the constructor's contract, source by this function's.
        unsafe { opaque_copy(to.as_ptr(), src, len) }
    }
}

/// The one copy. Never inlined: the compiler must not see that source or target may race.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes; they do not overlap.
#[inline(never)]
unsafe fn opaque_copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller's contract is memcpy's.
    unsafe { libc::memcpy(dst.cast::<c_void>(), src.cast::<c_void>(), len) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_within_the_range() {
        let mut backing = vec![0u8; 8];
        let ptr = NonNull::new(backing.as_mut_ptr()).unwrap();
        // SAFETY: `backing` outlives `mem` and is not touched through a reference meanwhile.
        let mem = unsafe { ForeignSlice::new(ptr, 8) };
        mem.write(2, b"abc");
        let mut out = [0; 4];
        mem.read(1, &mut out);
        assert_eq!(&out, b"\0abc");
        assert!(mem.slice(6, 3).is_none() && mem.slice(usize::MAX, 2).is_none());
        assert_eq!(mem.slice(6, 2).unwrap().len(), 2);
    }
}
