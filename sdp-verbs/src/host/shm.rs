//! Memory shared between processes: made, sealed, checked and mapped.
//!
//! Hygiene (architecture 5.2): sized under RLIMIT_FSIZE, because growing a file beyond it kills;
//! reserved before use, so that a full system answers with an error and not with SIGBUS;
//! close-on-exec; not inherited by children; never executable where the kernel knows how.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FileType, MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::descriptor;
use crate::error::VerbsError;
use crate::hidden;
use crate::memory::ForeignSlice;

/// Bytes of a page that layouts are rounded to; real pages may be larger.
pub(crate) const PAGE_LEN: usize = 4096;

/// Bytes reserved by one fallocate: small enough to finish between two signals.
const RESERVE_STEP: u64 = 256 << 10;

/// Times a reservation step is tried again after a signal.
const RESERVE_TRIES: u32 = 1_000;

/// Seals of memory that both sides write: its size is fixed for ever.
pub(crate) const SEALS_SHARED: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Seals of memory that only its owner, who mapped it before, writes.
pub(crate) const SEALS_OWNED: SealFlags = SEALS_SHARED.union(SealFlags::FUTURE_WRITE);

/// Rounds up to whole pages; `None` on overflow.
pub(crate) fn page_round(len: usize) -> Option<usize> {
    len.checked_next_multiple_of(PAGE_LEN)
}

/// A memfd of `len` bytes, hidden and not yet sealed. Its first `reserve` bytes are reserved.
pub(crate) fn create(
    name: &'static str,
    len: usize,
    reserve: usize,
) -> Result<OwnedFd, VerbsError> {
    let len = len as u64;
    if let Some(max) = rustix::process::getrlimit(rustix::process::Resource::Fsize).current
        && max < len
    {
        return Err(VerbsError::Limit {
            what: "shared memory",
            limit: format!("RLIMIT_FSIZE {max}, wanted {len}"),
            remedy: "raise ulimit -f",
        });
    }
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, base | MemfdFlags::NOEXEC_SEAL) {
        // Linux before 6.3 does not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, base),
        other => other,
    }
    .map_err(|e| not_to_be_had("memfd_create", e))?;
    let fd = hidden::hide(fd);
    rustix::fs::ftruncate(&fd, len).map_err(|e| VerbsError::os("ftruncate of a memfd", e))?;
    reserve_range(fd.as_fd(), 0, reserve as u64)?;
    Ok(fd)
}

/// Reserves memory behind a range of a memfd, so that touching it cannot fail later.
pub(crate) fn reserve_range(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), VerbsError> {
    let end = offset + len;
    let mut at = offset;
    let mut tries = 0;
    while at < end {
        let step = RESERVE_STEP.min(end - at);
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), at, step) {
            Ok(()) => at += step,
            Err(Errno::INTR) if tries < RESERVE_TRIES => tries += 1,
            Err(e @ (Errno::NOSPC | Errno::NOMEM)) => {
                return Err(VerbsError::Limit {
                    what: "shared memory",
                    limit: format!("{len} bytes: {e}"),
                    remedy: "free memory or raise the memory limit of the control group",
                });
            }
            Err(e) => return Err(VerbsError::os("fallocate of a memfd", e)),
        }
    }
    Ok(())
}

/// Seals a memfd.
pub(crate) fn seal(fd: BorrowedFd<'_>, seals: SealFlags) -> Result<(), VerbsError> {
    match rustix::fs::fcntl_add_seals(fd, seals) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL) => Err(VerbsError::Unavailable {
            provider: "host",
            reason: "the kernel does not know F_SEAL_FUTURE_WRITE: Linux 5.1 or newer is needed"
                .to_owned(),
        }),
        Err(e) => Err(not_to_be_had("sealing a memfd", e)),
    }
}

/// What this provider cannot do without has failed: forbidden, which only a filter of system calls does, or for
/// want of something.
fn not_to_be_had(op: &'static str, error: Errno) -> VerbsError {
    match error {
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => VerbsError::Unavailable {
            provider: "host",
            reason: format!(
                "{op}: {error}; allow memfd_create and fcntl in this process's seccomp filter"
            ),
        },
        other => descriptor::failed(op, other),
    }
}

/// Checks that a descriptor of the peer's is a memfd of exactly `len` bytes, sealed as promised.
/// With `reserved`, also that its memory exists, so that our touching it cannot raise SIGBUS.
pub(crate) fn verify(
    fd: BorrowedFd<'_>,
    what: &'static str,
    len: u64,
    seals: SealFlags,
    reserved: bool,
) -> Result<(), VerbsError> {
    let broken = |rule: String| VerbsError::Protocol { what, rule };
    let stat = rustix::fs::fstat(fd).map_err(|e| VerbsError::os("fstat of a descriptor", e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(broken("the descriptor is not a memfd".to_owned()));
    }
    if u64::try_from(stat.st_size).ok() != Some(len) || len == 0 {
        let size = stat.st_size;
        return Err(broken(format!("its size is {size}, announced {len}")));
    }
    let found = rustix::fs::fcntl_get_seals(fd)
        .map_err(|_| broken("the descriptor cannot be sealed".to_owned()))?;
    if !found.contains(seals) {
        return Err(broken(format!("its seals are {found:?}, need {seals:?}")));
    }
    if reserved && u64::try_from(stat.st_blocks).unwrap_or(0) < len / 512 {
        return Err(broken("its memory is not reserved".to_owned()));
    }
    Ok(())
}

/// A mapping of shared memory. It is not inherited by children.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: MmapRaw,
    writable: bool,
}

impl Mapping {
    /// Maps for reading and writing.
    pub(crate) fn read_write(fd: BorrowedFd<'_>, len: usize) -> Result<Self, VerbsError> {
        let raw = MmapOptions::new()
            .len(len)
            .map_raw(&fd)
            .map_err(map_error)?;
        Self::finish(raw, true)
    }

    /// Maps for reading.
    pub(crate) fn read_only(fd: BorrowedFd<'_>, len: usize) -> Result<Self, VerbsError> {
        let raw = MmapOptions::new()
            .len(len)
            .map_raw_read_only(&fd)
            .map_err(map_error)?;
        Self::finish(raw, false)
    }

    fn finish(raw: MmapRaw, writable: bool) -> Result<Self, VerbsError> {
        raw.advise(Advice::DontFork)
            .map_err(|e| VerbsError::os("madvise DONTFORK", e))?;
        Ok(Self { raw, writable })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether stores are allowed.
    pub(crate) fn writable(&self) -> bool {
        self.writable
    }

    /// First byte. The range is valid as long as `self`; other processes may change it.
    pub(crate) fn ptr(&self) -> NonNull<u8> {
        NonNull::new(self.raw.as_mut_ptr()).expect("mmap never maps page zero for us")
    }

    /// Names a part, or `None` if it does not lie within. The name is good as long as `self`.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Option<ForeignSlice> {
        // SAFETY: the mapping covers this range while `self` lives, which callers see to by
        // holding the `Arc` beside the slice; no reference into mappings is ever made but to
        // atomics.
        let whole = unsafe { ForeignSlice::new(self.ptr(), self.len()) };
        whole.slice(offset, len)
    }
}

fn map_error(e: std::io::Error) -> VerbsError {
    if e.raw_os_error() == Some(libc::ENOMEM) {
        return VerbsError::Limit {
            what: "mapping of shared memory",
            limit: "address space or vm.max_map_count".to_owned(),
            remedy: "raise ulimit -v or vm.max_map_count",
        };
    }
    VerbsError::os("mmap", e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_received_descriptor_must_be_what_was_announced() {
        let fd = create("test", PAGE_LEN, PAGE_LEN).unwrap();
        let check =
            |len: usize, seals, reserved| verify(fd.as_fd(), "chunk", len as u64, seals, reserved);
        assert!(check(PAGE_LEN, SEALS_SHARED, true).is_err(), "not sealed");
        seal(fd.as_fd(), SEALS_SHARED).unwrap();
        check(PAGE_LEN, SEALS_SHARED, true).unwrap();
        assert!(check(2 * PAGE_LEN, SEALS_SHARED, true).is_err(), "size");
        assert!(check(PAGE_LEN, SEALS_OWNED, true).is_err(), "writable");
        let sparse = create("test", 8 * PAGE_LEN, 0).unwrap();
        seal(sparse.as_fd(), SEALS_SHARED).unwrap();
        assert!(verify(sparse.as_fd(), "chunk", 8 * 4096, SEALS_SHARED, true).is_err());
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        assert!(verify(pipe.as_fd(), "chunk", 4096, SEALS_SHARED, true).is_err());
    }

    /// A filter of system calls that forbids what is needed is named.
    #[test]
    fn forbidden_calls_are_named() {
        let error = not_to_be_had("memfd_create", Errno::NOSYS);
        assert!(matches!(error, VerbsError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("seccomp"), "{error}");
        let error = not_to_be_had("memfd_create", Errno::MFILE);
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
    }

    #[test]
    fn future_write_seal_keeps_the_owner_writing_and_everybody_else_not() {
        let fd = create("test", PAGE_LEN, PAGE_LEN).unwrap();
        let own = Mapping::read_write(fd.as_fd(), PAGE_LEN).unwrap();
        seal(fd.as_fd(), SEALS_OWNED).unwrap();
        assert!(Mapping::read_write(fd.as_fd(), PAGE_LEN).is_err());
        let peer = Mapping::read_only(fd.as_fd(), PAGE_LEN).unwrap();
        own.part(10, 3).unwrap().write(0, b"abc");
        let mut seen = [0; 3];
        peer.part(10, 3).unwrap().read(0, &mut seen);
        assert_eq!(&seen, b"abc");
        assert!(own.part(PAGE_LEN, 1).is_none() && !peer.writable());
    }
}
