//! Sending and receiving.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use libc::{c_int, c_void, iovec, size_t, sockaddr, socklen_t, ssize_t};
use sdp_socket::{RecvFlags, SendFlags};

use crate::errno::Failure;
use crate::guard::{cancellable, guard};
use crate::pointer::{
    address_len, bytes, bytes_mut, no_source, piece_count, recv_pieces, send_pieces, target_len,
    within_memory,
};
use crate::process::process;
use crate::state::Socket;

/// From MSG_MORE on they change nothing here: messages are never held back for long, a stream has
/// no records, and the rest is not TCP's either.
const SEND_FLAGS: c_int = libc::MSG_DONTWAIT
    | libc::MSG_NOSIGNAL
    | libc::MSG_OOB
    | libc::MSG_MORE
    | libc::MSG_EOR
    | libc::MSG_CONFIRM
    | libc::MSG_DONTROUTE
    | libc::MSG_ZEROCOPY;
/// No descriptor ever comes with the bytes, so none must be closed on exec.
const RECV_FLAGS: c_int = libc::MSG_DONTWAIT
    | libc::MSG_NOSIGNAL
    | libc::MSG_PEEK
    | libc::MSG_WAITALL
    | libc::MSG_OOB
    | libc::MSG_CMSG_CLOEXEC;

/// Sends, as send(2). From sdp_alloc() memory, and from SDP_ZCOPY_THRESH bytes on, the receiver
/// reads the caller's own memory: no other copy is made.
///
/// flags: MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB (the last byte is urgent; up to 4 KiB wait for no
/// other send); MSG_MORE, MSG_EOR, MSG_CONFIRM, MSG_DONTROUTE and MSG_ZEROCOPY are taken and change
/// nothing.
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
        send(process().sockets.get(socket)?, flags, || {
            Ok([IoSlice::new(bytes?)])
        })
    })
}

/// Sends, as write(2): sdp_send() without flags.
///
/// Returns as sdp_send().
///
/// # Safety
/// As sdp_send().
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_write(
    socket: c_int,
    buffer: *const c_void,
    length: size_t,
) -> ssize_t {
    cancellable("sdp_write", || {
        // SAFETY: our caller's promise.
        let bytes = unsafe { bytes(buffer, length) };
        let socket = process().sockets.get(socket)?;
        within_memory(buffer, length)?;
        send(socket, 0, || Ok([IoSlice::new(bytes?)]))
    })
}

/// Sends, as sendto(2). A stream goes to its peer: the address is not looked at, as with TCP.
///
/// Returns as sdp_send(); also -1 with EINVAL for an address of no possible length.
///
/// # Safety
/// As sdp_send().
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_sendto(
    socket: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> ssize_t {
    cancellable("sdp_sendto", || {
        // SAFETY: our caller's promise.
        let bytes = unsafe { bytes(buffer, length) };
        let socket = process().sockets.get(socket)?;
        if !address.is_null() {
            address_len(address_length)?;
        }
        send(socket, flags, || Ok([IoSlice::new(bytes?)]))
    })
}

/// Sends from several pieces, as writev(2) or sendmsg(2) without flags. Raises SIGPIPE on EPIPE.
///
/// Returns as sdp_send(); also -1 with EINVAL for a negative count, more than 1024 pieces, or one of
/// more than SSIZE_MAX bytes, EFAULT for one that reaches beyond all memory.
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
        let socket = process().sockets.get(socket)?;
        // SAFETY: our caller's promise.
        unsafe { piece_count(pieces, count) }?;
        // SAFETY: our caller's promise.
        let pieces = unsafe { send_pieces(pieces, count) };
        if matches!(&pieces, Ok(pieces) if pieces.iter().all(|piece| piece.is_empty())) {
            return Ok(0);
        }
        send(socket, 0, || pieces)
    })
}

/// Receives, as recv(2). A length of 0 waits as any other, as with TCP.
///
/// flags: MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, MSG_OOB (the urgent byte, which is never waited for;
/// EINVAL if there is none, EAGAIN if it is on its way); MSG_NOSIGNAL and MSG_CMSG_CLOEXEC are taken
/// and change nothing.
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
        let socket = process().sockets.get(socket)?;
        recv(&socket, flags, || Ok([IoSliceMut::new(bytes?)]))
    })
}

/// Receives, as read(2): sdp_recv() without flags.
///
/// Returns as sdp_recv(); 0 for no bytes, whatever the socket is.
///
/// # Safety
/// As sdp_recv().
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_read(
    socket: c_int,
    buffer: *mut c_void,
    length: size_t,
) -> ssize_t {
    cancellable("sdp_read", || {
        // SAFETY: our caller's promise.
        let bytes = unsafe { bytes_mut(buffer, length) };
        let socket = process().sockets.get(socket)?;
        if length == 0 {
            return Ok(0);
        }
        within_memory(buffer, length)?;
        recv(&socket, 0, || Ok([IoSliceMut::new(bytes?)]))
    })
}

/// Receives, as recvfrom(2). A stream has one peer: no address is written, and the length becomes 0,
/// as with TCP.
///
/// Returns as sdp_recv(); also -1 with EINVAL for a negative length, EFAULT for an address without
/// length; nothing is received then.
///
/// # Safety
/// As sdp_recv(); address_length is NULL, or a length is there that can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_recvfrom(
    socket: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    cancellable("sdp_recvfrom", || {
        // SAFETY: our caller's promise.
        let bytes = unsafe { bytes_mut(buffer, length) };
        let socket = process().sockets.get(socket)?;
        if !address.is_null() {
            // SAFETY: our caller's promise.
            unsafe { target_len(address_length) }?;
        }
        let received = recv(&socket, flags, || Ok([IoSliceMut::new(bytes?)]))?;
        if !address.is_null() {
            // SAFETY: our caller's promise; it is not NULL, or it would have been refused.
            unsafe { no_source(address_length) };
        }
        Ok(received)
    })
}

/// Receives into several pieces, as readv(2).
///
/// Returns as sdp_recv(); also -1 with EINVAL for a negative count, more than 1024 pieces, or one of
/// more than SSIZE_MAX bytes, EFAULT for one that reaches beyond all memory.
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
        let socket = process().sockets.get(socket)?;
        // SAFETY: our caller's promise.
        unsafe { piece_count(pieces, count) }?;
        // SAFETY: our caller's promise.
        let pieces = unsafe { recv_pieces(pieces, count) };
        if matches!(&pieces, Ok(pieces) if pieces.iter().all(|piece| piece.is_empty())) {
            return Ok(0);
        }
        recv(&socket, 0, || pieces)
    })
}

/// Whether the next byte of the stream is the urgent one, as sockatmark(3).
///
/// Returns 1 or 0; or -1 with EBADF.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_sockatmark(socket: c_int) -> c_int {
    guard("sdp_sockatmark", || {
        let socket = process().sockets.get(socket)?;
        socket.at_mark().map(c_int::from)
    })
}

/// Sends. Whatever is wrong with the socket is told before what is wrong with the memory, as Linux
/// does. The socket is let go of before the program hears of SIGPIPE.
pub(crate) fn send<'a, T: AsRef<[IoSlice<'a>]>>(
    socket: Arc<Socket>,
    flags: c_int,
    memory: impl FnOnce() -> Result<T, Failure>,
) -> Result<ssize_t, Failure> {
    known(flags, SEND_FLAGS)?;
    let how = SendFlags {
        nonblocking: flags & libc::MSG_DONTWAIT != 0,
    };
    let sent = match memory() {
        Err(bad) => socket.send(&[], how).and(Err(bad)),
        Ok(memory) if flags & libc::MSG_OOB != 0 => send_urgent(&socket, memory.as_ref(), how),
        Ok(memory) => socket.send(memory.as_ref(), how),
    };
    drop(socket);
    piped(sent, flags)
}

/// Several pieces become one: the urgent byte is the last of all.
fn send_urgent(socket: &Socket, pieces: &[IoSlice<'_>], how: SendFlags) -> Result<usize, Failure> {
    if let [piece] = pieces {
        return socket.send_urgent(piece, how);
    }
    let len = pieces.iter().map(|piece| piece.len()).sum();
    let mut joined = Vec::new();
    if joined.try_reserve_exact(len).is_err() {
        let words = format!("no memory for {len} bytes in one piece");
        return Err(Failure::new(libc::ENOMEM, words));
    }
    for piece in pieces {
        joined.extend_from_slice(piece);
    }
    socket.send_urgent(&joined, how)
}

/// What a send gives back: a pipe that is broken is told by SIGPIPE too.
pub(crate) fn piped(sent: Result<usize, Failure>, flags: c_int) -> Result<ssize_t, Failure> {
    if matches!(&sent, Err(failure) if failure.errno == libc::EPIPE)
        && flags & libc::MSG_NOSIGNAL == 0
    {
        // SAFETY: raise has no preconditions; the handler, if any, runs on this thread, which
        // holds no lock of this library.
        let _ = unsafe { libc::raise(libc::SIGPIPE) };
    }
    sent.map(count)
}

/// Receives, in the order of [`send`]. As Linux's TCP a receive of no bytes waits for one, and one
/// into bad memory fails when there is something to put there.
pub(crate) fn recv<'a, T: AsMut<[IoSliceMut<'a>]>>(
    socket: &Socket,
    flags: c_int,
    memory: impl FnOnce() -> Result<T, Failure>,
) -> Result<ssize_t, Failure> {
    known(flags, RECV_FLAGS)?;
    let mut memory = memory();
    let mut no_pieces: [IoSliceMut<'_>; 0] = [];
    let pieces = memory.as_mut().map_or(&mut no_pieces[..], AsMut::as_mut);
    let peek = flags & libc::MSG_PEEK != 0;
    let received = if flags & libc::MSG_OOB != 0 {
        let first = pieces.iter_mut().find(|piece| !piece.is_empty());
        socket.recv_urgent(first.map_or(&mut [][..], |piece| piece), peek)
    } else {
        let flags = RecvFlags {
            nonblocking: flags & libc::MSG_DONTWAIT != 0,
            peek,
            wait_all: flags & libc::MSG_WAITALL != 0,
        };
        if pieces.iter().all(|piece| piece.is_empty()) {
            return match (socket.look(flags.nonblocking)?, memory) {
                (true, Err(bad)) => Err(bad),
                _ => Ok(0),
            };
        }
        socket.recv(pieces, flags)
    };
    match (received?, memory) {
        (_, Err(bad)) => Err(bad),
        (received, Ok(_)) => Ok(count(received)),
    }
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
