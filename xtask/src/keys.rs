//! `cargo xtask keys`: dead keys stay dead, and the tests that say so can fail.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::libtest;
use crate::run::{Outcome, Run};
use crate::step::{Steps, Tally};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Packages with a test file `keys`.
const PACKAGES: [&str; 2] = ["sdp-verbs", "sdp-socket"];
/// Switches the proof of a living key off.
const NO_CHECK: &str = "sdp_no_cell_check";
/// Tests of these names stand on that proof.
const PROVEN: &str = "after_";

/// Runs the tests of keys with the cell check and without, and reports; `Ok(true)` exactly when
/// all pass with it and all that stand on it fail without.
///
/// # Errors
/// When the output or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, json: Option<&PathBuf>) -> anyhow::Result<bool> {
    let mut steps = Steps::new(ui);
    for name in PACKAGES {
        let command = command(workspace, name);
        steps.step(&format!("keys.{name}"), |progress| {
            Ok(libtest::tally(
                &Run::new(command).run(|line| progress.note(line))?,
            ))
        })?;
    }
    unchecked_steps(workspace, &mut steps)?;
    steps.finish("keys", workspace, json)
}

/// One step per package: without the check its tests fail.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn unchecked_steps(workspace: &Workspace, steps: &mut Steps<'_>) -> anyhow::Result<()> {
    for name in PACKAGES {
        let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
        flags.push(format!(" --cfg {NO_CHECK}"));
        let mut command = command(workspace, name);
        // In a folder of its own, so that nothing else is ever built without the check.
        command
            .env("RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", workspace.target.join("no-cell-check"));
        steps.step(&format!("keys.{name}.unchecked"), |progress| {
            let outcome = Run::new(command).run(|line| progress.note(line))?;
            Ok(must_fail(&outcome))
        })?;
    }
    Ok(())
}

fn command(workspace: &Workspace, name: &str) -> Command {
    workspace.cargo(["test", "--no-fail-fast", "-p", name, "--test", "keys"])
}

/// Every test that stands on the check has run and failed. One that skipped itself did neither.
fn must_fail(outcome: &Outcome) -> Tally {
    let tally = libtest::tally(outcome);
    let ended = |how: &'static str| {
        outcome.lines.iter().filter_map(move |line| {
            let name = line.strip_prefix("test ")?.strip_suffix(how)?;
            (name.starts_with(PROVEN)).then_some(name)
        })
    };
    let is_skipped = |name: &&str| tally.skipped.iter().any(|s| s.name == *name);
    let passed: Vec<_> = ended(" ... ok").filter(|n| !is_skipped(n)).collect();
    let failed = ended(" ... FAILED").count();
    if failed == 0 || !passed.is_empty() {
        return Tally::failed(format!(
            "{}\n{failed} tests failed without the cell check, and these passed: {passed:?}",
            outcome.lines.join("\n")
        ));
    }
    Tally {
        passed: failed,
        skipped: tally.skipped,
        ..Tally::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Tally {
        must_fail(&Outcome {
            lines: text.lines().map(str::to_owned).collect(),
            failure: Some("exit status: 101".to_owned()),
        })
    }

    #[test]
    fn tests_that_fail_without_the_check_are_what_is_wanted() {
        let tally = judged("test after_a ... FAILED\ntest other ... ok\ntest after_b ... FAILED");
        assert_eq!((tally.passed, tally.failed), (2, 0), "{}", tally.output);
    }

    #[test]
    fn a_test_that_passes_without_the_check_proves_nothing() {
        let tally = judged("test after_a ... FAILED\ntest after_b ... ok");
        assert_eq!(tally.failed, 1);
        assert!(tally.output.contains("after_b"), "{}", tally.output);
    }

    #[test]
    fn a_test_that_skipped_itself_is_neither() {
        let tally =
            judged("test after_a ... FAILED\nskipped after_b: no right\ntest after_b ... ok");
        assert_eq!((tally.passed, tally.failed), (1, 0), "{}", tally.output);
        assert_eq!(tally.skipped.len(), 1);
    }

    #[test]
    fn a_build_that_fails_is_no_failed_test() {
        assert_eq!(judged("error: could not compile").failed, 1);
    }
}
