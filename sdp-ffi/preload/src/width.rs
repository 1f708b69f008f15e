//! How far select(2) goes in the sets of a program.
//!
//! The kernel goes as far as the count says, and not beyond the end of its table of descriptors. Old
//! programs live by the second: they give sets of FD_SETSIZE bits, and a count of getdtablesize(),
//! which may be a million. A hidden descriptor makes the table longer, and the kernel would read and
//! write what lies behind such a set. So a count above FD_SETSIZE, which few programs have, is brought
//! down to the table that the program would have without this library.

use std::ptr;

use libc::{c_int, c_ulong, nfds_t, pollfd, timeval};
use sdp_socket::hidden;

use crate::boundary::{errno, set_errno};
use crate::{real, table};

/// FD_SETSIZE. Every table beyond it is of a power of two.
const SET_LEN: c_int = 1024;
const WORD_BITS: usize = c_ulong::BITS as usize;

/// The count that the kernel would have gone by without this library.
pub(crate) fn width(count: c_int) -> c_int {
    if count <= SET_LEN || !table::is_used() {
        return count;
    }
    let before = errno();
    let own = count.min(own_table_len(count));
    set_errno(before);
    own
}

/// How long the table would be for the program's own descriptors, if that is less than `wanted`; at least
/// FD_SETSIZE.
fn own_table_len(wanted: c_int) -> c_int {
    let len = table_len(wanted);
    let Some(hidden) = hidden::least_beyond_sets() else {
        return len;
    };
    if len <= hidden {
        return len;
    }
    match greatest_open(hidden) {
        None => SET_LEN,
        // The program has as many itself, and who is who cannot be told any more.
        Some(own) if own + 1 == hidden => len,
        Some(own) => len_for(own),
    }
}

/// How long a table is in which that number is the greatest.
fn len_for(number: c_int) -> c_int {
    let len = number.unsigned_abs().saturating_add(1);
    let len = len.checked_next_power_of_two().unwrap_or(u32::MAX);
    c_int::try_from(len).unwrap_or(c_int::MAX).max(SET_LEN)
}

/// How long the kernel's table is, if that is less than `wanted`; at least FD_SETSIZE.
fn table_len(wanted: c_int) -> c_int {
    let mut len = SET_LEN;
    while len < wanted && reaches(len) {
        len = len.saturating_mul(2);
    }
    len
}

/// Whether the table has that number, be it open or not. The kernel says so by what it does with a set
/// that has it: beyond the table it does not look.
fn reaches(number: c_int) -> bool {
    let at = usize::try_from(number).unwrap_or(0);
    let mut set: Vec<c_ulong> = vec![0; at / WORD_BITS + 1];
    set[at / WORD_BITS] = 1 << (at % WORD_BITS);
    let mut none = timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let nothing = ptr::null_mut();
    let set_at = set.as_mut_ptr().cast();
    // SAFETY: the set is ours, and has the number.
    let result = unsafe { real::select(number + 1, set_at, nothing, nothing, &raw mut none) };
    result != 0 || set[at / WORD_BITS] == 0
}

/// The greatest number from FD_SETSIZE on, and below `end`, that is open.
fn greatest_open(end: c_int) -> Option<c_int> {
    const TOGETHER: usize = 256;
    let mut numbers = (SET_LEN..end).rev();
    loop {
        let mut asked: [pollfd; TOGETHER] = std::array::from_fn(|_| pollfd {
            // The kernel passes over numbers below zero.
            fd: numbers.next().unwrap_or(-1),
            events: 0,
            revents: 0,
        });
        if asked[0].fd < 0 {
            return None;
        }
        let count = nfds_t::try_from(TOGETHER).unwrap_or(0);
        // SAFETY: the array is ours, and as long.
        unsafe { real::poll(asked.as_mut_ptr(), count, 0) };
        let mut open = asked
            .iter()
            .filter(|one| one.fd >= 0 && one.revents & libc::POLLNVAL == 0);
        if let Some(one) = open.next() {
            return Some(one.fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables are as long as the kernel makes them.
    #[test]
    fn lengths_of_tables() {
        let rows = [
            (0, 1024),
            (1023, 1024),
            (1024, 2048),
            (2047, 2048),
            (2048, 4096),
            (c_int::MAX, c_int::MAX),
        ];
        for (greatest, len) in rows {
            assert_eq!(len_for(greatest), len, "{greatest}");
        }
    }
}
