//! From C's pointers to Rust's slices and values, and back.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::ptr;

use libc::{
    c_int, c_void, cmsghdr, iovec, msghdr, off_t, pollfd, size_t, sockaddr, socklen_t, timespec,
};
use smallvec::SmallVec;

use crate::address::{Family, V6_LEN, bytes_of};
use crate::errno::Failure;

/// Bytes one call may move, as on Linux: more are left for the next call.
pub(crate) const CALL_LEN_MAX: usize = 0x7fff_f000;
/// Pieces of a vectored call, as `IOV_MAX` of Linux.
pub(crate) const PIECES_MAX: usize = 1024;

/// Pieces of memory on the stack.
pub(crate) type Few<T> = SmallVec<[T; 8]>;

/// The bytes of a send. NULL is fine for none.
///
/// # Safety
/// Not NULL: `len` readable bytes at `at`, until the call returns.
pub(crate) unsafe fn bytes<'a>(at: *const c_void, len: size_t) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if at.is_null() {
        return Err(Failure::null("the buffer"));
    }
    // SAFETY: the caller's promise; the length is below `isize::MAX`.
    Ok(unsafe { std::slice::from_raw_parts(at.cast(), len.min(CALL_LEN_MAX)) })
}

/// The memory of a receive. NULL is fine for none.
///
/// # Safety
/// Not NULL: `len` writable bytes at `at` that nobody else touches until the call returns. They
/// need no values: this library only writes there.
pub(crate) unsafe fn bytes_mut<'a>(at: *mut c_void, len: size_t) -> Result<&'a mut [u8], Failure> {
    if len == 0 {
        return Ok(&mut []);
    }
    if at.is_null() {
        return Err(Failure::null("the buffer"));
    }
    // SAFETY: the caller's promise; the length is below `isize::MAX`.
    Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), len.min(CALL_LEN_MAX)) })
}

/// # Errors
/// `EFAULT` for memory that reaches beyond all memory, which read(2) and write(2) look at first.
pub(crate) fn within_memory(at: *const c_void, len: size_t) -> Result<(), Failure> {
    let end = at.addr().checked_add(len);
    if end.is_some_and(|end| isize::try_from(end).is_ok()) {
        return Ok(());
    }
    Err(Failure::new(
        libc::EFAULT,
        "the buffer reaches beyond all memory",
    ))
}

/// The pieces that `f` makes of an array of `struct iovec`, cut off at the bytes of one call.
///
/// # Safety
/// Not NULL: `count` structures at `at`.
unsafe fn pieces<T>(
    at: *const iovec,
    count: c_int,
    mut f: impl FnMut(*mut c_void, usize) -> Result<T, Failure>,
) -> Result<Few<T>, Failure> {
    // SAFETY: the caller's promise.
    let count = unsafe { piece_count(at, count) }?;
    let mut rest = CALL_LEN_MAX;
    let mut out = Few::new();
    for index in 0..count {
        // SAFETY: the caller's promise: the index is within the array.
        let piece = unsafe { nth(at, index) };
        let len = piece.iov_len.min(rest);
        rest -= len;
        out.push(f(piece.iov_base, len)?);
    }
    Ok(out)
}

/// # Safety
/// A structure of that number is in the array at `at`.
unsafe fn nth(at: *const iovec, index: usize) -> iovec {
    // SAFETY: the caller's promise.
    let piece = unsafe { at.add(index) };
    // SAFETY: as above; C promises nothing about alignment that this read would need.
    unsafe { piece.read_unaligned() }
}

/// How many pieces there are, which is looked at before the socket is, as are their lengths.
///
/// # Errors
/// `EINVAL` for a count out of range, or a piece of more than `SSIZE_MAX` bytes; `EFAULT` for no array,
/// or a piece that reaches beyond all memory.
///
/// # Safety
/// Not NULL: `count` structures at `at`.
pub(crate) unsafe fn piece_count(at: *const iovec, count: c_int) -> Result<usize, Failure> {
    let count = usize::try_from(count).ok().filter(|n| *n <= PIECES_MAX);
    let Some(count) = count else {
        let words = format!("more than {PIECES_MAX} pieces, or fewer than none");
        return Err(Failure::new(libc::EINVAL, words));
    };
    if count > 0 && at.is_null() {
        return Err(Failure::null("the array of pieces"));
    }
    let mut beyond = None;
    for index in 0..count {
        // SAFETY: the caller's promise: the index is within the array.
        let piece = unsafe { nth(at, index) };
        if isize::try_from(piece.iov_len).is_err() {
            let words = format!("piece {index} is longer than SSIZE_MAX");
            return Err(Failure::new(libc::EINVAL, words));
        }
        let within = within_memory(piece.iov_base, piece.iov_len);
        beyond = beyond.or_else(|| within.err());
    }
    beyond.map_or(Ok(count), Err)
}

/// The pieces of a vectored send.
///
/// # Safety
/// As [`bytes`], for every piece; `count` structures at `at`.
pub(crate) unsafe fn send_pieces<'a>(
    at: *const iovec,
    count: c_int,
) -> Result<Few<IoSlice<'a>>, Failure> {
    let piece = |base: *mut c_void, len| {
        // SAFETY: the caller's promise for this piece.
        unsafe { bytes(base, len) }.map(IoSlice::new)
    };
    // SAFETY: the caller's promise for the array.
    unsafe { pieces(at, count, piece) }
}

/// The pieces of a vectored receive.
///
/// # Safety
/// As [`bytes_mut`], for every piece; no two overlap; `count` structures at `at`.
pub(crate) unsafe fn recv_pieces<'a>(
    at: *const iovec,
    count: c_int,
) -> Result<Few<IoSliceMut<'a>>, Failure> {
    let piece = |base, len| {
        // SAFETY: the caller's promise for this piece.
        unsafe { bytes_mut(base, len) }.map(IoSliceMut::new)
    };
    // SAFETY: the caller's promise for the array.
    unsafe { pieces(at, count, piece) }
}

/// # Errors
/// `EINVAL` for a length that no address has.
pub(crate) fn address_len(len: socklen_t) -> Result<(), Failure> {
    if size(len) <= size_of::<libc::sockaddr_storage>() {
        return Ok(());
    }
    let words = format!("an address of {len} bytes");
    Err(Failure::new(libc::EINVAL, words))
}

/// Reads an address.
///
/// # Safety
/// Not NULL: `len` readable bytes at `at`.
pub unsafe fn read_address(
    at: *const sockaddr,
    len: socklen_t,
    family: Family,
) -> Result<SocketAddr, Failure> {
    address_len(len)?;
    // Of no bytes that they are too few is told, as by Linux.
    if at.is_null() && len > 0 {
        return Err(Failure::null("the address"));
    }
    let mut copy = [0; V6_LEN];
    let len = size(len).min(V6_LEN);
    if len > 0 {
        // SAFETY: the caller's promise for the source; the copy has room for `len`.
        unsafe { ptr::copy_nonoverlapping(at.cast(), copy.as_mut_ptr(), len) };
    }
    family.parse(&copy[..len])
}

/// Writes `bytes`, or as many as fit, and the length: of what was written, or, if `full_len`, of
/// all of them.
///
/// # Safety
/// Not NULL: a writable length at `len`, and as many writable bytes at `at` as it says.
pub(crate) unsafe fn write_bytes(
    bytes: &[u8],
    at: *mut c_void,
    len: *mut socklen_t,
    full_len: bool,
) -> Result<(), Failure> {
    if at.is_null() {
        return Err(Failure::null("the place for the result"));
    }
    // SAFETY: the caller's promise.
    let room = unsafe { target_len(len) }?;
    let written = bytes.len().min(room);
    // SAFETY: the caller's promise for the target, which has room; `bytes` is our own copy.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast(), written) };
    let told = if full_len { bytes.len() } else { written };
    let told = socklen_t::try_from(told).unwrap_or(socklen_t::MAX);
    // SAFETY: the caller's promise.
    unsafe { len.write_unaligned(told) };
    Ok(())
}

/// Writes an address as `getsockname(2)` does: cut off if need be, with the full length.
///
/// # Safety
/// As [`write_bytes`].
pub unsafe fn write_address(
    addr: SocketAddr,
    at: *mut sockaddr,
    len: *mut socklen_t,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe { write_bytes(&bytes_of(addr), at.cast(), len, true) }
}

/// The room for a result.
///
/// # Safety
/// Not NULL: a readable length at `len`.
pub(crate) unsafe fn target_len(len: *const socklen_t) -> Result<usize, Failure> {
    if len.is_null() {
        return Err(Failure::null("the length of the result"));
    }
    // SAFETY: the caller's promise.
    let room = unsafe { len.read_unaligned() };
    // As Linux, which takes it for an int.
    let room = c_int::try_from(room).ok();
    room.and_then(|room| usize::try_from(room).ok())
        .ok_or_else(|| Failure::new(libc::EINVAL, "a negative length"))
}

/// A receive that tells no address, as TCP's.
///
/// # Safety
/// A writable length at `len`.
pub(crate) unsafe fn no_source(len: *mut socklen_t) {
    // SAFETY: the caller's promise.
    unsafe { len.write_unaligned(0) };
}

/// Reads a structure.
///
/// # Safety
/// Not NULL: a readable, valid `T` at `at`, however it is aligned.
pub(crate) unsafe fn read<T: Plain>(at: *const T, what: &'static str) -> Result<T, Failure> {
    if at.is_null() {
        return Err(Failure::null(what));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { at.read_unaligned() })
}

/// Structures of C that any bytes are.
pub(crate) trait Plain: Copy {}
impl Plain for msghdr {}
impl Plain for cmsghdr {}
impl Plain for off_t {}
impl Plain for pollfd {}
impl Plain for timespec {}

/// A number of the C library's, whose types for it differ.
pub(crate) fn size(value: impl TryInto<usize>) -> usize {
    value.try_into().unwrap_or(usize::MAX)
}

/// Looks at the control data of a send as Linux's TCP does: what is meant for other kinds of socket
/// passes by, and nothing is left that has an effect.
///
/// # Errors
/// `EINVAL` for data that is cut off, and for what TCP would act on.
///
/// # Safety
/// Not NULL: `len` readable bytes at `at`.
pub(crate) unsafe fn check_control(at: *const c_void, len: usize) -> Result<(), Failure> {
    const HEADER_LEN: usize = size_of::<cmsghdr>();
    let bad = |what: String| Failure::new(libc::EINVAL, what);
    let mut done = 0;
    while len - done >= HEADER_LEN {
        // SAFETY: within the caller's bytes.
        let header = unsafe { at.byte_add(done) }.cast::<cmsghdr>();
        // SAFETY: as above, and the loop's condition.
        let header = unsafe { read(header, "the control data") }?;
        let item_len = size(header.cmsg_len);
        if item_len < HEADER_LEN || item_len > len - done {
            return Err(bad(format!("control data of {item_len} bytes in {len}")));
        }
        let passes = [libc::SCM_RIGHTS, libc::SCM_CREDENTIALS].contains(&header.cmsg_type);
        if header.cmsg_level == libc::SOL_SOCKET && !passes {
            return Err(bad(format!("control data of type {}", header.cmsg_type)));
        }
        done += item_len
            .next_multiple_of(size_of::<size_t>())
            .min(len - done);
    }
    Ok(())
}
