//! `cargo xtask scribble`: a peer that overwrites the memory it shares with us, and what comes of
//! it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::libtest;
use crate::run::Run;
use crate::step::{Steps, Tally};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Targets whose compiler comes with AddressSanitizer.
const SANITIZED: [&str; 2] = ["x86_64", "aarch64"];

/// Runs the test `scribble` for `seconds`, then again under AddressSanitizer, and reports;
/// `Ok(true)` exactly when both pass.
///
/// # Errors
/// When the output or the report cannot be written.
pub(crate) fn run(
    workspace: &Workspace,
    ui: &Ui,
    seconds: u32,
    json: Option<&PathBuf>,
) -> anyhow::Result<bool> {
    let mut steps = Steps::new(ui);
    let plain = command(workspace, seconds);
    steps.step("scribble", |progress| {
        Ok(libtest::tally(
            &Run::new(plain).run(|line| progress.note(line))?,
        ))
    })?;
    steps.step("scribble.asan", |progress| {
        let Some(target) = sanitized_target() else {
            let reason = "AddressSanitizer is for Linux with glibc on x86-64 and 64-bit ARM";
            return Ok(Tally::skipped("scribble.asan", reason));
        };
        let mut command = command(workspace, seconds);
        let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
        flags.push(" -Zsanitizer=address");
        // The flag is one of nightly compilers; this variable has a stable one take it. Without a
        // target of its own it would also be for build scripts and macros.
        command
            .args(["--target", &target])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", workspace.target.join("asan"))
            .env("ASAN_OPTIONS", "detect_leaks=0");
        Ok(libtest::tally(
            &Run::new(command).run(|line| progress.note(line))?,
        ))
    })?;
    steps.finish("scribble", workspace, json)
}

fn command(workspace: &Workspace, seconds: u32) -> Command {
    let mut command = workspace.cargo(["test", "-p", "sdp-socket", "--test", "scribble"]);
    command.env("SDP_SCRIBBLE_SECONDS", seconds.to_string());
    command
}

/// This machine's target, if its programs can be built with AddressSanitizer.
fn sanitized_target() -> Option<String> {
    let arch = env::consts::ARCH;
    let fits = cfg!(all(target_os = "linux", target_env = "gnu")) && SANITIZED.contains(&arch);
    fits.then(|| format!("{arch}-unknown-linux-gnu"))
}
