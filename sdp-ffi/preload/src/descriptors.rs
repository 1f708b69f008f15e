//! Descriptors: what closes them, makes more of them, and what the kernel keeps with them.

use libc::{c_int, c_uint, c_ulong, c_void};
use sdp::posix::guard;

use crate::boundary::{Outcome, checked, errno, interpose, set_errno};
use crate::entry::{Entry, Phase};
use crate::{hidden, real, report, table};

interpose! {
    raw fn close(fd: c_int) -> c_int {
        if hidden::keeps(fd) {
            set_errno(libc::EBADF);
            return -1;
        }
        forget(fd);
        // SAFETY: what our caller promised to the C library's function.
        unsafe { real::close(fd) }
    }

    raw fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
        // CLOSE_RANGE_CLOEXEC closes nothing.
        if flags.cast_unsigned() & libc::CLOSE_RANGE_CLOEXEC == 0 {
            forget_all(first, last);
            if first <= last && hidden::others(first, last).next() != Some((first, last)) {
                // SAFETY: what our caller promised to the C library's function.
                return unsafe { hidden::close_others(first, last, flags) };
            }
        }
        // SAFETY: what our caller promised to the C library's function.
        unsafe { real::close_range(first, last, flags) }
    }

    raw fn closefrom(first: c_int) {
        let from = first.max(0).cast_unsigned();
        forget_all(from, c_uint::MAX);
        for (from, to) in hidden::others(from, c_uint::MAX) {
            // SAFETY: what our caller promised to the C library's function.
            unsafe { close_all(from, to) };
        }
    }

    raw fn dup(fd: c_int) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        also(fd, unsafe { real::dup(fd) })
    }

    raw fn dup2(fd: c_int, to: c_int) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        replace(fd, to, || unsafe { real::dup2(fd, to) })
    }

    raw fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        replace(fd, to, || unsafe { real::dup3(fd, to, flags) })
    }

    raw fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
        // SAFETY: our caller's promise.
        unsafe { control(fd, command, argument, real::fcntl) }
    }

    raw fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
        // SAFETY: our caller's promise.
        unsafe { control(fd, command, argument, real::fcntl64) }
    }

    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int |entry| {
        // SAFETY: our caller's promise.
        unsafe { ioctl_of(entry, fd, request, argument.cast()) }
    }

    /// The end of a process that does not go through exit(3).
    raw fn _exit(status: c_int) {
        report::write();
        // SAFETY: no preconditions.
        unsafe { real::_exit(status) };
    }

    raw fn _Exit(status: c_int) {
        report::write();
        // SAFETY: no preconditions.
        unsafe { real::_Exit(status) };
    }
}

/// The program closes a number. A child of vfork closes its own, and has our table only lent.
fn forget(fd: c_int) {
    if table::holds(fd) && table::is_owner() {
        let before = errno();
        guard("close", || {
            table::remove(fd);
            Ok(0)
        });
        set_errno(before);
    }
}

fn forget_all(first: c_uint, last: c_uint) {
    let number = |n: c_uint| c_int::try_from(n).unwrap_or(c_int::MAX);
    for fd in table::within(number(first), number(last)) {
        forget(fd);
    }
}

/// As closefrom(3), up to a number.
///
/// # Safety
/// As closefrom(3).
unsafe fn close_all(from: c_uint, to: c_uint) {
    let number = |n: c_uint| c_int::try_from(n).unwrap_or(c_int::MAX);
    if to == c_uint::MAX {
        // SAFETY: the caller's promise.
        unsafe { real::closefrom(number(from)) };
        return;
    }
    // SAFETY: the caller's promise.
    if unsafe { real::close_range(from, to, 0) } == 0 {
        return;
    }
    // Linux before 5.9 has no such call. The end is a number of ours, so they are not many.
    for fd in number(from)..=number(to) {
        // SAFETY: the caller's promise.
        unsafe { real::close(fd) };
    }
}

/// `to` becomes another name of `from`.
fn replace(from: c_int, to: c_int, kernels: impl FnOnce() -> c_int) -> c_int {
    if hidden::is_ours(to) {
        return hidden::refuse(from, to);
    }
    if from == to {
        return kernels();
    }
    let turns_nonblocking = turns_nonblocking(from, to);
    forget_if_open(from, to);
    let new = also(from, kernels());
    if new >= 0 && turns_nonblocking {
        let on = c_ulong::from(libc::O_NONBLOCK.cast_unsigned());
        // SAFETY: the command takes flags. One that fails leaves what POSIX would have.
        unsafe { control(new, libc::F_SETFL, on, real::fcntl) };
    }
    new
}

/// Whether `from`, which waits, is not to wait any more because `to` does not. Java (`com.sun.sdp.conf`)
/// puts new sockets of SDP's own family in the place of TCP's, and forgets that those did not wait: its
/// HTTP client would hang in the first read that finds nothing.
fn turns_nonblocking(from: c_int, to: c_int) -> bool {
    if !table::holds(from) || !table::holds(to) || !table::is_owner() {
        return false;
    }
    let is_so = guard("dup", || {
        let (Some(from), Some(to)) = (table::get(from), table::get(to)) else {
            return Ok(0);
        };
        let both_new = [&from, &to].iter().all(|it| it.phase() == Phase::New);
        let differ = to.is_nonblocking() && !from.is_nonblocking();
        Ok(c_int::from(
            both_new && differ && from.by_name && !to.by_name,
        ))
    });
    is_so == 1
}

/// `to` is about to become another name of `from`, which closes it, unless there is no `from`.
fn forget_if_open(from: c_int, to: c_int) {
    if table::holds(to) {
        // SAFETY: the command takes no argument.
        let flags = unsafe { real::fcntl(from, libc::F_GETFD, 0) };
        if flags >= 0 {
            forget(to);
        }
    }
}

/// `new`, which the kernel has made of `fd`, is the same socket.
fn also(fd: c_int, new: c_int) -> c_int {
    if new < 0 || new == fd || !table::holds(fd) || !table::is_owner() {
        return new;
    }
    guard("dup", || {
        if let Some(entry) = table::get(fd) {
            table::insert(new, &entry);
            // What a child is about to execute reads it, and cannot say so.
            if new == libc::STDIN_FILENO {
                entry.ask();
            }
        }
        Ok(new)
    })
}

type Fcntl = unsafe fn(c_int, c_int, c_ulong) -> c_int;

/// # Safety
/// As fcntl(2).
unsafe fn control(fd: c_int, command: c_int, argument: c_ulong, kernels: Fcntl) -> c_int {
    if !table::holds(fd) {
        // SAFETY: the caller's promise.
        return unsafe { kernels(fd, command, argument) };
    }
    let nonblocking = c_ulong::from(libc::O_NONBLOCK.cast_unsigned());
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            // SAFETY: the caller's promise.
            also(fd, unsafe { kernels(fd, command, argument) })
        }
        libc::F_SETFL => guard("fcntl", || {
            let on = argument & nonblocking != 0;
            // SAFETY: the caller's promise.
            let kernels = || checked(unsafe { kernels(fd, command, argument) });
            match table::get(fd) {
                Some(entry) => entry.set_nonblocking(on, kernels),
                None => kernels(),
            }
        }),
        libc::F_GETFL => guard("fcntl", || {
            // SAFETY: the caller's promise.
            let flags = checked(unsafe { kernels(fd, command, argument) })?;
            Ok(match table::get(fd) {
                Some(entry) if entry.relayed().is_some() => flags,
                Some(entry) if entry.is_nonblocking() => flags | libc::O_NONBLOCK,
                Some(_) => flags & !libc::O_NONBLOCK,
                None => flags,
            })
        }),
        // SAFETY: the caller's promise.
        _ => unsafe { kernels(fd, command, argument) },
    }
}

/// # Safety
/// As ioctl(2), of a request that takes an int.
unsafe fn ioctl_of(
    entry: &Entry,
    fd: c_int,
    request: c_ulong,
    argument: *mut c_int,
) -> Outcome<c_int> {
    if request == c_ulong::from(libc::FIONBIO) && !argument.is_null() {
        // SAFETY: the caller's promise.
        let on = unsafe { argument.read_unaligned() } != 0;
        // SAFETY: the caller's promise.
        let kernels = || checked(unsafe { real::ioctl(fd, request, argument.cast()) });
        return entry.set_nonblocking(on, kernels).map(Some);
    }
    if !entry.is_sdps() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    match checked(unsafe { sdp::sdp_ioctl(entry.handle(), request, argument.cast()) }) {
        // What libsdp has no answer to is the kernel's.
        Err(failure) if failure.errno == libc::ENOTTY => Ok(None),
        done => done.map(Some),
    }
}
