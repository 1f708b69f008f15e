//! Connections that a message passes to another process (SCM_RIGHTS), as servers do that give each to one of
//! their workers.
//!
//! Who receives the message gets what a forked child has: the other end of a pair of Unix sockets, to which
//! this process carries the bytes ([`shared`](crate::shared), [`relay`](crate::relay)). It cannot say that
//! it reads, so it is taken to do so from the first: that is what a connection is passed for.

use std::ptr;

use libc::{c_int, c_uint, mmsghdr, msghdr, ssize_t};
use sdp::posix::{Failure, guard};

use crate::boundary::{errno, set_errno};
use crate::entry::Phase;
use crate::fork::children;
use crate::log::{Level, say};
use crate::wait::can_be_read;
use crate::{real, report, table};

/// Longer control data the kernel takes from nobody.
const CONTROL_MAX: usize = 1 << 20;

/// What is sent in the place of a message's control data.
struct Passing {
    /// Aligned for headers.
    control: Vec<u64>,
    /// Both ends of each pair.
    pairs: Vec<(c_int, c_int)>,
}

/// The kernel's sendmsg(2), with what receivers can use in the place of connections by SDP. No frame here has
/// anything to drop while the kernel waits, so that a cancelled thread can be unwound.
///
/// # Safety
/// As sendmsg(2).
pub(crate) unsafe fn send(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let mut passing: *mut Passing = ptr::null_mut();
    // SAFETY: the caller's promise.
    if unsafe { names_ours(message) } {
        guard("sendmsg", || {
            // SAFETY: as above; the control data can be read.
            passing = Box::into_raw(Box::new(unsafe { Passing::of(message) }));
            Ok(0)
        });
    }
    if passing.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { real::sendmsg(fd, message, flags) };
    }
    // SAFETY: the caller's promise.
    let mut given = unsafe { message.read_unaligned() };
    // SAFETY: it came from a box above.
    given.msg_control = unsafe { (*passing).control.as_mut_ptr() }.cast();
    // SAFETY: the control data are as long as before; the rest is the caller's.
    let sent = unsafe { real::sendmsg(fd, &raw const given, flags) };
    let failed = errno();
    guard("sendmsg", || {
        // SAFETY: it came from a box above, and nobody else has it.
        let passing = unsafe { Box::from_raw(passing) };
        let mut children = children();
        for pair in &passing.pairs {
            children.end_to_pass(*pair, sent >= 0);
        }
        Ok(0)
    });
    set_errno(failed);
    sent
}

/// The same of several: one by one if one of them passes a connection on.
///
/// # Safety
/// As sendmmsg(2).
pub(crate) unsafe fn send_several(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    // More the kernel does not take at once.
    const COUNT_MAX: c_uint = 1024;
    let len = usize::try_from(count.min(COUNT_MAX)).unwrap_or(0);
    let any = report::has_spoken()
        && can_be_read(messages, len)
        && (0..len).any(|at| {
            // A header is the first thing in each.
            // SAFETY: it can be read.
            unsafe { names_ours(messages.wrapping_add(at).cast()) }
        });
    if !any {
        // SAFETY: the caller's promise.
        return unsafe { real::sendmmsg(fd, messages, count, flags) };
    }
    for at in 0..len {
        let one = messages.wrapping_add(at);
        // SAFETY: the caller's promise.
        let sent = unsafe { send(fd, one.cast(), flags) };
        let done = c_int::try_from(at).unwrap_or(c_int::MAX);
        let Ok(sent) = c_uint::try_from(sent) else {
            return if done == 0 { -1 } else { done };
        };
        // SAFETY: as above.
        unsafe { (*one).msg_len = sent };
    }
    c_int::try_from(len).unwrap_or(c_int::MAX)
}

/// Whether a message passes a descriptor of ours on.
///
/// # Safety
/// As sendmsg(2).
unsafe fn names_ours(message: *const msghdr) -> bool {
    if !report::has_spoken() || !can_be_read(message, 1) {
        return false;
    }
    // SAFETY: it can be read.
    let mut message = unsafe { message.read_unaligned() };
    let control = message.msg_control.cast::<u8>();
    let len = message.msg_controllen;
    if control.is_null() || len > CONTROL_MAX || !can_be_read(control, len) {
        return false;
    }
    let mut any = false;
    let look = |place: *mut c_int| {
        // SAFETY: it is within the control data.
        any |= table::holds(unsafe { place.read_unaligned() });
    };
    // SAFETY: the control data can be read.
    unsafe { for_each_number(&mut message, look) };
    any
}

/// Calls `visit` for the place of each descriptor in a message's control data.
///
/// # Safety
/// The control data can be read.
unsafe fn for_each_number(message: &mut msghdr, mut visit: impl FnMut(*mut c_int)) {
    let end = message.msg_control.addr() + message.msg_controllen;
    // SAFETY: the caller's promise.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !at.is_null() {
        // SAFETY: the macros above and below give headers within the control data.
        let header = unsafe { at.read_unaligned() };
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: it computes an address.
            let numbers = unsafe { libc::CMSG_DATA(at) }.cast::<c_int>();
            let room = end.saturating_sub(numbers.addr());
            let len = header.cmsg_len.saturating_sub(numbers.addr() - at.addr());
            for place in 0..len.min(room) / size_of::<c_int>() {
                visit(numbers.wrapping_add(place));
            }
        }
        // SAFETY: as the first.
        at = unsafe { libc::CMSG_NXTHDR(message, at) };
    }
}

impl Passing {
    /// # Safety
    /// The message and its control data can be read.
    unsafe fn of(message: *const msghdr) -> Self {
        // SAFETY: the caller's promise.
        let mut copied = unsafe { message.read_unaligned() };
        let len = copied.msg_controllen;
        let mut control = vec![0_u64; len.div_ceil(size_of::<u64>())];
        let (from, to) = (copied.msg_control.cast::<u8>(), control.as_mut_ptr());
        // SAFETY: both are as long, and the second is new.
        unsafe { ptr::copy_nonoverlapping(from, to.cast(), len) };
        copied.msg_control = to.cast();
        let mut pairs = Vec::new();
        let give = |place: *mut c_int| {
            // SAFETY: it is within the control data.
            let number = unsafe { place.read_unaligned() };
            if let Some(pair) = begin(number) {
                // SAFETY: as above.
                unsafe { place.write_unaligned(pair.1) };
                pairs.push(pair);
            }
        };
        // SAFETY: the control data are ours.
        unsafe { for_each_number(&mut copied, give) };
        Self { control, pairs }
    }
}

/// A pair for a number that is about to be passed on; `None` if that is the kernel's to do.
fn begin(number: c_int) -> Option<(c_int, c_int)> {
    let entry = table::get(number)?;
    let begun = match entry.phase() {
        Phase::Connected => children().begin_to_pass(&entry),
        Phase::Connecting => Err(Failure::new(libc::EINPROGRESS, "it is not connected yet")),
        _ => return None,
    };
    match begun {
        Ok(pair) => Some(pair),
        Err(failure) => {
            report::lost(1);
            say(Level::Error, || {
                let why = failure.message;
                format!("{number}: who receives it is not connected, as it is SDP's: {why}")
            });
            None
        }
    }
}
