//! What the program has asked of its signals.

use std::ptr;

use super::inside::is_told_to_end;

/// Signals that a thread raises by its own fault: no other process sends them, and runtimes catch
/// them in their own way.
const FAULTS: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];

/// Whether a signal that came during a wait lets the wait go on: every handler of the program is
/// installed with SA_RESTART, and the thread has not been cancelled. For waits that the kernel ends
/// although a call without a time-out would be restarted, since they have a time-out of this
/// library's own.
#[must_use]
pub fn signals_restart() -> bool {
    if is_told_to_end() {
        return false;
    }
    (1..=libc::SIGRTMAX())
        .filter(|signal| !FAULTS.contains(signal))
        .all(|signal| {
            let Some(action) = action_of(signal) else {
                return true;
            };
            let handled =
                action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
            !handled || action.sa_flags & libc::SA_RESTART != 0
        })
}

/// `None` for a number that is no signal a program may handle.
fn action_of(signal: libc::c_int) -> Option<libc::sigaction> {
    // SAFETY: the type is plain numbers, an address among them, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given, and `action` is there for the old one.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    (asked == 0).then_some(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test program has installed no handler, but for faults.
    #[test]
    fn ignored_and_untouched_signals_do_not_count() {
        assert!(action_of(libc::SIGSEGV).is_some());
        assert!(action_of(0).is_none());
        assert!(signals_restart());
    }
}
