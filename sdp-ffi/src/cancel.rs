//! pthread_cancel(3): where a thread may end inside this library, and where not.
//!
//! A cancelled thread is unwound by the C library through whatever it has called. Inside a call it
//! may hold locks, have shown its memory to a peer, or be some way through a transfer that the
//! program could not know the length of; so nothing of this library is ever unwound through. The
//! C functions are cancellation points where they have done nothing: before they begin, and when
//! they have failed.
//!
//! The functions here may unwind, so no frame that calls them has anything to drop.

use libc::c_int;

/// The C library's number, glibc's and musl's.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C-unwind" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
    fn pthread_testcancel();
}

/// The other one.
const PTHREAD_CANCEL_ENABLE: c_int = 0;

/// What the thread was set to before a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held(c_int);

/// The thread is not cancelled from here on.
pub(crate) fn hold() -> Held {
    let mut old = 0;
    // SAFETY: the place for the old state is ours; a valid state cannot be refused.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut old) };
    Held(old)
}

impl Held {
    /// Whether the thread may be cancelled but for this call.
    pub(crate) fn was_enabled(self) -> bool {
        self.0 == PTHREAD_CANCEL_ENABLE
    }

    /// As it was before. A thread that asked to be cancelled at any moment may end here.
    pub(crate) fn release(self) {
        // SAFETY: NULL asks for no old state; this one came from the same function.
        unsafe { pthread_setcancelstate(self.0, std::ptr::null_mut()) };
    }
}

/// A thread that has been cancelled, and may be, ends here.
pub(crate) fn point() {
    // SAFETY: no preconditions; if it unwinds, no frame up to the C caller has anything to drop.
    unsafe { pthread_testcancel() };
}
