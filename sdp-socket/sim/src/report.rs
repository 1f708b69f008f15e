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
}

fn checks(totals: &Totals) -> Vec<Value> {
    let failed = totals.failures.len();
    vec![
        json!({
            "name": "sim.violations", "ok": failed == 0, "value": failed, "limit": 0,
            "unit": "seeds", "detail": "",
        }),
        json!({
            "name": "sim.ran", "ok": totals.seeds > 0, "value": totals.seeds, "limit": 1,
            "unit": "seeds", "detail": "",
        }),
    ]
}

fn results(totals: &Totals, seconds: f64) -> Vec<Value> {
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
        "seeds_calm": totals.calm,
        "seeds_rough": totals.rough,
        "seeds_stormy": totals.stormy,
        "seeds_run_twice": totals.twice,
        "seeds_per_s": per_second(totals.seeds, seconds),
        "calls": totals.calls,
        "bytes_received": totals.bytes,
        "virtual_s": totals.virtual_nanos / 1_000_000_000,
        "trace_hash": format!("{:016x}", totals.hash),
        "faults": faults,
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

fn print(options: &Options, text: &str) -> std::io::Result<()> {
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
    let seconds = started.clock.elapsed().as_secs_f64();
    print(options, &text(totals, seconds)?).context("printing the report")?;
    let checks = checks(totals);
    let ok = checks.iter().all(|check| check["ok"] == json!(true));
    if let Some(file) = &options.json {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let report = json!({
            "schema": "sdp.sim/1",
            "version": env!("CARGO_PKG_VERSION"),
            "started": started.time.to_string(),
            "seconds": seconds,
            "machine": { "cpus": cpus, "provider": "sim", "device": null },
            "results": results(totals, seconds),
            "checks": checks,
            "skipped": [],
        });
        let text = format!("{report:#}\n");
        if file == Path::new("-") {
            std::io::stdout().write_all(text.as_bytes())?;
        } else {
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(ok)
}
