//! Not waiting, and waiting for many.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use libc::{c_int, c_short, nfds_t, pollfd, sigset_t, timespec};
use sdp_socket::Readiness;

use crate::errno::Failure;
use crate::guard::{cancellable, guard};
use crate::handle::NUMBER_MIN;
use crate::message::duration;
use crate::pointer::{Few, read, size};
use crate::process::process;
use crate::state::Polled;

/// Makes the calls on a socket return EAGAIN (or EINPROGRESS) instead of waiting, or wait again:
/// fcntl(2) with O_NONBLOCK.
///
/// Returns 0; or -1 with EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_set_nonblocking(socket: c_int, on: c_int) -> c_int {
    guard("sdp_set_nonblocking", || {
        let socket = process().sockets.get(socket)?;
        socket.set_nonblocking(on != 0).map(|()| 0)
    })
}

/// A file descriptor for poll(2), select(2) and epoll(7), in all their modes, and for nothing
/// else: it reports what the socket would do. It is made at the first call, is the same at every
/// further one until a connect that failed is tried again, and is closed with the socket; take it
/// out of epoll sets before.
///
/// Returns the descriptor; or -1 with EOPNOTSUPP before the socket connects or listens, EMFILE,
/// EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_fileno(socket: c_int) -> c_int {
    guard("sdp_fileno", || {
        let socket = process().sockets.get(socket)?;
        socket.readiness().map(|readiness| readiness.as_raw_fd())
    })
}

/// Waits for sockets of this library and for file descriptors, in one array and in any order, as
/// poll(2). Each place is answered as it is asked: a negative number is passed over, one that
/// nobody knows is POLLNVAL, a socket that neither is connected nor connects nor listens is
/// POLLHUP, with POLLOUT, as with TCP. A socket that is closed meanwhile shows POLLNVAL.
///
/// Returns how many have something to tell, 0 if time is up; or -1 with EINTR, EINVAL (more than
/// RLIMIT_NOFILE), EFAULT (NULL), EMFILE (no descriptor to wait on), ENOMEM.
///
/// # Safety
/// polled is NULL, or count of them are there that can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_poll(
    polled: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
) -> c_int {
    cancellable("sdp_poll", || {
        let millis = c_int::max(timeout, 0);
        let time = timespec {
            tv_sec: (millis / 1000).into(),
            tv_nsec: (millis % 1000 * 1_000_000).into(),
        };
        let time = (timeout >= 0).then_some(time);
        // SAFETY: our caller's promise; no mask is given.
        unsafe { wait(polled, count, time, ptr::null()) }
    })
}

/// As sdp_poll(), and as ppoll(2): timeout NULL waits without limit, and mask, if not NULL, is the
/// thread's signal mask while it waits.
///
/// Returns as sdp_poll(); also -1 with EINVAL for a bad time.
///
/// # Safety
/// As sdp_poll(); timeout and mask are NULL, or can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_ppoll(
    polled: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    cancellable("sdp_ppoll", || {
        let time = match timeout.is_null() {
            true => None,
            // SAFETY: our caller's promise.
            false => Some(unsafe { read(timeout, "the time") }?),
        };
        if let Some(time) = time {
            duration(time)?;
        }
        // SAFETY: our caller's promise.
        unsafe { wait(polled, count, time, mask) }
    })
}

/// # Safety
/// As [`sdp_ppoll`].
unsafe fn wait(
    polled: *mut pollfd,
    count: nfds_t,
    time: Option<timespec>,
    mask: *const sigset_t,
) -> Result<c_int, Failure> {
    let count = size(count);
    if count > open_files_max()? {
        return Err(Failure::new(libc::EINVAL, "more than RLIMIT_NOFILE"));
    }
    let sockets = &process().sockets;
    let mut question = Question::default();
    for at in 0..count {
        // SAFETY: our caller's promise: the place is within the array.
        let asked = unsafe { read(polled.wrapping_add(at), "the array") }?;
        question.add(asked)?;
    }
    let mut found = question.ask(time, mask)?;
    let places = question.asked.iter().zip(&question.ours);
    for (at, (answer, Ours { number, still })) in places.enumerate() {
        found += c_int::from(still.is_some());
        let place = polled.wrapping_add(at);
        let place = place.wrapping_byte_add(std::mem::offset_of!(pollfd, revents));
        let mut answer = match still {
            Some(still) => *still,
            None if number.is_some() => whole_end(answer),
            None => answer.revents,
        };
        if answer != 0 && number.is_some_and(|number| sockets.get(number).is_err()) {
            answer = libc::POLLNVAL;
        }
        // SAFETY: our caller's promise: it is a field within the array.
        unsafe { place.cast::<c_short>().write_unaligned(answer) };
    }
    Ok(found)
}

/// What this library knows of a place of the array.
#[derive(Clone, Copy, Debug, Default)]
struct Ours {
    /// The number of one of its sockets.
    number: Option<c_int>,
    /// An answer that needs no kernel.
    still: Option<c_short>,
}

/// What the kernel is asked in place of the program's array.
#[derive(Debug, Default)]
struct Question {
    asked: Few<pollfd>,
    /// Place by place.
    ours: Few<Ours>,
    /// Keep descriptors open, but no socket: one that is closed meanwhile is closed, and shows it.
    kept: Few<Readiness>,
}

impl Question {
    fn add(&mut self, mut asked: pollfd) -> Result<(), Failure> {
        asked.revents = 0;
        let mut ours = Ours::default();
        // Other numbers that are no sockets of ours the kernel judges.
        if asked.fd >= NUMBER_MIN
            && let Ok(socket) = process().sockets.get(asked.fd)
        {
            ours.number = Some(asked.fd);
            match socket.polled()? {
                Polled::As(readiness) => {
                    asked.fd = readiness.as_raw_fd();
                    asked.events = tcps_events(asked.events);
                    self.kept.push(readiness);
                }
                Polled::Still(shown) => {
                    ours.still = Some(shown & (asked.events | libc::POLLHUP | libc::POLLERR));
                    asked.fd = NOBODY;
                }
            }
        }
        self.asked.push(asked);
        self.ours.push(ours);
        Ok(())
    }

    fn ask(&mut self, time: Option<timespec>, mask: *const sigset_t) -> Result<c_int, Failure> {
        const AT_ONCE: timespec = timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let answered = self.ours.iter().any(|ours| ours.still.is_some());
        let time = if answered { Some(AT_ONCE) } else { time };
        let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
        let count = nfds_t::try_from(self.asked.len()).unwrap_or(nfds_t::MAX);
        // SAFETY: the array is ours and that long; the time is ours; our caller promised the mask.
        let found = unsafe { libc::ppoll(self.asked.as_mut_ptr(), count, time, mask) };
        if found < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(found)
    }
}

/// What a descriptor to wait on is asked for `events`: it would show POLLWRBAND, which a TCP socket never
/// does.
#[must_use]
pub const fn tcps_events(events: c_short) -> c_short {
    events & !libc::POLLWRBAND
}

/// What poll says of one of our sockets. The end of one shows ERR or HUP a moment before the room that
/// it makes; TCP's shows both at once.
pub fn whole_end(answer: &pollfd) -> c_short {
    let room = libc::POLLOUT | libc::POLLWRNORM;
    match answer.revents & (libc::POLLERR | libc::POLLHUP) {
        0 => answer.revents,
        _ => answer.revents | answer.events & room,
    }
}

/// A number that poll passes over.
const NOBODY: RawFd = -1;

/// RLIMIT_NOFILE.
fn open_files_max() -> Result<usize, Failure> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the place for the limits is ours.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(size(limit.rlim_cur))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Family;
    use crate::settings::Name;
    use crate::state::Socket;

    /// TCP_CLOSE, of tcpi_state.
    const CLOSED: u8 = 7;

    fn shown(readiness: &Readiness) -> c_short {
        let mut polled = pollfd {
            fd: readiness.as_raw_fd(),
            events: 0,
            revents: 0,
        };
        // SAFETY: the array of one is ours.
        assert_eq!(unsafe { libc::poll(&raw mut polled, 1, 0) }, 1);
        polled.revents
    }

    /// Who connects without waiting and asks for the descriptor gets one, though the connect has failed
    /// meanwhile; it says so until the failure is told.
    #[test]
    fn a_connect_that_has_failed_has_a_descriptor() {
        let nobody = Socket::new(libc::AF_INET, Family::V4, false);
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let socket = Socket::new(libc::AF_INET, Family::V4, true);
        let started = socket.connect(nobody.local_addr().unwrap()).unwrap_err();
        assert_eq!(started.errno, libc::EINPROGRESS);
        // A descriptor that is asked for while it goes on would be another.
        while socket.option(Name::Info).unwrap()[0] != CLOSED {
            std::thread::yield_now();
        }
        let readiness = socket.readiness().unwrap();
        assert_eq!(shown(&readiness) & libc::POLLERR, libc::POLLERR);
        assert_eq!(socket.fail().unwrap_err().errno, libc::ECONNREFUSED);
        let over = shown(&readiness) & (libc::POLLERR | libc::POLLHUP);
        assert_eq!(over, libc::POLLHUP);
    }
}
