//! From the program to this library: which calls are ours, and how they end.
//!
//! A call on a descriptor that is not in the table goes to the C library after two loads. Our own
//! threads need no mark to be told from the program's: the sockets they use are never in the table,
//! since they are made by system calls.

use libc::{c_int, ssize_t};
use sdp::posix::{Failed, Failure, cancellable, guard};

use crate::entry::Entry;
use crate::table;

/// What a call returns.
pub(crate) trait Answer: Failed {
    /// No result of a call: the kernel shall carry it out.
    const KERNELS: Self;
}

impl Answer for c_int {
    const KERNELS: Self = Self::MIN;
}

impl Answer for ssize_t {
    const KERNELS: Self = Self::MIN;
}

/// The result of a call: `None` leaves it to the kernel.
pub(crate) type Outcome<R> = Result<Option<R>, Failure>;

/// Carries out a call on `fd` if it is ours.
#[inline]
pub(crate) fn ours<R: Answer>(
    name: &'static str,
    fd: c_int,
    body: impl FnOnce(&Entry) -> Outcome<R>,
) -> Option<R> {
    if !table::holds(fd) {
        return None;
    }
    answered(guard(name, || of_entry(fd, body)))
}

/// The same for a call that is a cancellation point. Nothing in these frames is to be dropped when
/// a cancelled thread is unwound.
#[inline]
pub(crate) fn ours_waiting<R: Answer>(
    name: &'static str,
    fd: c_int,
    body: impl FnOnce(&Entry) -> Outcome<R>,
) -> Option<R> {
    if !table::holds(fd) {
        return None;
    }
    answered(cancellable(name, || of_entry(fd, body)))
}

fn of_entry<R: Answer>(fd: c_int, body: impl FnOnce(&Entry) -> Outcome<R>) -> Result<R, Failure> {
    let answer = match table::get(fd) {
        Some(entry) => body(&entry)?,
        None => None,
    };
    Ok(answer.unwrap_or(R::KERNELS))
}

/// The number by which libsdp knows the socket, if the call is for it to carry out.
#[inline]
pub(crate) fn handle(fd: c_int) -> Option<c_int> {
    ours("a call", fd, |entry| {
        Ok(entry.is_sdps().then(|| entry.handle()))
    })
}

/// The same of a call that reads.
#[inline]
pub(crate) fn reading(fd: c_int) -> Option<c_int> {
    ours("a call", fd, |entry| {
        entry.ask();
        Ok(entry.is_sdps().then(|| entry.handle()))
    })
}

/// Who carries out a call that sends.
pub(crate) enum Sends {
    /// Libsdp, which knows the socket by that number.
    Sdp(c_int),
    /// Nobody: it has failed, with an errno.
    Nobody,
    Kernel,
}

/// The same of a call that sends, with its flags.
#[inline]
pub(crate) fn sending(fd: c_int, flags: c_int) -> Sends {
    let handle = ours("a call", fd, |entry| {
        let waits = flags & libc::MSG_DONTWAIT == 0 && !entry.is_nonblocking();
        entry.let_children_go_first(waits)?;
        Ok(entry.is_sdps().then(|| entry.handle()))
    });
    match handle {
        Some(c_int::FAILED) => Sends::Nobody,
        Some(handle) => Sends::Sdp(handle),
        None => Sends::Kernel,
    }
}

fn answered<R: Answer>(result: R) -> Option<R> {
    (result != R::KERNELS).then_some(result)
}

/// The result of a call of the C library's.
pub(crate) fn checked<R: Failed>(result: R) -> Result<R, Failure> {
    if result == R::FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(result)
}

pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: the C library's function has no preconditions.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: the C library keeps this thread's errno there as long as the thread runs.
    unsafe { at.write(errno) };
}

pub(crate) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Functions in front of those of the C library.
///
/// `fn name(fd: c_int, …) -> R |entry| { … }`: what to do for a descriptor of ours; `Ok(None)`, and
/// every other descriptor, is the C library's. `wait fn` is a cancellation point. `sdp fn … = f;`: a
/// connection by SDP is given to that function of libsdp, which reads. `raw fn` is the whole function.
macro_rules! interpose {
    () => {};
    (
        $(#[$about:meta])*
        wait fn $name:ident($fd:ident: c_int $(, $argument:ident: $of:ty)* $(,)?) -> $result:ty
            |$entry:ident| $body:block
        $($more:tt)*
    ) => {
        $crate::boundary::interpose! {
            $(#[$about])*
            raw fn $name($fd: c_int $(, $argument: $of)*) -> $result {
                let ours = $crate::boundary::ours_waiting(
                    stringify!($name),
                    $fd,
                    |$entry: &$crate::entry::Entry| $body,
                );
                // SAFETY: what our caller promised to the C library's function.
                ours.unwrap_or_else(|| unsafe { $crate::real::$name($fd $(, $argument)*) })
            }
        }
        $crate::boundary::interpose! { $($more)* }
    };
    (
        $(#[$about:meta])*
        sdp fn $name:ident($fd:ident: c_int $(, $argument:ident: $of:ty)* $(,)?) -> $result:ty
            = $libsdps:ident;
        $($more:tt)*
    ) => {
        $crate::boundary::interpose! {
            $(#[$about])*
            raw fn $name($fd: c_int $(, $argument: $of)*) -> $result {
                match $crate::boundary::reading($fd) {
                    // SAFETY: what our caller promised to the C library's function.
                    Some(handle) => unsafe { ::sdp::$libsdps(handle $(, $argument)*) },
                    // SAFETY: as above.
                    None => unsafe { $crate::real::$name($fd $(, $argument)*) },
                }
            }
        }
        $crate::boundary::interpose! { $($more)* }
    };
    (
        $(#[$about:meta])*
        fn $name:ident($fd:ident: c_int $(, $argument:ident: $of:ty)* $(,)?) -> $result:ty
            |$entry:ident| $body:block
        $($more:tt)*
    ) => {
        $crate::boundary::interpose! {
            $(#[$about])*
            raw fn $name($fd: c_int $(, $argument: $of)*) -> $result {
                let ours = $crate::boundary::ours(
                    stringify!($name),
                    $fd,
                    |$entry: &$crate::entry::Entry| $body,
                );
                // SAFETY: what our caller promised to the C library's function.
                ours.unwrap_or_else(|| unsafe { $crate::real::$name($fd $(, $argument)*) })
            }
        }
        $crate::boundary::interpose! { $($more)* }
    };
    (
        $(#[$about:meta])*
        raw fn $name:ident($($argument:ident: $of:ty),* $(,)?) $(-> $result:ty)? $body:block
        $($more:tt)*
    ) => {
        $(#[$about])*
        ///
        /// # Safety
        /// As the C library's function of that name.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[cfg_attr(test, allow(dead_code, reason = "unit tests have nothing interposed"))]
        #[allow(
            non_snake_case,
            clippy::too_many_arguments,
            reason = "names and arguments are the C library's"
        )]
        pub(crate) unsafe extern "C-unwind" fn $name($($argument: $of),*) $(-> $result)? $body
        $crate::boundary::interpose! { $($more)* }
    };
}
pub(crate) use interpose;
