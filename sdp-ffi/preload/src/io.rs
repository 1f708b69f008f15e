//! Sending and receiving.

use libc::{
    c_int, c_uint, c_void, iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t,
    timespec,
};

use crate::boundary::{checked, handle, interpose, set_errno};
use crate::{real, report};

/// Flags that libsdp knows. Of the others Linux's TCP takes no notice, so they are left out here.
const SEND_FLAGS: c_int =
    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | libc::MSG_OOB | libc::MSG_MORE | libc::MSG_EOR;
const RECV_FLAGS: c_int = libc::MSG_DONTWAIT
    | libc::MSG_NOSIGNAL
    | libc::MSG_PEEK
    | libc::MSG_WAITALL
    | libc::MSG_OOB
    | libc::MSG_CMSG_CLOEXEC;

interpose! {
    sdp fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t = sdp_read;
    sdp fn readv(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t = sdp_readv;

    fn sockatmark(fd: c_int) -> c_int |entry| {
        if !entry.is_sdps() {
            return Ok(None);
        }
        checked(sdp::sdp_sockatmark(entry.handle())).map(Some)
    }

    raw fn recv(fd: c_int, to: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
        // SAFETY: our caller's promise.
        unsafe { recvfrom(fd, to, len, flags, std::ptr::null_mut(), std::ptr::null_mut()) }
    }

    raw fn recvfrom(
        fd: c_int, to: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr,
        addr_len: *mut socklen_t,
    ) -> ssize_t {
        let Some(handle) = handle(fd) else {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::recvfrom(fd, to, len, flags, addr, addr_len) };
        };
        if flags & libc::MSG_ERRQUEUE != 0 {
            return no_error_queue();
        }
        if flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_OOB == 0 {
            return discard(handle, len, flags);
        }
        // SAFETY: our caller's promise.
        unsafe { sdp::sdp_recvfrom(handle, to, len, flags & RECV_FLAGS, addr, addr_len) }
    }

    raw fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        match handle(fd) {
            Some(_) if flags & libc::MSG_ERRQUEUE != 0 => no_error_queue(),
            // SAFETY: our caller's promise.
            Some(handle) => unsafe { sdp::sdp_recvmsg(handle, message, flags & RECV_FLAGS) },
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::recvmsg(fd, message, flags) },
        }
    }

    raw fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, time: *mut timespec,
    ) -> c_int {
        let known = RECV_FLAGS | libc::MSG_WAITFORONE;
        match handle(fd) {
            // SAFETY: our caller's promise.
            Some(handle) => unsafe {
                sdp::sdp_recvmmsg(handle, messages, count, flags & known, time)
            },
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::recvmmsg(fd, messages, count, flags, time) },
        }
    }

    raw fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
        match handle(fd) {
            // SAFETY: our caller's promise.
            Some(handle) => counted(unsafe { sdp::sdp_write(handle, from, len) }),
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::write(fd, from, len) },
        }
    }

    raw fn writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
        match handle(fd) {
            // SAFETY: our caller's promise.
            Some(handle) => counted(unsafe { sdp::sdp_writev(handle, pieces, count) }),
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::writev(fd, pieces, count) },
        }
    }

    raw fn send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t {
        match handle(fd) {
            // SAFETY: our caller's promise.
            Some(handle) => counted(unsafe { sdp::sdp_send(handle, from, len, flags & SEND_FLAGS) }),
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::send(fd, from, len, flags) },
        }
    }

    raw fn sendto(
        fd: c_int, from: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr,
        addr_len: socklen_t,
    ) -> ssize_t {
        let Some(handle) = handle(fd) else {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::sendto(fd, from, len, flags, addr, addr_len) };
        };
        // SAFETY: our caller's promise.
        counted(unsafe { sdp::sdp_sendto(handle, from, len, flags & SEND_FLAGS, addr, addr_len) })
    }

    raw fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
        match handle(fd) {
            // SAFETY: our caller's promise.
            Some(handle) => counted(unsafe { sdp::sdp_sendmsg(handle, message, flags & SEND_FLAGS) }),
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::sendmsg(fd, message, flags) },
        }
    }

    raw fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        let Some(handle) = handle(fd) else {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::sendmmsg(fd, messages, count, flags) };
        };
        // SAFETY: our caller's promise.
        let sent = unsafe { sdp::sdp_sendmmsg(handle, messages, count, flags & SEND_FLAGS) };
        for at in 0..usize::try_from(sent).unwrap_or(0) {
            // SAFETY: our caller's promise: as many messages are there.
            let message = unsafe { messages.add(at) };
            // SAFETY: as above; it has been written.
            report::sent(unsafe { (*message).msg_len }.into());
        }
        sent
    }

    raw fn sendfile(fd: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
        match handle(fd) {
            // SAFETY: our caller's promise.
            Some(handle) => counted(unsafe { sdp::sdp_sendfile(handle, from, offset, len) }),
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::sendfile(fd, from, offset, len) },
        }
    }

    /// The same function where files are long.
    raw fn sendfile64(fd: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
        // SAFETY: our caller's promise.
        unsafe { sendfile(fd, from, offset, len) }
    }

    /// The kernel cannot: what it says of a descriptor that has no pages to move.
    raw fn splice(
        from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, len: size_t, flags: c_uint,
    ) -> ssize_t {
        if handle(from).or_else(|| handle(to)).is_some() {
            set_errno(libc::EINVAL);
            return -1;
        }
        // SAFETY: what our caller promised to the C library's function.
        unsafe { real::splice(from, from_at, to, to_at, len, flags) }
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

/// What a send gave.
fn counted(sent: ssize_t) -> ssize_t {
    report::sent(u64::try_from(sent).unwrap_or(0));
    sent
}

fn no_error_queue() -> ssize_t {
    set_errno(libc::EAGAIN);
    -1
}

/// Bytes that TCP throws away under MSG_TRUNC are thrown away here, too.
fn discard(handle: c_int, len: usize, flags: c_int) -> ssize_t {
    let mut piece = [0_u8; 4096];
    let len = len.min(piece.len());
    // SAFETY: the memory is ours, and as long.
    unsafe { sdp::sdp_recv(handle, piece.as_mut_ptr().cast(), len, flags & RECV_FLAGS) }
}
