//! The fabric as its owner sees it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::faults::{Fault, FaultCounts, Faults};
use super::options::{SimOptions, Timing, nanos};
use super::provider::SimProvider;
use super::watch::Watcher;
use super::world::{NodeKey, World};

/// What programs that live by the real clock are not waited for: see [`Drive::Eager`].
pub const SOON: Duration = Duration::from_secs(1);

/// Who makes time pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drive {
    /// Each call carries out all that follows from it within [`SOON`]: what takes longer are
    /// time-outs of those who wait for an answer of a program.
    Eager,
    /// Nothing happens but in [`Fabric::step`].
    Stepped,
}

/// Links, adapters, and everything under way between them.
#[derive(Debug)]
pub struct Fabric {
    world: Mutex<World>,
    /// Signalled when a completion, an event or new work has come.
    moved: Condvar,
    drive: Drive,
    /// Waits until the clock has come to a time.
    pace: OnceLock<fn(Duration)>,
}

impl Fabric {
    /// A fabric without machines.
    #[must_use]
    pub fn new(seed: u64, drive: Drive, timing: Timing, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            world: Mutex::new(World::new(seed, timing, faults)),
            moved: Condvar::new(),
            drive,
            pace: OnceLock::new(),
        })
    }

    /// From here on `pace` is called whenever a machine whose processor is ahead of the clock looks
    /// at a completion queue, with the time on that processor: it shall return when the clock has
    /// come so far, so that the machine sees what has happened by then. Only the first one counts.
    pub fn set_pace(&self, pace: fn(Duration)) {
        let _ = self.pace.set(pace);
    }

    /// Lets the clock come to the time on a machine, if somebody sees to that.
    pub(super) fn catch_up(&self, node: NodeKey) {
        let Some(pace) = self.pace.get() else {
            return;
        };
        let ahead = self.with(|world| {
            let (own, now) = (world.time_on(node), world.now());
            (own > now).then_some(own)
        });
        if let Some(time) = ahead {
            pace(Duration::from_nanos(time));
        }
    }

    /// Adds a machine.
    #[must_use]
    pub fn node(self: &Arc<Self>, options: SimOptions) -> Arc<SimProvider> {
        let node = self.with(|world| world.add_node(options));
        Arc::new(SimProvider::new(Arc::clone(self), node, options))
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the fabric; under [`Drive::Eager`] carries out all that follows.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        let done = work(&mut world);
        if self.drive == Drive::Eager {
            while world.step(Some(nanos(SOON))) {}
        }
        self.tell(world);
        done
    }

    fn tell(&self, mut world: MutexGuard<'_, World>) {
        let moved = world.take_moved();
        drop(world);
        if moved {
            self.moved.notify_all();
        }
    }

    /// Sleeps until `look` finds something, by the real clock. `None`: the time ran out.
    pub(super) fn sleep_until<T>(
        &self,
        limit: Option<Duration>,
        mut look: impl FnMut(&mut World) -> Option<T>,
    ) -> Option<T> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut world = self.lock();
        loop {
            if let Some(found) = look(&mut world) {
                return Some(found);
            }
            world = match deadline {
                None => self
                    .moved
                    .wait(world)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let woken = self.moved.wait_timeout(world, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.lock().now())
    }

    /// When the next thing happens, if anything is under way.
    #[must_use]
    pub fn next_time(&self) -> Option<Duration> {
        self.lock().next_time().map(Duration::from_nanos)
    }

    /// Lets the next thing happen, if it is due within a time. False: it is not.
    pub fn step(&self, within: Option<Duration>) -> bool {
        let mut world = self.lock();
        let done = world.step(within.map(nanos));
        self.tell(world);
        done
    }

    /// Lets time pass up to `to`, with all that happens until then.
    pub fn advance_to(&self, to: Duration) {
        let mut world = self.lock();
        world.advance_to(nanos(to));
        self.tell(world);
    }

    /// Whether a completion or an event of a channel was shown since this was asked last: nothing
    /// else concerns a program that waits.
    #[must_use]
    pub fn take_news(&self) -> bool {
        self.lock().take_news()
    }

    /// Waits, by the real clock, until something is due within [`SOON`]: for a thread that steps.
    #[must_use]
    pub fn wait_for_work(&self, limit: Duration) -> bool {
        let soon = |world: &mut World| world.is_due_within(nanos(SOON)).then_some(());
        self.sleep_until(Some(limit), soon).is_some()
    }

    /// Shows `watcher` all that passes from here on.
    pub fn watch(&self, watcher: Box<dyn Watcher>) {
        self.lock().watcher = Some(watcher);
    }

    /// Changes what goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().dice.set(faults);
    }

    /// Counts what a program did: the dice know nothing of it.
    pub fn happened(&self, fault: Fault) {
        self.lock().dice.happened(fault);
    }

    /// How often each fault has happened.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        self.lock().dice.counts()
    }

    /// Faults that have come up, those that were spared included. They are numbered from 0.
    #[must_use]
    pub fn fault_number(&self) -> u64 {
        self.lock().dice.number()
    }

    /// Rules of verbs that were broken so far, by anybody above.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// What nobody has let go of, in words, or nothing.
    #[must_use]
    pub fn leftovers(&self) -> Option<String> {
        self.lock().leftovers()
    }

    /// A hash over everything that has happened.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.lock().trace.hash()
    }

    /// Keeps the last `lines` lines of what happens.
    pub fn keep_log(&self, lines: usize) {
        self.lock().trace.keep(lines);
    }

    /// The lines kept.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lock().trace.log()
    }

    /// Adds what happened above the fabric to the trace.
    pub fn note(&self, what: &'static str, who: u64, about: [u64; 2]) {
        let mut world = self.lock();
        let now = world.now();
        world.trace.note(now, what, who, about);
    }
}
