//! Programs as coroutines: a call that waits gives the thread away.

use std::cell::Cell;
use std::ptr;
use std::time::Duration;

use corosensei::{Coroutine, CoroutineResult, Yielder};

/// What a waiting program tells the stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    /// What it waits for, for people.
    pub(crate) what: &'static str,
    /// When it wants to go on in any case: nanoseconds on its machine.
    pub(crate) until: Option<u64>,
    /// It has only looked, and found nothing.
    pub(crate) again: bool,
}

thread_local! {
    /// How the running coroutine gives the thread away.
    static YIELDER: Cell<*const Yielder<(), Pause>> = const { Cell::new(ptr::null()) };
}

/// Gives the thread away until something has happened that `ready` finds, or until a time by
/// `now`. False: the time.
///
/// # Panics
/// Outside of a program: only programs wait.
pub(crate) fn wait(
    what: &'static str,
    until: Option<u64>,
    now: impl Fn() -> u64,
    ready: impl Fn() -> bool,
) -> bool {
    let mut again = false;
    loop {
        if ready() {
            return true;
        }
        if until.is_some_and(|until| until <= now()) {
            return false;
        }
        give_way(Pause { what, until, again });
        again = true;
    }
}

/// Waits until the clock has come to a time. Whoever runs programs resumes none on a processor that
/// is ahead of the clock, so giving the thread away once is enough; outside of a program it is the
/// progress loop that looks, which is not started on such a processor.
pub(crate) fn catch_up(time: Duration) {
    if !YIELDER.get().is_null() {
        give_way(Pause {
            what: "its processor",
            until: u64::try_from(time.as_nanos()).ok(),
            again: false,
        });
    }
}

/// Gives the thread away. Returns when something may have happened.
fn give_way(pause: Pause) {
    let own = YIELDER.get();
    assert!(!own.is_null(), "a wait outside of a program: {pause:?}");
    // SAFETY: the pointer was set by the coroutine that runs now, from a reference that lives as
    // long as its body, and every other coroutine sets its own before it runs any further.
    let yielder = unsafe { &*own };
    yielder.suspend(pause);
    YIELDER.set(own);
}

/// A thread of a program.
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) node: usize,
    /// The processor of that machine on which it runs.
    pub(crate) processor: usize,
    coroutine: Option<Coroutine<(), Pause, ()>>,
    /// Where it waits; nothing before its first turn.
    pub(crate) pause: Option<Pause>,
    /// It has looked since anything last happened.
    pub(crate) looked: bool,
}

impl Actor {
    pub(crate) fn new(name: String, node: usize, body: impl FnOnce() + 'static) -> Self {
        let coroutine = Coroutine::new(move |yielder: &Yielder<(), Pause>, ()| {
            YIELDER.set(yielder);
            body();
        });
        Self {
            name,
            node,
            processor: 0,
            coroutine: Some(coroutine),
            pause: None,
            looked: false,
        }
    }

    /// The same on another processor of its machine.
    pub(crate) fn on(self, processor: usize) -> Self {
        Self { processor, ..self }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.coroutine.is_none()
    }

    /// Lets it run until it waits again, or ends.
    pub(crate) fn resume(&mut self) {
        let Some(coroutine) = &mut self.coroutine else {
            return;
        };
        let result = coroutine.resume(());
        YIELDER.set(ptr::null());
        match result {
            CoroutineResult::Yield(pause) => self.pause = Some(pause),
            CoroutineResult::Return(()) => self.coroutine = None,
        }
        self.looked = true;
    }

    /// Leaves its stack as it is: there is no way to end a call that does not want to.
    pub(crate) fn abandon(&mut self) {
        std::mem::forget(self.coroutine.take());
    }
}
