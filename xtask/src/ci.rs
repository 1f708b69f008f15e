//! `cargo xtask ci`: everything that a change must pass.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::step::{Steps, Tally};
use crate::ui::Ui;
use crate::workspace::Workspace;
use crate::{bindings, fuzz, header, keys, loom, test_run, tidy, vm};

/// A system without an operating system, for the packages that promise to need none.
const BARE_TARGET: &str = "x86_64-unknown-none";

/// Runs all steps and reports; `Ok(true)` exactly when none failed.
///
/// # Errors
/// When the output or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, json: Option<&PathBuf>) -> anyhow::Result<bool> {
    let mut steps = Steps::new(ui);
    steps.tool("fmt", workspace.cargo(["fmt", "--all", "--check"]))?;
    steps.step("tidy", |_| tidy::tally(workspace))?;
    steps.step("header", |_| header::tally(workspace))?;
    bindings::step(workspace, &mut steps)?;
    steps.tool(
        "clippy",
        workspace.cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    // No package has features for others to switch on, so what runs alone runs together too: that it
    // compiles so is clippy's.
    test_run::each_alone(workspace, &mut steps)?;
    no_std(workspace, &mut steps)?;
    keys::unchecked_steps(workspace, &mut steps)?;
    loom::steps(workspace, &mut steps)?;
    capture_check(workspace, &mut steps)?;
    fuzz::steps(workspace, &mut steps)?;
    vm::short_steps(workspace, ui, &mut steps)?;
    let mut docs = workspace.cargo(["doc", "--workspace", "--no-deps"]);
    docs.env("RUSTDOCFLAGS", "-D warnings");
    steps.tool("docs", docs)?;
    deny(workspace, &mut steps)?;
    steps.finish("ci", workspace, json)
}

/// sdp-wire and sdp-core build without the standard library.
fn no_std(workspace: &Workspace, steps: &mut Steps<'_>) -> anyhow::Result<()> {
    let mut probe = Command::new("rustc");
    probe
        .args(["--print", "target-libdir", "--target", BARE_TARGET])
        .stderr(Stdio::null());
    let installed = probe.output().is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && PathBuf::from(path).is_dir()
    });
    if !installed {
        let reason = format!("not installed: rustup target add {BARE_TARGET}");
        return steps.step("no_std", |_| Ok(Tally::skipped("no_std", &reason)));
    }
    let arguments = [
        "check",
        "-p",
        "sdp-wire",
        "-p",
        "sdp-core",
        "--target",
        BARE_TARGET,
    ];
    steps.tool("no_std", workspace.cargo(arguments))
}

/// Captures are read by tshark, where it is there.
fn capture_check(workspace: &Workspace, steps: &mut Steps<'_>) -> anyhow::Result<()> {
    let name = "capture-check";
    let probe = Command::new("tshark").arg("--version").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let reason = "tshark is not installed: cargo xtask capture-check installs it";
        return steps.step(name, |_| Ok(Tally::skipped(name, reason)));
    }
    // Not this process's own file: a step before may have built another in its place.
    steps.tool(
        name,
        workspace.cargo(["run", "-q", "-p", "xtask", "--", name]),
    )
}

/// Licences, advisories and sources of the dependencies, where the tool is there.
fn deny(workspace: &Workspace, steps: &mut Steps<'_>) -> anyhow::Result<()> {
    let probe = workspace.cargo(["deny", "--version"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        let reason = "cargo-deny is not installed: cargo install cargo-deny --locked";
        return steps.step("deny", |_| Ok(Tally::skipped("deny", reason)));
    }
    steps.tool("deny", workspace.cargo(["deny", "--all-features", "check"]))
}
