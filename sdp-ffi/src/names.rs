//! The addresses of a socket.

use std::net::SocketAddr;

use libc::{c_int, sockaddr, socklen_t};

use crate::errno::Failure;
use crate::guard::guard;
use crate::pointer::write_address;
use crate::process::process;
use crate::state::Socket;

/// This end's address, as getsockname(2). Its family is AF_INET or AF_INET6, whichever number the
/// socket was made with.
///
/// Returns 0; or -1 with EFAULT (NULL), EINVAL (negative length), EBADF.
///
/// # Safety
/// address is NULL, or *length bytes there can be written, and length too.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_getsockname(
    socket: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    guard("sdp_getsockname", || {
        // SAFETY: our caller's promise.
        unsafe { write_name(socket, Socket::local_addr, address, length) }
    })
}

/// The peer's address, as getpeername(2).
///
/// Returns 0; or -1 with ENOTCONN, EFAULT (NULL), EINVAL (negative length), EBADF.
///
/// # Safety
/// address is NULL, or *length bytes there can be written, and length too.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_getpeername(
    socket: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    guard("sdp_getpeername", || {
        // SAFETY: our caller's promise.
        unsafe { write_name(socket, Socket::peer_addr, address, length) }
    })
}

/// # Safety
/// As [`write_address`].
unsafe fn write_name(
    socket: c_int,
    name: impl FnOnce(&Socket) -> Result<SocketAddr, Failure>,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> Result<c_int, Failure> {
    let socket = process().sockets.get(socket)?;
    let name = name(&socket)?;
    // SAFETY: our caller's promise.
    unsafe { write_address(name, address, length) }.map(|()| 0)
}
