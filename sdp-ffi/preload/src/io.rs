//! Sending and receiving.

use libc::{
    c_int, c_uint, c_void, iovec, mmsghdr, msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t,
    timespec,
};
use sdp::posix::{Failure, Several, cancellable};

use crate::boundary::{Sends, checked, handle, interpose, reading, sending, set_errno};
use crate::{passing, real, report, table};

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
        let Some(handle) = reading(fd) else {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::recvfrom(fd, to, len, flags, addr, addr_len) };
        };
        if flags & libc::MSG_ERRQUEUE != 0 {
            return no_error_queue();
        }
        if flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_OOB == 0 {
            return cancellable("recv", || discard(handle, len, flags));
        }
        // SAFETY: our caller's promise.
        unsafe { sdp::sdp_recvfrom(handle, to, len, flags & RECV_FLAGS, addr, addr_len) }
    }

    raw fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
        match reading(fd) {
            Some(_) if flags & libc::MSG_ERRQUEUE != 0 => no_error_queue(),
            Some(handle) if flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_OOB == 0 => {
                // SAFETY: our caller's promise.
                cancellable("recvmsg", || unsafe { discard_message(handle, message, flags) })
            }
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
        match reading(fd) {
            Some(_) if flags & libc::MSG_ERRQUEUE != 0 && count > 0 => {
                c_int::try_from(no_error_queue()).unwrap_or(-1)
            }
            Some(handle) if flags & libc::MSG_TRUNC != 0 && flags & libc::MSG_OOB == 0 => {
                cancellable("recvmmsg", || {
                    // SAFETY: our caller's promise.
                    let several = unsafe { Several::new(messages, count, flags & known, time) }?;
                    // SAFETY: our caller's promise.
                    unsafe { discard_several(fd, handle, several) }
                })
            }
            // SAFETY: our caller's promise.
            Some(handle) => unsafe {
                sdp::sdp_recvmmsg(handle, messages, count, flags & known, time)
            },
            // SAFETY: what our caller promised to the C library's function.
            None => unsafe { real::recvmmsg(fd, messages, count, flags, time) },
        }
    }

    raw fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
        match sending(fd, 0) {
            // SAFETY: our caller's promise.
            Sends::Sdp(handle) => counted(unsafe { sdp::sdp_write(handle, from, len) }),
            Sends::Nobody => -1,
            // SAFETY: what our caller promised to the C library's function.
            Sends::Kernel => unsafe { real::write(fd, from, len) },
        }
    }

    raw fn writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t {
        match sending(fd, 0) {
            // SAFETY: our caller's promise.
            Sends::Sdp(handle) => counted(unsafe { sdp::sdp_writev(handle, pieces, count) }),
            Sends::Nobody => -1,
            // SAFETY: what our caller promised to the C library's function.
            Sends::Kernel => unsafe { real::writev(fd, pieces, count) },
        }
    }

    raw fn send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t {
        match sending(fd, flags) {
            // SAFETY: our caller's promise.
            Sends::Sdp(handle) => counted(unsafe { sdp::sdp_send(handle, from, len, flags & SEND_FLAGS) }),
            Sends::Nobody => -1,
            // SAFETY: what our caller promised to the C library's function.
            Sends::Kernel => unsafe { real::send(fd, from, len, flags) },
        }
    }

    raw fn sendto(
        fd: c_int, from: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr,
        addr_len: socklen_t,
    ) -> ssize_t {
        let handle = match sending(fd, flags) {
            Sends::Sdp(handle) => handle,
            Sends::Nobody => return -1,
            // SAFETY: what our caller promised to the C library's function.
            Sends::Kernel => return unsafe { real::sendto(fd, from, len, flags, addr, addr_len) },
        };
        // SAFETY: our caller's promise.
        counted(unsafe { sdp::sdp_sendto(handle, from, len, flags & SEND_FLAGS, addr, addr_len) })
    }

    raw fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
        match sending(fd, flags) {
            // SAFETY: our caller's promise.
            Sends::Sdp(handle) => counted(unsafe { sdp::sdp_sendmsg(handle, message, flags & SEND_FLAGS) }),
            Sends::Nobody => -1,
            // SAFETY: our caller's promise.
            Sends::Kernel => unsafe { passing::send(fd, message, flags) },
        }
    }

    raw fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
        let handle = match sending(fd, flags) {
            Sends::Sdp(handle) => handle,
            Sends::Nobody => return -1,
            // SAFETY: our caller's promise.
            Sends::Kernel => return unsafe { passing::send_several(fd, messages, count, flags) },
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
        match sending(fd, 0) {
            // SAFETY: our caller's promise.
            Sends::Sdp(handle) => counted(unsafe { sdp::sdp_sendfile(handle, from, offset, len) }),
            Sends::Nobody => -1,
            // SAFETY: what our caller promised to the C library's function.
            Sends::Kernel => unsafe { real::sendfile(fd, from, offset, len) },
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

/// Bytes that are thrown away at once.
const PIECE_LEN: usize = 1 << 16;
/// Bytes that a peek counts at most.
const PEEK_MAX: usize = 1 << 20;

/// Bytes that TCP throws away under MSG_TRUNC are thrown away here, too.
fn discard(handle: c_int, len: usize, flags: c_int) -> Result<ssize_t, Failure> {
    let flags = flags & RECV_FLAGS;
    throw_away(handle, len, flags, |piece| {
        // SAFETY: the memory is ours, and as long.
        unsafe { sdp::sdp_recv(handle, piece.as_mut_ptr().cast(), piece.len(), flags) }
    })
}

/// The same of a message, whose pieces say how many. What libsdp says of the message is the caller's.
///
/// # Safety
/// As recvmsg(2).
unsafe fn discard_message(
    handle: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> Result<ssize_t, Failure> {
    let flags = flags & RECV_FLAGS;
    // SAFETY: the caller's promise.
    let len = unsafe { len_of(message) };
    let Some(len) = len else {
        // SAFETY: the caller's promise. It has something wrong, which is said there.
        return checked(unsafe { sdp::sdp_recvmsg(handle, message, flags) });
    };
    throw_away(handle, len, flags, |piece| {
        let mut whole = iovec {
            iov_base: piece.as_mut_ptr().cast(),
            iov_len: piece.len(),
        };
        // SAFETY: the caller's promise.
        let theirs = unsafe { message.read_unaligned() };
        let mut ours = theirs;
        ours.msg_iov = &raw mut whole;
        ours.msg_iovlen = 1;
        // SAFETY: the memory is ours, and as long.
        let received = unsafe { sdp::sdp_recvmsg(handle, &raw mut ours, flags) };
        if received >= 0 {
            ours.msg_iov = theirs.msg_iov;
            ours.msg_iovlen = theirs.msg_iovlen;
            // SAFETY: the caller's promise.
            unsafe { message.write_unaligned(ours) };
        }
        received
    })
}

/// The same of several messages.
///
/// # Safety
/// As recvmmsg(2).
unsafe fn discard_several(fd: c_int, handle: c_int, several: Several) -> Result<c_int, Failure> {
    // SAFETY: the caller's promise: the message is within the array.
    let discard = |message, flags| unsafe { discard_message(handle, message, flags) };
    // SAFETY: the caller's promise.
    let (done, failure) = unsafe { several.receive(discard) }?;
    if let (Some(failure), Some(entry)) = (failure, table::get(fd)) {
        entry.socket()?.keep(&failure);
    }
    Ok(done)
}

/// The bytes of a message's pieces; `None` if it is not one that libsdp would take.
///
/// # Safety
/// As recvmsg(2).
unsafe fn len_of(message: *const msghdr) -> Option<usize> {
    const PIECES_MAX: usize = 1024;
    if message.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let message = unsafe { message.read_unaligned() };
    let count = message.msg_iovlen;
    if count > PIECES_MAX || (count > 0 && message.msg_iov.is_null()) {
        return None;
    }
    let mut len: usize = 0;
    for at in 0..count {
        // SAFETY: the caller's promise: as many pieces are there.
        let piece = unsafe { message.msg_iov.wrapping_add(at).read_unaligned() };
        len = len.saturating_add(piece.iov_len);
    }
    Some(len)
}

/// Receives into memory of our own until there are `len` bytes or, unless MSG_WAITALL is set, no
/// more lie there. A peek takes nothing, so it is one receive. It must not be unwound by a cancelled
/// thread, or the memory would be lost.
fn throw_away(
    handle: c_int,
    len: usize,
    flags: c_int,
    mut receive: impl FnMut(&mut [u8]) -> ssize_t,
) -> Result<ssize_t, Failure> {
    let peeks = flags & libc::MSG_PEEK != 0;
    let mut piece = vec![0; len.min(if peeks { PEEK_MAX } else { PIECE_LEN })];
    let mut done = 0;
    loop {
        let room = (len - done).min(piece.len());
        let count = match checked(receive(&mut piece[..room])) {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            // Some have been received, and a failure of the connection goes on.
            Err(_) if done > 0 => 0,
            Err(failure) => return Err(failure),
        };
        done += count;
        let waits = flags & libc::MSG_WAITALL != 0;
        let is_over = if waits {
            count < room
        } else {
            !is_readable(handle)
        };
        if peeks || count == 0 || done == len || is_over {
            return Ok(ssize_t::try_from(done).unwrap_or(ssize_t::MAX));
        }
    }
}

/// Whether bytes lie there.
fn is_readable(handle: c_int) -> bool {
    let mut count: c_int = 0;
    let to = (&raw mut count).cast();
    // SAFETY: the command writes an int, which is ours.
    let asked = unsafe { sdp::sdp_ioctl(handle, libc::FIONREAD, to) };
    asked == 0 && count > 0
}
