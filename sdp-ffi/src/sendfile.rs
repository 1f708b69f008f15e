//! sendfile(2): from a file into a stream.

use std::fs::File;
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

use libc::{c_int, off_t, size_t, ssize_t};
use sdp_socket::SendFlags;

use crate::errno::Failure;
use crate::guard::cancellable;
use crate::io::piped;
use crate::pointer::{CALL_LEN_MAX, read};
use crate::process::process;
use crate::state::Socket;

/// Bytes read from the file at once.
const CHUNK_LEN: usize = 256 * 1024;

/// Sends from a file, as sendfile(2). offset NULL: from the file's position, which moves behind what
/// was sent; else from there, and *offset moves instead. What the stream does not take stays in the
/// file: nothing is lost by a short count.
///
/// Returns the bytes sent, fewer than asked for at the end of the file, and as sdp_send(); 0 at the end
/// of the file; or -1 as sdp_send(), and with EBADF (no such file, or not to read from), EINVAL
/// (negative offset or count, something that cannot be read at a place: a pipe, a socket, a folder),
/// ESPIPE (the same with an offset), EIO.
///
/// # Safety
/// offset is NULL, or an offset is there that can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_sendfile(
    socket: c_int,
    file: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    cancellable("sdp_sendfile", || {
        let place = match offset.is_null() {
            true => None,
            // SAFETY: our caller's promise.
            false => Some(unsafe { read(offset, "the offset") }?),
        };
        // SAFETY: it is not closed, and where its number is none the calls on it fail.
        let file = (file >= 0).then(|| ManuallyDrop::new(unsafe { File::from_raw_fd(file) }));
        let Some(file) = file else {
            return Err(Failure::new(libc::EBADF, "a negative number of a file"));
        };
        let start = start(&file, place);
        if place.is_some() {
            start.as_ref().map_err(Clone::clone)?;
        }
        if isize::try_from(count).is_err() {
            return Err(Failure::new(libc::EINVAL, "a negative count"));
        }
        // As Linux: most of what is wrong with the file comes first.
        let socket = process().sockets.get(socket)?;
        let start = start?;
        let sent = copy(&socket, &file, start, count.min(CALL_LEN_MAX));
        drop(socket);
        if let Ok(sent @ 1..) = sent {
            let end = start + sent as u64;
            if offset.is_null() {
                (&*file).seek(SeekFrom::Start(end))?;
            } else {
                // SAFETY: our caller's promise.
                unsafe { offset.write_unaligned(off_t::try_from(end).unwrap_or(off_t::MAX)) };
            }
        }
        piped(sent, 0)
    })
}

/// Where to begin.
fn start(file: &File, place: Option<off_t>) -> Result<u64, Failure> {
    let position = (&*file).stream_position();
    let Some(place) = place else {
        return position.map_err(|error| of_file(error, libc::EINVAL));
    };
    position.map_err(|error| of_file(error, libc::ESPIPE))?;
    u64::try_from(place).map_err(|_| Failure::new(libc::EINVAL, "a negative offset"))
}

/// The failure of the file, and not of the socket; `unseekable` if it has no places.
fn of_file(error: io::Error, unseekable: c_int) -> Failure {
    let failure = Failure::from(error);
    let errno = match failure.errno {
        libc::ESPIPE => unseekable,
        libc::EISDIR => libc::EINVAL,
        other => other,
    };
    Failure::new(errno, format!("the file: {}", failure.message))
}

/// Sends up to `count` bytes from `start` on; how many of them the stream took.
fn copy(socket: &Socket, file: &File, start: u64, count: usize) -> Result<usize, Failure> {
    let mut chunk = vec![0; count.min(CHUNK_LEN)];
    let mut done = 0;
    while done < count {
        let want = chunk.len().min(count - done);
        let got = match file.read_at(&mut chunk[..want], start + done as u64) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if done == 0 => return Err(of_file(error, libc::EINVAL)),
            // The next call begins here, and meets it again.
            Err(_) => break,
        };
        match socket.send(&[IoSlice::new(&chunk[..got])], SendFlags::default()) {
            Ok(sent) => {
                done += sent;
                if sent < got {
                    break;
                }
            }
            Err(failure) if done == 0 => return Err(failure),
            Err(failure) => {
                socket.keep(&failure);
                break;
            }
        }
    }
    Ok(done)
}
