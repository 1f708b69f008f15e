//! Who is at the other end of a control socket, as the kernel says.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::descriptor;
use crate::error::VerbsError;
use crate::hidden;

/// The kernel's word on who sent a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Process id in our pid namespace; 0 if the sender has none there.
    pub pid: i32,
    /// User id in our user namespace; the overflow uid if the sender has none there.
    pub uid: u32,
}

impl Credentials {
    /// Those of this process.
    #[must_use]
    pub fn own() -> Self {
        Self {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            uid: rustix::process::geteuid().as_raw(),
        }
    }

    /// Whether the sender runs as our own user. The overflow uid stands for every user that our
    /// namespace does not know, so it is nobody's own.
    #[must_use]
    pub fn is_own_user(self) -> bool {
        self.uid == Self::own().uid && self.uid != overflow_uid()
    }

    /// A pidfd of the sender, which is alive after it was opened. None if the sender lives in
    /// another pid namespace, or if a sandbox keeps pidfds from us (seccomp, valgrind): only the
    /// control socket then tells of its death, and a child it forked may hold that open.
    ///
    /// The caller must see another message with the same process id afterwards: only that proves
    /// that the id was not given to another process between the message and this call.
    ///
    /// # Errors
    /// [`VerbsError::Protocol`] if the process is gone, [`VerbsError::Limit`] when out of
    /// descriptors.
    pub(crate) fn open_pidfd(self) -> Result<Option<OwnedFd>, VerbsError> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let gone = || VerbsError::Protocol {
            what: "handshake of a host link",
            rule: format!("process {} ended during the handshake", self.pid),
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
            Err(Errno::SRCH) => return Err(gone()),
            Err(other) => {
                let op = "pidfd_open of the peer of a host link";
                return Err(descriptor::failed(op, other));
            }
        };
        if has_ended(&pidfd)? {
            return Err(gone());
        }
        Ok(Some(hidden::hide(pidfd)))
    }
}

/// Whether the process behind a pidfd has ended.
///
/// # Errors
/// [`VerbsError::Os`] if poll(2) fails, which only lack of kernel memory makes it do.
pub(crate) fn has_ended(pidfd: &impl AsFd) -> Result<bool, VerbsError> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match rustix::event::poll(&mut fds, Some(&now)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(VerbsError::os("poll of a pidfd", e)),
    }
}

/// The uid the kernel shows for users that a namespace does not know.
fn overflow_uid() -> u32 {
    static UID: OnceLock<u32> = OnceLock::new();
    *UID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
        // Without /proc the kernel's own default serves as well.
        text.ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(65_534)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_our_own_user_and_alive() {
        let own = Credentials::own();
        if own.uid == overflow_uid() {
            assert!(!own.is_own_user());
            return;
        }
        assert!(own.is_own_user());
        let pidfd = own.open_pidfd().unwrap().unwrap();
        assert!(!has_ended(&pidfd).unwrap());
    }

    #[test]
    fn the_overflow_uid_and_process_0_never_match() {
        let nobody = Credentials {
            pid: 0,
            uid: overflow_uid(),
        };
        assert!(!nobody.is_own_user());
        assert!(nobody.open_pidfd().unwrap().is_none());
    }

    #[test]
    fn a_process_that_has_ended_is_refused_by_name() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = Credentials {
            pid: i32::try_from(child.id()).unwrap(),
            uid: 0,
        };
        let pidfd = dead.open_pidfd().ok().flatten();
        child.wait().unwrap();
        if let Some(pidfd) = pidfd {
            assert!(has_ended(&pidfd).unwrap());
        }
        let error = dead.open_pidfd().unwrap_err();
        assert!(error.to_string().contains("ended"), "{error}");
    }
}
