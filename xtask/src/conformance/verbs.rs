//! The conformance suite of sdp-verbs on the providers that this machine has.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::libtest::{Case, Verdict, cases};
use crate::report::Skipped;
use crate::run::{Outcome, Run};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// The test programs that mount it, and what each is called here.
const PROGRAMS: [(&str, &str); 5] = [
    ("conformance_host", "host"),
    ("conformance_process", "host.processes"),
    ("conformance_lazy", "lazy"),
    ("conformance_capture", "capture"),
    ("conformance_sim", "sim"),
];
/// The one that needs a device.
const RDMA: (&str, &str) = ("conformance_rdma", "rdma");
/// Where the kernel lists devices.
const DEVICES: &str = "/sys/class/infiniband";

/// The suite, mounted in one way.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Cases that passed.
    pub(super) passed: Vec<String>,
    /// Cases that failed.
    pub(super) failed: Vec<String>,
    /// Cases that were left out, and what is absent.
    pub(super) skipped: Vec<(String, String)>,
}

/// All of them, by name.
pub(super) type Mounts = BTreeMap<String, Mount>;

/// Runs those whose name contains `filter`. What a program that gives no result printed is shown.
///
/// # Errors
/// When cargo cannot be run or the output cannot be written.
pub(super) fn run(
    workspace: &Workspace,
    ui: &Ui,
    filter: &str,
) -> anyhow::Result<(Mounts, Vec<Skipped>)> {
    let mut mounts = Mounts::new();
    let (mut absent, mut faults) = (Vec::new(), Vec::new());
    for (program, name) in PROGRAMS.iter().chain([&RDMA]) {
        // A filter may name a mount of the program.
        let full = format!("verbs.{name}");
        if !full.contains(filter) && !filter.starts_with(&full) {
            continue;
        }
        let needs_device = *program == RDMA.0;
        if needs_device && !has_device() {
            absent.push(Skipped {
                name: full,
                reason: format!("no RDMA device on this machine ({DEVICES} has none)"),
            });
            continue;
        }
        let mut command = workspace.cargo(["test", "-p", "sdp-verbs", "--test", program]);
        if needs_device {
            command.args(["--", "--ignored"]);
        }
        let progress = ui.progress(program)?;
        let outcome = Run::new(command).run(|line| progress.note(line))?;
        drop(progress);
        let found = cases(&outcome);
        if outcome.failure.is_some() {
            for line in &outcome.lines {
                ui.line(line)?;
            }
        }
        faults.extend(fault(program, &outcome, &found).map(|it| (*name, it)));
        sort(name, found, &mut mounts);
    }
    mounts.retain(|name, _| format!("verbs.{name}").contains(filter));
    for (name, fault) in faults {
        let mount = mounts.entry(name.to_owned()).or_default();
        mount.failed.push(fault);
    }
    Ok((mounts, absent))
}

/// What is wrong with a program beside cases that failed: it gave none, or ended before all had theirs.
fn fault(program: &str, outcome: &Outcome, found: &[Case]) -> Option<String> {
    if found.is_empty() {
        return Some(format!("{program} gave no result"));
    }
    let is_told = found.iter().any(|case| case.verdict == Verdict::Failed);
    let failure = outcome.failure.as_ref().filter(|_| !is_told)?;
    Some(format!("{program}: {failure}"))
}

fn has_device() -> bool {
    fs::read_dir(DEVICES).is_ok_and(|mut devices| devices.next().is_some())
}

/// Puts the cases of a program to their mounts: `one_instance::caps::limits_are_sane` is of
/// `host.one_instance`, what stands alone is of the program itself.
fn sort(program: &str, found: Vec<Case>, mounts: &mut Mounts) {
    for Case { name, verdict } in found {
        let (mount, case) = match name.split_once("::") {
            Some((mount, case)) => (format!("{program}.{mount}"), case.to_owned()),
            None => (program.to_owned(), name),
        };
        let mount = mounts.entry(mount).or_default();
        match verdict {
            Verdict::Passed => mount.passed.push(case),
            Verdict::Failed => mount.failed.push(case),
            Verdict::Skipped(reason) => mount.skipped.push((case, reason)),
        }
    }
    for mount in mounts.values_mut() {
        mount.passed.sort();
        mount.failed.sort();
        mount.skipped.sort();
    }
}

/// The part of the page about them. A device is this machine's only, and not in it.
pub(super) fn part(mounts: &Mounts) -> String {
    let mut text =
        "## Verbs\n\nOne suite of cases (`sdp-verbs/src/conformance`) over each provider. \
        What is left out needs what the provider does not have.\n\n\
        | Provider | Cases that hold | Left out |\n|---|---|---|\n"
            .to_owned();
    for (name, mount) in mounts.iter().filter(|it| !it.0.starts_with(RDMA.1)) {
        let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (case, reason) in &mount.skipped {
            by_reason
                .entry(reason)
                .or_default()
                .push(format!("`{case}`"));
        }
        let left: Vec<String> = by_reason
            .iter()
            .map(|(reason, cases)| format!("{}: {}", reason.replace('|', "\\|"), cases.join(", ")))
            .collect();
        // A String takes everything.
        let _ = writeln!(
            text,
            "| {name} | {} | {} |",
            mount.passed.len(),
            left.join("; ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, verdict: Verdict) -> Case {
        Case {
            name: name.to_owned(),
            verdict,
        }
    }

    /// A program that dies between its cases has failed, although none of them has.
    #[test]
    fn a_program_that_dies_has_failed() {
        let outcome = |failure: Option<&str>| Outcome {
            lines: Vec::new(),
            failure: failure.map(str::to_owned),
        };
        let (passed, failed) = (case("a", Verdict::Passed), case("b", Verdict::Failed));
        let died = outcome(Some("signal: 11"));
        let said = fault("p", &died, std::slice::from_ref(&passed));
        assert_eq!(said.as_deref(), Some("p: signal: 11"));
        let said = fault("p", &died, &[]);
        assert_eq!(said.as_deref(), Some("p gave no result"));
        assert_eq!(fault("p", &died, &[passed.clone(), failed]), None);
        assert_eq!(fault("p", &outcome(None), &[passed]), None);
    }

    /// Each case comes to its mount, and the page tells what was left out and why, but nothing of a
    /// device.
    #[test]
    fn cases_come_to_their_mounts() {
        let mut mounts = Mounts::new();
        let absent = || Verdict::Skipped("absent: Caps(SOLICITED)".to_owned());
        let found = vec![
            case("b::wait::solicited", absent()),
            case("b::caps::limits", Verdict::Passed),
            case("alone", Verdict::Failed),
            case("b::wait::again", absent()),
        ];
        sort("lazy", found, &mut mounts);
        sort(RDMA.1, vec![case("a::b::c", Verdict::Passed)], &mut mounts);
        let names: Vec<&str> = mounts.keys().map(String::as_str).collect();
        assert_eq!(names, ["lazy", "lazy.b", "rdma.a"]);
        assert_eq!(mounts["lazy"].failed, ["alone"]);
        let page = part(&mounts);
        let row = "| lazy.b | 1 | absent: Caps(SOLICITED): `wait::again`, `wait::solicited` |\n";
        assert!(page.contains(row), "{page}");
        assert!(!page.contains("rdma"), "{page}");
    }
}
