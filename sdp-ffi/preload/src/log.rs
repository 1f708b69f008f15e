//! What this library has to say, where the rules want it.
//!
//! It is written by system calls: the functions of the C library by these names are ours, and
//! standard error may be a socket of ours.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::OnceLock;

use crate::config::config;
use crate::entry::borrowed;
use crate::rules::{Destination, LEVEL_MAX};
use crate::table;

/// How much something matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Level {
    /// Each decision.
    Debug = 1,
    /// Decisions that a person may want to know of.
    Info = 5,
    /// What does not work as it was asked to.
    Error = LEVEL_MAX,
}

/// Says something if the rules let it.
pub(crate) fn say(level: Level, words: impl FnOnce() -> String) {
    let config = config();
    if (level as u8) < config.rules.level_min {
        return;
    }
    let words = format!("{}[{}]: {}", config.program, std::process::id(), words());
    match &config.rules.destination {
        Destination::Stderr => to_stderr(&words),
        Destination::Syslog => to_syslog(level, words),
        Destination::File(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let written = file.and_then(|mut file| file.write_all(line(&words).as_bytes()));
            if let Err(error) = written {
                to_stderr(&format!("{}: {error}; {words}", path.display()));
            }
        }
    }
}

/// What standard error was when the program used its first socket.
static STDERR: OnceLock<Option<(u64, u64)>> = OnceLock::new();

/// Standard error, by device and inode; `None` if it is closed.
fn stderr() -> Option<(u64, u64)> {
    let stat = rustix::fs::fstat(borrowed(libc::STDERR_FILENO)).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

/// Remembers what standard error is.
pub(crate) fn know_stderr() {
    STDERR.get_or_init(stderr);
}

/// A line on standard error, unless the number has become something else: a file of the program's,
/// or a socket of ours. Then there is nobody to tell.
pub(crate) fn to_stderr(words: &str) {
    let known = *STDERR.get_or_init(stderr);
    if table::holds(libc::STDERR_FILENO) || known.is_none() || stderr() != known {
        return;
    }
    let line = line(words);
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(borrowed(libc::STDERR_FILENO), rest)) {
            Ok(len) => rest = &rest[len..],
            // Nobody is left to tell.
            Err(_) => return,
        }
    }
}

fn line(words: &str) -> String {
    format!("libsdp_preload: {words}\n")
}

fn to_syslog(level: Level, mut words: String) {
    words.retain(|c| c != '\0');
    let priority = match level {
        Level::Debug => libc::LOG_DEBUG,
        Level::Info => libc::LOG_INFO,
        Level::Error => libc::LOG_ERR,
    };
    if let Ok(words) = CString::new(words) {
        // SAFETY: the format takes one string, which ends with NUL.
        unsafe { libc::syslog(priority, c"libsdp_preload: %s".as_ptr(), words.as_ptr()) };
    }
}
