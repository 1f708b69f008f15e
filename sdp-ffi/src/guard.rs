//! The border to C: failures become `errno` and words, panics stop here.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libc::{c_int, c_void, ssize_t};
use sdp_socket::inside;

use crate::cancel;
use crate::errno::Failure;

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// What a function returns when it fails.
pub trait Failed: Copy + PartialEq {
    /// -1, or NULL.
    const FAILED: Self;
}

impl Failed for c_int {
    const FAILED: Self = -1;
}

impl Failed for ssize_t {
    const FAILED: Self = -1;
}

impl Failed for *mut c_void {
    const FAILED: Self = std::ptr::null_mut();
}

/// Carries out the body of the function `name`. A failure sets `errno` and this thread's words;
/// success leaves both alone. A panic is a failure with `EIO`. The thread is not cancelled
/// meanwhile, and handlers of the program's that were put off run when all is over.
pub fn guard<R: Failed>(name: &'static str, body: impl FnOnce() -> Result<R, Failure>) -> R {
    // A handler may leave by longjmp(3) where the thread is outside: it finds the cancel state untouched.
    inside::enter_call();
    let held = cancel::hold();
    inside::let_end(held.was_enabled());
    let result = caught(name, body);
    held.release();
    if inside::leave_call() {
        inside::catch_up();
    }
    result
}

/// As [`guard`], for a function that is a cancellation point: a cancelled thread ends before the
/// body is carried out, or when it has failed, which is when it has done nothing.
pub fn cancellable<R: Failed>(name: &'static str, body: impl FnOnce() -> Result<R, Failure>) -> R {
    sdp_socket::list_sleeper();
    cancel::point();
    let result = guard(name, body);
    if result == R::FAILED {
        cancel::point();
    }
    result
}

fn caught<R: Failed>(name: &'static str, body: impl FnOnce() -> Result<R, Failure>) -> R {
    // What a panicking body leaves behind is behind mutexes whose poison is ignored on purpose:
    // their values are replaced whole.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => value,
        Ok(Err(failure)) => fail(name, &failure),
        Err(payload) => {
            let failure = Failure::new(libc::EIO, format!("a bug: {}", words_of(&*payload)));
            // Dropping a payload runs code of whoever panicked, which may panic again.
            std::mem::forget(payload);
            fail(name, &failure)
        }
    }
}

fn fail<R: Failed>(name: &'static str, failure: &Failure) -> R {
    remember(format!("{name}: {}", failure.message));
    set_errno(failure.errno);
    R::FAILED
}

fn words_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let string = payload.downcast_ref::<String>().map(String::as_str);
    text.or(string).unwrap_or("a panic without words")
}

fn remember(mut message: String) {
    message.retain(|c| c != '\0');
    // A handler may have interrupted the C library where it makes room for a thread's own.
    if inside::is_in_handler() {
        return;
    }
    // During the thread's end there is no place for words any more; errno still says what it was.
    let _ = LAST.try_with(|last| {
        if let (Ok(message), Ok(mut last)) = (CString::new(message), last.try_borrow_mut()) {
            *last = message;
        }
    });
}

/// The words of this thread's last failure; valid until its next one.
pub(crate) fn last_words() -> *const c_char {
    let words = LAST.try_with(|last| last.try_borrow().map(|last| last.as_ptr()));
    match words {
        Ok(Ok(words)) => words,
        _ => c"".as_ptr(),
    }
}

fn set_errno(errno: c_int) {
    // SAFETY: the C library's function has no preconditions.
    let at = unsafe { libc::__errno_location() };
    // SAFETY: the C library keeps this thread's errno there as long as the thread runs.
    unsafe { at.write(errno) };
}

/// This thread's errno.
#[cfg(test)]
pub(crate) fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn words() -> String {
        // SAFETY: the pointer is to this thread's words, which nothing changes meanwhile.
        unsafe { CStr::from_ptr(last_words()) }
            .to_string_lossy()
            .into_owned()
    }

    /// Each way to fail gives -1, its errno and words that name the function.
    #[test]
    fn failures_and_panics_become_errno_and_words() {
        let failed: c_int = guard("sdp_x", || Err(Failure::new(libc::ENOTCONN, "why\0 not")));
        assert_eq!((failed, errno()), (-1, libc::ENOTCONN));
        assert_eq!(words(), "sdp_x: why not");
        let failed: ssize_t = guard("sdp_y", || panic!("number {}", 7));
        assert_eq!((failed, errno()), (-1, libc::EIO));
        assert_eq!(words(), "sdp_y: a bug: number 7");
        let failed: *mut c_void = guard("sdp_z", || std::panic::panic_any(3_u8));
        assert_eq!((failed.is_null(), errno()), (true, libc::EIO));
        assert!(words().contains("without words"));
    }

    /// Success leaves errno and the words alone, as POSIX wants.
    #[test]
    fn success_changes_nothing() {
        let _: c_int = guard("sdp_x", || Err(Failure::new(libc::EDOM, "before")));
        assert_eq!(guard("sdp_x", || Ok::<c_int, _>(5)), 5);
        assert_eq!((errno(), words().as_str()), (libc::EDOM, "sdp_x: before"));
    }

    /// Words belong to their thread.
    #[test]
    fn words_are_per_thread() {
        let _: c_int = guard("sdp_x", || Err(Failure::new(libc::EDOM, "mine")));
        let theirs = std::thread::spawn(words).join().unwrap();
        assert_eq!(theirs, "");
        assert_eq!(words(), "sdp_x: mine");
    }
}
