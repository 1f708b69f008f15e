//! `cargo xtask sim`: builds the simulator and runs it.

use std::env;

use anyhow::{Context, ensure};

use crate::cli::SimOptions;
use crate::report;
use crate::workspace::Workspace;

/// Builds the bugs in that `--mutate` switches on.
const PLANTED: &str = "sdp_mutate";

/// Builds and runs; `Ok(true)` exactly when the simulator says that all is well.
///
/// # Errors
/// When it cannot be built or started.
pub(crate) fn run(workspace: &Workspace, options: &SimOptions) -> anyhow::Result<bool> {
    let mut command = workspace.cargo(["run", "--quiet", "--release", "-p", "sdp-sim", "--"]);
    command.args(arguments(options));
    if let Some(commit) = report::commit(&workspace.root) {
        command.env("SDP_COMMIT", commit);
    }
    if options.mutate.is_some() {
        let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
        flags.push(format!(" --cfg {PLANTED}"));
        // In a folder of its own, so that no bug gets into anything else.
        command
            .env("RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", workspace.target.join("mutate"));
    }
    let status = command.status().context("running the simulator")?;
    ensure!(
        status.code().is_some(),
        "the simulator was ended by a signal: its last lines say which seed did it"
    );
    Ok(status.success())
}

fn arguments(options: &SimOptions) -> Vec<String> {
    let text = |name: &str, value: Option<String>| value.map(|value| format!("--{name}={value}"));
    let json = options.json.as_ref();
    let all = [
        text("start", options.start.map(|n| n.to_string())),
        text("seeds", options.seeds.map(|n| n.to_string())),
        text("minutes", options.minutes.map(|n| n.to_string())),
        text("skip", options.skip.clone()),
        text("spare", options.spare.clone()),
        text("log", options.log.map(|n| n.to_string())),
        text("peer", options.peer.clone()),
        text("mutate", options.mutate.clone()),
        text("json", json.map(|file| file.display().to_string())),
    ];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command as Task};

    #[test]
    fn options_are_handed_on() {
        let line = [
            "xtask", "sim", "--start", "7", "--seeds", "1", "--skip", "0-3,5",
        ];
        let Task::Sim(options) = Cli::parse_from(line).command else {
            panic!("another command");
        };
        assert_eq!(
            arguments(&options),
            ["--start=7", "--seeds=1", "--skip=0-3,5"]
        );
    }
}
