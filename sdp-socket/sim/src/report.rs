//! What is said at the end, for people and for machines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use sdp_verbs::sim::Fault;
use serde_json::{Value, json};

use crate::campaign::Totals;
use crate::cli::Options;
use crate::judge::{Case, LEGAL};

/// When a campaign began.
#[derive(Debug)]
pub(crate) struct Started {
    clock: Instant,
    time: jiff::Timestamp,
}

impl Started {
    pub(crate) fn now() -> Self {
        Self {
            clock: Instant::now(),
            time: jiff::Timestamp::now(),
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.clock.elapsed().as_secs_f64()
    }
}

/// What a run of ten minutes promises, on two processors of its own.
const LONG_MINUTES: f64 = 10.0;
const LONG_SEEDS: u64 = 100_000;
const LONG_FAULTS: u64 = 100;

/// One promise: `value` is at least `limit`.
pub(crate) fn at_least(name: &str, value: u64, limit: u64, unit: &str, detail: &str) -> Value {
    json!({
        "name": name, "ok": value >= limit, "value": value, "limit": limit, "unit": unit,
        "detail": detail,
    })
}

/// One promise: `value` is at most `limit`.
pub(crate) fn at_most(name: &str, value: u64, limit: u64, unit: &str, detail: &str) -> Value {
    json!({
        "name": name, "ok": value <= limit, "value": value, "limit": limit, "unit": unit,
        "detail": detail,
    })
}

fn is_long(options: &Options) -> bool {
    options
        .minutes
        .is_some_and(|minutes| minutes >= LONG_MINUTES)
        && options.peer.is_none()
}

fn checks(options: &Options, totals: &Totals) -> Vec<Value> {
    let failed = totals.failures.len() as u64;
    let refuted = totals.coverage.refuted();
    let mut checks = vec![
        at_most("sim.violations", failed, 0, "seeds", ""),
        at_least("sim.ran", totals.seeds, 1, "seeds", ""),
        at_most(
            "sim.unreachable_reached",
            refuted.len() as u64,
            0,
            "cases",
            &names(&refuted),
        ),
    ];
    if is_long(options) {
        checks.push(at_least("sim.seeds", totals.seeds, LONG_SEEDS, "seeds", ""));
        checks.push(at_least("sim.repeated", totals.twice, 1, "seeds", ""));
        for fault in Fault::ALL {
            let (name, count) = (
                format!("sim.fault.{}", fault.name()),
                totals.faults.of(fault),
            );
            checks.push(at_least(&name, count, LONG_FAULTS, "faults", ""));
        }
        for (name, messages) in KINDS {
            let missed = totals.coverage.missed(messages);
            let legal = legal(messages);
            let check = format!("sim.{name}_reached");
            let reached = legal - missed.len() as u64;
            checks.push(at_least(&check, reached, legal, name, &names(&missed)));
        }
    }
    checks
}

fn skipped(options: &Options) -> Vec<Value> {
    if is_long(options) {
        return Vec::new();
    }
    let reason = "a promise of runs of ten minutes with peers of every kind";
    let names = [
        "sim.seeds",
        "sim.repeated",
        "sim.fault",
        "sim.pairs_reached",
        "sim.steps_reached",
    ];
    names
        .iter()
        .map(|name| json!({ "name": name, "reason": reason }))
        .collect()
}

/// Messages in states, and changes of phase and mode.
const KINDS: [(&str, bool); 2] = [("pairs", true), ("steps", false)];

fn names(cases: &[Case]) -> String {
    let names: Vec<_> = cases.iter().map(Case::to_string).collect();
    names.join("; ")
}

/// Those that a run can reach.
fn legal(messages: bool) -> u64 {
    LEGAL.to_reach(messages).count() as u64
}

fn unreachable(messages: bool) -> u64 {
    let cases = LEGAL.of_kind(messages);
    cases.filter(|c| c.why_unreachable().is_some()).count() as u64
}

fn cases(totals: &Totals, messages: bool) -> Vec<Value> {
    let case = |case: &Case| {
        let count = totals.coverage.of(case);
        let faults: Vec<_> = count.faults().map(Fault::name).collect();
        let mut value = match case {
            Case::Message { message, state } => json!({ "message": message, "state": state }),
            Case::Step { from, input, to } => json!({ "from": from, "input": input, "to": to }),
        };
        value["times"] = json!(count.times);
        value["faults"] = json!(faults);
        value["unreachable"] = json!(case.why_unreachable());
        value
    };
    LEGAL.of_kind(messages).map(case).collect()
}

fn results(options: &Options, totals: &Totals, seconds: f64) -> Vec<Value> {
    let faults: serde_json::Map<String, Value> = Fault::ALL
        .iter()
        .map(|fault| (fault.name().to_owned(), json!(totals.faults.of(*fault))))
        .collect();
    let failures: Vec<_> = totals
        .failures
        .iter()
        .map(|failure| {
            json!({
                "seed": failure.seed, "violations": failure.violations, "replay": failure.replay,
            })
        })
        .collect();
    vec![json!({
        "workload": "sim",
        "provider": "sim",
        "seeds": totals.seeds,
        "seeds_whole_stack": totals.seeds,
        "violations": totals.failures.len(),
        "seeds_calm": totals.calm,
        "seeds_rough": totals.rough,
        "seeds_stormy": totals.stormy,
        "seeds_run_twice": totals.twice,
        "seeds_with_strangers": totals.strangers,
        "peer": options.peer.map(|peer| peer.to_string()),
        "seeds_per_s": per_second(totals.seeds, seconds),
        "calls": totals.calls,
        "bytes_received": totals.bytes,
        "virtual_s": totals.virtual_nanos / 1_000_000_000,
        "trace_hash": format!("{:016x}", totals.hash),
        "faults": faults,
        "pairs_legal": legal(true),
        "pairs_unreachable": unreachable(true),
        "pairs_reached": legal(true) - totals.coverage.missed(true).len() as u64,
        "pairs": cases(totals, true),
        "steps_legal": legal(false),
        "steps_unreachable": unreachable(false),
        "steps_reached": legal(false) - totals.coverage.missed(false).len() as u64,
        "steps": cases(totals, false),
        "failures": failures,
    })]
}

fn per_second(seeds: u64, seconds: f64) -> u64 {
    let millis = std::time::Duration::from_secs_f64(seconds.max(0.001)).as_millis();
    u64::try_from(u128::from(seeds) * 1000 / millis.max(1)).unwrap_or(u64::MAX)
}

fn text(totals: &Totals, seconds: f64) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "{} seeds ({} calm, {} rough, {} stormy; {} run twice) in {seconds:.1} s: {} per second",
        totals.seeds,
        totals.calm,
        totals.rough,
        totals.stormy,
        totals.twice,
        per_second(totals.seeds, seconds)
    )?;
    writeln!(
        text,
        "{} calls, {} bytes received, {} s of virtual time, trace hash {:016x}",
        totals.calls,
        totals.bytes,
        totals.virtual_nanos / 1_000_000_000,
        totals.hash
    )?;
    for fault in Fault::ALL {
        writeln!(
            text,
            "  fault {:20} {:>10}",
            fault.name(),
            totals.faults.of(fault)
        )?;
    }
    text.push_str(&coverage_text(totals)?);
    for failure in &totals.failures {
        writeln!(text, "seed {} FAILED", failure.seed)?;
        for violation in &failure.violations {
            writeln!(text, "    {violation}")?;
        }
        writeln!(text, "    repeat: {}", failure.replay)?;
    }
    let failed = totals.failures.len();
    writeln!(text, "violations: {failed}")?;
    Ok(text)
}

/// What was reached of what is legal: for each case, in how many kinds of fault it came.
fn coverage_text(totals: &Totals) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "messages in states, by the number of kinds of fault they came with:"
    )?;
    for (number, state) in LEGAL.states.iter().enumerate() {
        writeln!(text, "  {number:>2} {state}")?;
    }
    let mut row = "";
    for case in &LEGAL.cases {
        let count = totals.coverage.of(case);
        let kinds = match count.times {
            0 => "none".to_owned(),
            _ => count.faults().count().to_string(),
        };
        match case {
            Case::Message { message, state } => {
                if *message != row {
                    row = message;
                    write!(text, "\n  {message:<15}")?;
                }
                let number = LEGAL.states.iter().position(|name| name == state);
                write!(text, " {}:{kinds}", number.unwrap_or_default())?;
            }
            Case::Step { .. } => write!(text, "\n  {case}: {kinds}")?,
        }
    }
    text.push('\n');
    for (name, messages) in KINDS {
        let missed = totals.coverage.missed(messages);
        let (legal, unreachable) = (legal(messages), unreachable(messages));
        let reached = legal - missed.len() as u64;
        writeln!(
            text,
            "{name} reached: {reached} of {legal} legal; besides, {unreachable} that no run can reach"
        )?;
        for case in missed {
            writeln!(text, "  {case}: not reached")?;
        }
        for case in LEGAL.of_kind(messages) {
            if let Some(why) = case.why_unreachable() {
                writeln!(text, "  {case}: {why}")?;
            }
        }
    }
    Ok(text)
}

pub(crate) fn print(json: Option<&Path>, text: &str) -> std::io::Result<()> {
    if json == Some(Path::new("-")) {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    }
}

/// Prints the report and writes it. `Ok(true)`: every check holds.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(options: &Options, started: &Started, totals: &Totals) -> anyhow::Result<bool> {
    let seconds = started.seconds();
    let json = options.json.as_deref();
    print(json, &text(totals, seconds)?).context("printing the report")?;
    let parts = Parts {
        command: "sim",
        results: results(options, totals, seconds),
        checks: checks(options, totals),
        skipped: skipped(options),
    };
    finish(json, started, &parts)
}

/// What a report is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The command that it is the report of.
    pub(crate) command: &'static str,
    pub(crate) results: Vec<Value>,
    pub(crate) checks: Vec<Value>,
    pub(crate) skipped: Vec<Value>,
}

/// Names the checks that do not hold, and writes the report as JSON if it was asked for.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn finish(
    json: Option<&Path>,
    started: &Started,
    parts: &Parts,
) -> anyhow::Result<bool> {
    let checks = &parts.checks;
    let failed: Vec<_> = checks.iter().filter(|c| c["ok"] != json!(true)).collect();
    for check in &failed {
        let (name, value, limit) = (&check["name"], &check["value"], &check["limit"]);
        print(json, &format!("FAILED {name}: {value}, limit {limit}\n"))?;
    }
    if let Some(file) = json {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let release = "/proc/sys/kernel/osrelease";
        let kernel =
            std::fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?;
        let report = json!({
            "schema": format!("sdp.{}/1", parts.command),
            "version": env!("CARGO_PKG_VERSION"),
            "commit": std::env::var("SDP_COMMIT").ok(),
            "started": started.time.to_string(),
            "seconds": started.seconds(),
            "machine": {
                "cpus": cpus, "kernel": kernel.trim(), "provider": "sim", "device": null,
            },
            "results": parts.results,
            "checks": parts.checks,
            "skipped": parts.skipped,
        });
        let text = format!("{report:#}\n");
        if file == Path::new("-") {
            std::io::stdout().write_all(text.as_bytes())?;
        } else {
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(failed.is_empty())
}
