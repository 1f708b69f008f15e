//! `cargo xtask capture-check`: stock tshark reads our captures, and reads in them what was sent.
//!
//! A program of sdp-socket sends every kind of message both ways and writes two captures and a log
//! of its own. Frame by frame, what tshark finds is compared with that log. Then single bytes of
//! the captures are changed, and the comparison must notice each.

mod compare;
mod flip;
mod frame;
mod log;
mod tshark;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;

use self::compare::Verdict;
pub(crate) use self::frame::{Frame, Sdp};
use self::log::Log;
pub(crate) use self::tshark::read;
use crate::report::{Check, Started};
use crate::run::Run;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// The program that talks, an example of this package.
const PACKAGE: &str = "sdp-socket";
const EXAMPLE: &str = "every_message";
/// Its captures: what networks carry, and the framing in which dissectors find the Hello.
const ROCE: &str = "roce.pcapng";
const INFINIBAND: &str = "infiniband.pcapng";

/// Kinds of messages there are.
const KINDS: usize = 18;
/// Fewer frames prove little.
const FRAMES_MIN: usize = 200;

/// Runs the conversation, has it read, compares, and reports; `Ok(true)` exactly when every check
/// holds.
///
/// # Errors
/// When a program cannot be built, installed or run, or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, json: Option<&PathBuf>) -> anyhow::Result<bool> {
    let started = Started::now();
    let version = tshark::ensure(ui)?;
    let folder = workspace.target.join("capture-check");
    talk(workspace, ui, &folder)?;
    let log = Log::read(&folder.join("log.json"))?;
    let read_in = |name: &str| read(&folder.join(name));
    let (roce, infiniband) = (read_in(ROCE)?, read_in(INFINIBAND)?);
    let verdict = compare::compare(&log, &roce, &infiniband);
    let flips = flip::run(&log, &folder, (&roce, &infiniband))?;
    let plain = tshark::read_plainly(&folder.join(ROCE))?;

    let mut report = started.report("capture-check", &workspace.root, Some("host"))?;
    report.results.push(
        json!({ "tshark": version, "kinds_sent": verdict.kinds_sent.len(),
        "kinds_matched": verdict.kinds_matched().len(),
        "frames_compared": verdict.frames_compared, "mismatches": verdict.mismatches.len(),
        "malformed": verdict.malformed.len(), "known_faults": verdict.faults,
        "bytes_flipped": flips.len(), "plain": plain }),
    );
    report.checks = checks(&verdict, &flips);
    report.seconds = started.seconds();

    ui.line(&format!("read by {version}"))?;
    for wrong in verdict.mismatches.iter().chain(&verdict.malformed).take(20) {
        ui.line(&format!("      {wrong}"))?;
    }
    for (fault, count) in &verdict.faults {
        ui.line(&format!("known fault of tshark, {count} frames: {fault}"))?;
    }
    ui.line(&format!(
        "without options tshark shows {} of {} frames as SDP, {} of them as malformed",
        plain.sdp, plain.frames, plain.malformed
    ))?;
    for check in &report.checks {
        print_check(ui, check)?;
    }
    report.write(json.map(PathBuf::as_path))?;
    Ok(report.passed())
}

/// Builds and runs the program in a fresh folder.
fn talk(workspace: &Workspace, ui: &Ui, folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut command = workspace.cargo(["run", "-p", PACKAGE, "--example", EXAMPLE, "--"]);
    command.arg(folder);
    let progress = ui.progress(EXAMPLE)?;
    let outcome = Run::new(command).run(|line| progress.note(line))?;
    drop(progress);
    if let Some(why) = outcome.failure {
        bail!("{}\n{EXAMPLE}: {why}", outcome.lines.join("\n"));
    }
    Ok(())
}

/// The promises.
fn checks(verdict: &Verdict, flips: &[flip::Flip]) -> Vec<Check> {
    let exactly =
        |name: &str, value: usize, limit: usize| check(name, value, limit, value == limit);
    let missed: Vec<&str> = flips
        .iter()
        .filter(|flip| !flip.noticed)
        .map(|flip| flip.what.as_str())
        .collect();
    let frames = verdict.frames_compared;
    let mut noticed = exactly("flips_missed", missed.len(), 0);
    noticed.ok &= !flips.is_empty();
    noticed.detail = format!("{} bytes changed {}", flips.len(), missed.join(", "));
    vec![
        exactly("kinds_sent", verdict.kinds_sent.len(), KINDS),
        exactly("kinds_matched", verdict.kinds_matched().len(), KINDS),
        check("frames_compared", frames, FRAMES_MIN, frames >= FRAMES_MIN),
        exactly("mismatches", verdict.mismatches.len(), 0),
        exactly("malformed", verdict.malformed.len(), 0),
        noticed,
    ]
}

fn check(name: &str, value: usize, limit: usize, ok: bool) -> Check {
    // Exact: no capture has 2^32 frames.
    let number = |n: usize| u32::try_from(n).map_or(f64::INFINITY, f64::from);
    Check {
        name: format!("capture.{name}"),
        ok,
        value: Some(number(value)),
        limit: Some(number(limit)),
        unit: "count".to_owned(),
        detail: String::new(),
    }
}

fn print_check(ui: &Ui, check: &Check) -> anyhow::Result<()> {
    let word = if check.ok { "ok" } else { "FAIL" };
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    ui.line(&format!(
        "{word:5} {:26} {:>6}   limit {}   {}",
        check.name,
        number(check.value),
        number(check.limit),
        check.detail
    ))
}

/// Frames of both captures.
type Captures<'a> = (&'a [Frame], &'a [Frame]);
