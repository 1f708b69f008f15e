//! Signal handlers of the program's never run inside a call of this library, which may hold locks.
//!
//! POSIX lets a handler send, receive, close and much more, on the thread that it interrupts. So the kernel
//! is given [`run`] in the place of each handler. Outside of calls, and while one sleeps, it calls the
//! handler at once. Inside it puts the signal back, as one of this thread's with all that came with it,
//! and leaves the thread with all signals blocked; when the call is over, or goes to sleep, the mask is
//! as it was and the kernel delivers the signal again. So a call without signals costs no system call, and
//! a handler finds what it would have found.
//!
//! Signals that a thread raises by its own fault are left alone.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use libc::{SIG_DFL, SIG_ERR, SIG_IGN, c_int, c_long, c_void, sighandler_t, siginfo_t, ucontext_t};
use sdp_socket::inside;

use crate::boundary::{errno, interpose, set_errno};
use crate::real;

/// Signals from 1 to 64.
const COUNT: usize = 65;

/// No handler is put off, and none of them is blocked: what a thread raises by its own fault, and what the
/// C library keeps for itself.
const LEFT_ALONE: u64 = bit(libc::SIGSEGV)
    | bit(libc::SIGBUS)
    | bit(libc::SIGILL)
    | bit(libc::SIGFPE)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGABRT)
    | bit(libc::SIGSYS)
    | bit(32)
    | bit(33)
    | (if IS_MUSL { bit(34) } else { 0 });

/// This C library keeps one more.
const IS_MUSL: bool = cfg!(target_env = "musl");

const fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

/// A program's handler, and what of its flags the kernel is not given.
struct Handler {
    address: AtomicU64,
    flags: AtomicU32,
}

static HANDLERS: [Handler; COUNT] = [const {
    Handler {
        address: AtomicU64::new(0),
        flags: AtomicU32::new(0),
    }
}; COUNT];

/// The kernel always gives three arguments, and is told so; a handler is set back by us, as it may have to
/// be called later than the kernel thinks.
const OURS: c_int = libc::SA_SIGINFO | libc::SA_RESETHAND;

thread_local! {
    /// The thread's mask, while all signals are blocked for one that was put back.
    static MASK: AtomicU64 = const { AtomicU64::new(0) };
    /// A handler without SA_RESTART has run.
    static ENDS_CALLS: AtomicBool = const { AtomicBool::new(false) };
}

interpose! {
    raw fn sigaction(
        signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction,
    ) -> c_int {
        let Some(handler) = handler_of(signal) else {
            // SAFETY: what our caller promised to the C library's function.
            return unsafe { real::sigaction(signal, new, old) };
        };
        let before = handler.load();
        // SAFETY: our caller's promise.
        let wanted = unsafe { new.as_ref() }.copied();
        let given = wanted.map(|wanted| if is_handler(&wanted) { handler.takes(wanted) } else { wanted });
        let given = given.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut was = nothing();
        // SAFETY: both are ours.
        let result = unsafe { real::sigaction(signal, given, &raw mut was) };
        if result != 0 {
            handler.store(before);
        } else if !old.is_null() {
            // SAFETY: our caller's promise.
            unsafe { old.write(shown(was, before)) };
        }
        result
    }

    raw fn signal(number: c_int, handler: sighandler_t) -> sighandler_t {
        // SAFETY: our caller's promise.
        set(number, handler, Way::Bsd, || unsafe { real::signal(number, handler) })
    }

    raw fn bsd_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
        // SAFETY: our caller's promise.
        set(number, handler, Way::Bsd, || unsafe { real::bsd_signal(number, handler) })
    }

    raw fn ssignal(number: c_int, handler: sighandler_t) -> sighandler_t {
        // SAFETY: our caller's promise.
        set(number, handler, Way::Bsd, || unsafe { real::ssignal(number, handler) })
    }

    raw fn sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
        // SAFETY: our caller's promise.
        set(number, handler, Way::SystemV, || unsafe { real::sysv_signal(number, handler) })
    }

    raw fn __sysv_signal(number: c_int, handler: sighandler_t) -> sighandler_t {
        // SAFETY: our caller's promise.
        set(number, handler, Way::SystemV, || unsafe { real::__sysv_signal(number, handler) })
    }

    raw fn sigset(number: c_int, handler: sighandler_t) -> sighandler_t {
        // SAFETY: our caller's promise.
        set(number, handler, Way::Set, || unsafe { real::sigset(number, handler) })
    }

    /// What `signal` does from then on.
    raw fn siginterrupt(signal: c_int, on: c_int) -> c_int {
        // SAFETY: our caller's promise.
        let result = unsafe { real::siginterrupt(signal, on) };
        if result == 0 && handler_of(signal).is_some() {
            match on {
                0 => INTERRUPTING.fetch_and(!bit(signal), Ordering::Relaxed),
                _ => INTERRUPTING.fetch_or(bit(signal), Ordering::Relaxed),
            };
        }
        result
    }
}

/// Signals whose handlers end calls, if `signal` sets them: those of siginterrupt(3).
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// How a function of the C library sets a handler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It stays, and calls are restarted.
    Bsd,
    /// For once.
    SystemV,
    /// It stays, and the signal is let through.
    Set,
}

/// SIG_HOLD, which the libc crate has not.
const SIG_HOLD: sighandler_t = 2;

/// What a function like signal(3) does. A handler is set by one system call: between two of the C library's
/// function and ours it would be called inside calls. Everything else is for the C library's.
fn set(
    signal: c_int,
    handler: sighandler_t,
    way: Way,
    libcs: impl FnOnce() -> sighandler_t,
) -> sighandler_t {
    let Some(place) = handler_of(signal) else {
        return libcs();
    };
    let is_handler = ![SIG_DFL, SIG_IGN, SIG_ERR].contains(&handler);
    if !is_handler || (way == Way::Set && handler == SIG_HOLD) {
        let (address, _) = place.load();
        let before = libcs();
        return match before == stand_in() {
            true => usize::try_from(address).unwrap_or(SIG_DFL),
            false => before,
        };
    }
    let mut wanted = nothing();
    wanted.sa_sigaction = handler;
    let mut own = nothing().sa_mask;
    // SAFETY: the set is ours, and empty; the number is a signal's.
    unsafe { libc::sigaddset(&raw mut own, signal) };
    match way {
        Way::Bsd => {
            if !IS_MUSL {
                wanted.sa_mask = own;
            }
            if INTERRUPTING.load(Ordering::Relaxed) & bit(signal) == 0 {
                wanted.sa_flags = libc::SA_RESTART;
            }
        }
        Way::SystemV => wanted.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER,
        Way::Set => {}
    }
    let mut was = nothing();
    // SAFETY: both are ours; the handler by the caller's promise.
    if unsafe { sigaction(signal, &raw const wanted, &raw mut was) } != 0 {
        return SIG_ERR;
    }
    if way == Way::Set && let_through(&own, signal) {
        return SIG_HOLD;
    }
    was.sa_sigaction
}

/// Takes a signal out of the thread's mask: whether it was there.
fn let_through(own: &libc::sigset_t, signal: c_int) -> bool {
    let mut before = nothing().sa_mask;
    // SAFETY: both sets are there.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, own, &raw mut before) };
    // SAFETY: the set is there, and the number a signal's.
    unsafe { libc::sigismember(&raw const before, signal) == 1 }
}

/// The place of a signal whose handlers are put off.
fn handler_of(signal: c_int) -> Option<&'static Handler> {
    let at = usize::try_from(signal).ok().filter(|at| *at > 0)?;
    let is_left_alone = at < COUNT && LEFT_ALONE & bit(signal) != 0;
    HANDLERS.get(at).filter(|_| !is_left_alone)
}

/// What the kernel has in the place of a handler.
fn stand_in() -> sighandler_t {
    run as *const () as sighandler_t
}

fn is_handler(action: &libc::sigaction) -> bool {
    ![SIG_DFL, SIG_IGN].contains(&action.sa_sigaction) && action.sa_sigaction != stand_in()
}

/// An action, as the program has set it.
fn shown(mut action: libc::sigaction, (address, flags): (u64, u32)) -> libc::sigaction {
    if action.sa_sigaction == stand_in() {
        action.sa_sigaction = usize::try_from(address).unwrap_or(SIG_DFL);
        action.sa_flags = action.sa_flags & !OURS | flags.cast_signed();
    }
    action
}

fn nothing() -> libc::sigaction {
    // SAFETY: the type is plain numbers, an address among them, for which zero is a value.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

impl Handler {
    fn load(&self) -> (u64, u32) {
        let address = self.address.load(Ordering::Relaxed);
        (address, self.flags.load(Ordering::Relaxed))
    }

    fn store(&self, (address, flags): (u64, u32)) {
        self.address.store(address, Ordering::Relaxed);
        self.flags.store(flags, Ordering::Relaxed);
    }

    /// Remembers a handler: what the kernel is to be given for it.
    fn takes(&self, mut action: libc::sigaction) -> libc::sigaction {
        inside::on_leaving(deliver);
        let flags = (action.sa_flags & OURS).cast_unsigned();
        self.store((u64::try_from(action.sa_sigaction).unwrap_or(0), flags));
        action.sa_sigaction = stand_in();
        action.sa_flags = action.sa_flags & !OURS | libc::SA_SIGINFO;
        action
    }
}

type Function = unsafe extern "C-unwind" fn(c_int, *mut siginfo_t, *mut c_void);

/// What the kernel calls for a handler of the program's.
unsafe extern "C-unwind" fn run(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    if inside::put_off() {
        // SAFETY: the kernel's arguments.
        unsafe { put_back(signal, info, context) };
        return;
    }
    let Some(handler) = handler_of(signal) else {
        return;
    };
    let (address, flags) = handler.load();
    let before = errno();
    let mut now = nothing();
    // SAFETY: the place is ours, and nothing is set.
    unsafe { real::sigaction(signal, ptr::null(), &raw mut now) };
    if now.sa_flags & libc::SA_RESTART == 0 {
        ENDS_CALLS.with(|ends| ends.store(true, Ordering::Relaxed));
    }
    let is_for_once = flags & libc::SA_RESETHAND.cast_unsigned() != 0;
    if is_for_once && now.sa_sigaction == stand_in() {
        now.sa_sigaction = SIG_DFL;
        // SAFETY: as the kernel does before it calls such a handler.
        unsafe { real::sigaction(signal, &raw const now, ptr::null_mut()) };
    }
    set_errno(before);
    let address = ptr::with_exposed_provenance::<c_void>(usize::try_from(address).unwrap_or(0));
    if address.is_null() {
        return;
    }
    // SAFETY: the program has given it as a handler, and one of fewer arguments takes no notice of more.
    let function = unsafe { std::mem::transmute::<*const c_void, Function>(address) };
    let outer = inside::enter_handler();
    // SAFETY: the kernel's arguments.
    unsafe { function(signal, info, context) };
    inside::leave_handler(outer);
}

/// Leaves the thread with all signals blocked, and this one among those that wait for it.
///
/// # Safety
/// The arguments are the kernel's.
unsafe fn put_back(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let before = errno();
    let blocked = !LEFT_ALONE;
    // One that the program does not want blocked in its handler would come again at once.
    change_mask(libc::SIG_BLOCK, blocked);
    // SAFETY: the kernel's argument.
    let mask = unsafe { &raw mut (*context.cast::<ucontext_t>()).uc_sigmask }.cast::<u64>();
    // SAFETY: the kernel's own mask is that long, and there.
    let interrupted = unsafe { mask.read_unaligned() };
    MASK.with(|kept| kept.store(interrupted, Ordering::Relaxed));
    // SAFETY: as above. The kernel takes it for the thread's when this handler returns.
    unsafe { mask.write_unaligned(interrupted | blocked) };
    // SAFETY: no preconditions.
    let process = unsafe { libc::getpid() };
    // SAFETY: no preconditions.
    let thread = unsafe { libc::gettid() };
    let queue = libc::SYS_rt_tgsigqueueinfo;
    // SAFETY: the kernel reads what it has given.
    let queued = unsafe { libc::syscall(queue, process, thread, signal, info) };
    if queued != 0 {
        // Too many wait (RLIMIT_SIGPENDING). As one of kill(2) it comes all the same, but without what
        // was said with it; as one of pthread_kill(3) the kernel would refuse a real-time signal.
        // SAFETY: the type is plain numbers, for which zero is a value: SI_USER.
        let mut bare: siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
        bare.si_signo = signal;
        // SAFETY: the kernel reads what is ours.
        unsafe { libc::syscall(queue, process, thread, signal, &raw const bare) };
    }
    set_errno(before);
}

fn change_mask(how: c_int, mask: u64) {
    let (none, len) = (ptr::null_mut::<u64>(), size_of::<u64>());
    // SAFETY: the kernel reads the mask, which is that long.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            c_long::from(how),
            &raw const mask,
            none,
            len,
        )
    };
}

/// Has handlers that were put off run: the kernel delivers their signals before this returns. False: one
/// of them ends a call that waits.
fn deliver() -> bool {
    ENDS_CALLS.with(|ends| ends.store(false, Ordering::Relaxed));
    let before = errno();
    change_mask(
        libc::SIG_SETMASK,
        MASK.with(|mask| mask.load(Ordering::Relaxed)),
    );
    set_errno(before);
    !ENDS_CALLS.with(|ends| ends.load(Ordering::Relaxed))
}
