//! `cargo xtask loom`: the models of the hand-made synchronisation.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::libtest;
use crate::run::Run;
use crate::step::{Steps, Tally};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Packages that synchronise by hand. Each must have models.
const PACKAGES: [&str; 2] = ["sdp-verbs", "sdp-socket"];
/// Preemptions per execution, unless the environment says otherwise: enough to find the known
/// classes of error, few enough to end in seconds.
const PREEMPTIONS_MAX: &str = "2";

/// Runs the models and reports; `Ok(true)` exactly when all hold.
///
/// # Errors
/// When the output or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, json: Option<&PathBuf>) -> anyhow::Result<bool> {
    let mut steps = Steps::new(ui);
    self::steps(workspace, &mut steps)?;
    steps.finish("loom", workspace, json)
}

/// One step per package with models.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn steps(workspace: &Workspace, steps: &mut Steps<'_>) -> anyhow::Result<()> {
    for name in PACKAGES {
        steps.step(&format!("loom.{name}"), |progress| {
            let mut total = Tally::default();
            for command in commands(workspace, name)? {
                let tally = libtest::tally(&Run::new(command).run(|line| progress.note(line))?);
                total.passed += tally.passed;
                total.failed += tally.failed;
                total.skipped.extend(tally.skipped);
                total.output.push_str(&tally.output);
            }
            Ok(must_have_run(name, total))
        })?;
    }
    Ok(())
}

/// A package whose models have all vanished must not look green.
fn must_have_run(name: &str, tally: Tally) -> Tally {
    if tally.passed + tally.failed > 0 {
        return tally;
    }
    Tally::failed(format!(
        "{name} ran no loom test: name a module or a file under tests/ `loom_…` and gate it with \
         #[cfg(loom)]"
    ))
}

/// The library's models (by test name), and every integration test file named `loom_*`, whole.
fn commands(workspace: &Workspace, name: &str) -> anyhow::Result<Vec<Command>> {
    let package = workspace
        .package(name)
        .with_context(|| format!("no package {name}"))?;
    let mut commands = Vec::new();
    if package.targets.iter().any(|target| target.is("lib")) {
        commands.push(command(workspace, name, &["--lib", "--", "loom_"]));
    }
    let models = package
        .targets
        .iter()
        .filter(|t| t.is("test") && t.name.starts_with("loom_"));
    for target in models {
        commands.push(command(workspace, name, &["--test", &target.name]));
    }
    Ok(commands)
}

/// One `cargo test` under `--cfg loom`, in a target folder of its own: the flag would otherwise
/// rebuild everything each time it comes and goes.
fn command(workspace: &Workspace, name: &str, rest: &[&str]) -> Command {
    let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
    flags.push(" --cfg loom");
    let preemptions = env::var_os("LOOM_MAX_PREEMPTIONS").unwrap_or_else(|| PREEMPTIONS_MAX.into());
    let mut command = workspace.cargo(["test", "--release", "-p", name]);
    command
        .args(rest)
        .env("RUSTFLAGS", flags)
        // It would win over RUSTFLAGS and the models would silently be compiled out.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", workspace.target.join("loom"))
        .env("LOOM_MAX_PREEMPTIONS", preemptions);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_ran_no_model_fails() {
        let tally = must_have_run("sdp-verbs", Tally::default());
        assert_eq!(tally.failed, 1);
        assert!(tally.output.contains("ran no loom test"));
        let ran = must_have_run(
            "sdp-verbs",
            Tally {
                passed: 1,
                ..Tally::default()
            },
        );
        assert_eq!((ran.passed, ran.failed), (1, 0));
    }

    #[test]
    fn the_flag_and_the_bounds_reach_cargo() {
        let workspace = Workspace::load().unwrap();
        let command = command(&workspace, "sdp-verbs", &["--lib"]);
        let value = |name: &str| {
            let found = command.get_envs().find(|(key, _)| *key == name);
            found
                .and_then(|(_, value)| value)
                .map(|v| v.to_string_lossy().into_owned())
        };
        assert!(value("RUSTFLAGS").unwrap().ends_with("--cfg loom"));
        assert!(value("CARGO_TARGET_DIR").unwrap().ends_with("/loom"));
        assert!(value("LOOM_MAX_PREEMPTIONS").is_some());
    }
}
