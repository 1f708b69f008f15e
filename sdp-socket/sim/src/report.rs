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
use crate::judge::{Legal, Pair, STATES};

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
    let mut checks = vec![
        at_most("sim.violations", failed, 0, "seeds", ""),
        at_least("sim.ran", totals.seeds, 1, "seeds", ""),
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
        let (legal, missed) = (Legal::new(), totals.coverage.missed());
        let reached = (legal.pairs().len() - missed.len()) as u64;
        let names: Vec<_> = missed.iter().map(name_of).collect();
        let limit = legal.reachable() as u64;
        checks.push(at_least(
            "sim.pairs_reached",
            reached,
            limit,
            "pairs",
            &names.join("; "),
        ));
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
    ];
    names
        .iter()
        .map(|name| json!({ "name": name, "reason": reason }))
        .collect()
}

/// A message in a state, for people.
fn name_of((state, message): &Pair) -> String {
    format!("{message} in \"{}\"", STATES[*state])
}

fn pairs(totals: &Totals) -> Vec<Value> {
    let legal = Legal::new();
    let pair = |pair: &Pair| {
        let count = totals.coverage.of(pair);
        let faults: Vec<_> = count.faults().map(Fault::name).collect();
        json!({
            "state": STATES[pair.0], "message": pair.1, "times": count.times, "faults": faults,
            "unreachable": Legal::why_unreachable(pair),
        })
    };
    legal.pairs().iter().map(pair).collect()
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
        "pairs_legal": Legal::new().pairs().len(),
        "pairs_reached": Legal::new().pairs().len() - totals.coverage.missed().len(),
        "pairs": pairs(totals),
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
            "  fault {:16} {:>10}",
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

/// The table of messages and states: for each legal pair, in how many kinds of fault it came.
fn coverage_text(totals: &Totals) -> anyhow::Result<String> {
    let legal = Legal::new();
    let mut text = String::new();
    let mut message = "";
    writeln!(
        text,
        "messages in states, by the number of kinds of fault they came with:"
    )?;
    for (number, state) in STATES.iter().enumerate() {
        writeln!(text, "  {number:>2} {state}")?;
    }
    for pair in legal.pairs() {
        if pair.1 != message {
            message = pair.1;
            write!(text, "\n  {message:<15}")?;
        }
        let count = totals.coverage.of(pair);
        match count.times {
            0 => write!(text, " {}:none", pair.0)?,
            _ => write!(text, " {}:{}", pair.0, count.faults().count())?,
        }
    }
    let missed = totals.coverage.missed();
    let reached = legal.pairs().len() - missed.len();
    writeln!(
        text,
        "\npairs reached: {reached} of {} legal",
        legal.pairs().len()
    )?;
    for pair in missed {
        let why = Legal::why_unreachable(&pair).unwrap_or("not reached");
        writeln!(text, "  {}: {why}", name_of(&pair))?;
    }
    Ok(text)
}

pub(crate) fn print(options: &Options, text: &str) -> std::io::Result<()> {
    if options.json.as_deref() == Some(Path::new("-")) {
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
    print(options, &text(totals, seconds)?).context("printing the report")?;
    let (results, checks) = (results(options, totals, seconds), checks(options, totals));
    finish(options, started, &results, &checks, &skipped(options))
}

/// Names the checks that do not hold, and writes the report as JSON if it was asked for.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn finish(
    options: &Options,
    started: &Started,
    results: &[Value],
    checks: &[Value],
    skipped: &[Value],
) -> anyhow::Result<bool> {
    let failed: Vec<_> = checks.iter().filter(|c| c["ok"] != json!(true)).collect();
    for check in &failed {
        let (name, value, limit) = (&check["name"], &check["value"], &check["limit"]);
        print(options, &format!("FAILED {name}: {value}, limit {limit}\n"))?;
    }
    if let Some(file) = &options.json {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let release = "/proc/sys/kernel/osrelease";
        let kernel =
            std::fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?;
        let report = json!({
            "schema": "sdp.sim/1",
            "version": env!("CARGO_PKG_VERSION"),
            "commit": std::env::var("SDP_COMMIT").ok(),
            "started": started.time.to_string(),
            "seconds": started.seconds(),
            "machine": {
                "cpus": cpus, "kernel": kernel.trim(), "provider": "sim", "device": null,
            },
            "results": results,
            "checks": checks,
            "skipped": skipped,
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
