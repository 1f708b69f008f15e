//! Bells: eventfds that make a descriptor readable, and the epoll sets that listen to them.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use super::{descriptor, fd};
use crate::error::VerbsError;

/// A new eventfd that does not block.
pub(crate) fn new_bell() -> Result<OwnedFd, VerbsError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map(fd::hide)
        .map_err(|e| descriptor::failed("opening an eventfd", e))
}

/// A new epoll descriptor.
pub(crate) fn new_epoll() -> Result<OwnedFd, VerbsError> {
    epoll::create(epoll::CreateFlags::CLOEXEC)
        .map(fd::hide)
        .map_err(|e| descriptor::failed("opening an epoll descriptor", e))
}

/// Makes an eventfd readable. A full one is readable already.
pub(crate) fn ring(bell: BorrowedFd<'_>) {
    let rung = rustix::io::write(bell, &1u64.to_ne_bytes());
    debug_assert!(matches!(rung, Ok(8) | Err(Errno::AGAIN | Errno::INTR)));
}

/// Makes an eventfd not readable.
pub(crate) fn silence(bell: BorrowedFd<'_>) {
    let mut count = [0; 8];
    let read = rustix::io::read(bell, &mut count);
    debug_assert!(matches!(read, Ok(8) | Err(Errno::AGAIN | Errno::INTR)));
}
