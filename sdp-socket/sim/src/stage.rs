//! The stage: who runs next, and when time passes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sdp_core::Instant;
use sdp_socket::{Context, Runtime, WaitWord};
use sdp_verbs::sim::{Fabric, SimProvider};
use sdp_verbs::{ArmToken, CompletionQueue, Rng, Wake};

use crate::actor::{Actor, wait};

/// Virtual time without any program getting on, after which the run is stuck: longer than every
/// time-out of the stack.
const STUCK_AFTER: u64 = 400_000_000_000;
/// Turns of a run, at most.
const TURNS_MAX: u64 = 3_000_000;
/// The same of a run that sends much.
const LONG_TURNS_MAX: u64 = 1_000_000_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The runtime of one context: one machine on the stage.
#[derive(Debug)]
pub(crate) struct Seat {
    provider: Arc<SimProvider>,
    context: Mutex<Weak<Context>>,
    kicked: AtomicBool,
    /// When the progress loop wants to be called: nanoseconds, or never.
    deadline: AtomicU64,
    /// A wait in so many is ended by a signal; none if zero.
    signal_every: u64,
    /// Copies that the provider does not know of cost time too.
    counts_copies: bool,
    waits: AtomicU64,
}

const NEVER: u64 = u64::MAX;
/// The processor of the progress loop, which takes the interrupts too.
const PROGRESS_ON: usize = 0;

impl Seat {
    pub(crate) fn new(provider: Arc<SimProvider>, signal_every: u64) -> Arc<Self> {
        Arc::new(Self::of(provider, signal_every))
    }

    /// One on which no signal comes, and every copy costs time.
    pub(crate) fn measured(provider: Arc<SimProvider>) -> Arc<Self> {
        Arc::new(Self {
            counts_copies: true,
            ..Self::of(provider, 0)
        })
    }

    fn of(provider: Arc<SimProvider>, signal_every: u64) -> Self {
        Self {
            provider,
            context: Mutex::default(),
            kicked: AtomicBool::new(false),
            deadline: AtomicU64::new(NEVER),
            signal_every,
            counts_copies: false,
            waits: AtomicU64::new(0),
        }
    }

    fn context(&self) -> Option<Arc<Context>> {
        let context = self.context.lock();
        context.unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn nanos(&self) -> u64 {
        nanos(self.provider.now())
    }

    /// The time on one of the processors.
    fn nanos_on(&self, processor: usize) -> u64 {
        nanos(self.provider.now_on(processor))
    }

    /// What any processor of the machine will have done, and when.
    fn busy_until(&self) -> impl Iterator<Item = u64> {
        (0..self.provider.processors()).map(|processor| self.nanos_on(processor))
    }

    /// Whether the progress loop has something to do.
    fn has_work(&self, now: u64) -> bool {
        self.kicked.load(Ordering::Relaxed)
            || self.deadline.load(Ordering::Relaxed) <= now
            || self.provider.has_events()
    }

    fn progress(&self) {
        self.provider.run_on(PROGRESS_ON);
        self.kicked.store(false, Ordering::Relaxed);
        self.deadline.store(NEVER, Ordering::Relaxed);
        if let Some(context) = self.context() {
            let deadline = context.progress();
            let deadline = deadline.map_or(NEVER, Instant::as_nanos);
            self.deadline.store(deadline, Ordering::Relaxed);
        }
    }

    fn wait(
        &self,
        what: &'static str,
        until: Option<Instant>,
        ready: impl Fn() -> bool,
    ) -> io::Result<Wake> {
        let until = until.map(Instant::as_nanos);
        self.provider.system_call();
        let number = self.waits.fetch_add(1, Ordering::Relaxed) + 1;
        let signalled = self.signal_every != 0 && number.is_multiple_of(self.signal_every);
        // A signal comes at once, if there is nothing yet.
        let signal_at = self.nanos() + 1;
        let end = if signalled { Some(signal_at) } else { until };
        let woken = wait(what, end, || self.nanos(), ready);
        Ok(match woken {
            true => Wake::Event,
            false if signalled && until.is_none_or(|until| until > self.nanos()) => {
                Wake::Interrupted
            }
            false => Wake::TimedOut,
        })
    }
}

impl Runtime for Seat {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos())
    }

    fn wait_cq(
        &self,
        cq: &dyn CompletionQueue,
        token: ArmToken,
        until: Option<Instant>,
    ) -> io::Result<Wake> {
        let ready = || !matches!(cq.wait(token, Some(Duration::ZERO)), Ok(Wake::TimedOut));
        let sleeps = !ready();
        let woken = self.wait("a completion", until, ready)?;
        if sleeps && woken == Wake::Event {
            self.provider.woken();
        }
        Ok(woken)
    }

    fn wait_word(&self, word: &WaitWord, seen: u32, until: Option<Instant>) -> io::Result<Wake> {
        self.wait("a word", until, || word.seen() != seen)
    }

    fn start_progress(&self, context: &Arc<Context>) -> io::Result<()> {
        let mut own = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        *own = Arc::downgrade(context);
        self.kicked.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn kick_progress(&self) {
        self.kicked.store(true, Ordering::Relaxed);
    }

    fn may_spin(&self) -> bool {
        false
    }

    fn copied(&self, len: usize) {
        if self.counts_copies {
            self.provider.copy(len);
        }
    }

    fn random(&self) -> io::Result<u64> {
        let number = self.waits.fetch_add(1, Ordering::Relaxed);
        Ok(Rng::new(number, self.nanos()).next())
    }
}

/// Where programs put programs that they start.
pub(crate) type Wings = Rc<RefCell<Vec<Actor>>>;

/// Who gets the thread next.
enum Turn {
    Progress(usize),
    Actor(usize),
}

/// Machines, programs, and the clock that all of them share.
pub(crate) struct Stage {
    fabric: Arc<Fabric>,
    rng: Rng,
    seats: Vec<Arc<Seat>>,
    actors: Vec<Actor>,
    wings: Wings,
    /// When a program last got on.
    moved_at: u64,
    /// Programs look again only when there is something to see, not at everything that happens.
    saves_looks: bool,
    turns_max: u64,
}

impl Stage {
    pub(crate) fn new(fabric: Arc<Fabric>, seed: u64, seats: Vec<Arc<Seat>>) -> Self {
        Self {
            fabric,
            rng: Rng::new(seed, 0x57),
            seats,
            actors: Vec::new(),
            wings: Wings::default(),
            moved_at: 0,
            saves_looks: false,
            turns_max: TURNS_MAX,
        }
    }

    /// Runs may be long, so programs look again only when there is something to see. Who runs when
    /// is another matter then, but a run repeats as before.
    pub(crate) fn be_long(&mut self) {
        self.saves_looks = true;
        self.turns_max = LONG_TURNS_MAX;
    }

    pub(crate) fn wings(&self) -> Wings {
        Rc::clone(&self.wings)
    }

    fn now(&self) -> u64 {
        nanos(self.fabric.now())
    }

    /// Runs until every program has ended.
    ///
    /// # Errors
    /// Who waits for what, if nothing is left that could end it.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.moved_at = self.now();
        for _ in 0..self.turns_max {
            let new = std::mem::take(&mut *self.wings.borrow_mut());
            self.actors.extend(new);
            if self.actors.iter().all(Actor::is_done) {
                return Ok(());
            }
            self.turn()?;
        }
        Err(self.stuck("livelock"))
    }

    /// Runs without programs until nothing is under way, or for a time.
    pub(crate) fn settle(&mut self, limit: u64) {
        let end = self.now() + limit;
        while self.now() < end && self.turn().is_ok() {}
    }

    fn turn(&mut self) -> Result<(), String> {
        let now = self.now();
        let mut turns = Vec::new();
        for (index, seat) in self.seats.iter().enumerate() {
            // A busy processor looks at nothing.
            if seat.nanos_on(PROGRESS_ON) <= now && seat.has_work(now) {
                turns.push(Turn::Progress(index));
            }
        }
        for (index, actor) in self.actors.iter().enumerate() {
            let due = actor
                .pause
                .is_some_and(|pause| pause.until.is_some_and(|until| until <= now));
            let wants = !actor.looked || due;
            let free_at = |actor: &Actor| self.seats[actor.node].nanos_on(actor.processor);
            if !actor.is_done() && wants && free_at(actor) <= now {
                turns.push(Turn::Actor(index));
            }
        }
        if turns.is_empty() {
            return self.pass_time();
        }
        let choice = usize::try_from(self.rng.below(turns.len() as u64)).unwrap_or(0);
        match turns[choice] {
            Turn::Progress(index) => self.seats[index].progress(),
            Turn::Actor(index) => {
                let actor = &mut self.actors[index];
                self.seats[actor.node].provider.run_on(actor.processor);
                actor.resume();
                let idle = !actor.is_done() && actor.pause.is_some_and(|pause| pause.again);
                if !idle {
                    self.moved_at = now;
                    self.stir(Some(index));
                }
                return Ok(());
            }
        }
        self.stir(None);
        Ok(())
    }

    /// Something happened: who has looked must look again.
    fn stir(&mut self, but: Option<usize>) {
        for (index, actor) in self.actors.iter_mut().enumerate() {
            if Some(index) != but {
                actor.looked = false;
            }
        }
    }

    fn pass_time(&mut self) -> Result<(), String> {
        let now = self.now();
        let seats = self.seats.iter();
        let deadlines = seats
            .clone()
            .map(|seat| seat.deadline.load(Ordering::Relaxed));
        let busy = seats.flat_map(|seat| seat.busy_until());
        let actors = self.actors.iter().filter(|actor| !actor.is_done());
        let untils = actors.filter_map(|actor| actor.pause.and_then(|pause| pause.until));
        let ours = deadlines.chain(busy).chain(untils);
        let ours = ours.filter(|at| *at > now && *at != NEVER).min();
        let theirs = self.fabric.next_time().map(nanos);
        let waits = self.actors.iter().any(|actor| !actor.is_done());
        if waits && now - self.moved_at > STUCK_AFTER {
            return Err(self.stuck("no program gets on"));
        }
        match (ours, theirs) {
            (None, None) => return Err(self.stuck("deadlock")),
            (Some(at), None) => self.fabric.advance_to(Duration::from_nanos(at)),
            (Some(at), Some(next)) if at < next => {
                self.fabric.advance_to(Duration::from_nanos(at));
            }
            _ => {
                self.fabric.step(None);
            }
        }
        if self.fabric.take_news() || !self.saves_looks {
            self.stir(None);
        }
        Ok(())
    }

    fn stuck(&self, why: &str) -> String {
        let actors = self.actors.iter().filter(|actor| !actor.is_done());
        let actors: Vec<_> = actors
            .map(|actor| {
                let what = actor.pause.map_or("its first turn", |pause| pause.what);
                format!("{} waits for {what}", actor.name)
            })
            .collect();
        format!("progress: {why}: {}", actors.join(", "))
    }

    /// Leaves what still runs where it is.
    pub(crate) fn abandon(&mut self) {
        self.actors.iter_mut().for_each(Actor::abandon);
    }
}
