//! What a process that executes another program without a fork leaves: its connections, and its report.
//!
//! A connection by SDP is memory and threads of this program's, and ends with it. That is said and counted
//! before, as nobody can say it afterwards. A forked child that has spoken to nobody itself has nothing to
//! say, and what it has of its parent's connections lives on.

use libc::{c_char, c_int};
use sdp::posix::guard;

use crate::boundary::{errno, interpose, set_errno};
use crate::entry::Phase;
use crate::log::{Level, say};
use crate::{real, report, table};

type Words = *const *const c_char;

interpose! {
    raw fn execve(path: *const c_char, words: Words, variables: Words) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        leaving(|| unsafe { real::execve(path, words, variables) })
    }

    raw fn execv(path: *const c_char, words: Words) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        leaving(|| unsafe { real::execv(path, words) })
    }

    raw fn execvp(file: *const c_char, words: Words) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        leaving(|| unsafe { real::execvp(file, words) })
    }

    raw fn execvpe(file: *const c_char, words: Words, variables: Words) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        leaving(|| unsafe { real::execvpe(file, words, variables) })
    }

    raw fn fexecve(fd: c_int, words: Words, variables: Words) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        leaving(|| unsafe { real::fexecve(fd, words, variables) })
    }

    raw fn execveat(
        folder: c_int, path: *const c_char, words: Words, variables: Words, flags: c_int,
    ) -> c_int {
        // SAFETY: what our caller promised to the C library's function.
        leaving(|| unsafe { real::execveat(folder, path, words, variables, flags) })
    }
}

/// `exec` returns only if it fails; then all goes on.
fn leaving(exec: impl FnOnce() -> c_int) -> c_int {
    if !table::is_used() || !table::is_owner() || !report::has_anything() {
        return exec();
    }
    let mut lost = 0;
    guard("exec", || {
        lost = connections_to_lose();
        if lost > 0 {
            report::lost(lost);
            say(Level::Error, || {
                format!("{lost} connections by SDP do not live through exec")
            });
        }
        report::write();
        Ok(0)
    });
    let result = exec();
    let failed = errno();
    report::go_on(lost);
    set_errno(failed);
    result
}

/// Connections with a number that the next program would have.
fn connections_to_lose() -> usize {
    let mut seen = Vec::new();
    for number in table::within(0, c_int::MAX) {
        let Some(entry) = table::get(number) else {
            continue;
        };
        // SAFETY: the command takes no argument.
        let flags = unsafe { real::fcntl(number, libc::F_GETFD, 0) };
        let stays = flags >= 0 && flags & libc::FD_CLOEXEC == 0;
        let handle = entry.handle();
        if stays && entry.phase() == Phase::Connected && !seen.contains(&handle) {
            seen.push(handle);
        }
    }
    seen.len()
}
