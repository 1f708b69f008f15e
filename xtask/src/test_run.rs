//! `cargo xtask test`: every test that needs no hardware.

use std::path::PathBuf;

use crate::run::Run;
use crate::step::Steps;
use crate::ui::Ui;
use crate::workspace::Workspace;
use crate::{libtest, loom};

/// Runs all tests and reports; `Ok(true)` exactly when none failed.
///
/// # Errors
/// When the output or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, json: Option<&PathBuf>) -> anyhow::Result<bool> {
    let mut steps = Steps::new(ui);
    each_alone(workspace, &mut steps)?;
    loom::steps(workspace, &mut steps)?;
    steps.finish("test", workspace, json)
}

/// One step per package: its units, its integration tests and its doctests, built alone, so that
/// no package leans on a feature that only another one switches on.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn each_alone(workspace: &Workspace, steps: &mut Steps<'_>) -> anyhow::Result<()> {
    for package in &workspace.packages {
        let command = workspace.cargo(["test", "--no-fail-fast", "-p", &package.name]);
        steps.step(&package.name, |progress| {
            Ok(libtest::tally(
                &Run::new(command).run(|line| progress.note(line))?,
            ))
        })?;
    }
    Ok(())
}
