//! `cargo xtask conformance`: what this library promises of sockets and of verbs, call by call.
//!
//! The suite of sdp-verbs runs on every provider that the machine has. A program that asks each call in
//! each phase of a socket, with good and odd arguments, runs by the kernel's TCP, by libsdp and under the
//! preload library, and what it prints is compared. `docs/conformance.md` is what comes of it.

mod differ;
mod html;
mod programs;
mod rules;
mod table;
mod verbs;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use self::differ::{Comparison, Library};
use self::programs::Programs;
use self::rules::RULES;
use self::verbs::Mounts;
use crate::cli::ConformanceOptions;
use crate::report::{Check, Report, Skipped, Started};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// The page, from the root of the workspace.
const PAGE: &str = "docs/conformance.md";
const HEAD: &str = "# Conformance

What each function gives beside what Linux's TCP gives, in every phase of a socket: new, bound, listening,
with somebody to be accepted, connecting, refused, connected, with bytes, with an urgent byte, each half
shut, reset, closed. Results, errnos, events, the bytes that are moved and the values of options are compared; of
options whose values are the machine's or the moment's it is whether they work.

`cargo xtask conformance --write` writes this page from what it finds; do not edit it by hand. The tests of sdp-ffi
and of the preload library compare it with what they find.

";
const ABOUT_RULES: &str = "## Rules of difference

Every difference that was found is by one of these rules. Another one fails the command and the tests.

";
/// Fewer connections by SDP mean that TCP was compared with itself.
const CONNECTIONS_MIN: u64 = 100;

/// What was found. A part that was not asked for is not there.
#[derive(Debug, Default)]
struct Found {
    verbs: Option<Mounts>,
    libraries: Vec<(Library, Comparison)>,
}

/// Runs everything whose name contains the filter, and reports; `Ok(true)` exactly when every check
/// holds: every difference is a listed one.
///
/// # Errors
/// When something cannot be built or run, the filter names nothing, or a report cannot be written.
pub(crate) fn run(
    workspace: &Workspace,
    ui: &Ui,
    options: &ConformanceOptions,
) -> anyhow::Result<bool> {
    let started = Started::now();
    let mut report = started.report("conformance", &workspace.root, None)?;
    let filter = options.filter.as_deref().unwrap_or_default();
    let mut found = Found::default();

    let (mounts, absent) = verbs::run(workspace, ui, filter)?;
    report.skipped.extend(absent);
    note_verbs(&mounts, &mut report);
    found.verbs = Some(mounts);
    compare(workspace, ui, filter, &mut found, &mut report)?;
    anyhow::ensure!(
        !report.checks.is_empty() || !report.skipped.is_empty(),
        "no function, library or mount has {filter:?} in its name: `libsdp.recv`, `preload`, `verbs.host`"
    );
    if filter.is_empty() {
        judge_page(workspace, options.write, &found, &mut report)?;
    }
    report.seconds = started.seconds();
    tell(ui, &found, &report)?;
    report.write(options.json.as_deref())?;
    if let Some(target) = &options.html {
        fs::write(target, html::page(&report)?)
            .with_context(|| format!("cannot write {}", target.display()))?;
    }
    ui.line(&report.summary())?;
    Ok(report.passed())
}

/// Compares the libraries of which a function is asked for.
fn compare(
    workspace: &Workspace,
    ui: &Ui,
    filter: &str,
    found: &mut Found,
    report: &mut Report,
) -> anyhow::Result<()> {
    let wanted: Vec<Library> = [Library::Libsdp, Library::Preload]
        .into_iter()
        .filter(|library| may_have(table::short(*library), filter))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if !programs::has_compiler() {
        report.skipped.extend(wanted.iter().map(|library| Skipped {
            name: table::short(*library).to_owned(),
            reason: "no C compiler (cc) in PATH".to_owned(),
        }));
        return Ok(());
    }
    let programs = Programs::build(workspace, ui)?;
    for library in wanted {
        let mut compared = programs.compare(ui, library)?;
        let stale = compared.stale(library, RULES);
        let name = table::short(library);
        if library == Library::Preload {
            let by_sdp = programs.connections_by_sdp()?;
            report.checks.push(by_sdp_check(by_sdp));
        }
        if name.contains(filter) {
            report.checks.push(stale_check(name, &stale));
        }
        compared
            .functions
            .retain(|function, _| format!("{name}.{function}").contains(filter));
        note_functions(library, &compared, report);
        found.libraries.push((library, compared));
    }
    Ok(())
}

/// Whether a library may have a function of which the filter asks.
fn may_have(library: &str, filter: &str) -> bool {
    match filter.split_once('.') {
        Some((first, _)) => library.ends_with(first),
        None => library.contains(filter) || !["libsdp", "preload", "verbs"].contains(&filter),
    }
}

/// A check and a result for each function.
fn note_functions(library: Library, compared: &Comparison, report: &mut Report) {
    let name = table::short(library);
    for (function, it) in &compared.functions {
        let first = it.unlisted.first();
        report.checks.push(none_of(
            format!("conformance.{name}.{function}"),
            it.unlisted.len(),
            "differences",
            first.map_or(String::new(), |(tcp, ours)| {
                format!("TCP {tcp}; ours {ours}")
            }),
        ));
        let topics: Vec<Value> = it
            .topics
            .iter()
            .map(|(topic, it)| {
                json!({ "with": topic, "calls": it.calls, "differing": it.differing,
                    "rules": it.rules })
            })
            .collect();
        let unlisted: Vec<Value> = it
            .unlisted
            .iter()
            .map(|(tcp, ours)| json!({ "tcp": tcp, "ours": ours }))
            .collect();
        report.results.push(
            json!({ "library": name, "function": function, "calls": it.calls,
            "topics": topics, "unlisted": unlisted }),
        );
    }
}

/// A check for each mount of the suite, a result for each case.
fn note_verbs(mounts: &Mounts, report: &mut Report) {
    for (name, mount) in mounts {
        report.checks.push(none_of(
            format!("conformance.verbs.{name}"),
            mount.failed.len(),
            "failures",
            mount.failed.join(", "),
        ));
        let mut note = |case: &str, verdict: &str, reason: &str| {
            report
                .results
                .push(json!({ "mount": name, "case": case, "verdict": verdict,
                "reason": reason }));
        };
        for case in &mount.passed {
            note(case, "passed", "");
        }
        for case in &mount.failed {
            note(case, "failed", "");
        }
        for (case, reason) in &mount.skipped {
            note(case, "skipped", reason);
        }
        let skipped = mount.skipped.iter().map(|(case, reason)| Skipped {
            name: format!("verbs.{name}.{case}"),
            reason: reason.clone(),
        });
        report.skipped.extend(skipped);
    }
}

/// Holds the page against what was found, or writes it.
fn judge_page(
    workspace: &Workspace,
    writes: bool,
    found: &Found,
    report: &mut Report,
) -> anyhow::Result<()> {
    let whole = found.libraries.len() == 2 && found.libraries.iter().all(|it| it.1.has_v6);
    if !whole {
        report.skipped.push(Skipped {
            name: "page".to_owned(),
            reason: "it tells of what needs a C compiler and IPv6 on the machine".to_owned(),
        });
        return Ok(());
    }
    let path = workspace.root.join(PAGE);
    let written_on = table::written_on(&report.machine.kernel);
    let page = page(found, &written_on);
    let there = fs::read_to_string(&path).unwrap_or_default();
    if !writes && !there.is_empty() && !there.contains(&written_on) {
        report.skipped.push(Skipped {
            name: "page".to_owned(),
            reason: "it was written on another kernel".to_owned(),
        });
        return Ok(());
    }
    if writes {
        fs::write(&path, &page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    report.checks.push(page_check(&path, &page));
    Ok(())
}

/// What should be on the page.
fn page(found: &Found, written_on: &str) -> String {
    let parts = found.libraries.iter();
    let parts: Vec<String> = parts
        .map(|(library, compared)| table::part(*library, compared) + "\n")
        .collect();
    let verbs = found.verbs.as_ref().map_or(String::new(), verbs::part);
    [
        HEAD,
        written_on,
        "\n",
        ABOUT_RULES,
        &table::rules(RULES),
        "\n",
        &parts.concat(),
        &verbs,
    ]
    .concat()
}

fn page_check(path: &Path, page: &str) -> Check {
    let there = fs::read_to_string(path).unwrap_or_default();
    let lines = || there.lines().zip(page.lines());
    let parts = lines().find(|(there, found)| there != found);
    Check {
        name: "conformance.page".to_owned(),
        ok: there == page,
        value: None,
        limit: None,
        unit: String::new(),
        detail: parts.map_or(String::new(), |(there, found)| {
            format!("{PAGE} has \"{there}\", found was \"{found}\": --write renews it")
        }),
    }
}

/// The promise that there is none of something.
fn none_of(name: String, count: usize, unit: &str, detail: String) -> Check {
    Check {
        name,
        ok: count == 0,
        // Exact: no run has 2^32 of them.
        value: Some(u32::try_from(count).map_or(f64::INFINITY, f64::from)),
        limit: Some(0.0),
        unit: unit.to_owned(),
        detail,
    }
}

fn stale_check(name: &str, stale: &[u32]) -> Check {
    let numbers: Vec<String> = stale.iter().map(u32::to_string).collect();
    none_of(
        format!("conformance.{name}.rules_for_nothing"),
        stale.len(),
        "rules",
        numbers.join(", "),
    )
}

fn by_sdp_check(connections: u64) -> Check {
    let number = |n: u64| u32::try_from(n).map_or(f64::INFINITY, f64::from);
    Check {
        name: "conformance.preload.by_sdp".to_owned(),
        ok: connections >= CONNECTIONS_MIN,
        value: Some(number(connections)),
        limit: Some(number(CONNECTIONS_MIN)),
        unit: "connections".to_owned(),
        detail: "at least".to_owned(),
    }
}

/// The same for a reader.
fn tell(ui: &Ui, found: &Found, report: &Report) -> anyhow::Result<()> {
    for (name, mount) in found.verbs.iter().flatten() {
        ui.line(&format!(
            "{:5} verbs {name:40} {:3} passed, {} failed, {} skipped",
            word(mount.failed.is_empty()),
            mount.passed.len(),
            mount.failed.len(),
            mount.skipped.len()
        ))?;
    }
    for (library, compared) in &found.libraries {
        for (name, function) in &compared.functions {
            let differing: usize = function
                .topics
                .values()
                .filter(|it| it.differing > 0)
                .count();
            ui.line(&format!(
                "{:5} {:8} {name:12} {:6} calls, {differing:3} of {:3} flags and options differ by rules",
                word(function.unlisted.is_empty()),
                table::short(*library),
                function.calls,
                function.topics.len()
            ))?;
        }
        for difference in compared.unlisted() {
            ui.line(&difference)?;
        }
    }
    for check in report.checks.iter().filter(|check| !check.ok) {
        ui.line(&format!("FAIL  {} {}", check.name, check.detail))?;
    }
    for skipped in &report.skipped {
        ui.line(&format!("NOT RUN {}: {}", skipped.name, skipped.reason))?;
    }
    Ok(())
}

const fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "FAIL" }
}
