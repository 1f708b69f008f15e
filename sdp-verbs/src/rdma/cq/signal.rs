//! Which signal handlers want system calls restarted.

use std::mem::MaybeUninit;
use std::ptr;

/// Signals that a thread's own fault raises; they do not come while it sleeps.
const FAULTS: [libc::c_int; 6] = [
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
];

/// Whether every handler that may run while a thread sleeps has `SA_RESTART`.
///
/// Sleeping on two descriptors takes poll(2), which no handler restarts; sockets promise that
/// those with `SA_RESTART` do not end a call. Which signal it was cannot be found out afterwards,
/// so a program that has handlers of both kinds sees an interruption that it might not have.
pub(super) fn all_restart() -> bool {
    (1..=libc::SIGRTMAX()).all(|signal| {
        if FAULTS.contains(&signal) {
            return true;
        }
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: only asks; `action` is valid for the write.
        let known = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
        // SAFETY: zeroed, which is valid, or filled by the call.
        let action = unsafe { action.assume_init() };
        let caught = known == 0
            && action.sa_sigaction != libc::SIG_DFL
            && action.sa_sigaction != libc::SIG_IGN;
        !caught || action.sa_flags & libc::SA_RESTART != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn nothing(_: libc::c_int) {}

    fn install(flags: libc::c_int) {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        let at = action.as_mut_ptr();
        // SAFETY: zeroed memory of the right type.
        unsafe { (*at).sa_sigaction = nothing as *const () as libc::sighandler_t };
        // SAFETY: as above.
        unsafe { (*at).sa_flags = flags };
        // SAFETY: the handler does nothing, and the signal is nobody else's in this process.
        let done = unsafe { libc::sigaction(libc::SIGUSR2, at, ptr::null_mut()) };
        assert_eq!(done, 0);
    }

    /// One handler without the flag is enough.
    #[test]
    fn a_handler_without_the_flag_is_found() {
        install(libc::SA_RESTART);
        assert!(all_restart());
        install(0);
        assert!(!all_restart());
    }
}
