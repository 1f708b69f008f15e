//! fcntl(2).

use libc::{c_int, c_long};

use crate::errno::Failure;
use crate::guard::guard;
use crate::process::process;

/// Flags of F_SETFL that would change something, and that no socket of this library has.
const REFUSED: c_int = libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME;

/// Reads and sets the flags of a socket, as fcntl(2); with two arguments or three.
///
/// F_GETFL: O_RDWR, and O_NONBLOCK if it is set. F_SETFL: sets or clears O_NONBLOCK; access modes are
/// passed over. F_GETFD: FD_CLOEXEC, since no socket of this library lives through exec. F_SETFD: with
/// FD_CLOEXEC only.
///
/// Returns the flags, or 0; or -1 with EINVAL for other commands (F_DUPFD, F_SETOWN, F_SETSIG, locks)
/// and flags (O_ASYNC, O_APPEND, O_DIRECT, O_NOATIME), EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_fcntl(socket: c_int, command: c_int, argument: c_long) -> c_int {
    guard("sdp_fcntl", || {
        let socket = process().sockets.get(socket)?;
        let refused = |words: String| Err(Failure::new(libc::EINVAL, words));
        // Linux takes it for an int of either sign.
        let flags = c_int::try_from(argument & c_long::from(u32::MAX >> 1)).unwrap_or(0);
        match command {
            libc::F_GETFL if socket.is_nonblocking() => Ok(libc::O_RDWR | libc::O_NONBLOCK),
            libc::F_GETFL => Ok(libc::O_RDWR),
            libc::F_SETFL if flags & REFUSED != 0 => {
                refused(format!("flags not supported: {:#x}", flags & REFUSED))
            }
            libc::F_SETFL => socket
                .set_nonblocking(flags & libc::O_NONBLOCK != 0)
                .map(|()| 0),
            libc::F_GETFD => Ok(libc::FD_CLOEXEC),
            libc::F_SETFD if flags & libc::FD_CLOEXEC != 0 => Ok(0),
            libc::F_SETFD => refused("no socket of this library lives through exec".to_owned()),
            other => refused(format!("no command {other}: take F_GETFL or F_SETFL")),
        }
    })
}
