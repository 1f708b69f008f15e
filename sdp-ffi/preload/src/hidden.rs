//! Descriptors of this library's own: to the program they are not open. It can neither close them, as
//! daemons close all that there may be, nor make something else of their numbers.
//!
//! Whatever closes one inside a call, or on a thread of this library, is this library. A child of vfork
//! has a table of its own, of which nothing is ours; that of a child of fork is asked for as little, since
//! what its parent has hidden is of no use to it.

use std::sync::Once;

use libc::{c_int, c_uint};
use sdp::posix::{Failure, guard};
use sdp_socket::{hidden, inside};

use crate::boundary::{errno, set_errno};
use crate::log::{Level, say};
use crate::{real, table};

/// Whether a number that the program names is ours, and so is not open to it.
pub(crate) fn is_ours(fd: c_int) -> bool {
    hidden::is_hidden(fd) && !inside::is_inside() && is_owner()
}

/// The same in passing, before a number is closed: one that this library closes is not hidden any more.
pub(crate) fn keeps(fd: c_int) -> bool {
    if !hidden::is_hidden(fd) {
        return false;
    }
    if inside::is_inside() {
        hidden::forget(fd);
        return false;
    }
    is_owner()
}

fn is_owner() -> bool {
    let before = errno();
    let is_owner = table::is_owner();
    set_errno(before);
    is_owner
}

/// A dup2(2) fails whose second number is ours, by the errno that Linux has for one that meets another that is
/// just being opened.
pub(crate) fn refuse(from: c_int, to: c_int) -> c_int {
    static SAID: Once = Once::new();
    // SAFETY: the command takes no argument.
    if is_ours(from) || unsafe { real::fcntl(from, libc::F_GETFD, 0) } < 0 {
        set_errno(libc::EBADF);
        return -1;
    }
    SAID.call_once(|| {
        guard("dup2", || {
            say(Level::Error, || {
                format!("{to}: dup2 fails (EBUSY): a descriptor of this library has that number")
            });
            Ok(0)
        });
    });
    guard("dup2", || {
        Err(Failure::new(
            libc::EBUSY,
            "a descriptor of this library has that number",
        ))
    })
}

/// Ranges from `first` to `last` that have none of ours.
pub(crate) fn others(first: c_uint, last: c_uint) -> impl Iterator<Item = (c_uint, c_uint)> {
    let number = |n: c_uint| c_int::try_from(n).unwrap_or(c_int::MAX);
    let is_ours = !inside::is_inside() && is_owner();
    let ours = hidden::within(number(first), number(last)).filter(move |_| is_ours);
    let ours = ours.map(|fd| Some(fd.unsigned_abs())).chain([None]);
    ours.scan(Some(first), move |next, ours| {
        let from = (*next)?;
        *next = ours.map(|fd| fd + 1);
        let to = match ours {
            Some(fd) => fd.checked_sub(1),
            None => Some(last),
        };
        Some(to.filter(|to| from <= *to).map(|to| (from, to)))
    })
    .flatten()
}

/// Closes a range, as far as it is the program's.
///
/// # Safety
/// As close_range(2).
pub(crate) unsafe fn close_others(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    for (from, to) in others(first, last) {
        // SAFETY: the caller's promise.
        let result = unsafe { real::close_range(from, to, flags) };
        if result != 0 {
            return result;
        }
    }
    0
}
