//! A runtime in which one thread runs at a time and time is a number.
//!
//! Every wait of a blocking call ends up here. The waiting actor itself then plays everybody else:
//! it runs the progress loops of the contexts that have something to do, or hands the baton to
//! another actor, in an order given by a seed. When nobody can get on, the clock jumps to the
//! next time somebody asked for; if nobody asked for one, that is a deadlock, and the test fails
//! naming who waits for what.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use sdp_core::Instant;
use sdp_socket::{Context, Runtime, WaitWord};
use sdp_verbs::{ArmToken, CompletionQueue, Wake};

use super::rng::Rng;
use super::watch::{Actor, Watch, fail_here};

/// Jumps of the clock in a row without any actor getting on, after which the test is stuck: the
/// provider's own background timers go by the real clock and may ask to be called many times.
const JUMPS_MAX: u32 = 50_000;

thread_local! {
    /// Which actor the calling thread is. The test's own thread is the first.
    static ME: Cell<usize> = const { Cell::new(0) };
}

/// The stage: contexts, actors, clock.
#[derive(Debug)]
pub(crate) struct Script {
    now: AtomicU64,
    state: Mutex<State>,
    baton: Condvar,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// Nanoseconds that a step takes at most.
    step_max: usize,
    seats: Vec<(Weak<Seat>, Weak<Context>)>,
    deadlines: Vec<Option<u64>>,
    actors: Vec<Part>,
    /// Who has the baton.
    holder: usize,
    jumps: u32,
}

/// What an actor does.
#[derive(Clone, Debug)]
struct Part {
    name: &'static str,
    until: Option<u64>,
    mood: Mood,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    /// It runs, or would if it had the baton.
    Runs,
    /// It waits, and may find what it waits for when it looks.
    Waits(&'static str),
    /// It has looked since anything last happened.
    Looked(&'static str),
    /// It wants to run when everybody else waits.
    Rests,
    Done,
}

/// What happens next.
enum Turn {
    Progress(usize, Arc<Context>),
    Baton(usize),
    Stuck(String),
}

impl Script {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        let step_max = [1, 1_000, 30_000, 300_000][rng.below(4)];
        let main = Part {
            name: "main",
            until: None,
            mood: Mood::Runs,
        };
        Arc::new(Self {
            now: AtomicU64::new(1_000_000_000),
            state: Mutex::new(State {
                rng,
                step_max,
                seats: Vec::new(),
                deadlines: Vec::new(),
                actors: vec![main],
                holder: 0,
                jumps: 0,
            }),
            baton: Condvar::new(),
        })
    }

    /// A runtime for one context.
    pub(crate) fn seat(self: &Arc<Self>) -> Arc<Seat> {
        Arc::new_cyclic(|seat| {
            let mut state = self.lock();
            state.seats.push((Weak::clone(seat), Weak::new()));
            state.deadlines.push(None);
            Seat {
                script: Arc::clone(self),
                index: state.seats.len() - 1,
                kicked: AtomicBool::new(false),
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn nanos(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Plays the others until the calling actor is ready, or a time has come. False: the time.
    fn wait(&self, what: &'static str, until: Option<u64>, ready: &dyn Fn() -> bool) -> bool {
        let me = ME.get();
        self.put_down(me, Mood::Waits(what), until);
        loop {
            match self.next_turn() {
                Turn::Baton(who) if who == me => {}
                Turn::Baton(who) => self.hand_over(who, me),
                Turn::Progress(index, context) => {
                    self.progress(index, &context);
                    continue;
                }
                Turn::Stuck(why) => fail_here(why),
            }
            let is_ready = ready();
            let too_late = until.is_some_and(|t| t <= self.nanos());
            let mut state = self.lock();
            if is_ready || too_late {
                state.actors[me].mood = Mood::Runs;
                state.jumps = 0;
                state.stir();
                return is_ready;
            }
            state.actors[me].mood = Mood::Looked(what);
        }
    }

    fn put_down(&self, me: usize, mood: Mood, until: Option<u64>) {
        let mut state = self.lock();
        assert_eq!(state.holder, me, "a thread runs that has no baton");
        state.actors[me].mood = mood;
        state.actors[me].until = until;
        // What it did before may be what others wait for.
        state.stir();
    }

    fn progress(&self, index: usize, context: &Context) {
        let deadline = context.progress();
        let mut state = self.lock();
        state.deadlines[index] = deadline.map(Instant::as_nanos);
        state.stir();
    }

    fn next_turn(&self) -> Turn {
        let mut state = self.lock();
        loop {
            let step_max = state.step_max;
            let step = state.rng.below(step_max) as u64;
            let now = self.now.fetch_add(step, Ordering::Relaxed) + step;
            let mut turns = Vec::new();
            for index in 0..state.seats.len() {
                if let Some(context) = state.has_work(index, now) {
                    turns.push(Turn::Progress(index, context));
                }
            }
            for (who, part) in state.actors.iter().enumerate() {
                let due = part.until.is_some_and(|t| t <= now);
                if matches!(part.mood, Mood::Waits(_))
                    || (matches!(part.mood, Mood::Looked(_)) && due)
                {
                    turns.push(Turn::Baton(who));
                }
            }
            if turns.is_empty()
                && let Some(who) = state.actors.iter().position(|p| p.mood == Mood::Rests)
            {
                turns.push(Turn::Baton(who));
            }
            if !turns.is_empty() {
                let choice = state.rng.below(turns.len());
                let turn = turns.swap_remove(choice);
                if let Turn::Progress(index, _) = &turn {
                    state.unkick(*index);
                }
                return turn;
            }
            match state.next_time() {
                Some(time) if state.jumps < JUMPS_MAX => {
                    state.jumps += 1;
                    self.now.fetch_max(time, Ordering::Relaxed);
                }
                time => return Turn::Stuck(state.describe(time.is_some())),
            }
        }
    }

    /// Gives the baton away and waits until it comes back.
    fn hand_over(&self, to: usize, me: usize) {
        let mut state = self.lock();
        state.holder = to;
        self.baton.notify_all();
        while state.holder != me {
            state = self
                .baton
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs actors, on a thread each of which one runs at a time, until all are done.
    pub(crate) fn all(&self, actors: Vec<Actor<'_>>) {
        let watch = Watch::mine();
        let first = {
            let mut state = self.lock();
            let first = state.actors.len();
            state.actors.extend(actors.iter().map(|actor| Part {
                name: actor.name,
                until: None,
                mood: Mood::Waits("the first turn"),
            }));
            first
        };
        let count = actors.len();
        thread::scope(|scope| {
            for (n, actor) in actors.into_iter().enumerate() {
                let watch = Arc::clone(&watch);
                let builder = thread::Builder::new().name(actor.name.to_owned());
                let act = move || self.act(first + n, actor, &watch);
                drop(builder.spawn_scoped(scope, act).expect("a thread"));
            }
            self.wait("the other actors", None, &|| {
                let state = self.lock();
                let mut parts = state.actors[first..first + count].iter();
                parts.all(|part| part.mood == Mood::Done)
            });
        });
    }

    fn act(&self, me: usize, actor: Actor<'_>, watch: &Arc<Watch>) {
        ME.set(me);
        let mut state = self.lock();
        while state.holder != me {
            state = self
                .baton
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.actors[me].mood = Mood::Runs;
        drop(state);
        actor.run(watch);
        self.put_down(me, Mood::Done, None);
        loop {
            match self.next_turn() {
                Turn::Progress(index, context) => self.progress(index, &context),
                Turn::Baton(who) => {
                    self.lock().holder = who;
                    self.baton.notify_all();
                    return;
                }
                Turn::Stuck(why) => fail_here(why),
            }
        }
    }

    /// Lets the others get on: one step. If there is none, time passes.
    pub(crate) fn pass(&self) {
        let me = ME.get();
        self.put_down(me, Mood::Waits("its next try"), None);
        match self.next_turn() {
            Turn::Baton(who) if who == me => self.jump_if_alone(me),
            Turn::Baton(who) => self.hand_over(who, me),
            Turn::Progress(index, context) => self.progress(index, &context),
            Turn::Stuck(why) => fail_here(why),
        }
        self.lock().actors[me].mood = Mood::Runs;
    }

    fn jump_if_alone(&self, me: usize) {
        let mut state = self.lock();
        state.actors[me].mood = Mood::Runs;
        let now = self.nanos();
        let work = (0..state.seats.len()).any(|i| state.has_work(i, now).is_some());
        let acts = |p: &Part| matches!(p.mood, Mood::Waits(_));
        if work || state.actors.iter().any(acts) {
            return;
        }
        if let Some(time) = state.next_time() {
            self.now.fetch_max(time, Ordering::Relaxed);
        }
    }

    /// Lets the others get on until all of them wait and no context has work.
    pub(crate) fn rest(&self) {
        let me = ME.get();
        self.put_down(me, Mood::Rests, None);
        loop {
            match self.next_turn() {
                Turn::Baton(who) if who == me => break,
                Turn::Baton(who) => {
                    self.hand_over(who, me);
                    break;
                }
                Turn::Progress(index, context) => self.progress(index, &context),
                Turn::Stuck(why) => fail_here(why),
            }
        }
        self.lock().actors[me].mood = Mood::Runs;
    }

    /// Lets time pass until `done`, by the contexts' own timers.
    pub(crate) fn until(&self, what: &'static str, done: &dyn Fn() -> bool) {
        self.wait(what, None, done);
    }
}

impl State {
    /// Something happened: who has looked must look again.
    fn stir(&mut self) {
        for part in &mut self.actors {
            if let Mood::Looked(what) = part.mood {
                part.mood = Mood::Waits(what);
            }
        }
    }

    fn has_work(&self, index: usize, now: u64) -> Option<Arc<Context>> {
        let (seat, context) = &self.seats[index];
        let context = context.upgrade()?;
        let kicked = seat.upgrade()?.kicked.load(Ordering::SeqCst);
        let due = self.deadlines[index].is_some_and(|t| t <= now);
        (kicked || due || has_event(&context)).then_some(context)
    }

    fn unkick(&mut self, index: usize) {
        if let Some(seat) = self.seats[index].0.upgrade() {
            seat.kicked.store(false, Ordering::SeqCst);
        }
        self.deadlines[index] = None;
    }

    fn next_time(&self) -> Option<u64> {
        let alive = |i: &usize| self.seats[*i].1.strong_count() > 0;
        let contexts = (0..self.seats.len()).filter(alive);
        let contexts = contexts.filter_map(|i| self.deadlines[i]);
        let waiting = |p: &&Part| !matches!(p.mood, Mood::Done | Mood::Runs);
        let actors = self.actors.iter().filter(waiting).filter_map(|p| p.until);
        contexts.chain(actors).min()
    }

    fn describe(&self, timers: bool) -> String {
        let why = if timers {
            "livelock: timers fire and nobody gets on"
        } else {
            "deadlock: nobody can get on and no timer is set"
        };
        let parts = self.actors.iter().filter(|p| p.mood != Mood::Done);
        let parts: Vec<_> = parts
            .map(|p| format!("{} ({:?})", p.name, p.mood))
            .collect();
        format!("{why}; {}", parts.join(", "))
    }
}

fn has_event(context: &Context) -> bool {
    let mut fds = [
        PollFd::from_borrowed_fd(context.cm_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(context.comp_fd(), PollFlags::IN),
    ];
    poll(&mut fds, Some(&rustix::time::Timespec::default())).expect("poll") > 0
}

/// The runtime of one context on a stage.
#[derive(Debug)]
pub(crate) struct Seat {
    script: Arc<Script>,
    index: usize,
    kicked: AtomicBool,
}

impl Runtime for Seat {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.script.nanos())
    }

    fn wait_cq(
        &self,
        cq: &dyn CompletionQueue,
        token: ArmToken,
        until: Option<Instant>,
    ) -> io::Result<Wake> {
        let ready = || !matches!(cq.wait(token, Some(Duration::ZERO)), Ok(Wake::TimedOut));
        let until = until.map(Instant::as_nanos);
        Ok(wake(self.script.wait("a completion", until, &ready)))
    }

    fn wait_word(&self, word: &WaitWord, seen: u32, until: Option<Instant>) -> io::Result<Wake> {
        let until = until.map(Instant::as_nanos);
        let ready = || word.seen() != seen;
        Ok(wake(self.script.wait("a word", until, &ready)))
    }

    fn start_progress(&self, context: &Arc<Context>) -> io::Result<()> {
        self.script.lock().seats[self.index].1 = Arc::downgrade(context);
        self.kicked.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn kick_progress(&self) {
        self.kicked.store(true, Ordering::SeqCst);
    }

    fn may_spin(&self) -> bool {
        false
    }
}

fn wake(ready: bool) -> Wake {
    if ready { Wake::Event } else { Wake::TimedOut }
}
