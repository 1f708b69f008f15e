//! The machine-readable report that every reporting command writes.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One run of one command: what was measured, what was promised, what was left out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// `sdp.<command>/1`.
    pub(crate) schema: String,
    /// Version of the package that wrote the report.
    pub(crate) version: String,
    /// Git commit, if known.
    #[serde(default)]
    pub(crate) commit: Option<String>,
    /// When the run began, RFC 3339.
    pub(crate) started: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// One object per measured or checked thing.
    pub(crate) results: Vec<Value>,
    /// Promises, each kept or broken.
    pub(crate) checks: Vec<Check>,
    /// What was not run, each with a reason.
    #[serde(default)]
    pub(crate) skipped: Vec<Skipped>,
}

/// The machine of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Processors this process may use.
    pub(crate) cpus: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Verbs provider, where the run used one.
    #[serde(default)]
    pub(crate) provider: Option<String>,
    /// Adapter, where the run used one.
    #[serde(default)]
    pub(crate) device: Option<String>,
}

/// A promise with a stable name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// Stable name.
    pub(crate) name: String,
    /// Whether it holds.
    pub(crate) ok: bool,
    /// What was found, in `unit`.
    #[serde(default)]
    pub(crate) value: Option<f64>,
    /// What was promised, in `unit`.
    #[serde(default)]
    pub(crate) limit: Option<f64>,
    /// Unit of `value` and `limit`.
    #[serde(default)]
    pub(crate) unit: String,
    /// Anything a reader needs to understand the outcome.
    #[serde(default)]
    pub(crate) detail: String,
}

/// Something that was not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    /// What.
    pub(crate) name: String,
    /// A true property of this machine, or why it is asked for by name only.
    pub(crate) reason: String,
}

/// Starts the clock of a report.
#[derive(Debug)]
pub(crate) struct Started {
    at: String,
    clock: Instant,
}

impl Started {
    /// Notes the time now.
    pub(crate) fn now() -> Self {
        Self {
            at: jiff::Timestamp::now().to_string(),
            clock: Instant::now(),
        }
    }

    /// Seconds since then.
    pub(crate) fn seconds(&self) -> f64 {
        self.clock.elapsed().as_secs_f64()
    }

    /// An otherwise empty report of `command`, run in `root`, with the time since the start.
    ///
    /// # Errors
    /// When the machine cannot be described (no /proc).
    pub(crate) fn report(
        &self,
        command: &str,
        root: &Path,
        provider: Option<&str>,
    ) -> anyhow::Result<Report> {
        Ok(Report {
            schema: format!("sdp.{command}/1"),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(root),
            started: self.at.clone(),
            seconds: self.seconds(),
            machine: Machine::here(provider)?,
            results: Vec::new(),
            checks: Vec::new(),
            skipped: Vec::new(),
        })
    }
}

impl Machine {
    /// Describes this machine.
    fn here(provider: Option<&str>) -> anyhow::Result<Self> {
        let release = "/proc/sys/kernel/osrelease";
        let kernel =
            fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?;
        let cpus = std::thread::available_parallelism().context("cannot count processors")?;
        Ok(Self {
            cpus: cpus.get(),
            kernel: kernel.trim().to_owned(),
            provider: provider.map(str::to_owned),
            device: None,
        })
    }
}

/// The commit of the tree at `root`; none without git or outside a clone.
pub(crate) fn commit(root: &Path) -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

impl Report {
    /// Whether every check holds. A run without a single check proves nothing and does not pass.
    pub(crate) fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    /// What became of the checks, in a line.
    pub(crate) fn summary(&self) -> String {
        let failed = self.checks.iter().filter(|check| !check.ok).count();
        format!(
            "{} checks ok, {failed} failed, {} skipped, {:.0} s",
            self.checks.len() - failed,
            self.skipped.len(),
            self.seconds
        )
    }

    /// Writes the report as JSON to `target`, where `-` is standard output; nothing without one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, target: Option<&Path>) -> anyhow::Result<()> {
        let Some(target) = target else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(self).context("cannot encode the report")?;
        text.push('\n');
        if target.as_os_str() == "-" {
            io::stdout()
                .lock()
                .write_all(text.as_bytes())
                .context("cannot write the report")
        } else {
            fs::write(target, text)
                .with_context(|| format!("cannot write the report to {}", target.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ok: bool) -> Check {
        let (name, unit) = ("a".to_owned(), String::new());
        Check {
            name,
            ok,
            value: None,
            limit: None,
            unit,
            detail: String::new(),
        }
    }

    fn empty() -> Report {
        Started::now()
            .report("demo", Path::new("."), Some("host"))
            .unwrap()
    }

    #[test]
    fn passes_exactly_when_every_check_is_ok_and_there_is_one() {
        let mut report = empty();
        assert!(!report.passed());
        report.checks.push(check(true));
        assert!(report.passed());
        report.checks.push(check(false));
        assert!(!report.passed());
    }

    #[test]
    fn skipped_things_do_not_count_as_passed() {
        let mut report = empty();
        report.skipped.push(Skipped {
            name: "x".to_owned(),
            reason: "no adapter".to_owned(),
        });
        assert!(!report.passed());
    }

    #[test]
    fn the_written_file_has_the_documented_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        empty().write(Some(&path)).unwrap();
        let value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["schema"], "sdp.demo/1");
        assert_eq!(value["machine"]["provider"], "host");
        assert!(value["machine"]["device"].is_null());
        assert!(value["machine"]["cpus"].as_u64().unwrap() >= 1);
        value["started"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap();
        for field in [
            "version", "commit", "seconds", "results", "checks", "skipped",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
    }

    #[test]
    fn a_report_that_cannot_be_written_is_an_error_that_names_the_file() {
        let error = empty()
            .write(Some(Path::new("/nonexistent/report.json")))
            .unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/report.json"));
    }
}
