//! sendmsg(2), recvmsg(2), and many of them in one call.

use std::ptr;
use std::time::Instant;

use libc::{c_int, c_uint, mmsghdr, msghdr, ssize_t, timespec};
use sdp::posix::{Failure, recv_pieces, send_pieces};

use crate::boundary::{Outcome, interpose};
use crate::entry::Entry;
use crate::io::{received, sent};

interpose! {
    wait fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        unsafe { send_one(entry, message, flags) }
    }

    wait fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        unsafe { receive_one(entry, message, flags) }
    }

    wait fn sendmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int,
    ) -> c_int |entry| {
        if entry.connected().is_none() {
            return Ok(None);
        }
        let one = |message: *mut msghdr| {
            // SAFETY: our caller's promise.
            unsafe { send_one(entry, message, flags) }
        };
        // SAFETY: our caller's promise.
        unsafe { each(messages, count, || false, one) }
    }

    wait fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, time: *mut timespec,
    ) -> c_int |entry| {
        if entry.connected().is_none() {
            return Ok(None);
        }
        // As the kernel: looked at after each message only.
        // SAFETY: our caller's promise.
        let limit = unsafe { time.as_ref() }.map(|time| {
            let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
            let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
            std::time::Duration::new(seconds, nanos)
        });
        let start = Instant::now();
        let is_over = || limit.is_some_and(|limit| start.elapsed() >= limit);
        let mut flags = flags;
        let one = |message: *mut msghdr| {
            // SAFETY: our caller's promise.
            let received = unsafe { receive_one(entry, message, flags & !libc::MSG_WAITFORONE) };
            if flags & libc::MSG_WAITFORONE != 0 {
                flags |= libc::MSG_DONTWAIT;
            }
            received
        };
        // SAFETY: our caller's promise.
        unsafe { each(messages, count, is_over, one) }
    }
}

/// # Safety
/// As sendmmsg(2) or recvmmsg(2).
unsafe fn each(
    messages: *mut mmsghdr,
    count: c_uint,
    is_over: impl Fn() -> bool,
    mut carry_out: impl FnMut(*mut msghdr) -> Outcome<ssize_t>,
) -> Outcome<c_int> {
    /// As in Linux.
    const MESSAGES_MAX: c_uint = 1024;
    let mut done = 0;
    for at in 0..count.min(MESSAGES_MAX) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        // SAFETY: the caller's promise.
        let message = unsafe { messages.add(at) };
        // SAFETY: the caller's promise.
        let header = unsafe { &raw mut (*message).msg_hdr };
        match carry_out(header) {
            Ok(Some(len)) => {
                // SAFETY: the caller's promise.
                let place = unsafe { &raw mut (*message).msg_len };
                // SAFETY: the caller's promise.
                unsafe { place.write(c_uint::try_from(len).unwrap_or(0)) };
                done += 1;
                // The end of the stream, and every message would say so.
                if len == 0 || is_over() {
                    break;
                }
            }
            Ok(None) => break,
            Err(failure) if done == 0 => return Err(failure),
            // Said by the next call.
            Err(_) => break,
        }
    }
    Ok(Some(done))
}

/// # Safety
/// As sendmsg(2).
unsafe fn send_one(entry: &Entry, message: *const msghdr, flags: c_int) -> Outcome<ssize_t> {
    if entry.connected().is_none() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let header = unsafe { header_of(message) }?;
    if header.msg_controllen > 0 && !header.msg_control.is_null() {
        return Err(Failure::new(
            libc::EOPNOTSUPP,
            "nothing but bytes goes by SDP",
        ));
    }
    // SAFETY: the caller's promise.
    let pieces = unsafe { send_pieces(header.msg_iov, pieces_of(&header)?) }?;
    sent(entry, &pieces, flags)
}

/// # Safety
/// As recvmsg(2).
unsafe fn receive_one(entry: &Entry, message: *mut msghdr, flags: c_int) -> Outcome<ssize_t> {
    let Some(socket) = entry.connected() else {
        return Ok(None);
    };
    // SAFETY: the caller's promise.
    let header = unsafe { header_of(message) }?;
    // SAFETY: the caller's promise.
    let mut pieces = unsafe { recv_pieces(header.msg_iov, pieces_of(&header)?) }?;
    let len = received(socket, &mut pieces, flags)?;
    let told = msghdr {
        // Streams name no sender, as with TCP.
        msg_namelen: 0,
        msg_controllen: 0,
        msg_flags: flags & libc::MSG_OOB,
        ..header
    };
    // SAFETY: the caller's promise.
    unsafe { message.write_unaligned(told) };
    Ok(len)
}

/// # Safety
/// Not NULL: a message is there.
unsafe fn header_of(message: *const msghdr) -> Result<msghdr, Failure> {
    if ptr::eq(message, ptr::null()) {
        return Err(Failure::new(libc::EFAULT, "the message is NULL"));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { message.read_unaligned() })
}

fn pieces_of(header: &msghdr) -> Result<c_int, Failure> {
    let count = c_int::try_from(header.msg_iovlen).ok();
    let count = count.filter(|count| *count <= libc::UIO_MAXIOV);
    count.ok_or_else(|| Failure::new(libc::EMSGSIZE, "too many pieces"))
}
