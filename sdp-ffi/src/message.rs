//! Messages of `struct msghdr`, one or several in a call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use libc::{c_int, c_uint, mmsghdr, msghdr, socklen_t, ssize_t, timespec};

use crate::errno::Failure;
use crate::guard::cancellable;
use crate::io::{recv, send};
use crate::pointer::{
    PIECES_MAX, check_control, piece_count, read, recv_pieces, send_pieces, size,
};
use crate::process::process;
use crate::state::Socket;

/// Messages that sdp_sendmmsg() looks at, as Linux.
const MESSAGES_MAX: c_uint = 1024;
const NANOS_MAX: libc::c_long = 1_000_000_000;

/// Sends from several pieces, as sendmsg(2). The name is not looked at, as with TCP; control data
/// is checked, and has no effect.
///
/// Returns as sdp_send(); also -1 with EMSGSIZE for more than 1024 pieces, EINVAL for control data
/// that is cut off or that TCP would act on, ENOBUFS for more than 2 GiB of it.
///
/// # Safety
/// message is NULL, or one is there whose pieces are as those of sdp_writev() and whose control data
/// can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_sendmsg(
    socket: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    cancellable("sdp_sendmsg", || {
        let socket = process().sockets.get(socket)?;
        // SAFETY: our caller's promise.
        unsafe { send_one(socket, message, flags) }.map(|sent| sent.0)
    })
}

/// Receives into several pieces, as recvmsg(2). No name and no control data ever come: msg_namelen,
/// if there is room for a name, and msg_controllen become 0. msg_flags tells MSG_OOB.
///
/// Returns as sdp_recv(); also -1 with EMSGSIZE for more than 1024 pieces, EINVAL for a negative
/// msg_namelen.
///
/// # Safety
/// message is NULL, or one is there that can be written and whose pieces are as those of sdp_readv().
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_recvmsg(
    socket: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> ssize_t {
    cancellable("sdp_recvmsg", || {
        let socket = process().sockets.get(socket)?;
        // SAFETY: our caller's promise.
        unsafe { recv_one(&socket, message, flags) }
    })
}

/// Sends several messages one after the other, as sendmmsg(2), and says in msg_len how many bytes
/// of each were taken. It ends behind a message that was not taken whole. Of more than 1024 messages
/// the first ones are sent.
///
/// Returns how many messages were sent, in part or whole; or, if the first one was not, -1 as
/// sdp_sendmsg().
///
/// # Safety
/// messages is NULL, or count of them are there, each as that of sdp_sendmsg(), with a msg_len that can
/// be written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_sendmmsg(
    socket: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    cancellable("sdp_sendmmsg", || {
        let socket = process().sockets.get(socket)?;
        let count = count.min(MESSAGES_MAX);
        let mut done = 0;
        while done < count {
            let at = nth(messages, done)?;
            // SAFETY: our caller's promise: the message is within the array.
            let sent = unsafe { send_one(Arc::clone(&socket), at.cast(), flags) };
            let (sent, whole) = match sent {
                Ok(sent) => sent,
                Err(failure) if done == 0 => return Err(failure),
                Err(failure) => {
                    // What is wrong with a message says nothing of the next call, as Linux.
                    if is_of_connection(&failure) {
                        socket.keep(&failure);
                    }
                    break;
                }
            };
            // SAFETY: as above.
            unsafe { write_len(at, sent) };
            done += 1;
            if !whole {
                break;
            }
        }
        Ok(counted(done))
    })
}

/// Receives several messages one after the other, as recvmmsg(2), with msg_len the bytes of each. A
/// stream has no messages: each one is what one sdp_recvmsg() receives. flags as there, and
/// MSG_WAITFORONE: only the first is waited for. It ends when timeout, if not NULL, has passed between
/// two of them, and writes there what was left of it; and behind an urgent byte.
///
/// Returns how many messages were received; or, if there was none, -1 as sdp_recvmsg(); also EINVAL
/// for a bad time.
///
/// # Safety
/// messages is NULL, or count of them are there, each as that of sdp_recvmsg(), with a msg_len that can
/// be written; timeout is NULL, or a time is there that can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_recvmmsg(
    socket: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    cancellable("sdp_recvmmsg", || {
        // SAFETY: our caller's promise.
        let several = unsafe { Several::new(messages, count, flags, timeout) }?;
        let socket = process().sockets.get(socket)?;
        if flags & libc::MSG_OOB != 0 {
            // As Linux, though an urgent byte is received whatever has failed.
            socket.fail()?;
        }
        // SAFETY: our caller's promise: the message is within the array.
        let receive = |at, flags| unsafe { recv_one(&socket, at, flags) };
        // SAFETY: our caller's promise.
        let (done, failure) = unsafe { several.receive(receive) }?;
        if let Some(failure) = failure {
            socket.keep(&failure);
        }
        Ok(done)
    })
}

/// What recvmmsg(2) is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Several {
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    /// What is left is written there, if it is not NULL.
    timeout: *mut timespec,
    end: Option<Instant>,
}

/// Whether the connection has failed, not the call.
fn is_of_connection(failure: &Failure) -> bool {
    let errnos = [
        libc::ECONNRESET,
        libc::ECONNABORTED,
        libc::ETIMEDOUT,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
    ];
    errnos.contains(&failure.errno)
}

impl Several {
    /// The arguments of recvmmsg(2).
    ///
    /// # Errors
    /// `EINVAL` for a bad time.
    ///
    /// # Safety
    /// As [`sdp_recvmmsg`].
    pub unsafe fn new(
        messages: *mut mmsghdr,
        count: c_uint,
        flags: c_int,
        timeout: *mut timespec,
    ) -> Result<Self, Failure> {
        let end = match timeout.is_null() {
            true => None,
            // SAFETY: our caller's promise.
            false => Instant::now().checked_add(duration(unsafe { read(timeout, "the time") }?)?),
        };
        Ok(Self {
            messages,
            count,
            flags,
            timeout,
            end,
        })
    }

    /// Receives one after the other by `receive`, which is given a message and flags. Gives how many
    /// were received, and what ended it behind the first one.
    ///
    /// # Errors
    /// That of the first.
    ///
    /// # Safety
    /// As [`sdp_recvmmsg`].
    pub unsafe fn receive(
        self,
        receive: impl Fn(*mut msghdr, c_int) -> Result<ssize_t, Failure>,
    ) -> Result<(c_int, Option<Failure>), Failure> {
        let (mut flags, mut done, mut ended) = (self.flags, 0, None);
        while done < self.count {
            let at = nth(self.messages, done)?;
            let received = match receive(at.cast(), flags & !libc::MSG_WAITFORONE) {
                Ok(received) => received,
                Err(failure) if done == 0 => return Err(failure),
                Err(failure) => {
                    ended = Some(failure);
                    break;
                }
            };
            // SAFETY: our caller's promise.
            unsafe { write_len(at, received) };
            done += 1;
            if flags & libc::MSG_WAITFORONE != 0 {
                flags |= libc::MSG_DONTWAIT;
            }
            let late = self.end.is_some_and(|end| Instant::now() >= end);
            if late || flags & libc::MSG_OOB != 0 {
                break;
            }
        }
        if let (Some(end), true) = (self.end, done > 0) {
            let left = end.saturating_duration_since(Instant::now());
            // SAFETY: our caller's promise; it is not NULL, or there would be no end.
            unsafe { self.timeout.write_unaligned(time(left)) };
        }
        Ok((counted(done), ended))
    }
}

/// Sends one message: the bytes taken, and whether these are all.
///
/// # Safety
/// As [`sdp_sendmsg`].
unsafe fn send_one(
    socket: Arc<Socket>,
    at: *const msghdr,
    flags: c_int,
) -> Result<(ssize_t, bool), Failure> {
    // SAFETY: our caller's promise.
    let message = unsafe { read(at, "the message") }?;
    named(&message)?;
    // SAFETY: our caller's promise.
    let count = unsafe { pieces_of(&message) }?;
    // SAFETY: our caller's promise.
    let pieces = unsafe { send_pieces(message.msg_iov, count) };
    let control_len = size(message.msg_controllen);
    if c_int::try_from(control_len).is_err() {
        let words = format!("{control_len} bytes of control data");
        return Err(Failure::new(libc::ENOBUFS, words));
    }
    if control_len > 0 && message.msg_control.is_null() {
        return Err(Failure::null("the control data"));
    }
    let mut whole = 0;
    let sent = send(socket, flags, || {
        // SAFETY: our caller's promise.
        unsafe { check_control(message.msg_control, control_len) }?;
        let pieces = pieces?;
        whole = pieces.iter().map(|piece| piece.len()).sum();
        Ok(pieces)
    })?;
    Ok((sent, size(sent) == whole))
}

/// # Safety
/// As [`sdp_recvmsg`].
unsafe fn recv_one(socket: &Socket, at: *mut msghdr, flags: c_int) -> Result<ssize_t, Failure> {
    // SAFETY: our caller's promise.
    let mut message = unsafe { read(at, "the message") }?;
    named(&message)?;
    // SAFETY: our caller's promise.
    let count = unsafe { pieces_of(&message) }?;
    // SAFETY: our caller's promise.
    let pieces = unsafe { recv_pieces(message.msg_iov, count) };
    let received = recv(socket, flags, || pieces)?;
    if !message.msg_name.is_null() {
        message.msg_namelen = 0;
    }
    message.msg_controllen = 0;
    // As Linux: what the call was told of descriptors, and what came.
    message.msg_flags = flags & libc::MSG_CMSG_CLOEXEC;
    if flags & libc::MSG_OOB != 0 {
        message.msg_flags |= match received {
            0 => libc::MSG_TRUNC,
            _ => libc::MSG_OOB,
        };
    }
    // SAFETY: our caller's promise.
    unsafe { at.write_unaligned(message) };
    Ok(received)
}

/// # Errors
/// `EINVAL` for a name of negative length.
fn named(message: &msghdr) -> Result<(), Failure> {
    const LEN_MAX: socklen_t = socklen_t::MAX / 2;
    if !message.msg_name.is_null() && message.msg_namelen > LEN_MAX {
        return Err(Failure::new(libc::EINVAL, "a name of negative length"));
    }
    Ok(())
}

/// # Safety
/// The array of pieces is NULL, or as long as the message says.
unsafe fn pieces_of(message: &msghdr) -> Result<c_int, Failure> {
    let count = size(message.msg_iovlen);
    let few = c_int::try_from(count).ok().filter(|_| count <= PIECES_MAX);
    let few = few.ok_or_else(|| {
        let words = format!("{count} pieces: {PIECES_MAX} at most");
        Failure::new(libc::EMSGSIZE, words)
    })?;
    // SAFETY: the caller's promise.
    unsafe { piece_count(message.msg_iov, few) }?;
    Ok(few)
}

/// The message of that number.
fn nth(messages: *mut mmsghdr, at: c_uint) -> Result<*mut mmsghdr, Failure> {
    if messages.is_null() {
        return Err(Failure::null("the array of messages"));
    }
    Ok(messages.wrapping_add(size(at)))
}

/// # Safety
/// A writable message at `at`.
unsafe fn write_len(at: *mut mmsghdr, len: ssize_t) {
    let place = at.wrapping_byte_add(std::mem::offset_of!(mmsghdr, msg_len));
    let len = c_uint::try_from(len).unwrap_or(c_uint::MAX);
    // SAFETY: our caller's promise: it is a field of the message.
    unsafe { place.cast::<c_uint>().write_unaligned(len) };
}

fn counted(count: c_uint) -> c_int {
    c_int::try_from(count).unwrap_or(c_int::MAX)
}

/// # Errors
/// `EINVAL` for what is no time.
pub(crate) fn duration(time: timespec) -> Result<Duration, Failure> {
    let seconds = u64::try_from(time.tv_sec).ok();
    let nanos = u32::try_from(time.tv_nsec).ok();
    let valid = (0..NANOS_MAX).contains(&time.tv_nsec);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) if valid => Ok(Duration::new(seconds, nanos)),
        _ => {
            let words = format!("a time of {} s and {} ns", time.tv_sec, time.tv_nsec);
            Err(Failure::new(libc::EINVAL, words))
        }
    }
}

fn time(left: Duration) -> timespec {
    timespec {
        tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}
