//! Whether the program has io_uring, whose calls go past this library: on a connection by SDP they meet a
//! socket that is not connected.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

static SEEN: AtomicBool = AtomicBool::new(false);

/// Looks for one among the open descriptors. It is done when a process has its first connection, and at its
/// end: nobody can stand in front of the system call by which one is made.
pub(crate) fn look() {
    let Ok(open) = fs::read_dir("/proc/self/fd") else {
        // Without /proc nobody can tell.
        return;
    };
    let ring = Path::new("anon_inode:[io_uring]");
    let is_ring = |link: std::io::Result<fs::DirEntry>| {
        link.and_then(|link| fs::read_link(link.path()))
            .is_ok_and(|to| to == ring)
    };
    if open.into_iter().any(is_ring) {
        SEEN.store(true, Ordering::Relaxed);
    }
}

/// Whether there has been one when it was looked for.
pub(crate) fn is_seen() -> bool {
    SEEN.load(Ordering::Relaxed)
}

/// A forked child has not been looked at.
pub(crate) fn start_anew() {
    SEEN.store(false, Ordering::Relaxed);
}
