//! Processors of a machine: until when each is busy, and with what.

use std::time::Duration;

use super::clock::Nanos;
use super::options::time_of;

/// What a processor spends time on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Copying payload.
    Copy,
    /// Registering memory, and taking that back.
    Register,
    /// Posting requests and receives.
    Post,
    /// Taking completions.
    Poll,
    /// Interrupts, and the switch to the thread that slept for one.
    Interrupt,
    /// Other system calls.
    SystemCall,
    /// What the program itself was said to do.
    Program,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Copy,
        Self::Register,
        Self::Post,
        Self::Poll,
        Self::Interrupt,
        Self::SystemCall,
        Self::Program,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Register => "register",
            Self::Post => "post",
            Self::Poll => "poll",
            Self::Interrupt => "interrupt",
            Self::SystemCall => "system_call",
            Self::Program => "program",
        }
    }
}

/// How long the processors of a machine have worked, all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Busy([Nanos; Work::ALL.len()]);

impl Busy {
    fn add(&mut self, work: Work, time: Nanos) {
        self.0[work as usize] += time;
    }

    /// On one kind of work.
    #[must_use]
    pub const fn on(&self, work: Work) -> Duration {
        Duration::from_nanos(self.0[work as usize])
    }

    /// On all of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.iter().sum())
    }

    /// What came since an `earlier` look.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (time, before) in since.0.iter_mut().zip(earlier.0) {
            *time = time.saturating_sub(before);
        }
        since
    }
}

/// A copy of so many bytes, a header, does not wait for the memory.
const CACHED_MAX: u64 = 256;

/// The processors of one machine.
#[derive(Debug)]
pub(super) struct Processors {
    /// Until when each is busy.
    until: Vec<Nanos>,
    /// The one that programs run on now.
    current: usize,
    /// Until when the memory that they share is busy with copies.
    memory_until: Nanos,
    busy: Busy,
}

impl Processors {
    pub(super) fn new(count: usize) -> Self {
        Self {
            until: vec![0; count.max(1)],
            current: 0,
            memory_until: 0,
            busy: Busy::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.until.len()
    }

    pub(super) fn busy(&self) -> Busy {
        self.busy
    }

    /// What follows runs on another one.
    pub(super) fn switch_to(&mut self, processor: usize) {
        self.current = processor % self.until.len();
    }

    /// Until when one is busy.
    pub(super) fn until(&self, processor: usize) -> Nanos {
        self.until[processor % self.until.len()]
    }

    /// Until when the present one is.
    pub(super) fn current_until(&self) -> Nanos {
        self.until[self.current]
    }

    /// The present one works for a while. Returns when it is done.
    pub(super) fn charge(&mut self, now: Nanos, work: Work, cost: Nanos) -> Nanos {
        self.charge_on(self.current, now, work, cost)
    }

    /// The first one takes an interrupt.
    pub(super) fn interrupt(&mut self, now: Nanos, cost: Nanos) {
        self.charge_on(0, now, Work::Interrupt, cost);
    }

    fn charge_on(&mut self, processor: usize, now: Nanos, work: Work, cost: Nanos) -> Nanos {
        let until = &mut self.until[processor];
        *until = (*until).max(now) + cost;
        self.busy.add(work, cost);
        *until
    }

    /// The present one copies: as fast as it can, and as the memory lets it. It is busy while it
    /// waits for that. A processor may be ahead of the clock: others that are less so share the
    /// memory with it nevertheless, so its copies are added to what there is to do by the clock.
    pub(super) fn copy(&mut self, now: Nanos, len: u64, rate: u64, memory_rate: u64) -> Nanos {
        let start = self.current_until().max(now);
        let mut done = start + time_of(len, rate);
        if len > CACHED_MAX {
            self.memory_until = self.memory_until.max(now) + time_of(len, memory_rate);
            done = done.max(self.memory_until);
        }
        self.charge(now, Work::Copy, done - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000_000_000;

    /// Each processor has its own time, and an interrupt takes the first one's.
    #[test]
    fn processors_work_at_the_same_time() {
        let mut two = Processors::new(2);
        assert_eq!(two.charge(100, Work::Post, 50), 150);
        two.switch_to(1);
        assert_eq!(two.charge(100, Work::Post, 20), 120);
        two.interrupt(100, 7);
        assert_eq!((two.until(0), two.until(1)), (157, 120));
        assert_eq!(two.busy().on(Work::Post), Duration::from_nanos(70));
        assert_eq!(two.busy().total(), Duration::from_nanos(77));
    }

    /// Two processors that copy share the memory, and are busy while they wait for it.
    #[test]
    fn copies_share_the_memory() {
        let mut two = Processors::new(2);
        assert_eq!(two.copy(0, 1000, RATE, RATE), 1000);
        two.switch_to(1);
        assert_eq!(two.copy(0, 1000, RATE, RATE), 2000);
        assert_eq!(two.busy().on(Work::Copy), Duration::from_nanos(3000));
        assert_eq!(two.copy(2000, 16, RATE, RATE), 2016);
        let mut free = Processors::new(2);
        free.copy(0, 1000, RATE, u64::MAX);
        free.switch_to(1);
        assert_eq!(free.copy(0, 1000, RATE, u64::MAX), 1000);
        // One that is far ahead is in nobody's way.
        let mut ahead = Processors::new(2);
        ahead.charge(0, Work::Post, 1_000_000);
        ahead.copy(0, 1000, RATE, 2 * RATE);
        ahead.switch_to(1);
        assert_eq!(ahead.copy(0, 1000, RATE, 2 * RATE), 1000);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let mut one = Processors::new(1);
        one.charge(0, Work::Poll, 5);
        let before = one.busy();
        one.charge(0, Work::Poll, 3);
        assert_eq!(one.busy().since(&before).total(), Duration::from_nanos(3));
    }
}
