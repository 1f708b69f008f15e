//! Whether the present thread is inside a call, and what has to wait until it is not.
//!
//! A call holds locks, works on what they protect, and allocates. A signal handler of the program's that
//! ran there and called again would wait for its own thread. So whoever stands between the kernel and
//! the handlers, as the preload library does, asks [`put_off`] first, and is told when the thread is
//! outside again. A thread that sleeps in a call counts as outside: it holds no lock.
//!
//! The state is the thread's own. It is kept in atomics because a handler is like another thread to the
//! compiler.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence};

#[derive(Debug)]
struct Inside {
    /// Calls within each other.
    depth: AtomicU32,
    /// Something waits until the thread is outside.
    put_off: AtomicBool,
    /// The call may be ended because its thread has been cancelled.
    may_end: AtomicBool,
    /// It has been told so.
    told: AtomicBool,
    /// Whoever cancels the thread finds it.
    listed: AtomicBool,
    /// The connection that the thread sleeps on, by its address; 0 if on none.
    asleep_on: AtomicUsize,
    /// A place on the stack above which nothing is the handler's that runs; 0 if none runs.
    handler: AtomicUsize,
}

thread_local! {
    static INSIDE: Inside = const {
        Inside {
            depth: AtomicU32::new(0),
            put_off: AtomicBool::new(false),
            may_end: AtomicBool::new(false),
            told: AtomicBool::new(false),
            listed: AtomicBool::new(false),
            asleep_on: AtomicUsize::new(0),
            handler: AtomicUsize::new(0),
        }
    };
}

/// Carries out what was put off. False: it ends a call that waits.
type Later = fn() -> bool;

static LATER: OnceLock<Later> = OnceLock::new();

/// From here on `later` carries out what was put off, on the thread that did so. It returns false if that
/// ends a call that waits, as a signal handler without SA_RESTART does.
pub fn on_leaving(later: fn() -> bool) {
    // Who comes second has the same.
    let _ = LATER.set(later);
}

/// The thread enters a call, which is not ended when the thread is cancelled until [`let_end`] says so.
#[inline]
pub fn enter_call() {
    INSIDE.with(|inside| {
        let depth = inside.depth.load(Ordering::Relaxed);
        inside.depth.store(depth.wrapping_add(1), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // Only now, when no handler comes between whose calls would change them.
        if depth == 0 {
            inside.may_end.store(false, Ordering::Relaxed);
            inside.told.store(false, Ordering::Relaxed);
        }
    });
}

/// The thread is the library's own: it is inside for as long as it lives, but for its sleeps.
pub fn stay_inside() {
    enter_call();
}

/// Whether the thread is inside a call, or the library's own.
#[inline]
#[must_use]
pub fn is_inside() -> bool {
    INSIDE.with(|inside| inside.depth.load(Ordering::Relaxed) != 0)
}

/// Whether the call that the thread has entered may be ended because the thread has been cancelled. Of
/// calls within each other the outermost says it.
#[inline]
pub fn let_end(may_end: bool) {
    INSIDE.with(|inside| {
        if inside.depth.load(Ordering::Relaxed) == 1 {
            inside.may_end.store(may_end, Ordering::Relaxed);
        }
    });
}

/// The thread leaves the call that it has entered last. True: what was put off waits for [`catch_up`],
/// now that the thread is outside.
#[inline]
#[must_use]
pub fn leave_call() -> bool {
    INSIDE.with(|inside| {
        compiler_fence(Ordering::SeqCst);
        let depth = inside.depth.load(Ordering::Relaxed).wrapping_sub(1);
        inside.depth.store(depth, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        depth == 0 && inside.put_off.load(Ordering::Relaxed)
    })
}

/// Carries out what was put off. False: a call that waits is ended by it.
#[cold]
pub fn catch_up() -> bool {
    INSIDE.with(|inside| inside.put_off.store(false, Ordering::Relaxed));
    LATER.get().is_none_or(|later| later())
}

/// Whether the thread is inside a call. If so, what was given to [`on_leaving`] is called when it is not
/// any more. Made of loads and stores alone, so that a signal handler may ask.
#[must_use]
pub fn put_off() -> bool {
    INSIDE.with(|inside| {
        let is_inside = inside.depth.load(Ordering::Relaxed) != 0;
        if is_inside {
            inside.put_off.store(true, Ordering::Relaxed);
        }
        is_inside
    })
}

/// A signal handler of the program's is about to run on this thread, called from here: what
/// [`leave_handler`] is to be given when it has.
#[inline]
#[must_use]
pub fn enter_handler() -> usize {
    let here = 0_u8;
    let here = std::ptr::from_ref(std::hint::black_box(&here)).addr();
    INSIDE.with(|inside| inside.handler.swap(here, Ordering::Relaxed))
}

/// It has run.
pub fn leave_handler(before: usize) {
    INSIDE.with(|inside| inside.handler.store(before, Ordering::Relaxed));
}

/// Whether a signal handler of the program's runs on this thread, which may have interrupted anything:
/// malloc(3), too. One that was left by longjmp(3) does not.
#[inline]
#[must_use]
pub fn is_in_handler() -> bool {
    let handler = INSIDE.with(|inside| inside.handler.load(Ordering::Relaxed));
    if handler == 0 {
        return false;
    }
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr() < handler
}

/// Sleeps, outside for as long as that takes. What was put off is carried out first; if it ends the call,
/// nobody sleeps. A signal handler's own calls leave no trace.
pub(super) fn outside<R>(interrupted: impl FnOnce() -> R, sleep: impl FnOnce() -> R) -> R {
    let (depth, may_end, told) = INSIDE.with(|inside| {
        compiler_fence(Ordering::SeqCst);
        let depth = inside.depth.swap(0, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let may_end = inside.may_end.load(Ordering::Relaxed);
        (depth, may_end, inside.told.load(Ordering::Relaxed))
    });
    let waits = INSIDE.with(|inside| inside.put_off.load(Ordering::Relaxed));
    let slept = if waits && !catch_up() {
        interrupted()
    } else {
        sleep()
    };
    INSIDE.with(|inside| {
        compiler_fence(Ordering::SeqCst);
        inside.depth.store(depth, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        inside.may_end.store(may_end, Ordering::Relaxed);
        inside.told.store(told, Ordering::Relaxed);
    });
    slept
}

/// Whether the call may be ended because its thread has been cancelled, and has not been told so yet.
pub(super) fn may_end() -> bool {
    INSIDE.with(|inside| {
        inside.may_end.load(Ordering::Relaxed) && !inside.told.load(Ordering::Relaxed)
    })
}

/// The call is told to end, once.
pub(super) fn tell_to_end() {
    INSIDE.with(|inside| inside.told.store(true, Ordering::Relaxed));
}

/// Whether the call has been told to end because its thread has been cancelled: then it is not restarted.
pub(crate) fn is_told_to_end() -> bool {
    INSIDE.with(|inside| inside.told.load(Ordering::Relaxed))
}

/// Whether the thread is among the sleepers.
#[inline]
pub(super) fn is_listed() -> bool {
    INSIDE.with(|inside| inside.listed.load(Ordering::Relaxed))
}

/// It is now, or, in a forked child, it is not any more.
pub(super) fn set_listed(on: bool) {
    INSIDE.with(|inside| inside.listed.store(on, Ordering::Relaxed));
}

/// The thread is about to sleep in a call on the connection at that address: the address that is to be put
/// back when it has.
pub(crate) fn sleep_on(conn: usize) -> usize {
    INSIDE.with(|inside| inside.asleep_on.swap(conn, Ordering::Relaxed))
}

/// Whether this call was made by a signal handler that has interrupted a sleep on the same connection. It
/// must not wait, as the call that it would wait for goes on only after it.
#[inline]
pub(crate) fn has_interrupted(conn: usize) -> bool {
    // Where several programs take turns on one thread, as in a simulator, others sleep meanwhile.
    INSIDE.with(|inside| inside.asleep_on.load(Ordering::Relaxed) == conn) && is_in_handler()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// What is put off inside a call is carried out once, by the outermost call or before a sleep, and
    /// what comes during a sleep is not put off.
    #[test]
    fn nothing_is_carried_out_inside() {
        static DONE: AtomicU32 = AtomicU32::new(0);
        on_leaving(|| {
            DONE.fetch_add(1, Ordering::Relaxed);
            false
        });
        let done = || DONE.load(Ordering::Relaxed);
        assert!(!put_off());
        enter_call();
        enter_call();
        assert!(put_off() && put_off());
        assert!(!leave_call());
        assert!(leave_call() && done() == 0);
        assert!(!catch_up() && done() == 1);
        enter_call();
        assert!(put_off());
        let slept = outside(|| "ended", || panic!("asleep"));
        assert_eq!((slept, done()), ("ended", 2));
        assert!(!outside(|| true, put_off));
        assert!(put_off());
        assert!(leave_call());
        assert!(!catch_up() && done() == 3);
    }

    /// A handler's call knows the connection whose sleep it has interrupted.
    #[test]
    fn a_sleep_is_known_by_its_connection() {
        #[inline(never)]
        fn handler() {
            assert!(has_interrupted(64) && !has_interrupted(128));
        }
        let outer = sleep_on(64);
        assert!(!has_interrupted(64), "nothing was interrupted");
        let before = enter_handler();
        handler();
        leave_handler(before);
        assert_eq!(sleep_on(outer), 64);
        let before = enter_handler();
        assert!(!has_interrupted(64));
        leave_handler(before);
    }
}
