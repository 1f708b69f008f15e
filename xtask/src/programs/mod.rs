//! `cargo xtask programs`: real programs, unmodified, by the preload library.
//!
//! Each case is a script that starts servers and clients and compares what arrives. It runs in
//! namespaces of its own: what its loopback device has carried went by TCP, and nothing else did. What
//! its processes report of themselves is added up, and held against that.

mod bench;
mod cases;
mod facts;
mod found;
mod judge;
mod report_line;

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::json;

use self::cases::{BENCHMARKS, CASES, COMMON, Case};
use self::found::{Bench, Found, Mode};
pub(crate) use self::report_line::Reported;
use crate::cli::ProgramsOptions;
use crate::packages::{self, Need};
use crate::report::{Report, Skipped, Started};
use crate::ui::Ui;
use crate::workspace::Workspace;
use crate::{binaries, program};

/// Runs the cases, or the benchmarks, and reports; `Ok(true)` exactly when every check holds.
///
/// # Errors
/// Without root, when our own programs do not build, or when the report cannot be written.
pub(crate) fn run(
    workspace: &Workspace,
    ui: &Ui,
    options: &ProgramsOptions,
) -> anyhow::Result<bool> {
    let started = Started::now();
    let all = if options.bench { BENCHMARKS } else { CASES };
    let wanted = |case: &&Case| {
        let filter = options.filter.as_deref();
        filter.is_none_or(|text| case.name.contains(text))
    };
    let cases: Vec<&Case> = all.iter().filter(wanted).collect();
    if options.list {
        for case in cases {
            ui.line(&format!("{:16} {}", case.name, case.programs))?;
        }
        return Ok(true);
    }
    if cases.is_empty() {
        bail!("no case has that in its name; --list shows them");
    }
    can_separate()?;
    let mut report = started.report("programs", &workspace.root, Some("host"))?;
    let cases = ready(ui, options, cases, &mut report)?;
    let sdp = program::build(workspace, ui)?.path;
    binaries::preload(workspace, ui)?;
    let scripts = workspace.root.join("xtask/programs");
    let target = workspace.target.join("programs");
    fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    let bench = Bench {
        scripts: &scripts,
        sdp: &sdp,
        target: &target,
    };
    for case in cases {
        if options.bench {
            bench::run(ui, &bench, case, options.rounds, &mut report)?;
        } else {
            prove(ui, &bench, case, &mut report)?;
        }
    }
    report.seconds = started.seconds();
    report.write(options.json.as_deref())?;
    for skipped in &report.skipped {
        ui.line(&format!("NOT RUN {}: {}", skipped.name, skipped.reason))?;
    }
    ui.line(&format!(
        "{} of {} run, {}",
        report.results.len(),
        report.results.len() + report.skipped.len(),
        report.summary()
    ))?;
    Ok(report.passed())
}

/// Whether namespaces can be made, without which nothing could be said of the loopback device.
fn can_separate() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("each case runs in namespaces of its own, which only root makes: run it by sudo -E");
    }
    let made = Command::new("unshare")
        .args([
            "--net",
            "--ipc",
            "--pid",
            "--mount",
            "--fork",
            "--mount-proc",
            "true",
        ])
        .stdin(Stdio::null())
        .output()
        .context("cannot run unshare")?;
    if !made.status.success() {
        bail!(
            "no namespaces can be made here: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        );
    }
    Ok(())
}

/// The cases whose programs are here, after what can be installed has been. The others are skipped.
fn ready<'a>(
    ui: &Ui,
    options: &ProgramsOptions,
    cases: Vec<&'a Case>,
    report: &mut Report,
) -> anyhow::Result<Vec<&'a Case>> {
    let needs_of = |case: &&Case| [COMMON, case.needs].concat();
    let needs: Vec<Need> = cases.iter().flat_map(needs_of).collect();
    let absent = match options.installed {
        true => packages::missing(&needs),
        false => packages::install_what_can_be(ui, &needs)?,
    };
    let mut able = Vec::new();
    for case in cases {
        let lacks = needs_of(&case)
            .into_iter()
            .find(|need| absent.contains(need));
        match lacks {
            None => able.push(case),
            Some(need) => report.skipped.push(Skipped {
                name: case.name.to_owned(),
                reason: format!("no {} (package {})", need.file, need.package),
            }),
        }
    }
    Ok(able)
}

/// Runs one case, judges it and says so.
fn prove(ui: &Ui, bench: &Bench<'_>, case: &Case, report: &mut Report) -> anyhow::Result<()> {
    let progress = ui.progress(case.name)?;
    let found = bench
        .run(case.name, Mode::Sdp, &progress)
        .unwrap_or_else(|error| Found {
            failure: Some(format!("{error:#}")),
            ..Found::default()
        });
    drop(progress);
    let checks = judge::checks(case.name, &found);
    let ok = checks.iter().all(|check| check.ok);
    ui.line(&summary(case.name, ok, &found))?;
    for check in checks.iter().filter(|check| !check.ok) {
        let about =
            [check.value, check.limit].map(|it| it.map_or(String::new(), |it| it.to_string()));
        ui.line(&format!(
            "        FAIL {} {} {} {}",
            check.name, about[0], check.detail, about[1]
        ))?;
    }
    let Found {
        facts, reported, ..
    } = &found;
    report.results.push(json!({
        "name": case.name, "programs": case.programs, "seconds": found.seconds,
        "bytes_moved": facts.moved, "connections": reported.connections,
        "bytes_sent": reported.sent.all, "bytes_sent_zcopy": reported.sent.zcopy,
        "bytes_received": reported.received.all, "bytes_received_zcopy": reported.received.zcopy,
        "tcp": reported.tcp.iter().map(|(reason, count)| json!({ "reason": reason, "count": count }))
            .collect::<Vec<_>>(),
        "tcp_accepted": reported.accepted_by_tcp, "loopback_bytes": found.loopback,
    }));
    report.checks.extend(checks);
    Ok(())
}

/// `ok    redis   12.3 s   411.0 MB by SDP, 3 % not copied, 180 connections; 0 bytes by TCP`.
fn summary(name: &str, ok: bool, found: &Found) -> String {
    let ours = &found.reported;
    let all = ours.sent.all.max(ours.received.all);
    let zcopy = ours.sent.zcopy.max(ours.received.zcopy);
    let share = judge::number(zcopy) * 100.0 / judge::number(all.max(1));
    let mut text = format!(
        "{:5} {name:14} {:5.1} s {:8.1} MB by SDP, {share:2.0} % not copied, {:5} connections",
        if ok { "ok" } else { "FAIL" },
        found.seconds,
        judge::number(all) / 1e6,
        ours.connections,
    );
    if found.loopback > 0 {
        text += &format!(
            "; {:.1} MB over loopback",
            judge::number(found.loopback) / 1e6
        );
    }
    for (reason, count) in &ours.tcp {
        text += &format!("; TCP: {reason} {count}");
    }
    text
}
