//! How many lines the inputs that are checked in reach.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::run::Run;
use crate::ui::Progress;
use crate::workspace::Workspace;

/// A package whose tests replay a corpus, and the share of its lines that must be reached.
#[derive(Debug)]
pub(super) struct Covered {
    pub(super) package: &'static str,
    /// Percent.
    pub(super) least: f64,
}

pub(super) const COVERED: [Covered; 2] = [
    Covered {
        package: "sdp-wire",
        least: 90.0,
    },
    Covered {
        package: "sdp-core",
        least: 80.0,
    },
];

/// What is said where the tools are missing.
pub(super) const MISSING: &str = "llvm-cov of this compiler is not installed: rustup component add \
                                  llvm-tools";

/// Lines reached, and lines there are.
pub(super) type Lines = (u64, u64);

/// The folder of the compiler's own llvm tools, if they are installed.
pub(super) fn tools() -> Option<PathBuf> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir"])
        .output()
        .ok()?;
    let libraries = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let folder = libraries.parent()?.join("bin");
    let there = |name| folder.join(name).is_file();
    (there("llvm-cov") && there("llvm-profdata")).then_some(folder)
}

/// Replays a package's corpus in an instrumented build and counts.
///
/// # Errors
/// When it does not build, a replay fails, or a tool does.
pub(super) fn lines(
    workspace: &Workspace,
    tools: &Path,
    package: &str,
    progress: &Progress,
) -> anyhow::Result<Lines> {
    let folder = workspace.target.join("coverage");
    let replay = build(workspace, &folder, package, progress)?;
    let raw = folder.join(format!("{package}.profraw"));
    let mut command = Command::new(&replay);
    command
        .env("LLVM_PROFILE_FILE", &raw)
        .current_dir(workspace.root.join(package));
    said(command)?;
    let merged = raw.with_extension("profdata");
    let mut merge = Command::new(tools.join("llvm-profdata"));
    merge
        .args(["merge", "-sparse"])
        .arg(&raw)
        .arg("-o")
        .arg(&merged);
    said(merge)?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export
        .args(["export", "-summary-only", "-instr-profile"])
        .arg(&merged)
        .arg(&replay);
    let report = serde_json::from_slice(&said(export)?).context("llvm-cov's answer is not JSON")?;
    fs::remove_file(&raw).with_context(|| format!("remove {}", raw.display()))?;
    count(&report, &format!("/{package}/src/"))
}

/// Builds the replay and says where it is.
fn build(
    workspace: &Workspace,
    folder: &Path,
    package: &str,
    progress: &Progress,
) -> anyhow::Result<PathBuf> {
    let mut command = workspace.cargo(["test", "-p", package, "--test", "corpus", "--no-run"]);
    command
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(folder)
        .env("RUSTFLAGS", "-C instrument-coverage")
        // Build scripts are instrumented too, and would leave their counts in the tree.
        .env("LLVM_PROFILE_FILE", folder.join("build-%p.profraw"));
    let outcome = Run::new(command).run(|line| {
        if !line.starts_with('{') {
            progress.note(line);
        }
    })?;
    if let Some(why) = outcome.failure {
        let plain = outcome.lines.iter().filter(|line| !line.starts_with('{'));
        let said: Vec<&str> = plain.map(String::as_str).collect();
        bail!("{}\n{package} does not build: {why}", said.join("\n"));
    }
    let found = outcome.lines.iter().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "corpus")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    found.context("cargo did not say where it put the replay")
}

/// Standard output of a tool that must succeed.
fn said(mut command: Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Sums up the files whose path has `within` in it.
fn count(report: &Value, within: &str) -> anyhow::Result<Lines> {
    let files = report["data"][0]["files"]
        .as_array()
        .context("llvm-cov names no files")?;
    let ours = files.iter().filter(|file| {
        file["filename"]
            .as_str()
            .is_some_and(|name| name.contains(within))
    });
    let (mut reached, mut all) = (0, 0);
    for file in ours {
        let lines = &file["summary"]["lines"];
        reached += lines["covered"].as_u64().context("no count of lines")?;
        all += lines["count"].as_u64().context("no count of lines")?;
    }
    if all == 0 {
        bail!("llvm-cov has counted no line in {within}");
    }
    Ok((reached, all))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_the_package_are_summed_up() {
        let file = |name: &str, covered: u64| json!({ "filename": name, "summary": { "lines": { "count": 10, "covered": covered } } });
        let files = [
            file("/x/sdp-wire/src/a.rs", 9),
            file("/x/sdp-wire/src/b.rs", 10),
            file("/x/sdp-wire/tests/c.rs", 0),
        ];
        let report = json!({ "data": [{ "files": files }] });
        assert_eq!(count(&report, "/sdp-wire/src/").unwrap(), (19, 20));
        assert!(count(&report, "/sdp-core/src/").is_err());
    }
}
