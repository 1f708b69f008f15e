//! Descriptors that the program shall not notice.

use std::os::fd::{AsFd, OwnedFd};

/// Lowest number tried first for a hidden descriptor; halved until the table is large enough.
const HIDDEN_FD_MIN: i32 = 1 << 19;

/// Moves a descriptor to the top of the table, close-on-exec, so that the numbers a program sees
/// are those it would see without us. Where no higher number can be had the descriptor stays.
pub(crate) fn hide(fd: OwnedFd) -> OwnedFd {
    let mut min = HIDDEN_FD_MIN;
    while min >= 64 {
        if let Ok(high) = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), min) {
            return high;
        }
        min /= 2;
    }
    fd
}
