//! No test waits for ever: each runs under a watch that fails it and says what its threads were
//! waiting for.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::threads::Enrolled;

/// The longest a test may take. A tenth of it is much, unless the machine does much else.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// One test's watch.
#[derive(Debug)]
pub(crate) struct Watch {
    verdict: Sender<Result<(), String>>,
    doing: Mutex<BTreeMap<String, String>>,
}

thread_local! {
    static MINE: RefCell<Option<(Arc<Watch>, String)>> = const { RefCell::new(None) };
}

impl Watch {
    /// The watch of the calling thread.
    ///
    /// # Panics
    /// Outside of [`watched`].
    pub(crate) fn mine() -> Arc<Self> {
        MINE.with_borrow(|mine| Arc::clone(&mine.as_ref().expect("inside of watched()").0))
    }

    /// Puts the calling thread, under a name, under this watch.
    pub(crate) fn adopt(self: &Arc<Self>, name: &str) {
        MINE.set(Some((Arc::clone(self), name.to_owned())));
        doing("its first steps");
    }

    fn tell(&self, verdict: Result<(), String>) {
        // Whoever is late finds nobody listening: the first verdict counts.
        let _ = self.verdict.send(verdict);
    }

    /// Fails the test.
    pub(crate) fn fail(&self, why: String) {
        self.tell(Err(why));
    }

    fn report(&self) -> String {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = doing.iter().map(|(who, what)| format!("\n  {who}: {what}"));
        lines.collect()
    }
}

/// Notes what the calling thread is about to do, for the report if it never gets done.
pub(crate) fn doing(what: impl Into<String>) {
    MINE.with_borrow(|mine| {
        if let Some((watch, name)) = mine {
            let mut doing = watch.doing.lock().unwrap_or_else(PoisonError::into_inner);
            doing.insert(name.clone(), what.into());
        }
    });
}

/// Adds a line to the report of this test.
pub(crate) fn note(key: &str, what: impl Into<String>) {
    let watch = Watch::mine();
    let mut doing = watch.doing.lock().unwrap_or_else(PoisonError::into_inner);
    doing.insert(key.to_owned(), what.into());
}

/// Fails the test from a place that must not unwind; the thread stays where it is.
pub(crate) fn fail_here(why: String) -> ! {
    Watch::mine().fail(why);
    loop {
        thread::park();
    }
}

/// What a panic said.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
        .to_owned()
}

/// Runs the body of a test.
///
/// # Panics
/// If it panics, one of its actors does, or it does not end in time. Threads that are stuck are
/// left behind.
pub(crate) fn watched(body: impl FnOnce() + Send + 'static) {
    watched_for(LIMIT, body);
}

/// As [`watched`], with another limit: for what is asked for by hand.
///
/// # Panics
/// As [`watched`].
pub(crate) fn watched_for(limit: Duration, body: impl FnOnce() + Send + 'static) {
    let (verdict, verdicts) = channel();
    let watch = Arc::new(Watch {
        verdict,
        doing: Mutex::default(),
    });
    let inside = Arc::clone(&watch);
    let name = thread::current().name().unwrap_or("test").to_owned();
    let run = move || {
        inside.adopt("main");
        let end = catch_unwind(AssertUnwindSafe(body));
        inside.tell(end.map_err(|panic| words(&*panic)));
    };
    let thread = thread::Builder::new().name(name).spawn(run);
    let thread = thread.expect("a thread for the test");
    match verdicts.recv_timeout(limit) {
        Ok(Ok(())) => thread.join().expect("it has caught its panics"),
        Ok(Err(why)) => panic!("{why}\nat that time:{}", watch.report()),
        Err(RecvTimeoutError::Timeout) => {
            let state = sdp_socket::diagnosis();
            panic!(
                "not done after {limit:?}; waiting in:{}\n{state}",
                watch.report()
            )
        }
        Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
    }
}

/// Somebody who acts in a test beside others.
pub(crate) struct Actor<'a> {
    pub(crate) name: &'static str,
    pub(crate) act: Box<dyn FnOnce() + Send + 'a>,
}

/// Names an actor.
pub(crate) fn actor<'a>(name: &'static str, act: impl FnOnce() + Send + 'a) -> Actor<'a> {
    Actor {
        name,
        act: Box::new(act),
    }
}

impl Actor<'_> {
    /// Acts on the calling thread. A panic fails the test at once, not when the others are done:
    /// they may wait for this one for ever.
    pub(crate) fn run(self, watch: &Arc<Watch>) {
        watch.adopt(self.name);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(self.act)) {
            watch.fail(format!("{}: {}", self.name, words(&*panic)));
        }
        doing("done");
    }
}

/// Runs actors on a thread each until all are done.
pub(crate) fn on_threads(actors: Vec<Actor<'_>>) {
    let watch = Watch::mine();
    let all_there = Barrier::new(actors.len());
    thread::scope(|scope| {
        for actor in actors {
            let watch = Arc::clone(&watch);
            let all_there = &all_there;
            let name = actor.name;
            let act = move || {
                let _enrolled = Enrolled::new(&watch);
                all_there.wait();
                actor.run(&watch);
            };
            let builder = thread::Builder::new().name(name.to_owned());
            let spawned = builder.spawn_scoped(scope, act);
            drop(spawned.expect("a thread for an actor"));
        }
    });
}
