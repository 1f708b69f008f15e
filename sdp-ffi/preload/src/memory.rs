//! This library's memory is its own.
//!
//! A signal handler may have interrupted the program's malloc(3), whose lock its thread then holds. If its
//! calls took memory from there they would wait for themselves; and if another thread of this library did
//! while it holds a lock of ours, they would wait for that one. So nothing here takes memory from the C
//! library, whichever thread it is for.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;
use sdp_socket::inside;

struct Memory;

#[cfg_attr(not(test), global_allocator)]
#[cfg_attr(
    test,
    allow(dead_code, reason = "unit tests have the C library's memory")
)]
static MEMORY: Memory = Memory;

/// All of it; whoever holds the lock may use it.
struct Heap(UnsafeCell<Dlmalloc>);

// SAFETY: it is used under the lock only.
unsafe impl Sync for Heap {}

static HEAP: Heap = Heap(UnsafeCell::new(Dlmalloc::new()));
static LOCK: Mutex<()> = Mutex::new(());

/// The lock, while a fork is under way.
struct Held(UnsafeCell<Option<MutexGuard<'static, ()>>>);

// SAFETY: it is used by the thread that forks only, which holds the lock.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));
/// The thread that holds the lock because it forks; 0 if none does.
static FORKS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MARK: u8 = const { 0 };
}

/// By what a thread is known as long as it runs, and its copy in a child.
fn own_mark() -> usize {
    MARK.with(|mark| ptr::from_ref(mark).addr())
}

/// Uses the heap, where no handler of this thread's comes between, and no other thread.
fn with_heap<R>(body: impl FnOnce(&mut Dlmalloc) -> R) -> R {
    inside::enter_call();
    let forks = FORKS.load(Ordering::Relaxed) == own_mark();
    let lock = (!forks).then(|| LOCK.lock().unwrap_or_else(PoisonError::into_inner));
    // SAFETY: the lock is held, and `body` allocates nothing.
    let result = body(unsafe { &mut *HEAP.0.get() });
    drop(lock);
    if inside::leave_call() {
        inside::catch_up();
    }
    result
}

// SAFETY: the heap keeps the contract, and is used by one thread at a time.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any length and alignment may be asked for.
        with_heap(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        with_heap(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: it has that layout, and came from here.
        with_heap(|heap| unsafe { heap.free(block, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        // SAFETY: as above.
        with_heap(|heap| unsafe { heap.realloc(block, layout.size(), layout.align(), len) })
    }
}

/// This thread is about to fork: no other one is to leave the heap halfway.
pub(crate) fn hold() {
    let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the lock is held.
    unsafe { *HELD.0.get() = Some(lock) };
    FORKS.store(own_mark(), Ordering::Relaxed);
}

/// The fork is over, in this process.
pub(crate) fn let_go() {
    if FORKS.load(Ordering::Relaxed) != own_mark() {
        return;
    }
    FORKS.store(0, Ordering::Relaxed);
    // SAFETY: this thread has put it there and holds the lock.
    drop(unsafe { (*HELD.0.get()).take() });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory is as long and as aligned as was asked for, keeps its bytes, and can be had while this
    /// thread forks.
    #[test]
    fn blocks_are_what_was_asked_for() {
        for forks in [false, true] {
            if forks {
                hold();
            }
            for (len, align) in [(1, 1), (100, 8), (5000, 64), (1 << 20, 4096)] {
                let layout = Layout::from_size_align(len, align).unwrap();
                // SAFETY: the length is not zero.
                let block = unsafe { MEMORY.alloc_zeroed(layout) };
                assert!(!block.is_null() && block.addr().is_multiple_of(align));
                // SAFETY: it is as long.
                let bytes = unsafe { std::slice::from_raw_parts_mut(block, len) };
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(7);
                // SAFETY: it has that layout.
                let block = unsafe { MEMORY.realloc(block, layout, len * 3) };
                // SAFETY: it is longer.
                let bytes = unsafe { std::slice::from_raw_parts(block, len) };
                assert!(bytes.iter().all(|byte| *byte == 7));
                let longer = Layout::from_size_align(len * 3, align).unwrap();
                // SAFETY: it has that layout.
                unsafe { MEMORY.dealloc(block, longer) };
            }
            let_go();
        }
    }
}
