//! The `sdp` program: building it, and running those of its commands that report by themselves.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::binaries;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// The `sdp` program that was built.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
}

/// Builds the program and runs `sdp COMMAND OPTIONS`, which writes to the terminal and makes the
/// report; `Ok(true)` exactly when it ends with success.
///
/// # Errors
/// When it cannot be built or started.
pub(crate) fn run(
    workspace: &Workspace,
    ui: &Ui,
    command: &str,
    options: &[String],
) -> anyhow::Result<bool> {
    let program = build(workspace, ui)?;
    let status = Command::new(&program.path)
        .arg(command)
        .args(options)
        .status()
        .with_context(|| format!("cannot run {}", program.path.display()))?;
    Ok(status.success())
}

/// Builds the release program and says where it is.
///
/// # Errors
/// When it does not build; the whole output is printed first.
pub(crate) fn build(workspace: &Workspace, ui: &Ui) -> anyhow::Result<Program> {
    Ok(Program {
        path: binaries::program(workspace, ui, "sdp-cli", "sdp")?,
    })
}
