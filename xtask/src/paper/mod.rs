//! `cargo xtask paper`: the figure of the founding paper, measured by the simulator and drawn.

mod html;

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};

use crate::cli::PaperOptions;
use crate::report::{self, Report};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// What the simulator writes, in the folder of what is built.
const REPORT: &str = "paper.json";
/// The page, in the same folder, unless told otherwise.
const PAGE: &str = "paper.html";

/// Builds the simulator, has it measure, and draws; `Ok(true)` exactly when every check holds.
///
/// # Errors
/// When it cannot be built or started, gives no report, or the page cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, options: &PaperOptions) -> anyhow::Result<bool> {
    let file = workspace.target.join(REPORT);
    // What is read below is of this run.
    if file.exists() {
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let mut command = workspace.cargo(["run", "--quiet", "--release", "-p", "sdp-sim", "--"]);
    command.args(arguments(options)).arg("--json").arg(&file);
    if let Some(commit) = report::commit(&workspace.root) {
        command.env("SDP_COMMIT", commit);
    }
    if options.json.as_deref() == Some(Path::new("-")) {
        command.stdout(Stdio::from(io::stderr()));
    }
    let status = command.status().context("running the simulator")?;
    ensure!(
        file.exists(),
        "the simulator ended with {status} and gave no report: it has said why"
    );
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let report: Report = serde_json::from_slice(&text).context("the simulator's report")?;
    report.write(options.json.as_deref())?;
    let page = options
        .html
        .clone()
        .unwrap_or_else(|| workspace.target.join(PAGE));
    fs::write(&page, html::page(&report)?)
        .with_context(|| format!("cannot write {}", page.display()))?;
    ui.line(&format!("{}; {}", report.summary(), page.display()))?;
    Ok(status.success() && report.passed())
}

fn arguments(options: &PaperOptions) -> Vec<String> {
    let mut arguments = vec!["figure".to_owned()];
    arguments.extend(options.short.then(|| "--short".to_owned()));
    let machine = options.machine.as_ref();
    arguments.extend(machine.map(|names| format!("--machine={names}")));
    arguments.extend(options.seed.map(|seed| format!("--seed={seed}")));
    arguments
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command as Task};

    #[test]
    fn options_are_handed_on() {
        let line = [
            "xtask",
            "paper",
            "--short",
            "--machine",
            "ddr2005",
            "--seed=3",
        ];
        let Task::Paper(options) = Cli::parse_from(line).command else {
            panic!("another command");
        };
        let expected = ["figure", "--short", "--machine=ddr2005", "--seed=3"];
        assert_eq!(arguments(&options), expected);
    }
}
