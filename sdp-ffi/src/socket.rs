//! The life of a socket: `sdp_socket` to `sdp_close`.

use std::net::Shutdown;
use std::sync::Arc;

use libc::{c_int, sockaddr, socklen_t};

use crate::address::Family;
use crate::errno::Failure;
use crate::guard::{cancellable, guard};
use crate::pointer::{address_len, read_address, size, write_address};
use crate::process::process;
use crate::state::Socket;

/// Address family of SDP over IPv4, for sdp_socket() and in addresses. AF_INET means the same here.
pub const AF_INET_SDP: c_int = 27;
/// Address family of SDP over IPv6, for sdp_socket() and in addresses. AF_INET6 means the same here.
pub const AF_INET6_SDP: c_int = 28;

/// Where Linux's numbers of protocols end: one behind Multipath TCP's.
const PROTOCOLS_END: c_int = libc::IPPROTO_MPTCP + 1;

/// Makes a socket, as socket(2).
///
/// domain: AF_INET, AF_INET6, AF_INET_SDP or AF_INET6_SDP. type: SOCK_STREAM, with SOCK_NONBLOCK
/// and SOCK_CLOEXEC if wanted; no socket of this library lives through exec. protocol: 0 or
/// IPPROTO_TCP.
///
/// Returns the socket, which is no file descriptor; or -1 with EAFNOSUPPORT, ESOCKTNOSUPPORT,
/// EPROTONOSUPPORT, EINVAL, or EMFILE with 2^20 open.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_socket(domain: c_int, r#type: c_int, protocol: c_int) -> c_int {
    guard("sdp_socket", || {
        let family = Family::of(domain).ok_or_else(|| {
            let words = format!("address family {domain}: take AF_INET or AF_INET6");
            Failure::new(libc::EAFNOSUPPORT, words)
        })?;
        if !(0..PROTOCOLS_END).contains(&protocol) {
            let words = format!("{protocol} is no protocol");
            return Err(Failure::new(libc::EINVAL, words));
        }
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        match r#type & !flags {
            libc::SOCK_STREAM => {}
            0 | libc::SOCK_DGRAM | libc::SOCK_RAW | libc::SOCK_SEQPACKET => {
                return Err(Failure::new(libc::ESOCKTNOSUPPORT, "SOCK_STREAM only"));
            }
            _ => {
                let words = format!("{type:#x} is no type of socket");
                return Err(Failure::new(libc::EINVAL, words));
            }
        }
        if protocol != 0 && protocol != libc::IPPROTO_TCP {
            let words = format!("protocol {protocol}: take 0");
            return Err(Failure::new(libc::EPROTONOSUPPORT, words));
        }
        let nonblocking = r#type & libc::SOCK_NONBLOCK != 0;
        let socket = Socket::new(domain, family, nonblocking);
        process().sockets.insert(Arc::new(socket))
    })
}

/// Gives a socket its own address, as bind(2). Port 0: a free one is chosen at once.
///
/// Returns 0; or -1 with EADDRINUSE, EADDRNOTAVAIL, EACCES, EAFNOSUPPORT, EINVAL (has one), EFAULT
/// (NULL), EBADF.
///
/// # Safety
/// address is NULL, or length bytes there can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_bind(
    socket: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    guard("sdp_bind", || {
        let socket = process().sockets.get(socket)?;
        // SAFETY: our caller's promise.
        let address = unsafe { read_address(address, length, socket.family) }?;
        socket.bind(address).map_err(|f| f.at(address))?;
        Ok(0)
    })
}

/// Makes a socket listen, as listen(2); again, to change the backlog. A socket without an address
/// gets one.
///
/// Returns 0; or -1 with EADDRINUSE, EINVAL (connected), EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_listen(socket: c_int, backlog: c_int) -> c_int {
    guard("sdp_listen", || {
        let socket = process().sockets.get(socket)?;
        socket.listen(backlog).map(|()| 0)
    })
}

/// Waits for a connection and makes a socket of it, as accept(2). The new socket has the options
/// of the listening one and is blocking. SO_RCVTIMEO limits the wait (EAGAIN).
///
/// Returns the socket; or -1 with EAGAIN, EINTR, EINVAL (does not listen, or shut down), EFAULT
/// (address without length), EMFILE, EBADF (also when closed meanwhile).
///
/// # Safety
/// address is NULL, or *length bytes there can be written, and length too.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_accept(
    socket: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    cancellable("sdp_accept", || {
        // SAFETY: our caller's promise.
        unsafe { accept(socket, address, length, 0) }
    })
}

/// As sdp_accept(), and as accept4(2): flags are SOCK_NONBLOCK, which makes the new socket
/// non-blocking, and SOCK_CLOEXEC, which every socket of this library is.
///
/// Returns as sdp_accept(); also -1 with EINVAL for other flags.
///
/// # Safety
/// As sdp_accept().
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_accept4(
    socket: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    cancellable("sdp_accept4", || {
        // SAFETY: our caller's promise.
        unsafe { accept(socket, address, length, flags) }
    })
}

/// # Safety
/// As [`sdp_accept`].
unsafe fn accept(
    socket: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
    flags: c_int,
) -> Result<c_int, Failure> {
    let sockets = &process().sockets;
    let listening = sockets.get(socket)?;
    if flags & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != 0 {
        let words = format!("flags not supported: {flags:#x}");
        return Err(Failure::new(libc::EINVAL, words));
    }
    let (accepted, peer) = listening.accept()?;
    if flags & libc::SOCK_NONBLOCK != 0 {
        accepted.set_nonblocking(true)?;
    }
    if !address.is_null() {
        // SAFETY: our caller's promise. On failure the connection is closed, as by Linux.
        unsafe { write_address(peer, address, length) }?;
    }
    sockets.insert(Arc::new(accepted))
}

/// Connects, as connect(2). A non-blocking socket returns EINPROGRESS; call again for EALREADY, the
/// result, and at last EISCONN; SO_ERROR tells the result too. SO_SNDTIMEO limits the wait
/// (EINPROGRESS), and a signal ends it (EINTR); the connect goes on. After a failure the same socket may
/// try again.
///
/// Returns 0; or -1 with ECONNREFUSED, EINTR, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EAFNOSUPPORT, EINVAL,
/// EFAULT (NULL), EBADF (also when closed meanwhile).
///
/// # Safety
/// address is NULL, or length bytes there can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_connect(
    socket: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    cancellable("sdp_connect", || {
        let socket = process().sockets.get(socket)?;
        // SAFETY: our caller's promise.
        let read = unsafe { read_address(address, length, socket.family) };
        // What is no address at all is refused before the socket is looked at, other things after.
        let none = address.is_null() || size(length) < size_of::<libc::sa_family_t>();
        match read {
            Err(bad) if none || address_len(length).is_err() => Err(bad),
            Err(bad) => socket.connect_to(Err(bad)),
            Ok(address) => socket.connect(address).map_err(|f| f.at(address)),
        }?;
        Ok(0)
    })
}

/// Ends one direction or both, as shutdown(2): SHUT_RD, SHUT_WR or SHUT_RDWR. Blocked calls of
/// other threads end. SHUT_RD on a listening socket ends listening.
///
/// Returns 0; or -1 with ENOTCONN, EINVAL, EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_shutdown(socket: c_int, how: c_int) -> c_int {
    guard("sdp_shutdown", || {
        let socket = process().sockets.get(socket)?;
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => {
                let words = format!("{how} is no direction to shut down");
                return Err(Failure::new(libc::EINVAL, words));
            }
        };
        socket.shutdown(how).map(|()| 0)
    })
}

/// Closes a socket, as close(2): what was sent is delivered in the background, for at most the
/// time of SO_LINGER; unread bytes or a linger of 0 reset the connection. The number is invalid
/// from here on, in every thread; calls blocked in it end, with what they have done or EBADF.
///
/// Returns 0; or -1 with EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_close(socket: c_int) -> c_int {
    cancellable("sdp_close", || {
        process().sockets.remove(socket)?.close();
        Ok(0)
    })
}
