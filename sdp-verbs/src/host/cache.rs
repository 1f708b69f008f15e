//! Hints to the processor: they change no state and cannot fail, whatever the address.

/// Asks for a line that will be read.
pub(crate) fn prefetch_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // No portable hint: the line comes when it is used.
        let _unused = at;
    }
}

/// Asks for a line that will be written.
pub(crate) fn prefetch_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a hint; it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // As above.
        let _unused = at;
    }
}
