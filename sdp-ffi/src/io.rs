//! Sending and receiving.

use std::io::{IoSlice, IoSliceMut};

use libc::{c_int, c_void, iovec, size_t, ssize_t};
use sdp_socket::{RecvFlags, SendFlags};

use crate::errno::Failure;
use crate::guard::{cancellable, guard};
use crate::pointer::{bytes, bytes_mut, recv_pieces, send_pieces};
use crate::process::process;
use crate::state::Socket;

/// MSG_MORE and MSG_EOR change nothing here: messages are never held back for long.
const SEND_FLAGS: c_int =
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_MORE | libc::MSG_EOR | libc::MSG_OOB;
const RECV_FLAGS: c_int =
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_PEEK | libc::MSG_WAITALL | libc::MSG_OOB;

/// Sends, as send(2). From sdp_alloc() memory, and from SDP_ZCOPY_THRESH bytes on, the receiver
/// reads the caller's own memory: no other copy is made.
///
/// flags: MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB (the last byte is urgent; up to 4 KiB wait for no
/// other send); MSG_MORE and MSG_EOR are taken and change nothing.
///
/// Returns the bytes taken, all of them on a blocking socket unless a signal, SO_SNDTIMEO or the
/// end of the connection comes between; or -1 with EAGAIN, EINTR, EPIPE (and SIGPIPE, unless
/// MSG_NOSIGNAL), ECONNRESET, EOPNOTSUPP (other flags), EFAULT (NULL), EBADF.
///
/// # Safety
/// buffer is NULL, or length bytes there can be read, and stay, until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_send(
    socket: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    cancellable("sdp_send", || {
        // SAFETY: our caller's promise.
        let bytes = unsafe { bytes(buffer, length) };
        if flags & libc::MSG_OOB != 0 {
            return send_by(socket, flags, |socket, how| socket.send_urgent(bytes?, how));
        }
        send(socket, flags, || Ok([IoSlice::new(bytes?)]))
    })
}

/// Sends from several pieces, as writev(2) or sendmsg(2) without flags. Raises SIGPIPE on EPIPE.
///
/// Returns as sdp_send(); also -1 with EINVAL for a negative count, more than 1024 pieces, or more
/// than SSIZE_MAX bytes.
///
/// # Safety
/// pieces is NULL, or count of them are there, each NULL or as the buffer of sdp_send().
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_writev(
    socket: c_int,
    pieces: *const iovec,
    count: c_int,
) -> ssize_t {
    cancellable("sdp_writev", || {
        // SAFETY: our caller's promise.
        let pieces = unsafe { send_pieces(pieces, count) };
        send(socket, 0, || pieces)
    })
}

/// Receives, as recv(2).
///
/// flags: MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_OOB (the urgent byte, which is never waited for;
/// EINVAL if there is none, EAGAIN if it is on its way); MSG_NOSIGNAL is taken and changes nothing.
///
/// Returns the bytes received, 0 at the end of the stream; or -1 with EAGAIN, EINTR, ECONNRESET,
/// ENOTCONN, EINVAL, EOPNOTSUPP (other flags), EFAULT (NULL), EBADF.
///
/// # Safety
/// buffer is NULL, or length bytes there can be written, and are touched by nobody else, until
/// the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_recv(
    socket: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    cancellable("sdp_recv", || {
        // SAFETY: our caller's promise.
        let bytes = unsafe { bytes_mut(buffer, length) };
        if flags & libc::MSG_OOB != 0 {
            let socket = process().sockets.get(socket)?;
            known(flags, RECV_FLAGS)?;
            let peek = flags & libc::MSG_PEEK != 0;
            return socket.recv_urgent(bytes?, peek).map(count);
        }
        recv(socket, flags, || Ok([IoSliceMut::new(bytes?)]))
    })
}

/// Receives into several pieces, as readv(2).
///
/// Returns as sdp_recv(); also -1 with EINVAL for a negative count, more than 1024 pieces, or more
/// than SSIZE_MAX bytes.
///
/// # Safety
/// pieces is NULL, or count of them are there, each NULL or as the buffer of sdp_recv(), no two
/// overlapping.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_readv(
    socket: c_int,
    pieces: *const iovec,
    count: c_int,
) -> ssize_t {
    cancellable("sdp_readv", || {
        // SAFETY: our caller's promise.
        let pieces = unsafe { recv_pieces(pieces, count) };
        recv(socket, 0, || pieces)
    })
}

/// Whether the next byte of the stream is the urgent one, as sockatmark(3).
///
/// Returns 1 or 0; or -1 with ENOTCONN, EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_sockatmark(socket: c_int) -> c_int {
    guard("sdp_sockatmark", || {
        let socket = process().sockets.get(socket)?;
        socket.at_mark().map(c_int::from)
    })
}

fn send<'a, T: AsRef<[IoSlice<'a>]>>(
    socket: c_int,
    flags: c_int,
    memory: impl FnOnce() -> Result<T, Failure>,
) -> Result<ssize_t, Failure> {
    send_by(socket, flags, |socket, how| {
        socket.send(memory()?.as_ref(), how)
    })
}

/// The socket is looked at first: a bad one is EBADF whatever else is wrong, as in Linux.
fn send_by(
    socket: c_int,
    flags: c_int,
    send: impl FnOnce(&Socket, SendFlags) -> Result<usize, Failure>,
) -> Result<ssize_t, Failure> {
    let socket = process().sockets.get(socket)?;
    known(flags, SEND_FLAGS)?;
    let how = SendFlags {
        nonblocking: flags & libc::MSG_DONTWAIT != 0,
    };
    let sent = send(&socket, how);
    drop(socket);
    match sent {
        Err(failure) if failure.errno == libc::EPIPE && flags & libc::MSG_NOSIGNAL == 0 => {
            // SAFETY: raise has no preconditions; the handler, if any, runs on this thread, which
            // holds no lock of this library.
            let _ = unsafe { libc::raise(libc::SIGPIPE) };
            Err(failure)
        }
        sent => sent.map(count),
    }
}

fn recv<'a, T: AsMut<[IoSliceMut<'a>]>>(
    socket: c_int,
    flags: c_int,
    memory: impl FnOnce() -> Result<T, Failure>,
) -> Result<ssize_t, Failure> {
    let socket = process().sockets.get(socket)?;
    known(flags, RECV_FLAGS)?;
    let flags = RecvFlags {
        nonblocking: flags & libc::MSG_DONTWAIT != 0,
        peek: flags & libc::MSG_PEEK != 0,
        wait_all: flags & libc::MSG_WAITALL != 0,
    };
    socket.recv(memory()?.as_mut(), flags).map(count)
}

/// # Errors
/// `EOPNOTSUPP` for flags this call has not.
fn known(flags: c_int, known: c_int) -> Result<(), Failure> {
    let unknown = flags & !known;
    if unknown == 0 {
        return Ok(());
    }
    let words = format!("flags not supported: {unknown:#x}");
    Err(Failure::new(libc::EOPNOTSUPP, words))
}

fn count(len: usize) -> ssize_t {
    ssize_t::try_from(len).unwrap_or(ssize_t::MAX)
}
