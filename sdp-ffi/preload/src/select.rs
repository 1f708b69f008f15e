//! Waiting for many: select(2), as poll(2) of the members of its sets.

use std::ptr;
use std::time::{Duration, Instant};

use libc::{
    POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI, POLLRDBAND, POLLRDNORM, POLLWRBAND,
    POLLWRNORM, c_int, c_short, c_ulong, fd_set, nfds_t, pollfd, sigset_t, suseconds_t, time_t,
    timespec, timeval,
};
use sdp::posix::{Failure, guard};

use crate::boundary::{interpose, set_errno};
use crate::wait::{can_be_read, poll_mixed, timespec_of};
use crate::width::width;
use crate::{real, table};

interpose! {
    raw fn select(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        time: *mut timeval,
    ) -> c_int {
        let sets = Sets([read, write, except]);
        let count = width(count);
        // SAFETY: our caller's promise.
        if !unsafe { sets.any_ours(count) } {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::select(count, read, write, except, time) };
        }
        // SAFETY: our caller's promise.
        let wanted = match unsafe { time.as_ref() }.map(duration_of) {
            None => None,
            Some(Some(wanted)) => Some(wanted),
            Some(None) => {
                set_errno(libc::EINVAL);
                return -1;
            }
        };
        let start = Instant::now();
        let wait = timespec_of(wanted.unwrap_or_default());
        let wait = if wanted.is_none() { ptr::null() } else { &raw const wait };
        // SAFETY: our caller's promise; the time lives as long as the call.
        let result = unsafe { select_mixed(&sets, count, wait, ptr::null()) };
        if let Some(wanted) = wanted {
            // Linux says how much of the time is left.
            let left = timeval_of(wanted.saturating_sub(start.elapsed()));
            // SAFETY: our caller's promise; it is not NULL.
            unsafe { time.write(left) };
        }
        result
    }

    raw fn pselect(
        count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set,
        time: *const timespec, mask: *const sigset_t,
    ) -> c_int {
        let sets = Sets([read, write, except]);
        let count = width(count);
        // SAFETY: our caller's promise.
        if !unsafe { sets.any_ours(count) } {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::pselect(count, read, write, except, time, mask) };
        }
        // SAFETY: our caller's promise.
        unsafe { select_mixed(&sets, count, time, mask) }
    }
}

fn timeval_of(time: Duration) -> timeval {
    timeval {
        tv_sec: time_t::try_from(time.as_secs()).unwrap_or(time_t::MAX),
        tv_usec: suseconds_t::from(time.subsec_micros()),
    }
}

/// `None` for a time that there is not; more than a second of microseconds is Linux's to take.
fn duration_of(time: &timeval) -> Option<Duration> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let micros = u64::try_from(time.tv_usec).ok()?;
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros)))
}

const WORD_BITS: usize = c_ulong::BITS as usize;

/// The sets of select(2): to read, to write, exceptions. They may be longer than the type.
struct Sets([*mut fd_set; 3]);

/// What is asked for a set, and what the kernel counts as an answer.
const ASKED: [c_short; 3] = [
    POLLIN | POLLRDNORM | POLLRDBAND,
    POLLOUT | POLLWRNORM | POLLWRBAND,
    POLLPRI,
];
const ANSWERS: [c_short; 3] = [
    POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR,
    POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR,
    POLLPRI,
];

impl Sets {
    /// # Safety
    /// As select(2); `count` is not negative.
    unsafe fn word(&self, set: usize, at: usize) -> c_ulong {
        let set = self.0[set].cast::<c_ulong>();
        if set.is_null() {
            return 0;
        }
        // SAFETY: the caller's promise.
        let word = unsafe { set.add(at) };
        // SAFETY: the caller's promise.
        unsafe { word.read_unaligned() }
    }

    /// # Safety
    /// As select(2).
    unsafe fn any_ours(&self, count: c_int) -> bool {
        let words = usize::try_from(count).unwrap_or(0).div_ceil(WORD_BITS);
        let sets = self.0.iter().filter(|set| !set.is_null());
        let mut sets = sets.map(|set| set.cast_const().cast::<c_ulong>());
        if !sets.all(|set| can_be_read(set, words)) {
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe { self.members(count) }.any(|(fd, _)| table::holds(fd))
    }

    /// Each descriptor in one of the sets, and in which.
    ///
    /// # Safety
    /// As select(2).
    unsafe fn members(&self, count: c_int) -> impl Iterator<Item = (c_int, [bool; 3])> {
        let count = usize::try_from(count).unwrap_or(0);
        (0..count.div_ceil(WORD_BITS)).flat_map(move |at| {
            // SAFETY: the caller's promise.
            let words = [0, 1, 2].map(|set| unsafe { self.word(set, at) });
            let all = words[0] | words[1] | words[2];
            (0..WORD_BITS)
                .filter(move |bit| all >> bit & 1 != 0 && at * WORD_BITS + bit < count)
                .map(move |bit| {
                    let fd = c_int::try_from(at * WORD_BITS + bit).unwrap_or(c_int::MAX);
                    (fd, words.map(|word| word >> bit & 1 != 0))
                })
        })
    }

    /// Empties the sets.
    ///
    /// # Safety
    /// As select(2).
    unsafe fn clear(&self, count: c_int) {
        let count = usize::try_from(count).unwrap_or(0);
        for set in self.0.into_iter().filter(|set| !set.is_null()) {
            let set = set.cast::<c_ulong>();
            // SAFETY: the caller's promise.
            unsafe { ptr::write_bytes(set, 0, count.div_ceil(WORD_BITS)) };
        }
    }

    /// # Safety
    /// As select(2).
    unsafe fn add(&self, set: usize, fd: c_int) {
        let fd = usize::try_from(fd).unwrap_or(0);
        // SAFETY: the caller's promise.
        let word = unsafe { self.0[set].cast::<c_ulong>().add(fd / WORD_BITS) };
        // SAFETY: the caller's promise.
        let before = unsafe { word.read_unaligned() };
        let bit = 1 << (fd % WORD_BITS);
        // SAFETY: the caller's promise.
        unsafe { word.write_unaligned(before | bit) };
    }
}

/// # Safety
/// As pselect(2).
unsafe fn select_mixed(
    sets: &Sets,
    count: c_int,
    time: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let mut fds: *mut Vec<pollfd> = ptr::null_mut();
    guard("select", || {
        // SAFETY: the caller's promise.
        let members = unsafe { sets.members(count) };
        let asked = members.map(|(fd, among)| {
            let events = ASKED.iter().zip(among).filter(|(_, wanted)| *wanted);
            pollfd {
                fd,
                events: events.fold(0, |all, (events, _)| all | events),
                revents: 0,
            }
        });
        fds = Box::into_raw(Box::new(asked.collect()));
        Ok(0)
    });
    if fds.is_null() {
        return -1;
    }
    // SAFETY: it came from a box above.
    let array = unsafe { &mut *fds };
    let len = nfds_t::try_from(array.len()).unwrap_or(nfds_t::MAX);
    // SAFETY: the array is as long; time and mask by the caller's promise.
    let result = unsafe { poll_mixed(array.as_mut_ptr(), len, time, mask) };
    guard("select", || {
        // SAFETY: it came from a box above, and nobody else has it.
        let fds = unsafe { Box::from_raw(fds) };
        if result < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        if fds.iter().any(|one| one.revents & POLLNVAL != 0) {
            return Err(Failure::new(
                libc::EBADF,
                "a set has a descriptor that is not open",
            ));
        }
        // SAFETY: the caller's promise.
        unsafe { sets.clear(count) };
        let mut ready = 0;
        for one in &*fds {
            for set in 0..3 {
                if one.events & ASKED[set] != 0 && one.revents & ANSWERS[set] != 0 {
                    // SAFETY: the caller's promise; it was in that set, which is not NULL.
                    unsafe { sets.add(set, one.fd) };
                    ready += 1;
                }
            }
        }
        Ok(ready)
    })
}
