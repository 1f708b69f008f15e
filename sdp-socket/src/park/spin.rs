//! A bounded spin before sleeping, that learns whether spinning pays.
//!
//! By measurement: about 1 µs of pauses, then up to 20 µs of {sched_yield, 16 pauses}, then
//! sleep. A yield that took more than 0.4 ms means that somebody else wants the processor: yields
//! stop for 100 ms in this process. With one processor nobody spins.

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How a waiting thread passes the time before it sleeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SpinPolicy {
    /// Up to 20 µs, less when it does not pay, not at all when processors are scarce.
    #[default]
    Adaptive,
    /// Never sleep while the call has no time-out: for latency measurements on idle machines.
    Always,
    /// Sleep at once.
    Never,
}

const PAUSE_TIME: Duration = Duration::from_micros(1);
const YIELD_TIME: Duration = Duration::from_micros(20);
const YIELD_TOO_LONG: Duration = Duration::from_micros(400);
const YIELD_BAN: Duration = Duration::from_millis(100);

/// Nanoseconds since the process's first spin, until which yielding is banned.
static YIELD_BANNED_UNTIL: AtomicU64 = AtomicU64::new(0);

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
    /// A signal came that ends the call, unless what it waits for has come.
    pub(crate) interrupted: bool,
    /// The completion queue was polled a moment ago.
    pub(crate) looked: bool,
    /// The time at which that found something.
    pub(crate) found_at: Option<sdp_core::Instant>,
}

impl Spinner {
    pub(crate) fn new(policy: SpinPolicy) -> Self {
        Self {
            policy,
            started: None,
            interrupted: false,
            looked: false,
            found_at: None,
        }
    }

    /// What was waited for came: the next wait of the same call starts afresh.
    pub(crate) fn restart(&mut self) {
        self.started = None;
    }

    /// Passes a moment. False: time to sleep.
    pub(crate) fn spin(&mut self) -> bool {
        match self.policy {
            SpinPolicy::Never => false,
            SpinPolicy::Always => {
                spin_loop();
                true
            }
            SpinPolicy::Adaptive => self.adaptive(),
        }
    }

    fn adaptive(&mut self) -> bool {
        if cpus() == 1 {
            return false;
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
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
