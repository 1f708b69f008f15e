//! One seed, from the first event to the last.

use std::rc::Rc;
use std::sync::Arc;

use sdp_socket::Context;
use sdp_verbs::sim::{Drive, Fabric, FaultCounts};
use sdp_verbs::{Caps, Provider};

use crate::judge::{Bench, Coverage};
use crate::oracle::{Book, SharedBook};
use crate::peer::Stranger;
use crate::plan::Plan;
use crate::program::{ADDRESS, Stall};
use crate::stage::{Seat, Stage};

/// How long a run is looked after when its programs have ended: longer than every time-out.
const SETTLE_MAX: u64 = 300_000_000_000;

/// What became of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) hash: u64,
    pub(crate) faults: FaultCounts,
    /// Faults that came up, spared ones included.
    pub(crate) fault_number: u64,
    /// Virtual time.
    pub(crate) nanos: u64,
    pub(crate) calls: u64,
    pub(crate) bytes: u64,
    pub(crate) coverage: Coverage,
    pub(crate) log: Vec<String>,
}

impl Outcome {
    /// A run that ended by a panic.
    pub(crate) fn panicked(text: &str) -> Self {
        Self {
            violations: vec![format!("panic: {text}")],
            hash: 0,
            faults: FaultCounts::default(),
            fault_number: 0,
            nanos: 0,
            calls: 0,
            bytes: 0,
            coverage: Coverage::default(),
            log: Vec::new(),
        }
    }
}

/// Runs a plan.
pub(crate) fn run(plan: &Plan, log_lines: usize) -> Outcome {
    let plan = Rc::new(plan.clone());
    let fabric = Fabric::new(plan.seed, Drive::Stepped, plan.timing, plan.faults.clone());
    fabric.keep_log(log_lines);
    let book = SharedBook::new(Book::default().into());
    let bench = bench(&plan);
    fabric.watch(Box::new(bench.clone()));
    let machines = plan.sides.iter().map(|side| {
        let node = fabric.node(side.options);
        let seat = Seat::new(Arc::clone(&node), side.signal_every);
        (node, seat)
    });
    let machines: Vec<_> = machines.collect();
    let seats = machines.iter().map(|(_, seat)| Arc::clone(seat)).collect();
    let mut stage = Stage::new(Arc::clone(&fabric), plan.seed, seats);
    let mut contexts = Vec::new();
    for (side, (node, seat)) in machines.iter().enumerate() {
        if let Some((_, who)) = plan.stranger.filter(|(strange, _)| *strange == side) {
            let stranger = Stranger {
                side,
                who,
                address: ADDRESS.into(),
                plan: Rc::clone(&plan),
                book: Rc::clone(&book),
                node: Arc::clone(node),
            };
            stage.wings().borrow_mut().push(stranger.actor());
            continue;
        }
        let provider: Arc<dyn Provider> = Arc::clone(node) as _;
        let context = match Context::new(provider, Arc::clone(seat) as _) {
            Ok(context) => context,
            Err(error) => {
                book.borrow_mut().violation(format!("set-up: {error}"));
                continue;
            }
        };
        contexts.push(Arc::clone(&context));
        let stall = Stall {
            side,
            plan: Rc::clone(&plan),
            book: Rc::clone(&book),
            bench: bench.clone(),
            fabric: Arc::clone(&fabric),
            node: Arc::clone(node),
            context,
            wings: stage.wings(),
        };
        stage.wings().borrow_mut().push(stall.actor());
    }
    match stage.run() {
        Ok(()) => {
            book.borrow_mut().close(&plan);
            stage.settle(SETTLE_MAX);
            drop(contexts);
            if let Some(left) = fabric.leftovers() {
                book.borrow_mut()
                    .violation(format!("memory: left behind: {left}"));
            }
        }
        Err(stuck) => {
            book.borrow_mut().violation(stuck);
            stage.abandon();
        }
    }
    outcome(&fabric, &book, &bench)
}

/// Who watches a run.
fn bench(plan: &Plan) -> Bench {
    let sides = &plan.sides;
    let exact = [0, 1].map(|side| sides[side].options.poll_max == 1);
    let strange = plan.stranger.map(|(side, _)| side);
    let judged = [0, 1].map(|side| strange != Some(side));
    // Urgent bytes may leave the stream without having been received, one of them before the first
    // receive.
    let room = |side: usize| sides[side].recv_buffer + sides[1 - side].urgents.len();
    let caller_first = sides[1].options.caps.contains(Caps::CALLER_FIRST);
    Bench::new(exact, judged, [0, 1].map(room), caller_first)
}

fn outcome(fabric: &Fabric, book: &SharedBook, bench: &Bench) -> Outcome {
    let mut book = book.borrow_mut();
    let mut judge = bench.judge();
    for violation in judge.broken() {
        book.violation(violation);
    }
    let mut coverage = std::mem::take(&mut judge.coverage);
    coverage.set_faults(&fabric.fault_counts());
    for violation in fabric.violations() {
        book.violation(format!("verbs: {violation}"));
    }
    Outcome {
        violations: std::mem::take(&mut book.violations),
        hash: fabric.trace_hash(),
        faults: fabric.fault_counts(),
        fault_number: fabric.fault_number(),
        nanos: u64::try_from(fabric.now().as_nanos()).unwrap_or(u64::MAX),
        calls: book.calls,
        bytes: book.ways.iter().map(|way| way.received).sum(),
        coverage,
        log: fabric.log(),
    }
}
