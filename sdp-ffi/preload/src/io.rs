//! Sending and receiving.

use std::io::{IoSlice, IoSliceMut};

use libc::{c_int, c_void, iovec, size_t, sockaddr, socklen_t, ssize_t};
use sdp::posix::{Failure, Socket, bytes, bytes_mut, recv_pieces, send_pieces};
use sdp_socket::{RecvFlags, SendFlags};

use crate::boundary::{Outcome, interpose};
use crate::entry::Entry;
use crate::real;

interpose! {
    wait fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        unsafe { receive(entry, to, len, 0) }
    }

    wait fn recv(fd: c_int, to: *mut c_void, len: size_t, flags: c_int) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        unsafe { receive(entry, to, len, flags) }
    }

    wait fn recvfrom(
        fd: c_int, to: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr,
        addr_len: *mut socklen_t,
    ) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        let received = unsafe { receive(entry, to, len, flags) };
        if let (Ok(Some(_)), false, false) = (&received, addr.is_null(), addr_len.is_null()) {
            // Streams name no sender, as with TCP.
            // SAFETY: our caller's promise.
            unsafe { addr_len.write_unaligned(0) };
        }
        received
    }

    wait fn readv(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t |entry| {
        let Some(socket) = entry.connected() else { return Ok(None) };
        // SAFETY: our caller's promise.
        let mut pieces = unsafe { recv_pieces(pieces, count) }?;
        received(socket, &mut pieces, 0)
    }

    wait fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        unsafe { transmit(entry, from, len, 0) }
    }

    wait fn send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        unsafe { transmit(entry, from, len, flags) }
    }

    wait fn sendto(
        fd: c_int, from: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr,
        addr_len: socklen_t,
    ) -> ssize_t |entry| {
        // A connected stream takes no other address, and as with TCP none is looked at.
        let _ = (addr, addr_len);
        // SAFETY: our caller's promise.
        unsafe { transmit(entry, from, len, flags) }
    }

    wait fn writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t |entry| {
        if entry.connected().is_none() {
            return Ok(None);
        }
        // SAFETY: our caller's promise.
        let pieces = unsafe { send_pieces(pieces, count) }?;
        sent(entry, &pieces, 0)
    }

    fn sockatmark(fd: c_int) -> c_int |entry| {
        let Some(socket) = entry.connected() else { return Ok(None) };
        socket.at_mark().map(|at| Some(c_int::from(at)))
    }

    /// What `read` is to a program built with _FORTIFY_SOURCE; too little room is the C library's
    /// to complain of.
    raw fn __read_chk(fd: c_int, to: *mut c_void, len: size_t, room: size_t) -> ssize_t {
        if len > room {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::__read_chk(fd, to, len, room) };
        }
        // SAFETY: our caller's promise.
        unsafe { read(fd, to, len) }
    }

    /// As `__read_chk`, of `recv`.
    raw fn __recv_chk(
        fd: c_int, to: *mut c_void, len: size_t, room: size_t, flags: c_int,
    ) -> ssize_t {
        if len > room {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::__recv_chk(fd, to, len, room, flags) };
        }
        // SAFETY: our caller's promise.
        unsafe { recv(fd, to, len, flags) }
    }

    /// As `__read_chk`, of `recvfrom`.
    raw fn __recvfrom_chk(
        fd: c_int, to: *mut c_void, len: size_t, room: size_t, flags: c_int, addr: *mut sockaddr,
        addr_len: *mut socklen_t,
    ) -> ssize_t {
        if len > room {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::__recvfrom_chk(fd, to, len, room, flags, addr, addr_len) };
        }
        // SAFETY: our caller's promise.
        unsafe { recvfrom(fd, to, len, flags, addr, addr_len) }
    }
}

/// # Safety
/// As recv(2).
unsafe fn receive(entry: &Entry, to: *mut c_void, len: size_t, flags: c_int) -> Outcome<ssize_t> {
    let Some(socket) = entry.connected() else {
        return Ok(None);
    };
    if flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_OOB == 0 {
        return discarded(socket, len, flags);
    }
    // SAFETY: the caller's promise.
    let to = unsafe { bytes_mut(to, len) }?;
    received(socket, &mut [IoSliceMut::new(to)], flags)
}

/// Receives as recvmsg(2) does, flags and all. Flags that mean nothing to TCP mean nothing here.
pub(crate) fn received(
    socket: &Socket,
    to: &mut [IoSliceMut<'_>],
    flags: c_int,
) -> Outcome<ssize_t> {
    if flags & libc::MSG_ERRQUEUE != 0 {
        return Err(Failure::new(libc::EAGAIN, "there is no queue of errors"));
    }
    let peek = flags & libc::MSG_PEEK != 0;
    if flags & libc::MSG_OOB != 0 {
        let first = to.iter_mut().find(|piece| !piece.is_empty());
        let to = first.map_or(&mut [][..], |piece| &mut piece[..]);
        return socket.recv_urgent(to, peek).map(|len| Some(count(len)));
    }
    let flags = RecvFlags {
        nonblocking: flags & libc::MSG_DONTWAIT != 0,
        peek,
        wait_all: flags & libc::MSG_WAITALL != 0,
    };
    let received = socket.recv(to, flags);
    if let Err(failure) = &received {
        told(socket, failure);
    }
    received.map(|len| Some(count(len)))
}

/// An error that has been told is not reported by poll(2) any more.
pub(crate) fn told(socket: &Socket, failure: &Failure) {
    if matches!(failure.errno, libc::EAGAIN | libc::EINTR) {
        return;
    }
    if let Some(readiness) = socket.made_readiness() {
        // Asking takes it.
        let _ = rustix::net::sockopt::socket_error(&readiness);
    }
}

/// Bytes that TCP throws away under MSG_TRUNC are thrown away here, too.
fn discarded(socket: &Socket, len: usize, flags: c_int) -> Outcome<ssize_t> {
    const PIECE_LEN: usize = 64 << 10;
    let mut piece = vec![0; len.min(PIECE_LEN)];
    received(socket, &mut [IoSliceMut::new(&mut piece)], flags)
}

/// # Safety
/// As send(2).
unsafe fn transmit(
    entry: &Entry,
    from: *const c_void,
    len: size_t,
    flags: c_int,
) -> Outcome<ssize_t> {
    if entry.connected().is_none() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let from = unsafe { bytes(from, len) }?;
    sent(entry, &[IoSlice::new(from)], flags)
}

/// Sends as sendmsg(2) does, flags and SIGPIPE and all.
pub(crate) fn sent(entry: &Entry, from: &[IoSlice<'_>], flags: c_int) -> Outcome<ssize_t> {
    let socket = &entry.socket;
    let how = SendFlags {
        nonblocking: flags & libc::MSG_DONTWAIT != 0,
    };
    let result = if flags & libc::MSG_OOB != 0 {
        match from {
            [piece] => socket.send_urgent(piece, how),
            pieces => {
                let bytes: Vec<u8> = pieces
                    .iter()
                    .flat_map(|piece| piece.iter().copied())
                    .collect();
                socket.send_urgent(&bytes, how)
            }
        }
    } else {
        socket.send(from, how)
    };
    match result {
        Err(failure) if failure.errno == libc::EPIPE && flags & libc::MSG_NOSIGNAL == 0 => {
            // SAFETY: raise has no preconditions; the handler, if any, runs on this thread, which
            // holds no lock of this library.
            let _ = unsafe { libc::raise(libc::SIGPIPE) };
            Err(failure)
        }
        Ok(len) => {
            entry.count_sent(len);
            Ok(Some(count(len)))
        }
        Err(failure) => Err(failure),
    }
}

pub(crate) fn count(len: usize) -> ssize_t {
    ssize_t::try_from(len).unwrap_or(ssize_t::MAX)
}
