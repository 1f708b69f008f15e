//! The bound on private memory of all connections of a process together, and its account.
//!
//! Near the bound memory is *scarce*: the engines are told, and ask for no more than each
//! connection needs to get on, which is never refused. What memory is taken for before an engine
//! has heard of it is refused at the bound.
//!
//! It is scarce for a while too when an adapter gave none for a message: the system's limit of
//! locked memory is met, and nobody knows it but by meeting it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use sdp_core::Instant;
use sdp_verbs::VerbsError;

use crate::size::{parse_size, variable};

/// Bytes of private memory of all connections together.
const VARIABLE: &str = "SDP_MEM_MAX";

/// What may be set at least: with less, a few connections would always be short of memory.
const MAX_MIN: usize = 1 << 20;

/// How long memory is held to be scarce after an adapter gave none, nanoseconds: long enough for
/// connections to hand back what they hold, and short beside a program that frees some.
const SHORT_FOR: u64 = 1_000_000_000;

/// Private memory of all connections of this process: what waits to be sent, what has come and was
/// not yet read, and what is posted for what may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryUse {
    /// Bytes in use.
    pub used: usize,
    /// Bytes in use at once, at most.
    pub used_max: usize,
    /// The bound: `SDP_MEM_MAX`, or an eighth of the machine's memory. From three quarters of it
    /// on connections shrink to 16 KiB for each direction and to four receive buffers, of the length
    /// that they have by then; that much is granted beyond the bound.
    pub max: usize,
    /// Times memory was refused.
    pub refused: u64,
}

/// The account. Only numbers: who frees memory hands its [`Held`] back.
#[derive(Debug)]
pub(crate) struct Budget {
    max: usize,
    used: AtomicUsize,
    used_max: AtomicUsize,
    refused: AtomicU64,
    /// Until when memory of adapters is held to be scarce: nanoseconds of the runtime's clock.
    short_until: AtomicU64,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            used: AtomicUsize::new(0),
            used_max: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            short_until: AtomicU64::new(0),
        })
    }

    /// Without a bound.
    pub(crate) fn unbounded() -> Arc<Self> {
        Self::new(usize::MAX)
    }

    /// The bound that the environment sets, or an eighth of the machine's memory.
    ///
    /// # Errors
    /// `InvalidInput` for a value that is no number of bytes, or too small.
    pub(crate) fn from_environment() -> io::Result<Arc<Self>> {
        let max = match variable(VARIABLE)? {
            Some(text) => parse(&text)?,
            None => machine_memory() / 8,
        };
        Ok(Self::new(max))
    }

    /// Connections should do with as little as they can.
    fn is_scarce(&self, now: Instant) -> bool {
        self.used.load(Ordering::Relaxed) >= self.max / 4 * 3
            || now.as_nanos() < self.short_until.load(Ordering::Relaxed)
    }

    /// Takes `len` bytes, whatever there is left.
    fn take(self: &Arc<Self>, len: usize) -> Held {
        let used = self
            .used
            .fetch_add(len, Ordering::Relaxed)
            .wrapping_add(len);
        self.used_max.fetch_max(used, Ordering::Relaxed);
        Held {
            budget: Arc::clone(self),
            len,
        }
    }

    /// Takes `len` bytes if the bound allows it.
    fn try_take(self: &Arc<Self>, len: usize) -> Option<Held> {
        let fits = |used: usize| used.checked_add(len).filter(|used| *used <= self.max);
        match self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        {
            Ok(before) => {
                self.used_max.fetch_max(before + len, Ordering::Relaxed);
                let budget = Arc::clone(self);
                Some(Held { budget, len })
            }
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    pub(crate) fn account(&self) -> MemoryUse {
        MemoryUse {
            used: self.used.load(Ordering::Relaxed),
            used_max: self.used_max.load(Ordering::Relaxed),
            max: self.max,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// Bytes taken from a budget; they go back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    len: usize,
}

impl Held {
    /// Parts with `len` of the bytes, or with all if there are fewer.
    pub(crate) fn split(&mut self, len: usize) -> Self {
        let len = len.min(self.len);
        self.len -= len;
        Self {
            budget: Arc::clone(&self.budget),
            len,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// One connection's way to the budget.
#[derive(Debug)]
pub(crate) struct Allowance {
    budget: Arc<Budget>,
    /// What the engine was told last.
    scarce: AtomicBool,
    refused: AtomicU64,
}

impl Allowance {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            scarce: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// Whether memory is scarce, if that is not what the engine was told last. It is to be told:
    /// from here on it gets all it asks for. Called under the connection's lock.
    pub(crate) fn news(&self, now: Instant) -> Option<bool> {
        let scarce = self.budget.is_scarce(now);
        let news = self.scarce.load(Ordering::Relaxed) != scarce;
        if news {
            self.scarce.store(scarce, Ordering::Relaxed);
        }
        news.then_some(scarce)
    }

    /// An adapter had no memory for a message.
    pub(crate) fn note_short(&self, now: Instant) {
        let until = now.as_nanos().saturating_add(SHORT_FOR);
        self.budget.short_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Memory that the engine asks for.
    ///
    /// # Errors
    /// The bound is met, and the engine does not know yet that memory is scarce.
    pub(crate) fn reserve(&self, len: usize) -> Result<Held, VerbsError> {
        if self.scarce.load(Ordering::Relaxed) {
            return Ok(self.budget.take(len));
        }
        self.budget.try_take(len).ok_or_else(|| {
            self.refused.fetch_add(1, Ordering::Relaxed);
            VerbsError::Limit {
                what: "private memory of all connections",
                limit: format!("{VARIABLE}={}", self.budget.max),
                remedy: "raise it, or read what has come",
            }
        })
    }

    /// Memory that cannot be refused.
    pub(crate) fn take(&self, len: usize) -> Held {
        self.budget.take(len)
    }

    /// Times memory was refused to this connection.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

fn parse(text: &str) -> io::Result<usize> {
    let len = parse_size(VARIABLE, text)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len < MAX_MIN {
        let what = format!("{VARIABLE}={text}: at least 1M is needed, such as 64M or 1G");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(len)
}

/// Bytes of memory of this machine.
fn machine_memory() -> usize {
    let info = rustix::system::sysinfo();
    let units = usize::try_from(info.totalram).unwrap_or(usize::MAX);
    let unit = usize::try_from(info.mem_unit).unwrap_or(usize::MAX);
    units.saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(5);

    /// Memory goes back with its holder, whole or in parts.
    #[test]
    fn what_is_dropped_is_free() {
        let budget = Budget::new(100);
        let mut held = budget.try_take(60).unwrap();
        let part = held.split(50);
        assert_eq!(budget.account().used, 60);
        drop(held);
        assert_eq!(budget.account().used, 50);
        drop(part);
        let account = budget.account();
        assert_eq!((account.used, account.used_max), (0, 60));
    }

    /// No more than all there is can be parted with.
    #[test]
    fn a_part_is_no_larger_than_the_whole() {
        let budget = Budget::new(100);
        let mut held = budget.try_take(10).unwrap();
        let part = held.split(11);
        assert_eq!((held.len, part.len), (0, 10));
    }

    /// Beyond the bound memory is refused, and counted; what is needed is granted.
    #[test]
    fn the_bound_refuses_what_is_not_needed() {
        let budget = Budget::new(100);
        let allowance = Allowance::new(&budget);
        let all = allowance.reserve(100).unwrap();
        let error = allowance.reserve(1).unwrap_err().to_string();
        assert!(error.contains("SDP_MEM_MAX=100"), "{error}");
        assert!(budget.try_take(usize::MAX).is_none());
        assert_eq!((allowance.refused(), budget.account().refused), (1, 2));
        assert_eq!(allowance.news(NOW), Some(true));
        let needed = allowance.reserve(7).unwrap();
        assert_eq!(budget.account().used_max, 107);
        drop((all, needed));
        assert_eq!(allowance.news(NOW), Some(false));
        assert_eq!(budget.account().used, 0);
    }

    /// Memory is scarce from three quarters of the bound on, and news is told once.
    #[test]
    fn scarce_near_the_bound() {
        let budget = Budget::new(100);
        let allowance = Allowance::new(&budget);
        let held = allowance.reserve(74).unwrap();
        assert_eq!(allowance.news(NOW), None);
        let more = allowance.take(1);
        assert_eq!(allowance.news(NOW), Some(true));
        assert_eq!(allowance.news(NOW), None);
        drop((held, more));
        assert_eq!(allowance.news(NOW), Some(false));
    }

    /// An adapter without memory makes it scarce for all connections, for a while.
    #[test]
    fn scarce_after_an_adapter_had_none() {
        let budget = Budget::new(100);
        let [one, other] = [0, 1].map(|_| Allowance::new(&budget));
        one.note_short(NOW);
        assert_eq!((one.news(NOW), other.news(NOW)), (Some(true), Some(true)));
        let late = Instant::from_nanos(NOW.as_nanos() + SHORT_FOR);
        assert_eq!(
            (one.news(late), other.news(late)),
            (Some(false), Some(false))
        );
    }

    /// Threads that take and give back at once leave nothing behind and never exceed the bound.
    #[test]
    fn threads_keep_the_bound() {
        let budget = Budget::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for len in (1..400).cycle().take(10_000) {
                        drop(budget.try_take(len));
                    }
                });
            }
        });
        let account = budget.account();
        assert_eq!(account.used, 0);
        assert!(account.used_max <= 1_000, "{account:?}");
    }

    /// The machine has memory, and sizes below the least are refused by what is allowed.
    #[test]
    fn values() {
        assert!(machine_memory() / 8 >= MAX_MIN);
        assert_eq!(parse("1M").unwrap(), 1 << 20);
        for text in ["1023K", "0", "many", "", "-1"] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("SDP_MEM_MAX="), "{error}");
        }
        let error = parse("1K").unwrap_err().to_string();
        assert!(error.contains("at least 1M"), "{error}");
    }
}
