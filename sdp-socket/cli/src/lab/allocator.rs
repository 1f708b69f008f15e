//! Giving back what the allocator keeps for later.

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
