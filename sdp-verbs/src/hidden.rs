//! Descriptors that the program shall not notice, by their numbers.
//!
//! The kernel's table of descriptors is as long as its greatest number asks for. fork(2) copies it,
//! and select(2) reads and writes the sets of a program up to its end, however short they are. So the
//! numbers are not far from the program's own: a process with few hidden descriptors has them below
//! FD_SETSIZE, where select stays within every set, and behind what loops close whose end is a small
//! number. One that has many of them serves many, and has numbers of its own that grow: hidden ones
//! are out of their way then.
//!
//! Which numbers are hidden is noted, so that whoever stands in front of close(2) can keep the program
//! from closing what it does not know of. He tells when one of them is closed after all ([`forget`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// FD_SETSIZE.
const SET_LEN: i32 = 1024;

/// Places beyond the first: their first number, and how many there are. The table is of 256 KiB with
/// one of the former, and of 4 MiB with one of the latter.
const FARTHER: [(i32, i32); 2] = [(1 << 14, 1 << 12), (1 << 18, i32::MAX - (1 << 18))];

/// Where nothing else is free: the least number that is still hidden.
const LEAST: i32 = 32;

/// The least hidden number from FD_SETSIZE on that there has been.
static LEAST_BEYOND_SETS: AtomicI32 = AtomicI32::new(i32::MAX);

const WORD_BITS: usize = u64::BITS as usize;
/// Numbers up to 2^20 are noted: a table with greater ones is larger than any limit by default.
const NOTED_WORDS: usize = (1 << 20) / WORD_BITS;

/// A bit for each number that is hidden.
static NOTED: [AtomicU64; NOTED_WORDS] = [const { AtomicU64::new(0) }; NOTED_WORDS];
/// Beyond the greatest word in which there has been one.
static NOTED_END: AtomicI32 = AtomicI32::new(0);

/// Moves a descriptor, close-on-exec, to where a program is not likely to meet it. Where there is no
/// such number it stays.
#[must_use]
pub fn hide(fd: OwnedFd) -> OwnedFd {
    duplicate(&fd).unwrap_or(fd)
}

/// The same of a duplicate.
///
/// # Errors
/// `EMFILE` where there is no such number.
pub fn duplicate(fd: &impl AsFd) -> io::Result<OwnedFd> {
    let hidden = place(fd)?;
    if hidden.as_raw_fd() >= SET_LEN {
        LEAST_BEYOND_SETS.fetch_min(hidden.as_raw_fd(), Ordering::Relaxed);
    }
    note(hidden.as_raw_fd());
    Ok(hidden)
}

/// The word and the bit of a number.
fn bit_of(fd: RawFd) -> Option<(usize, u64)> {
    let at = usize::try_from(fd).ok()?;
    (at / WORD_BITS < NOTED_WORDS).then(|| (at / WORD_BITS, 1 << (at % WORD_BITS)))
}

fn note(fd: RawFd) {
    if let Some((word, bit)) = bit_of(fd) {
        NOTED[word].fetch_or(bit, Ordering::Relaxed);
        let end = i32::try_from(word + 1).unwrap_or(i32::MAX);
        NOTED_END.fetch_max(end, Ordering::Relaxed);
    }
}

/// Whether a number has been hidden, and not [forgotten](forget) since. One load, so that a signal
/// handler may ask.
#[must_use]
#[inline]
pub fn is_hidden(fd: RawFd) -> bool {
    bit_of(fd).is_some_and(|(word, bit)| NOTED[word].load(Ordering::Relaxed) & bit != 0)
}

/// The number is about to be closed, and may be anybody's then.
pub fn forget(fd: RawFd) {
    if let Some((word, bit)) = bit_of(fd) {
        NOTED[word].fetch_and(!bit, Ordering::Relaxed);
    }
}

/// None is hidden: in a forked child, to which what the parent has hidden is of no use. Only stores to
/// atomics.
pub fn forget_all() {
    for word in noted_words() {
        if word.load(Ordering::Relaxed) != 0 {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// Words in which there may be one.
fn noted_words() -> &'static [AtomicU64] {
    let end = usize::try_from(NOTED_END.load(Ordering::Relaxed)).unwrap_or(0);
    &NOTED[..end]
}

/// The hidden numbers from `first` to `last`, in their order.
pub fn within(first: RawFd, last: RawFd) -> impl Iterator<Item = RawFd> {
    let end = RawFd::try_from(noted_words().len() * WORD_BITS).unwrap_or(RawFd::MAX);
    (first.max(0)..end.min(last.saturating_add(1))).filter(|fd| is_hidden(*fd))
}

/// The least hidden number from FD_SETSIZE on that this process, or one it was forked from, has ever
/// had. Without one the kernel's table of descriptors is no longer for the hidden ones than a set of
/// select(2) is.
#[must_use]
pub fn least_beyond_sets() -> Option<i32> {
    let least = LEAST_BEYOND_SETS.load(Ordering::Relaxed);
    (least != i32::MAX).then_some(least)
}

/// The first place: the last eighth of a set, or of what the process may have.
fn nearest(limit: i32) -> (i32, i32) {
    let end = limit.min(SET_LEN);
    (end - end / 8, end / 8)
}

fn place(fd: &impl AsFd) -> Result<OwnedFd, Errno> {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| i32::try_from(limit).ok());
    let limit = limit.unwrap_or(i32::MAX);
    for (first, count) in [nearest(limit)].into_iter().chain(FARTHER) {
        match rustix::io::fcntl_dupfd_cloexec(fd, first) {
            Ok(found) if found.as_raw_fd() - first < count => return Ok(found),
            // All of the place is taken, or it is not for this process to have.
            _ => {}
        }
    }
    let mut first = limit / 2;
    while first >= LEAST {
        if let Ok(found) = rustix::io::fcntl_dupfd_cloexec(fd, first) {
            return Ok(found);
        }
        first /= 2;
    }
    Err(Errno::MFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is hidden is noted until it is forgotten, and nothing else is.
    #[test]
    fn numbers_are_noted() {
        let fd = hide(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap());
        let number = fd.as_raw_fd();
        assert!(is_hidden(number));
        assert!(within(number, number).eq([number]));
        assert!(within(number + 1, RawFd::MAX).all(|other| other > number));
        for stranger in [-1, 0, RawFd::MIN, RawFd::MAX, 1 << 20] {
            assert!(!is_hidden(stranger), "{stranger}");
            forget(stranger);
        }
        forget(number);
        assert!(!is_hidden(number) && within(number, number).next().is_none());
    }

    /// Small limits have their last eighth, greater ones the end of a set of select.
    #[test]
    fn the_nearest_place_fits_the_limit() {
        let rows = [
            (64, (56, 8)),
            (256, (224, 32)),
            (1024, (896, 128)),
            (i32::MAX, (896, 128)),
        ];
        for (limit, wanted) in rows {
            assert_eq!(nearest(limit), wanted, "{limit}");
        }
    }
}
