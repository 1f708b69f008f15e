//! The `sdp` program: building it, and running those of its commands that report by themselves.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::run::Run;
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
    let command = workspace.cargo([
        "build",
        "--release",
        "-p",
        "sdp-cli",
        "--bin",
        "sdp",
        // Says where the program is, wherever cargo is configured to build.
        "--message-format=json-render-diagnostics",
    ]);
    let progress = ui.progress("build sdp (release)")?;
    let outcome = Run::new(command).run(|line| {
        if !line.starts_with('{') {
            progress.note(line);
        }
    })?;
    drop(progress);
    if let Some(why) = outcome.failure {
        for line in outcome.lines.iter().filter(|line| !line.starts_with('{')) {
            ui.line(line)?;
        }
        bail!("sdp does not build: {why}");
    }
    let path = outcome.lines.iter().find_map(|line| executable(line));
    Ok(Program {
        path: path
            .context("cargo did not say where it put the sdp program")?
            .into(),
    })
}

/// The path of the program, if `line` is cargo's message that names it.
fn executable(line: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_sdp = message["reason"] == "compiler-artifact" && message["target"]["name"] == "sdp";
    is_sdp.then(|| message["executable"].as_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_comes_from_the_message_of_the_program_only() {
        let line =
            r#"{"reason":"compiler-artifact","target":{"name":"sdp"},"executable":"/t/sdp"}"#;
        assert_eq!(executable(line).as_deref(), Some("/t/sdp"));
        let library = r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable("   Compiling sdp"), None);
    }
}
