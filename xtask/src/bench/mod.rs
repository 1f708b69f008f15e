//! `cargo xtask bench`: what streams of this machine do beside TCP, Unix sockets, UCX and the machine's
//! floors.
//!
//! Cell by cell: the program `sdp perf compare` opens the streams of all peers and waits to be asked for
//! each round, between which ucx_perftest runs.

mod conn;
mod figure;
mod html;
mod judge;
mod matrix;
mod pair;
mod peer;
mod processors;
mod turns;
mod ucx;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use self::matrix::{Cell, Plan, Workload};
use self::peer::{BLOCKING, OTHERS, POLLED, Peers, SPINNING, WAITING, label};
use self::processors::Moment;
use self::turns::Turns;
use self::ucx::Series;
use crate::cli::BenchOptions;
use crate::report::{Check, Report, Skipped, Started};
use crate::ui::{Progress, Ui};
use crate::workspace::Workspace;
use crate::{program, table};

/// The page, in the folder of what is built, unless told otherwise.
const PAGE: &str = "bench.html";

/// Builds the program, measures and reports; `Ok(true)` exactly when every check holds.
///
/// # Errors
/// When the program cannot be built, an option names nothing, or something cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, options: &BenchOptions) -> anyhow::Result<bool> {
    let peers = Peers::wanted(options.peers.as_deref())?;
    let program = program::build(workspace, ui)?;
    let mut skipped = Vec::new();
    let mut foreign: Vec<&str> = ucx::NAMES
        .into_iter()
        .filter(|name| peers.has(name))
        .collect();
    if !foreign.is_empty()
        && let Some(absent) = ucx::absent(ui, options.installed)?
    {
        foreign.clear();
        skipped.push(absent);
    }
    let started = Started::now();
    let mut report = started.report("bench", &workspace.root, Some("host"))?;
    report.skipped = skipped;
    let plan = Plan::of(options);
    let bench = Bench {
        program: &program.path,
        run: run_time(&plan, &peers, &foreign),
        plan,
        peers,
        foreign,
    };
    let begin = Moment::now()?;
    for (index, cell) in bench.plan.cells.iter().enumerate() {
        let count = bench.plan.cells.len();
        let name = format!("{} ({} of {count})", cell.title(), index + 1);
        let progress = ui.progress(&name)?;
        bench.measure(*cell, &progress, &mut report);
    }
    if bench.peers.has("sdp-auto") && bench.peers.has("tcp") {
        let _progress = ui.progress("connections")?;
        conn::measure(bench.program, &mut report)?;
    }
    let others = Moment::now()?.others_since(begin);
    report
        .results
        .push(json!({ "workload": "others", "share_of_cpus": others }));
    judge::judge(&mut report, &bench.plan.cells);
    report.seconds = started.seconds();
    tell(ui, &report)?;
    ui.line(&processors::remark(others))?;
    report.write(options.json.as_deref())?;
    let page = options
        .html
        .clone()
        .unwrap_or_else(|| workspace.target.join(PAGE));
    fs::write(&page, html::page(&report, &bench.plan.cells, others)?)
        .with_context(|| format!("cannot write {}", page.display()))?;
    ui.line(&format!("{}; {}", report.summary(), page.display()))?;
    Ok(report.passed())
}

/// What is to be measured, and by what.
struct Bench<'a> {
    program: &'a Path,
    plan: Plan,
    peers: Peers,
    /// UCX's tests, where it is installed.
    foreign: Vec<&'static str>,
    /// Length of one run.
    run: Duration,
}

/// UCX's tests run one connection between two processes, which both spin: several of them on fewer
/// processors would measure how the kernel shares these out.
fn is_for_foreign(cell: &Cell) -> bool {
    cell.conns == 1
}

fn run_time(plan: &Plan, peers: &Peers, foreign: &[&str]) -> Duration {
    let ours = plan.cells.iter().map(|cell| peers.ours(*cell).len()).sum();
    let cells = plan
        .cells
        .iter()
        .filter(|cell| is_for_foreign(cell))
        .count();
    plan.run_time(ours, cells * foreign.len())
}

impl Bench<'_> {
    /// Measures one cell. What goes wrong with our own program is a failed check, and the next cell's turn.
    fn measure(&self, cell: Cell, progress: &Progress, report: &mut Report) {
        match self.rounds(cell, progress) {
            Ok((mut found, skipped)) => {
                compare(&mut found.results);
                report.results.extend(found.results);
                // Its promises are judged here, with those of all cells.
                let runs = |check: &Check| check.name.ends_with(".runs");
                let broken = found.checks.into_iter().filter(runs);
                report.checks.extend(broken.map(|check| Check {
                    name: renamed(cell, &check.name),
                    ..check
                }));
                report.skipped.extend(skipped);
            }
            Err(error) => report.checks.push(Check {
                name: format!("{}.{}.measured", cell.workload.name(), cell.key()),
                ok: false,
                value: None,
                limit: None,
                unit: String::new(),
                detail: format!("{error:#}"),
            }),
        }
    }

    /// All rounds of a cell: what `sdp perf compare` reports, with UCX's results beside its own.
    fn rounds(&self, cell: Cell, progress: &Progress) -> anyhow::Result<(Report, Vec<Skipped>)> {
        let rounds = self.plan.rounds;
        let ours = self.peers.ours(cell);
        let mut turns = Turns::start(self.program, cell, &ours, rounds, self.run)?;
        let names = self.foreign.iter().filter(|_| is_for_foreign(&cell));
        let mut foreign: Vec<Series> = names
            .map(|name| Series::new(name, cell, self.run))
            .collect();
        for round in 1..=rounds {
            progress.note(&format!("round {round} of {rounds}"));
            // Whoever is first finds another machine: they take turns in that, too.
            if round % 2 == 1 {
                turns.round(round)?;
            }
            foreign.iter_mut().for_each(Series::round);
            if round % 2 == 0 {
                turns.round(round)?;
            }
        }
        let mut report = turns.finish()?;
        let mut skipped = Vec::new();
        for series in &foreign {
            match series.result() {
                Ok(result) => report.results.push(result),
                Err(reason) => skipped.push(reason),
            }
        }
        Ok((report, skipped))
    }
}

/// `bw.sdp-auto.runs` of a cell: `bw.1MiB.x8.sdp-auto.runs`.
fn renamed(cell: Cell, name: &str) -> String {
    let workload = cell.workload.name();
    let rest = name.strip_prefix(workload).unwrap_or(name);
    format!("{workload}.{}.{}", cell.key(), rest.trim_start_matches('.'))
}

/// Adds to the results of a cell how they compare: each with the TCP that waits as it does, and with UCX.
fn compare(results: &mut [Value]) {
    let all = results.to_vec();
    let named = |name: &str| all.iter().find(|result| label(result) == name);
    for result in results {
        let field = if result["workload"] == "bw" {
            "gb_per_s"
        } else {
            "us_p50"
        };
        let tcp = named(peer::tcp_like(result)).or_else(|| named("TCP"));
        let ratio = |to: Option<&Value>| to.and_then(|to| figure::ratio(result, to, field));
        let (to_tcp, to_ucx) = (ratio(tcp), ratio(named("UCX stream")));
        result["ratio_to_tcp"] = json!(to_tcp);
        result["ratio_to_ucx"] = json!(to_ucx);
    }
}

/// Prints tables, what failed, and what was skipped.
fn tell(ui: &Ui, report: &Report) -> anyhow::Result<()> {
    for (title, workload, names) in [
        ("bulk, blocking calls", Workload::Bw, &BLOCKING[..]),
        ("bulk, non-blocking calls and poll", Workload::Bw, &POLLED),
        ("bulk, UCX and the floors", Workload::Bw, &OTHERS),
        ("ping-pong", Workload::Lat, &WAITING),
        (
            "ping-pong of those who never sleep",
            Workload::Lat,
            &SPINNING,
        ),
    ] {
        let mut results: Vec<&Value> = report
            .results
            .iter()
            .filter(|result| result["workload"] == workload.name())
            .filter(|result| names.contains(&&*label(result)))
            .collect();
        results.sort_by_key(|result| names.iter().position(|name| *name == label(result)));
        if !results.is_empty() {
            ui.line(&format!("\n{title}\n{}", table::render(&results, label)))?;
        }
    }
    for result in report.results.iter().filter(|it| it["workload"] == "conn") {
        let figure = |name: &str| result[name]["median"].as_f64().unwrap_or(f64::NAN);
        let (peer, parallel) = (result["peer"].as_str().unwrap_or("?"), &result["parallel"]);
        let (time, rate) = (figure("us_p50"), figure("per_s"));
        ui.line(&format!(
            "connections, {peer}: {time:.1} µs to set one up, {rate:.0} a second by {parallel} threads"
        ))?;
    }
    for check in report.checks.iter().filter(|check| !check.ok) {
        let figure = |it: Option<f64>| it.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"));
        let (value, limit) = (figure(check.value), figure(check.limit));
        let (name, detail) = (&check.name, &check.detail);
        ui.line(&format!("FAIL {name}  {value}, limit {limit}  {detail}"))?;
    }
    for skipped in &report.skipped {
        ui.line(&format!("SKIPPED {}: {}", skipped.name, skipped.reason))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(peer: &str, wait: &str, values: &[f64]) -> Value {
        json!({ "workload": "bw", "peer": peer, "mode": "auto", "buffers": "heap", "wait": wait,
            "each": { "gb_per_s": values } })
    }

    #[test]
    fn a_peer_that_broke_is_named_with_its_cell() {
        let cell = Cell {
            workload: Workload::Bw,
            size: 1 << 20,
            conns: 8,
        };
        let name = renamed(cell, "bw.sdp-auto.runs");
        assert_eq!(name, "bw.1MiB.x8.sdp-auto.runs");
    }

    #[test]
    fn results_are_compared_with_the_tcp_that_waits_as_they_do() {
        let mut results = vec![
            result("tcp", "sleep", &[1.0, 1.0, 1.0]),
            result("tcp", "poll", &[2.0, 2.0, 2.0]),
            result("sdp", "poll", &[4.0, 6.0, 8.0]),
            result("uds", "sleep", &[5.0, 6.0, 7.0]),
        ];
        compare(&mut results);
        let ratio = |at: usize| &results[at]["ratio_to_tcp"]["median"];
        assert_eq!([ratio(1), ratio(2), ratio(3)], [1.0, 3.0, 6.0]);
        assert_eq!(results[2]["ratio_to_tcp"]["max"], 4.0);
        assert_eq!(results[2]["ratio_to_ucx"], Value::Null);
    }
}
