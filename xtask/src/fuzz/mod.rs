//! `cargo xtask fuzz`: the fuzz targets in `fuzz/`, for a while each.
//!
//! It needs cargo-fuzz, and a compiler that takes unstable options: any one does when told to by
//! RUSTC_BOOTSTRAP. The inputs that are checked in are replayed by the packages' own tests, which
//! need neither.

mod coverage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::cli::FuzzOptions;
use crate::report::{Check, Report, Skipped, Started};
use crate::run::{Outcome, Run};
use crate::step::{Steps, Tally};
use crate::ui::{Progress, Ui};
use crate::workspace::Workspace;

/// A target, and the executions that ten minutes must reach.
struct Target {
    name: &'static str,
    executions_min: f64,
}

const TARGETS: [Target; 4] = [
    Target {
        name: "decode",
        executions_min: 1e6,
    },
    Target {
        name: "sequence",
        executions_min: 1e5,
    },
    Target {
        name: "host_link",
        executions_min: 1e4,
    },
    Target {
        name: "handles",
        executions_min: 1e4,
    },
];
/// The time that those numbers are for, in seconds.
const FULL_SECONDS: u32 = 600;
/// How long a target runs as a step of continuous integration, in seconds.
const SMOKE_SECONDS: u32 = 20;
/// What is said where the tool is missing.
const MISSING: &str = "cargo-fuzz is not installed: cargo install cargo-fuzz --locked";

/// What a target did.
#[derive(Debug)]
struct Ran {
    executions: u64,
    edges: u64,
    finding: Option<String>,
}

/// Runs the targets and reports; `Ok(true)` exactly when none has found anything, and each was
/// executed often enough.
///
/// # Errors
/// When cargo-fuzz is missing, there is no such target, or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, options: &FuzzOptions) -> anyhow::Result<bool> {
    if !is_installed(workspace) {
        bail!(MISSING);
    }
    let started = Started::now();
    let chosen = |target: &&Target| {
        options
            .target
            .as_ref()
            .is_none_or(|name| name == target.name)
    };
    let targets: Vec<&Target> = TARGETS.iter().filter(chosen).collect();
    if targets.is_empty() {
        bail!("no such target: the choices are {}", names().join(", "));
    }
    let mut report = started.report("fuzz", &workspace.root, Some("host"))?;
    for target in targets {
        let progress = ui.progress(target.name)?;
        let ran = fuzz(workspace, target.name, options.seconds, &progress)?;
        drop(progress);
        let checks = checks(target, &ran, options.seconds);
        let ok = checks.iter().all(|check| check.ok);
        ui.line(&format!(
            "{:5} {:10} {:>12} executions, {:>6} edges",
            if ok { "ok" } else { "FAIL" },
            target.name,
            ran.executions,
            ran.edges
        ))?;
        if let Some(finding) = &ran.finding {
            ui.line(finding)?;
        }
        report.results.push(result(target, &ran, options.seconds));
        report.checks.extend(checks);
    }
    if options.target.is_none() {
        measure(workspace, ui, &mut report)?;
    }
    report.seconds = started.seconds();
    report.write(options.json.as_deref())?;
    Ok(report.passed())
}

/// Counts the lines that the checked-in inputs reach, where the compiler's tools are installed.
fn measure(workspace: &Workspace, ui: &Ui, report: &mut Report) -> anyhow::Result<()> {
    let Some(tools) = coverage::tools() else {
        ui.line(&format!("SKIPPED coverage: {}", coverage::MISSING))?;
        report.skipped.push(Skipped {
            name: "fuzz.coverage".to_owned(),
            reason: coverage::MISSING.to_owned(),
        });
        return Ok(());
    };
    for coverage::Covered { package, least } in &coverage::COVERED {
        let progress = ui.progress(&format!("coverage {package}"))?;
        let (reached, all) = coverage::lines(workspace, &tools, package, &progress)?;
        drop(progress);
        // Exact: no package has 2^53 lines.
        #[expect(clippy::cast_precision_loss, reason = "see above")]
        let percent = reached as f64 * 100.0 / all as f64;
        let ok = percent >= *least;
        let word = if ok { "ok" } else { "FAIL" };
        ui.line(&format!(
            "{word:5} {package:10} {percent:>6.1} % of {all} lines reached, limit {least} %"
        ))?;
        report.checks.push(Check {
            name: format!("fuzz.coverage.{package}"),
            ok,
            value: Some(percent),
            limit: Some(*least),
            unit: "percent".to_owned(),
            detail: format!("{reached} of {all} lines"),
        });
    }
    Ok(())
}

/// A short run of each target, where cargo-fuzz is installed.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn steps(workspace: &Workspace, steps: &mut Steps<'_>) -> anyhow::Result<()> {
    for Target { name, .. } in TARGETS {
        let step = format!("fuzz.{name}");
        steps.step(&step, |progress| {
            if !is_installed(workspace) {
                return Ok(Tally::skipped(&step, MISSING));
            }
            let ran = fuzz(workspace, name, SMOKE_SECONDS, progress)?;
            Ok(match ran.finding {
                Some(finding) => Tally::failed(finding),
                None => Tally {
                    passed: 1,
                    ..Tally::default()
                },
            })
        })?;
    }
    Ok(())
}

fn names() -> Vec<&'static str> {
    TARGETS.iter().map(|target| target.name).collect()
}

fn is_installed(workspace: &Workspace) -> bool {
    let probe = workspace.cargo(["fuzz", "--version"]).output();
    probe.is_ok_and(|output| output.status.success())
}

/// Runs one target for a while. New inputs stay outside the tree; it starts from the old ones.
fn fuzz(
    workspace: &Workspace,
    name: &str,
    seconds: u32,
    progress: &Progress,
) -> anyhow::Result<Ran> {
    let grown = workspace.target.join("fuzz-corpus").join(name);
    fs::create_dir_all(&grown).with_context(|| format!("create {}", grown.display()))?;
    let command = command(workspace, name, &grown, seconds);
    let outcome = Run::new(command).run(|line| progress.note(line))?;
    Ok(judged(name, &outcome))
}

fn command(workspace: &Workspace, name: &str, grown: &Path, seconds: u32) -> Command {
    let mut command = workspace.cargo(["fuzz", "run", name]);
    command
        .arg(grown)
        .arg(corpus(workspace, name))
        .args([
            "--",
            "-print_final_stats=1",
            "-timeout=60",
            "-rss_limit_mb=4096",
        ])
        .arg(format!("-max_total_time={seconds}"))
        .current_dir(workspace.root.join("fuzz"))
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Reads what libFuzzer has said.
fn judged(name: &str, outcome: &Outcome) -> Ran {
    let after = |line: &str, mark: &str| -> Option<u64> {
        let (_, rest) = line.split_once(mark)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let last = |mark: &str| {
        outcome
            .lines
            .iter()
            .rev()
            .find_map(|line| after(line, mark))
    };
    let tail = || {
        let from = outcome.lines.len().saturating_sub(60);
        outcome.lines[from..].join("\n")
    };
    Ran {
        executions: last("stat::number_of_executed_units:").unwrap_or(0),
        edges: last(" cov: ").unwrap_or(0),
        finding: outcome
            .failure
            .as_ref()
            .map(|why| format!("{}\nfuzz target {name}: {why}", tail())),
    }
}

fn result(target: &Target, ran: &Ran, seconds: u32) -> Value {
    json!({ "target": target.name, "seconds": seconds, "executions": ran.executions,
        "edges": ran.edges, "findings": u8::from(ran.finding.is_some()) })
}

fn checks(target: &Target, ran: &Ran, seconds: u32) -> [Check; 2] {
    let least = target.executions_min * f64::from(seconds) / f64::from(FULL_SECONDS);
    // Exact: no run has 2^53 executions.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let executions = ran.executions as f64;
    let check = |what: &str, ok, value, limit, unit: &str| Check {
        name: format!("fuzz.{}.{what}", target.name),
        ok,
        value: Some(value),
        limit: Some(limit),
        unit: unit.to_owned(),
        detail: String::new(),
    };
    let findings = f64::from(u8::from(ran.finding.is_some()));
    [
        check("findings", ran.finding.is_none(), findings, 0.0, "findings"),
        check(
            "executions",
            executions >= least,
            executions,
            least,
            "executions",
        ),
    ]
}

/// The inputs that are checked in.
fn corpus(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.root.join("fuzz/corpus").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(failure: Option<&str>) -> Outcome {
        let lines = "#2 INITED cov: 12 ft: 20\n#1000 pulse  cov: 345 ft: 900 corp: 9/80b\n\
                     stat::number_of_executed_units: 123456\nstat::average_exec_per_sec: 99";
        Outcome {
            lines: lines.lines().map(str::to_owned).collect(),
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn executions_and_edges_are_read() {
        let ran = judged("decode", &outcome(None));
        assert_eq!((ran.executions, ran.edges), (123_456, 345));
        let [findings, executions] = checks(&TARGETS[0], &ran, 60);
        assert!(findings.ok && executions.ok);
        let [_, executions] = checks(&TARGETS[0], &ran, 600);
        assert!(!executions.ok, "too few for ten minutes");
    }

    #[test]
    fn a_crash_is_a_finding() {
        let ran = judged("decode", &outcome(Some("exit status: 77")));
        assert!(
            ran.finding
                .as_ref()
                .is_some_and(|what| what.contains("decode"))
        );
        assert!(!checks(&TARGETS[0], &ran, 60)[0].ok);
    }

    /// Every target of the list has its program, and inputs to start from.
    #[test]
    fn targets_are_there() {
        let workspace = Workspace::load().unwrap();
        for name in names() {
            let program = workspace.root.join(format!("fuzz/fuzz_targets/{name}.rs"));
            assert!(program.is_file(), "{}", program.display());
            let corpus = corpus(&workspace, name);
            assert!(corpus.read_dir().unwrap().next().is_some(), "{name}");
        }
    }
}
