//! Running one case, and what was found.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::facts::Facts;
use super::report_line::Reported;
use crate::run::Run;
use crate::ui::Progress;

/// No case takes nearly as long.
const TOTAL_MAX: Duration = Duration::from_secs(300);

/// How the programs of a case make their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// By the preload library.
    Sdp,
    /// As they are, for comparison.
    Tcp,
}

impl Mode {
    /// Its name, for the scripts and the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sdp => "sdp",
            Self::Tcp => "tcp",
        }
    }
}

/// What was found of one run of a case.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// How long it took.
    pub(super) seconds: f64,
    /// Why it did not end well, with what it said; none if it did.
    pub(super) failure: Option<String>,
    /// What it says of itself.
    pub(super) facts: Facts,
    /// What its processes reported.
    pub(super) reported: Reported,
    /// Bytes that the kernel's loopback device has carried.
    pub(super) loopback: u64,
    /// Processes that were still there after the end.
    pub(super) left: String,
    /// What lay in /dev/shm then.
    pub(super) shared: String,
    /// CPU seconds of all its processes.
    pub(super) cpu_seconds: f64,
}

/// Where cases are, and what they are given.
#[derive(Debug)]
pub(super) struct Bench<'a> {
    /// The folder of scripts.
    pub(super) scripts: &'a Path,
    /// The program, beside which the preload library lies.
    pub(super) sdp: &'a Path,
    /// Where each case leaves what it finds.
    pub(super) target: &'a Path,
}

impl Bench<'_> {
    /// Runs the case of that name.
    ///
    /// # Errors
    /// When it cannot be started, or what it leaves cannot be read. A case that fails is a `Found`.
    pub(super) fn run(&self, case: &str, mode: Mode, progress: &Progress) -> anyhow::Result<Found> {
        let folder = self.target.join(case);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let mut command = Command::new("unshare");
        command.args(["--net", "--ipc", "--pid", "--mount", "--fork"]);
        // Whatever becomes of it, its processes end with the first of them.
        command.args(["--kill-child", "--mount-proc", "bash"]);
        command.arg(self.scripts.join("run.sh"));
        command.env("FOLDER", self.scripts).env("CASE", case);
        command.env("OUT", &folder).env("SDP", self.sdp);
        command.env("MODE", mode.name());
        for own in [
            "LD_PRELOAD",
            "LIBSDP_CONFIG_FILE",
            "SIMPLE_LIBSDP",
            "SDP_PROVIDER",
        ] {
            command.env_remove(own);
        }
        let began = Instant::now();
        let outcome = Run::new(command)
            .total_max(TOTAL_MAX)
            .run(|line| progress.note(line))?;
        let seconds = began.elapsed().as_secs_f64();
        fs::write(folder.join("said"), outcome.lines.join("\n")).context("keep what it said")?;
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let failure = outcome.failure.map(|why| {
            let step = text("step");
            format!(
                "{}\n{case}: {why}, at: {}",
                outcome.lines.join("\n"),
                step.trim()
            )
        });
        let loopback = text("lo").trim().parse();
        if failure.is_none() && loopback.is_err() {
            anyhow::bail!("{case} left no count of the loopback device");
        }
        Ok(Found {
            seconds,
            failure,
            facts: Facts::parse(&text("facts"))?,
            reported: Reported::sum(&text("report"))?,
            loopback: loopback.unwrap_or(0),
            left: text("left").trim().to_owned(),
            shared: text("shm").trim().to_owned(),
            cpu_seconds: text("times").split_whitespace().filter_map(cpu_time).sum(),
        })
    }
}

/// A word of the shell's `times`: `1m2.5s`.
fn cpu_time(word: &str) -> Option<f64> {
    let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
    let (minutes, seconds): (f64, f64) = (minutes.parse().ok()?, seconds.parse().ok()?);
    Some(minutes * 60.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_shell() {
        assert_eq!(cpu_time("0m0.250s"), Some(0.25));
        assert_eq!(cpu_time("2m1.000s"), Some(121.0));
        assert_eq!(cpu_time("x"), None);
    }
}
