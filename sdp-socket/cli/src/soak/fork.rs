//! Forking.

use std::io;

use rustix::process::Pid;

/// Forks a child that ends by exit() at once, as a program's child does that has nothing to do:
/// what the libraries of this process have asked to be done at exit is done in it.
///
/// # Errors
/// Those of fork.
pub(super) fn fork_exit() -> io::Result<Pid> {
    // SAFETY: the child of a process with threads may only do what needs no lock that another
    // thread may hold at this moment; it calls exit() and nothing else, and that every handler
    // registered for it copes is what this program tests.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => {
            // SAFETY: ends this process, which has one thread.
            unsafe { libc::exit(0) }
        }
        pid => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .ok_or_else(io::Error::last_os_error),
    }
}
