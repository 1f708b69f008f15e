//! C streams over sockets: the C library's own would write by calls that nobody can put himself in
//! front of.

use std::ffi::CStr;

use libc::{c_char, c_int, c_void, off64_t, size_t, ssize_t};

use crate::boundary::{interpose, set_errno};
use crate::{descriptors, io, real, table};

/// `stdio.h` has them, the libc crate has not.
#[repr(C)]
struct Functions {
    read: unsafe extern "C-unwind" fn(*mut c_void, *mut c_char, size_t) -> ssize_t,
    write: unsafe extern "C-unwind" fn(*mut c_void, *const c_char, size_t) -> ssize_t,
    seek: unsafe extern "C-unwind" fn(*mut c_void, *mut off64_t, c_int) -> c_int,
    close: unsafe extern "C-unwind" fn(*mut c_void) -> c_int,
}

unsafe extern "C-unwind" {
    fn fopencookie(
        cookie: *mut c_void,
        mode: *const c_char,
        functions: Functions,
    ) -> *mut libc::FILE;
}

interpose! {
    raw fn fdopen(fd: c_int, mode: *const c_char) -> *mut libc::FILE {
        if mode.is_null() || !table::holds(fd) {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::fdopen(fd, mode) };
        }
        // SAFETY: our caller's promise.
        let closes_at_exec = unsafe { CStr::from_ptr(mode) }.to_bytes().contains(&b'e');
        if closes_at_exec {
            // SAFETY: the command takes an int.
            unsafe { real::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC.unsigned_abs().into()) };
        }
        let functions = Functions { read, write, seek, close };
        let cookie = std::ptr::without_provenance_mut(usize::try_from(fd).unwrap_or(0));
        // SAFETY: the functions take the number for what it is, for as long as the stream is open.
        unsafe { fopencookie(cookie, mode, functions) }
    }
}

fn number(cookie: *mut c_void) -> c_int {
    c_int::try_from(cookie.addr()).unwrap_or(-1)
}

unsafe extern "C-unwind" fn read(cookie: *mut c_void, to: *mut c_char, len: size_t) -> ssize_t {
    // SAFETY: the C library gives its own memory.
    unsafe { io::read(number(cookie), to.cast(), len) }
}

/// The C library takes 0, not -1, for a failure.
unsafe extern "C-unwind" fn write(
    cookie: *mut c_void,
    from: *const c_char,
    len: size_t,
) -> ssize_t {
    // SAFETY: the C library gives its own memory.
    let written = unsafe { io::write(number(cookie), from.cast(), len) };
    written.max(0)
}

/// By this errno the C library knows that bytes read ahead cannot be given back, and leaves it at
/// that; without one fflush(3) fails.
unsafe extern "C-unwind" fn seek(_: *mut c_void, _: *mut off64_t, _: c_int) -> c_int {
    set_errno(libc::ESPIPE);
    -1
}

unsafe extern "C-unwind" fn close(cookie: *mut c_void) -> c_int {
    // SAFETY: no preconditions.
    unsafe { descriptors::close(number(cookie)) }
}
