//! A bounded spin before sleeping, that learns whether spinning pays.
//!
//! By measurement: about 1 µs of pauses, then up to 20 µs of {sched_yield, 16 pauses}, then
//! sleep. A yield that took more than 0.4 ms means that somebody else wants the processor: yields
//! stop for 100 ms in this process. With one processor nobody pauses: there it is the other side
//! that must run, so a thread yields twice, which is cheaper than going to sleep and being woken;
//! unless other threads of the process wait, too: each would wake for less than it can get done.

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a waiting thread passes the time before it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SpinPolicy {
    /// Up to 20 µs, less when it does not pay; two yields where there is one processor.
    #[default]
    Adaptive,
    /// Never sleep: for latency measurements on idle machines.
    Always,
    /// Sleep at once.
    Never,
}

const PAUSE_TIME: Duration = Duration::from_micros(1);
const YIELD_TIME: Duration = Duration::from_micros(20);
const YIELD_TOO_LONG: Duration = Duration::from_micros(400);
const YIELD_BAN: Duration = Duration::from_millis(100);
/// With one processor: one lets the other side run, one more whoever stands between.
const LONE_YIELDS: u32 = 2;

/// How often a thread that never sleeps passes a moment before it does what else a sleep is for.
const BREATH: u32 = 256;

/// Nanoseconds since the process's first spin, until which yielding is banned.
static YIELD_BANNED_UNTIL: AtomicU64 = AtomicU64::new(0);

/// Waits in a row whose yields were in vain, from which on few begin with any: one in so many.
const LONE_VAIN_MAX: u32 = 16;
const LONE_EXPLORE: u32 = 16;

/// With one processor: waits in a row whose yields were in vain, or would have been.
static LONE_VAIN: AtomicU32 = AtomicU32::new(0);
/// With one processor: threads of this process that wait in a call.
static LONE_WAITERS: AtomicU32 = AtomicU32::new(0);

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn cpus() -> u32 {
    static CPUS: OnceLock<u32> = OnceLock::new();
    *CPUS.get_or_init(|| {
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
    })
}

/// What one call's waits have in common: how long it has spun, and whether a signal has come.
#[derive(Debug)]
pub(crate) struct Spinner {
    policy: SpinPolicy,
    started: Option<Instant>,
    /// Moments of a thread that never sleeps.
    moments: u32,
    /// With one processor: this is one of [`LONE_WAITERS`], and has yielded so often; one more: in vain.
    lone: Option<u32>,
    /// A signal came that ends the call, unless what it waits for has come.
    pub(crate) interrupted: bool,
    /// The completion queue was polled a moment ago.
    pub(crate) looked: bool,
    /// The time at which that found something.
    pub(crate) found_at: Option<sdp_core::Instant>,
}

/// Passes a moment in which another thread may finish what takes it about as long; with one processor,
/// or if `long`, by letting it run here.
pub(crate) fn pass_moment(long: bool) {
    if long || cpus() == 1 {
        std::thread::yield_now();
    } else {
        for _ in 0..64 {
            spin_loop();
        }
    }
}

impl Spinner {
    pub(crate) fn new(policy: SpinPolicy) -> Self {
        Self {
            policy,
            started: None,
            moments: 0,
            lone: None,
            interrupted: false,
            looked: false,
            found_at: None,
        }
    }

    /// What was waited for came: the next wait of the same call starts afresh.
    pub(crate) fn restart(&mut self) {
        self.started = None;
        if matches!(self.lone, Some(1..=LONE_YIELDS)) {
            LONE_VAIN.store(0, Ordering::Relaxed);
        }
        self.leave_lone();
    }

    /// Passes a moment. False: time to sleep.
    pub(crate) fn spin(&mut self) -> bool {
        match self.policy {
            SpinPolicy::Never => false,
            SpinPolicy::Always => {
                self.moments = self.moments.wrapping_add(1);
                spin_loop();
                true
            }
            SpinPolicy::Adaptive => self.adaptive(),
        }
    }

    /// Whether a thread that never sleeps is to let signal handlers run, and to see whether it was cancelled.
    pub(crate) fn needs_breath(&self) -> bool {
        self.policy == SpinPolicy::Always && self.moments.is_multiple_of(BREATH)
    }

    fn adaptive(&mut self) -> bool {
        if cpus() == 1 {
            let may = self.may_yield();
            if may {
                std::thread::yield_now();
            }
            return may;
        }
        let now = Instant::now();
        let Some(started) = self.started else {
            self.started = Some(now);
            return true;
        };
        let spent = now.duration_since(started);
        if spent < PAUSE_TIME {
            for _ in 0..8 {
                spin_loop();
            }
            return true;
        }
        let since_origin = nanos(now.duration_since(origin()));
        if spent >= YIELD_TIME || YIELD_BANNED_UNTIL.load(Ordering::Relaxed) > since_origin {
            return false;
        }
        std::thread::yield_now();
        let yielded = now.elapsed();
        if yielded > YIELD_TOO_LONG {
            YIELD_BANNED_UNTIL.store(
                since_origin + nanos(yielded) + nanos(YIELD_BAN),
                Ordering::Relaxed,
            );
            return false;
        }
        for _ in 0..16 {
            spin_loop();
        }
        true
    }

    /// With one processor: whether this is the only thread that waits, has not yielded enough, and
    /// yielding has helped lately.
    fn may_yield(&mut self) -> bool {
        let yields = match self.lone {
            Some(yields) => yields,
            None => {
                LONE_WAITERS.fetch_add(1, Ordering::Relaxed);
                self.lone = Some(0);
                0
            }
        };
        if LONE_WAITERS.load(Ordering::Relaxed) != 1 {
            return false;
        }
        let may = match yields {
            0 => yields_pay(),
            LONE_YIELDS => {
                LONE_VAIN.fetch_add(1, Ordering::Relaxed);
                false
            }
            _ => yields < LONE_YIELDS,
        };
        self.lone = Some(if may { yields + 1 } else { LONE_YIELDS + 1 });
        may
    }

    fn leave_lone(&mut self) {
        if self.lone.take().is_some() {
            LONE_WAITERS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.leave_lone();
    }
}

/// Whether a wait may begin with yields: when lately they were in vain, only now and then.
fn yields_pay() -> bool {
    let vain = LONE_VAIN.load(Ordering::Relaxed);
    if vain < LONE_VAIN_MAX {
        return true;
    }
    LONE_VAIN.fetch_add(1, Ordering::Relaxed);
    vain.is_multiple_of(LONE_EXPLORE)
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules for one processor; no other test of this program counts there.
    #[test]
    fn one_waiter_yields_twice_while_that_helps_and_several_sleep() {
        let mut first = Spinner::new(SpinPolicy::Adaptive);
        let yields = [(); 4].map(|()| first.may_yield());
        assert_eq!(yields, [true, true, false, false]);
        first.restart();
        assert!(first.may_yield(), "afresh");
        let mut second = Spinner::new(SpinPolicy::Adaptive);
        assert!(!second.may_yield(), "two wait");
        assert!(!first.may_yield(), "two wait");
        drop(second);
        assert!(first.may_yield(), "alone again");

        let wait = |found: bool| {
            let mut waiter = Spinner::new(SpinPolicy::Adaptive);
            let yields = (0..3).filter(|_| waiter.may_yield()).count();
            if found {
                waiter.lone = Some(1);
                waiter.restart();
            }
            yields
        };
        drop(first);
        let yields: usize = (0..1_000).map(|_| wait(false)).sum();
        assert!((100..200).contains(&yields), "{yields} in vain");
        assert!((0..16).any(|_| wait(true) > 0), "one is tried");
        assert_eq!(wait(true), 2, "they help again");
    }
}
