//! Descriptors of the C libraries, and bells.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::EventfdFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::VerbsError;
use crate::hidden;

/// A descriptor that a C object owns, for as long as the caller keeps that object.
///
/// # Safety
/// The object that owns `fd` outlives the value.
pub(super) unsafe fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: open while its owner is there, by this function's contract.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Makes reads from it return at once.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), VerbsError> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(|e| VerbsError::os("fcntl", e))?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(|e| VerbsError::os("fcntl", e))
}

/// An eventfd by which threads of this process tell each other of something.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// Silent. `counting`: each answer takes one ring, instead of all.
    pub(super) fn new(counting: bool) -> Result<Self, VerbsError> {
        let mut flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        flags.set(EventfdFlags::SEMAPHORE, counting);
        let fd = rustix::event::eventfd(0, flags).map_err(|e| VerbsError::os("eventfd", e))?;
        Ok(Self(hidden::hide(fd)))
    }

    /// Rings, `count` times. A bell that is full is readable already.
    pub(super) fn ring(&self, count: u32) {
        let rung = rustix::io::write(&self.0, &u64::from(count).to_ne_bytes());
        debug_assert!(matches!(rung, Ok(8) | Err(Errno::AGAIN | Errno::INTR)));
    }

    /// Takes back one ring of a counting bell, or all.
    pub(super) fn answer(&self) {
        let mut count = [0; 8];
        let read = rustix::io::read(&self.0, &mut count);
        debug_assert!(matches!(read, Ok(8) | Err(Errno::AGAIN | Errno::INTR)));
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
