//! What the allocator holds: in use, and kept for later.

/// Makes the allocator serve all threads from one arena; call it before there are others. Of the
/// first arena [`trim`] gives back all that is not in use, of every other one only the holes: its
/// end, as far as it was ever touched, stays resident, a different part in each run. By the
/// allocator's own count not a tenth of what such a process grows by is in use.
pub(crate) fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no argument is a pointer. Refused, it changes nothing.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Makes the allocator return unused memory to the system, where it can be asked to: what is
/// resident afterwards is in use. Otherwise a test for leaks would judge how memory was cut up by
/// the largest load there has been.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: no argument is a pointer, and any thread may call it at any time. Whether there
        // was something to give back, which is what it returns, does not matter.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Bytes allocated and not given back, in all arenas and in mappings of their own; 0 where the
/// allocator does not count.
pub(super) fn allocated() -> u64 {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it has no argument, and any thread may call it at any time.
        let info = unsafe { libc::mallinfo2() };
        info.uordblks as u64 + info.hblkhd as u64
    }
    #[cfg(not(target_env = "gnu"))]
    0
}
