//! The C library's own functions, behind those of the same name that this library puts in front.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{
    c_char, c_int, c_uint, c_ulong, c_void, epoll_event, fd_set, iovec, mmsghdr, msghdr, nfds_t,
    off_t, pollfd, pthread_t, sighandler_t, sigset_t, size_t, sockaddr, socklen_t, ssize_t,
    timespec, timeval,
};
use sdp_socket::inside;

/// What a function returns whose C library has none of that name: nobody can have been linked with
/// it then, so only a program that looked the name up sees this.
trait Absent {
    fn absent() -> Self;
}

impl Absent for c_int {
    fn absent() -> Self {
        crate::boundary::set_errno(libc::ENOSYS);
        -1
    }
}

impl Absent for ssize_t {
    fn absent() -> Self {
        crate::boundary::set_errno(libc::ENOSYS);
        -1
    }
}

impl Absent for sighandler_t {
    fn absent() -> Self {
        crate::boundary::set_errno(libc::ENOSYS);
        libc::SIG_ERR
    }
}

impl Absent for *mut libc::FILE {
    fn absent() -> Self {
        crate::boundary::set_errno(libc::ENOSYS);
        ptr::null_mut()
    }
}

impl Absent for () {
    fn absent() -> Self {}
}

/// A function, found at its first use.
struct Symbol {
    name: &'static CStr,
    at: AtomicPtr<c_void>,
}

impl Symbol {
    const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            at: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn address(&self) -> *mut c_void {
        let known = self.at.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // The dynamic linker holds a lock, which a handler that jumped would leave held for ever.
        inside::enter_call();
        // SAFETY: the name ends with NUL; the next object that has it is asked for.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.at.store(found, Ordering::Relaxed);
        if inside::leave_call() {
            inside::catch_up();
        }
        found
    }
}

macro_rules! real {
    ($(fn $name:ident($($argument:ident: $of:ty),* $(,)?) $(-> $result:ty)?;)*) => { $(
        /// # Safety
        /// As the C library's function of that name.
        #[allow(
            non_snake_case,
            clippy::too_many_arguments,
            reason = "names and arguments are the C library's"
        )]
        pub(crate) unsafe fn $name($($argument: $of),*) $(-> $result)? {
            type Function = unsafe extern "C-unwind" fn($($of),*) $(-> $result)?;
            const NAME: &CStr = match CStr::from_bytes_with_nul(
                concat!(stringify!($name), "\0").as_bytes(),
            ) {
                Ok(name) => name,
                Err(_) => panic!("a name has no NUL inside"),
            };
            static SYMBOL: Symbol = Symbol::new(NAME);
            let at = SYMBOL.address();
            if at.is_null() {
                return Absent::absent();
            }
            // SAFETY: the C library's function of that name has this type.
            let function = unsafe { std::mem::transmute::<*mut c_void, Function>(at) };
            // SAFETY: the caller's promise.
            unsafe { function($($argument),*) }
        }
    )* };
}

real! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int;
    fn accept4(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int;
    fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn getsockname(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int;
    fn getpeername(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int;
    fn sockatmark(fd: c_int) -> c_int;

    fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t;
    fn readv(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t;
    fn recvfrom(fd: c_int, to: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr, addr_len: *mut socklen_t) -> ssize_t;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, time: *mut timespec) -> c_int;
    fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t;
    fn writev(fd: c_int, pieces: *const iovec, count: c_int) -> ssize_t;
    fn send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t;
    fn sendto(fd: c_int, from: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr, addr_len: socklen_t) -> ssize_t;
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    fn sendfile(fd: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t;
    fn splice(from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, len: size_t, flags: c_uint) -> ssize_t;
    fn __read_chk(fd: c_int, to: *mut c_void, len: size_t, room: size_t) -> ssize_t;
    fn __recv_chk(fd: c_int, to: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t;
    fn __recvfrom_chk(fd: c_int, to: *mut c_void, len: size_t, room: size_t, flags: c_int, addr: *mut sockaddr, addr_len: *mut socklen_t) -> ssize_t;

    fn close(fd: c_int) -> c_int;
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
    fn closefrom(first: c_int);
    fn dup(fd: c_int) -> c_int;
    fn dup2(fd: c_int, to: c_int) -> c_int;
    fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int;
    fn fdopen(fd: c_int, mode: *const c_char) -> *mut libc::FILE;
    fn _exit(status: c_int);
    fn _Exit(status: c_int);

    fn execve(path: *const c_char, words: *const *const c_char, variables: *const *const c_char) -> c_int;
    fn execv(path: *const c_char, words: *const *const c_char) -> c_int;
    fn execvp(file: *const c_char, words: *const *const c_char) -> c_int;
    fn execvpe(file: *const c_char, words: *const *const c_char, variables: *const *const c_char) -> c_int;
    fn fexecve(fd: c_int, words: *const *const c_char, variables: *const *const c_char) -> c_int;
    fn execveat(folder: c_int, path: *const c_char, words: *const *const c_char, variables: *const *const c_char, flags: c_int) -> c_int;

    fn poll(fds: *mut pollfd, count: nfds_t, millis: c_int) -> c_int;
    fn ppoll(fds: *mut pollfd, count: nfds_t, time: *const timespec, mask: *const sigset_t) -> c_int;
    fn __poll_chk(fds: *mut pollfd, count: nfds_t, millis: c_int, room: size_t) -> c_int;
    fn __ppoll_chk(fds: *mut pollfd, count: nfds_t, time: *const timespec, mask: *const sigset_t, room: size_t) -> c_int;
    fn select(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, time: *mut timeval) -> c_int;
    fn pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, time: *const timespec, mask: *const sigset_t) -> c_int;
    fn epoll_ctl(epoll: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int;

    fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int;
    fn signal(number: c_int, handler: sighandler_t) -> sighandler_t;
    fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t;
    fn ssignal(number: c_int, handler: sighandler_t) -> sighandler_t;
    fn sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t;
    fn __sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t;
    fn sigset(number: c_int, handler: sighandler_t) -> sighandler_t;
    fn siginterrupt(signal: c_int, on: c_int) -> c_int;
    fn pthread_cancel(thread: pthread_t) -> c_int;
}
