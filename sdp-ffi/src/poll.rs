//! Not waiting, and waiting for many.

use std::os::fd::AsRawFd;

use libc::c_int;

use crate::guard::guard;
use crate::process::process;

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
/// further one, and is closed with the socket; take it out of epoll sets before.
///
/// Returns the descriptor; or -1 with EOPNOTSUPP before the socket is connected or listens, EMFILE,
/// EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_fileno(socket: c_int) -> c_int {
    guard("sdp_fileno", || {
        let socket = process().sockets.get(socket)?;
        socket.readiness().map(|readiness| readiness.as_raw_fd())
    })
}
