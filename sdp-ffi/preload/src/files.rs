//! From files to sockets: sendfile(2), and splice(2), which SDP has not.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use libc::{c_int, c_uint, off_t, size_t, ssize_t};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sdp::posix::Failure;

use crate::boundary::{Outcome, interpose, set_errno};
use crate::entry::{Entry, borrowed};
use crate::io::{count, sent};
use crate::{real, table};

interpose! {
    wait fn sendfile(fd: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t |entry| {
        // SAFETY: our caller's promise.
        unsafe { send_file(entry, from, offset, len) }
    }

    /// The same function where files are long.
    raw fn sendfile64(fd: c_int, from: c_int, offset: *mut off_t, len: size_t) -> ssize_t {
        // SAFETY: our caller's promise.
        unsafe { sendfile(fd, from, offset, len) }
    }

    /// The kernel cannot: what it says of a descriptor that has no pages to move.
    raw fn splice(
        from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, len: size_t, flags: c_uint,
    ) -> ssize_t {
        let is_connected = |fd| table::get(fd).is_some_and(|entry| entry.connected().is_some());
        if table::holds(from) && is_connected(from) || table::holds(to) && is_connected(to) {
            set_errno(libc::EINVAL);
            return -1;
        }
        // SAFETY: what our caller promised to the C library's function.
        unsafe { real::splice(from, from_at, to, to_at, len, flags) }
    }
}

/// Bytes that are read from the file at once.
const PIECE_LEN: usize = 256 << 10;

/// # Safety
/// As sendfile(2).
unsafe fn send_file(
    entry: &Entry,
    from: c_int,
    offset: *mut off_t,
    len: size_t,
) -> Outcome<ssize_t> {
    if entry.connected().is_none() {
        return Ok(None);
    }
    if from < 0 {
        return Err(Failure::new(libc::EBADF, "no file"));
    }
    let file = borrowed(from);
    // SAFETY: the caller's promise.
    let asked = unsafe { offset.as_ref() }.copied();
    let start = match asked {
        Some(at) => u64::try_from(at).map_err(|_| Errno::INVAL),
        None => rustix::fs::tell(file),
    };
    let start = start.map_err(not_a_file)?;
    let mut piece = vec![0; len.min(PIECE_LEN)];
    let mut done = 0;
    let result = loop {
        let room = piece.len().min(len - done);
        if room == 0 {
            break Ok(());
        }
        let at = start + u64::try_from(done).unwrap_or(0);
        let read = match read_at(file, &mut piece[..room], at) {
            Ok(0) => break Ok(()),
            Ok(read) => read,
            Err(failure) => break Err(failure),
        };
        match sent(entry, &[IoSlice::new(&piece[..read])], 0) {
            Ok(Some(sent)) => {
                let sent = usize::try_from(sent).unwrap_or(0);
                done += sent;
                if sent < read {
                    break Ok(());
                }
            }
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    let end = start + u64::try_from(done).unwrap_or(0);
    if asked.is_some() {
        // SAFETY: the caller's promise; it is not NULL.
        unsafe { offset.write(off_t::try_from(end).unwrap_or(off_t::MAX)) };
    } else {
        rustix::fs::seek(file, SeekFrom::Start(end)).map_err(not_a_file)?;
    }
    match result {
        Err(failure) if done == 0 => Err(failure),
        _ => Ok(Some(count(done))),
    }
}

fn read_at(file: BorrowedFd<'_>, to: &mut [u8], at: u64) -> Result<usize, Failure> {
    rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *to, at)).map_err(not_a_file)
}

/// What cannot be read from a place cannot be sent so.
fn not_a_file(error: Errno) -> Failure {
    let error = if error == Errno::SPIPE {
        Errno::INVAL
    } else {
        error
    };
    std::io::Error::from(error).into()
}
