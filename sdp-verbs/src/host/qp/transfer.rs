//! One transfer: bytes from memory that the peer's key names into our own.
//!
//! Both RDMA READ (for ourselves) and the peer's RDMA WRITE (on its request) end here. Nobody ever
//! writes into another process's user memory.

use crate::host::keys::{self, PeerKeys};
use crate::host::layout::WriteStatus;
use crate::host::link::PeerLink;
use crate::host::xmem::{self, ReadFault, Target};
use crate::types::{Access, Rkey};
use crate::wr::WcStatus;

/// How a transfer went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// All bytes came, and were the key's.
    Done,
    /// The region has not been passed to us yet: try again when it has.
    NotYet,
    /// The key was dead, of another kind, or too short.
    Access,
    /// The source could not be read.
    Unreadable,
    /// The peer is gone.
    Gone,
}

impl Outcome {
    /// As the completion of a READ; `None` if it has none yet.
    pub(super) fn status(self) -> Option<WcStatus> {
        match self {
            Self::Done => Some(WcStatus::Success),
            Self::NotYet => None,
            Self::Access => Some(WcStatus::RemoteAccess),
            Self::Unreadable => Some(WcStatus::SourceUnreadable),
            Self::Gone => Some(WcStatus::RetryExceeded),
        }
    }

    /// As the answer to the peer's WRITE; `None` if there is none yet.
    pub(super) fn report(self) -> Option<WriteStatus> {
        match self {
            Self::Done => Some(WriteStatus::Done),
            Self::NotYet => None,
            Self::Access => Some(WriteStatus::Access),
            Self::Unreadable | Self::Gone => Some(WriteStatus::Failed),
        }
    }
}

/// Fills `targets` from `addr` on through the peer's key, which must be bound on its queue pair
/// `peer_qp`.
///
/// # Safety
/// Every target is valid for writes of its length and lies in memory of our own.
pub(super) unsafe fn fetch(
    link: &PeerLink,
    peer_qp: u32,
    rkey: Rkey,
    addr: u64,
    targets: &[Target],
) -> Outcome {
    let len: usize = targets.iter().map(|t| t.len).sum();
    if len == 0 {
        return Outcome::Done;
    }
    let Some(keys) = link.peer_keys() else {
        return Outcome::Access;
    };
    let Some(key) = keys.look(rkey) else {
        return Outcome::Access;
    };
    let cell = key.cell;
    if cell.qp != peer_qp || !keys::covers(&cell, Access::REMOTE_READ, addr, len as u64) {
        return Outcome::Access;
    }
    if let Some((region, start)) = cell.region {
        let Some(map) = link.peer_region(region) else {
            // What the peer sent before its end has been taken in: more does not come.
            return if link.is_dead() {
                Outcome::Gone
            } else {
                Outcome::NotYet
            };
        };
        let offset = start
            .checked_add(addr - cell.addr)
            .and_then(|at| usize::try_from(at).ok());
        let Some(source) = offset.and_then(|at| map.part(at, len)) else {
            return Outcome::Access;
        };
        let mut from = source.as_ptr().cast_const();
        for target in targets {
            // SAFETY: the source lies within a mapping held by `map`, the target by this
            // function's contract; a read-only mapping of a peer's memfd is none of our own
            // memory, or (same process) is memory that the program must not read into itself.
            unsafe { xmem::direct_copy(target.ptr, from, target.len) };
            from = from.wrapping_add(target.len);
        }
        return if !keys.still(&key) {
            Outcome::Access
        } else if link.is_deserted() {
            Outcome::Gone
        } else {
            Outcome::Done
        };
    }
    let Some(pid) = link.readable_pid() else {
        return Outcome::Unreadable;
    };
    let (proof_addr, proof) = keys.proof(&key);
    // SAFETY: the targets by this function's contract.
    let read = unsafe { xmem::read_process(pid, addr, targets, proof_addr, &proof) };
    match read {
        Ok(()) => Outcome::Done,
        Err(fault) => diagnose(pid, &fault, keys, &key),
    }
}

fn diagnose(pid: i32, fault: &ReadFault, keys: &PeerKeys, key: &keys::PeerKey) -> Outcome {
    match fault {
        // The memory may have been unmapped after the key was killed, which is no fault of it, and
        // the process may not be the one that bound the key: only that one has the proof.
        ReadFault::Unmapped if keys.still(key) && is_proven(pid, keys, key) => Outcome::Unreadable,
        ReadFault::Unmapped | ReadFault::NotProven => Outcome::Access,
        ReadFault::Refused(error) if error.raw_os_error() == Some(libc::ESRCH) => Outcome::Gone,
        ReadFault::Refused(_) => Outcome::Unreadable,
    }
}

/// Whether the process has the key's cell, alive.
fn is_proven(pid: i32, keys: &PeerKeys, key: &keys::PeerKey) -> bool {
    let (addr, proof) = keys.proof(key);
    // SAFETY: there are no targets.
    unsafe { xmem::read_process(pid, addr, &[], addr, &proof) }.is_ok()
}
