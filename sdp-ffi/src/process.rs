//! What belongs to a process: its sockets and its buffers. A forked child starts with none.

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use sdp_socket::SdpBuffer;

use crate::handle::Table;
use crate::state::Socket;

/// Everything a process has of this library.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) sockets: Table<Socket>,
    /// By address.
    pub(crate) buffers: Mutex<HashMap<usize, SdpBuffer>>,
}

/// This process's, or null before the first use and in a child right after the fork.
static CURRENT: AtomicPtr<Process> = AtomicPtr::new(ptr::null_mut());
/// Forks between the program's start and this process.
static FORKS: AtomicU32 = AtomicU32::new(0);
static FORK_HANDLER: Once = Once::new();
/// This process, if there was no memory for a fork handler: then each call asks who it is. Else 0.
static UNWATCHED: AtomicI32 = AtomicI32::new(0);

/// Far apart enough that a child's first numbers are none that its parent has.
const GENERATIONS_PER_FORK: u32 = 211;

/// This process's sockets and buffers.
pub(crate) fn process() -> &'static Process {
    let unwatched = UNWATCHED.load(Ordering::Acquire);
    if unwatched != 0 && unwatched != own_pid() {
        after_unseen_fork();
    }
    let mut at = CURRENT.load(Ordering::Acquire);
    if at.is_null() {
        at = start();
    }
    // SAFETY: `start` alone stores pointers other than null here, from boxes that are never freed.
    unsafe { &*at }
}

#[cold]
fn start() -> *mut Process {
    FORK_HANDLER.call_once(|| {
        // SAFETY: the handler only stores to atomics, which is allowed in a forked child, and the
        // library is never unloaded (build.rs).
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        if failed != 0 {
            UNWATCHED.store(own_pid(), Ordering::Relaxed);
        }
    });
    let epoch = FORKS
        .load(Ordering::Relaxed)
        .wrapping_mul(GENERATIONS_PER_FORK);
    let new = Box::into_raw(Box::new(Process {
        sockets: Table::new(epoch),
        buffers: Mutex::default(),
    }));
    let stored =
        CURRENT.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
    match stored {
        Ok(_) => new,
        Err(other) => {
            // SAFETY: `new` came from a box above and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            other
        }
    }
}

fn own_pid() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() }
}

/// What the fork handler does, in a child that has none.
#[cold]
fn after_unseen_fork() {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if UNWATCHED.load(Ordering::Relaxed) != own_pid() {
        in_child();
        UNWATCHED.store(own_pid(), Ordering::Release);
    }
}

/// The parent's table stays where it is, untouched for ever: its locks may be held by threads
/// that this process does not have.
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    CURRENT.store(ptr::null_mut(), Ordering::Release);
}
