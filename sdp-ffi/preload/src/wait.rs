//! Waiting for many: poll(2), with what tells of SDP in the place of our descriptors.
//!
//! A call that names none of ours is the C library's, on the caller's own memory. No frame here has
//! anything to drop while the kernel waits, so that a cancelled thread can be unwound.

use std::ptr;
use std::time::Duration;

use libc::{POLLIN, POLLOUT, c_int, nfds_t, pollfd, sigset_t, size_t, time_t, timespec};
use sdp::posix::{Failure, guard, tcps_events, whole_end};
use sdp_socket::Readiness;
use std::os::fd::AsRawFd;

use crate::boundary::{errno, interpose, set_errno};
use crate::entry::Target;
use crate::listening::Waiting;
use crate::{real, table};

interpose! {
    raw fn poll(fds: *mut pollfd, count: nfds_t, millis: c_int) -> c_int {
        // SAFETY: our caller's promise.
        if !unsafe { any_ours(fds, count) } {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::poll(fds, count, millis) };
        }
        let time = Duration::from_millis(millis.max(0).unsigned_abs().into());
        let time = timespec_of(time);
        let time = if millis < 0 { ptr::null() } else { &raw const time };
        // SAFETY: our caller's promise; the time lives as long as the call.
        unsafe { poll_mixed(fds, count, time, ptr::null()) }
    }

    raw fn ppoll(
        fds: *mut pollfd, count: nfds_t, time: *const timespec, mask: *const sigset_t,
    ) -> c_int {
        // SAFETY: our caller's promise.
        if !unsafe { any_ours(fds, count) } {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::ppoll(fds, count, time, mask) };
        }
        // SAFETY: our caller's promise.
        unsafe { poll_mixed(fds, count, time, mask) }
    }

    /// What `poll` is to a program built with _FORTIFY_SOURCE; too little room is the C library's
    /// to complain of.
    raw fn __poll_chk(fds: *mut pollfd, count: nfds_t, millis: c_int, room: size_t) -> c_int {
        if !fits(count, room) {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::__poll_chk(fds, count, millis, room) };
        }
        // SAFETY: our caller's promise.
        unsafe { poll(fds, count, millis) }
    }

    /// As `__poll_chk`, of `ppoll`.
    raw fn __ppoll_chk(
        fds: *mut pollfd, count: nfds_t, time: *const timespec, mask: *const sigset_t, room: size_t,
    ) -> c_int {
        if !fits(count, room) {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::__ppoll_chk(fds, count, time, mask, room) };
        }
        // SAFETY: our caller's promise.
        unsafe { ppoll(fds, count, time, mask) }
    }
}

fn fits(count: nfds_t, room: size_t) -> bool {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    count <= room / size_of::<pollfd>()
}

pub(crate) fn timespec_of(time: Duration) -> timespec {
    timespec {
        tv_sec: time_t::try_from(time.as_secs()).unwrap_or(time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Whether an array can be read. Of one that cannot the kernel says EFAULT, as it looks at memory
/// more carefully than we could.
pub(crate) fn can_be_read<T>(at: *const T, count: usize) -> bool {
    const PAGE: usize = 4096;
    let Some(len) = count.checked_mul(size_of::<T>()) else {
        return false;
    };
    let Some(last) = at.addr().checked_add(len.saturating_sub(1)) else {
        return false;
    };
    let before = errno();
    // The kernel reads a signal mask, of a page each, and has nothing to do with it: it does not
    // know the command.
    let can = (at.addr() / PAGE..=last / PAGE).all(|page| {
        let mask = at.with_addr((page * PAGE).max(at.addr() & !7));
        let (command, none) = (libc::SYS_rt_sigprocmask, ptr::null_mut::<T>());
        // SAFETY: the kernel checks the address, and writes nowhere.
        let result = unsafe { libc::syscall(command, -1, mask, none, size_of::<u64>()) };
        result == 0 || errno() != libc::EFAULT
    });
    set_errno(before);
    can && !at.is_null()
}

/// Whether one of the descriptors is ours.
///
/// # Safety
/// As poll(2).
unsafe fn any_ours(fds: *const pollfd, count: nfds_t) -> bool {
    let count = usize::try_from(count).unwrap_or(0);
    can_be_read(fds, count)
        && (0..count).any(|at| {
            // SAFETY: the caller's promise.
            let one = unsafe { fds.add(at) };
            // SAFETY: the caller's promise.
            table::holds(unsafe { (*one).fd })
        })
}

/// What the kernel is given in place of the program's array.
struct Mixed {
    fds: Vec<pollfd>,
    /// A second descriptor's place, by that of the first.
    seconds: Vec<(usize, usize)>,
    /// Kept as long as the kernel waits.
    _kept: Vec<Readiness>,
    _waiting: Vec<Waiting>,
}

impl Mixed {
    /// # Errors
    /// `ENOMEM` if there is nothing to wait on for one of them.
    fn of(wanted: &[pollfd]) -> Result<Self, Failure> {
        let mut fds = wanted.to_vec();
        let (mut seconds, mut kept, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for (at, one) in wanted.iter().enumerate() {
            let Some(entry) = table::get(one.fd) else {
                continue;
            };
            entry.await_callers(one.fd);
            if one.events & POLLIN != 0 {
                entry.ask();
            }
            let target = entry.target(one.fd, one.events & (POLLIN | POLLOUT) == 0);
            // The one errno of poll(2) for want of anything.
            let target = target.map_err(|it| Failure::new(libc::ENOMEM, it.message))?;
            match target {
                Target::Kernels => {}
                Target::Sdp(readiness) => {
                    fds[at].fd = readiness.as_raw_fd();
                    fds[at].events = tcps_events(one.events);
                    kept.push(readiness);
                }
                Target::Both(readiness) => {
                    waiting.push(Waiting::of(&entry));
                    seconds.push((at, fds.len()));
                    fds.push(pollfd {
                        fd: readiness.as_raw_fd(),
                        events: tcps_events(one.events),
                        ..*one
                    });
                    kept.push(readiness);
                }
            }
        }
        Ok(Self {
            fds,
            seconds,
            _kept: kept,
            _waiting: waiting,
        })
    }

    /// What came of it, for the program's array.
    fn give(mut self, to: &mut [pollfd]) -> c_int {
        for (one, to) in self.fds.iter_mut().zip(&*to) {
            if one.fd != to.fd {
                one.revents = whole_end(one);
            }
        }
        for (first, second) in self.seconds {
            let more = self.fds[second].revents;
            self.fds[first].revents |= more;
        }
        let mut count = 0;
        for (to, from) in to.iter_mut().zip(&self.fds) {
            to.revents = from.revents;
            count += c_int::from(from.revents != 0);
        }
        count
    }
}

/// # Safety
/// As ppoll(2).
pub(crate) unsafe fn poll_mixed(
    fds: *mut pollfd,
    count: nfds_t,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let len = usize::try_from(count).unwrap_or(0);
    let mut mixed: *mut Mixed = ptr::null_mut();
    let made = guard("poll", || {
        // SAFETY: the caller's promise.
        let wanted = unsafe { std::slice::from_raw_parts(fds, len) };
        mixed = Box::into_raw(Box::new(Mixed::of(wanted)?));
        Ok(0)
    });
    if made < 0 {
        return made;
    }
    // SAFETY: it came from a box above.
    let result = unsafe { wait(mixed, time, mask) };
    guard("poll", || {
        // SAFETY: it came from a box above, and nobody else has it.
        let mixed = unsafe { Box::from_raw(mixed) };
        if result < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        // SAFETY: the caller's promise.
        let to = unsafe { std::slice::from_raw_parts_mut(fds, len) };
        Ok(mixed.give(to))
    })
}

/// The kernel's ppoll(2).
///
/// # Safety
/// As ppoll(2); `mixed` is there and nobody else's.
unsafe fn wait(mixed: *mut Mixed, time: *const timespec, mask: *const sigset_t) -> c_int {
    // SAFETY: the caller's promise.
    let fds = unsafe { &mut (*mixed).fds };
    let count = nfds_t::try_from(fds.len()).unwrap_or(nfds_t::MAX);
    let fds = fds.as_mut_ptr();
    // SAFETY: the array is as long; time and mask by the caller's promise.
    unsafe { real::ppoll(fds, count, time, mask) }
}
