//! Many seeds, on several threads.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sdp_verbs::sim::FaultCounts;

use crate::cli::{Numbers, Options, Peer};
use crate::judge::Coverage;
use crate::minimise;
use crate::mutants;
use crate::plan::{Plan, Weather};
use crate::report;
use crate::run::{self, Outcome};

/// Each so many seeds one is run twice, and must be the same run.
const TWICE_EVERY: u64 = 64;
/// Failing seeds that are reported; more say nothing new.
const FAILURES_MAX: usize = 10;

/// A seed that broke a rule.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) replay: String,
}

/// What all seeds together came to.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) calm: u64,
    pub(crate) rough: u64,
    pub(crate) stormy: u64,
    pub(crate) twice: u64,
    /// Runs with a peer that is not our stack.
    pub(crate) strangers: u64,
    pub(crate) calls: u64,
    pub(crate) bytes: u64,
    pub(crate) virtual_nanos: u64,
    pub(crate) faults: FaultCounts,
    pub(crate) failures: Vec<Failure>,
    pub(crate) coverage: Coverage,
    /// Hash over the hashes of all runs, in whatever order they came.
    pub(crate) hash: u64,
}

thread_local! {
    /// The seed that runs on this thread, for the message of a panic.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// The plan that the options ask for.
pub(crate) fn plan(options: &Options, seed: u64) -> Plan {
    let whole = Plan::of(seed, options.peer);
    let skipped = |number: usize| options.skip.contains(number as u64);
    let mut plan = whole.without(&skipped);
    let Numbers(ranges) = &options.spare;
    for (from, to) in ranges {
        plan.faults.spared.extend(*from..=*to);
    }
    plan
}

/// How to run one seed again.
pub(crate) fn replay(seed: u64, peer: Option<Peer>, skip: &Numbers, spare: &Numbers) -> String {
    let mut text = format!("cargo xtask sim --start {seed} --seeds 1");
    if let Some(peer) = peer {
        text.push_str(&format!(" --peer {peer}"));
    }
    if !skip.0.is_empty() {
        text.push_str(&format!(" --skip {skip}"));
    }
    if !spare.0.is_empty() {
        text.push_str(&format!(" --spare {spare}"));
    }
    text
}

/// A panic inside a call ends the process, since its memory may be exposed: before that, it is
/// said which seed it was.
fn name_the_seed_of_a_panic(options: &Options) {
    let (skip, spare, peer) = (options.skip.clone(), options.spare.clone(), options.peer);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        let seed = SEED.get();
        eprintln!(
            "seed {seed} panicked; repeat: {}",
            replay(seed, peer, &skip, &spare)
        );
    }));
}

pub(crate) fn run_guarded(plan: &Plan, log: usize) -> Outcome {
    SEED.set(plan.seed);
    let result = catch_unwind(AssertUnwindSafe(|| run::run(plan, log)));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Outcome::panicked(text.unwrap_or("a panic without words"))
    })
}

fn one(options: &Options, seed: u64, totals: &Mutex<Totals>) {
    let plan = plan(options, seed);
    let mut outcome = run_guarded(&plan, options.log);
    for line in &outcome.log {
        eprintln!("{line}");
    }
    let twice = seed.is_multiple_of(TWICE_EVERY);
    if twice {
        let again = run_guarded(&plan, 0);
        if again.hash != outcome.hash {
            outcome
                .violations
                .push("repetition: the same seed gave another run".to_owned());
        }
    }
    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
    totals.seeds += 1;
    match plan.weather {
        Weather::Calm => totals.calm += 1,
        Weather::Rough => totals.rough += 1,
        Weather::Stormy => totals.stormy += 1,
    }
    totals.twice += u64::from(twice);
    totals.strangers += u64::from(plan.stranger.is_some());
    totals.calls += outcome.calls;
    totals.bytes += outcome.bytes;
    totals.virtual_nanos += outcome.nanos;
    totals.faults.add(&outcome.faults);
    totals.coverage.add(&outcome.coverage);
    totals.hash ^= outcome.hash;
    if !outcome.violations.is_empty() {
        totals.failures.push(Failure {
            seed,
            violations: outcome.violations,
            replay: replay(seed, options.peer, &options.skip, &options.spare),
        });
    }
}

fn run_all(options: &Options) -> Totals {
    name_the_seed_of_a_panic(options);
    let began = Instant::now();
    let deadline = options
        .minutes
        .map(|minutes| began + Duration::from_secs_f64(minutes * 60.0));
    let next = AtomicU64::new(options.start);
    let end = options.start.saturating_add(options.seeds);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = match deadline {
                        Some(deadline) => Instant::now() >= deadline,
                        None => seed >= end,
                    };
                    if over {
                        return;
                    }
                    one(options, seed, &totals);
                    let totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    if totals.failures.len() >= FAILURES_MAX {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs seeds, makes the first failing one smaller, and reports. `Ok(true)`: no rule was broken.
///
/// # Errors
/// When the report cannot be written, or a smaller run cannot be tried.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    if let Some(name) = &options.mutate {
        return mutants::run(options, name);
    }
    let started = report::Started::now();
    let mut totals = run_all(options);
    totals.failures.sort_by_key(|failure| failure.seed);
    let to_reduce = totals.failures.first_mut();
    if let Some(failure) = to_reduce.filter(|_| !options.no_minimise) {
        failure.replay = minimise::smallest(options, failure.seed)?;
    }
    report::write(options, &started, &totals)
}
