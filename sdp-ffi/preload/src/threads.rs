//! Threads that the program cancels.

use libc::{c_int, pthread_t};
use sdp::posix::guard;

use crate::boundary::interpose;
use crate::{real, table};

interpose! {
    /// A call that waits ends, as it would by TCP, and the thread behind it.
    raw fn pthread_cancel(thread: pthread_t) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        let result = unsafe { real::pthread_cancel(thread) };
        if result == 0 && table::is_used() {
            guard("pthread_cancel", || {
                sdp_socket::cancel_sleep(thread);
                Ok(0)
            });
        }
        result
    }
}
