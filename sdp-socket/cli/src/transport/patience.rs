//! What becomes of a call that would have to wait.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::Wait;

/// Whether calls must not block by themselves.
pub(super) fn is_nonblocking(wait: Wait) -> bool {
    matches!(wait, Wait::Spin | Wait::Poll)
}

/// Repeats a non-blocking call until it need not wait: at once, or when poll(2) says so. A blocking
/// one is made once.
///
/// # Errors
/// Those of the call, and of poll(2).
pub(super) fn repeat(
    wait: Wait,
    fd: impl AsFd,
    wanted: PollFlags,
    mut call: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match wait {
                Wait::Spin => std::hint::spin_loop(),
                Wait::Poll => sleep(&fd, wanted)?,
                Wait::Adaptive | Wait::Sleep => return Err(error),
            },
            other => return other,
        }
    }
}

fn sleep(fd: &impl AsFd, wanted: PollFlags) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, wanted)];
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
