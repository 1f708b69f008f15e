//! ioctl(2).

use libc::{c_int, c_ulong, c_void};

use crate::errno::Failure;
use crate::guard::guard;
use crate::process::process;

/// What a request asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Request {
    /// FIONREAD, which is SIOCINQ.
    Unread,
    /// TIOCOUTQ, which is SIOCOUTQ.
    Unsent,
    /// SIOCATMARK.
    AtMark,
    /// FIONBIO.
    Nonblocking,
}

/// `sys/ioctl.h` has it, the libc crate has not.
const SIOCATMARK: libc::Ioctl = 0x8905;

impl Request {
    /// # Errors
    /// `ENOTTY`, as ioctl(2), for what is asked of other things.
    fn of(number: c_ulong) -> Result<Self, Failure> {
        const REQUESTS: [(libc::Ioctl, Request); 4] = [
            (libc::FIONREAD, Request::Unread),
            (libc::TIOCOUTQ, Request::Unsent),
            (SIOCATMARK, Request::AtMark),
            (libc::FIONBIO, Request::Nonblocking),
        ];
        // The C library knows them by a signed or an unsigned number.
        let found = REQUESTS
            .iter()
            .find(|(request, _)| c_ulong::try_from(*request) == Ok(number));
        found.map(|row| row.1).ok_or_else(|| {
            let words = format!("no request {number:#x}");
            Failure::new(libc::ENOTTY, words)
        })
    }
}

/// Asks for the state of a socket, as ioctl(2). argument is an int *.
///
/// FIONREAD (SIOCINQ): bytes that a recv gets now without waiting. TIOCOUTQ (SIOCOUTQ): bytes sent
/// that the other side has not taken. SIOCATMARK: as sdp_sockatmark(). FIONBIO: sets or, with 0, clears O_NONBLOCK, as
/// sdp_set_nonblocking().
///
/// Returns 0; or -1 with EINVAL (a listening socket has no bytes), ENOTTY (other requests), EFAULT
/// (NULL), EBADF.
///
/// # Safety
/// argument is NULL, or an int is there that can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_ioctl(
    socket: c_int,
    request: c_ulong,
    argument: *mut c_void,
) -> c_int {
    guard("sdp_ioctl", || {
        let socket = process().sockets.get(socket)?;
        let request = Request::of(request)?;
        let null = || Failure::null("the argument");
        let argument = argument.cast::<c_int>();
        let queued = match request {
            Request::Unread => socket.recv_queue_len()?,
            Request::Unsent => socket.send_queue_len()?,
            Request::AtMark => usize::from(socket.at_mark()?),
            Request::Nonblocking if argument.is_null() => return Err(null()),
            Request::Nonblocking => {
                // SAFETY: our caller's promise.
                let on = unsafe { argument.read_unaligned() };
                socket.set_nonblocking(on != 0)?;
                return Ok(0);
            }
        };
        if argument.is_null() {
            return Err(null());
        }
        let queued = c_int::try_from(queued).unwrap_or(c_int::MAX);
        // SAFETY: our caller's promise.
        unsafe { argument.write_unaligned(queued) };
        Ok(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux's other names for the same requests have the same numbers.
    #[test]
    fn requests_by_their_numbers() {
        assert_eq!(Request::of(0x541b), Ok(Request::Unread));
        assert_eq!(Request::of(0x5411), Ok(Request::Unsent));
        assert_eq!(Request::of(0x5421), Ok(Request::Nonblocking));
        assert_eq!(Request::of(0x8905), Ok(Request::AtMark));
        let failure = Request::of(0x8906).unwrap_err();
        assert_eq!(failure.errno, libc::ENOTTY);
        assert!(failure.message.contains("0x8906"));
    }
}
