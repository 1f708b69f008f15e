//! `sdp perf compare` of one cell, round by round as we ask for them.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::matrix::Cell;
use crate::report::Report;
use crate::run::read_lines;

/// A peer whose streams stand still is given up by the program itself after a minute.
const ANSWER_MAX: Duration = Duration::from_secs(100);
/// How long to wait for a line of what it said of a failure.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The program, waiting to be asked.
#[derive(Debug)]
pub(super) struct Turns {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

impl Turns {
    /// Starts it, and waits until all streams of these peers are open.
    ///
    /// # Errors
    /// When it cannot be started, or fails.
    pub(super) fn start(
        program: &Path,
        cell: Cell,
        peers: &[&str],
        rounds: u32,
        run: Duration,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["perf", "compare", "--turns", "--json", "-"])
            .args(["--workload", cell.workload.name()])
            .args(["--sizes", &cell.size.to_string()])
            .args(["--conns", &cell.conns.to_string()])
            .args(["--peers", &peers.join(",")])
            .args(["--rounds", &rounds.to_string()])
            .args(["--round-ms", &run.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (input, Some(output), Some(errors)) = pipes else {
            bail!("{} has no pipes", program.display());
        };
        let turns = Self {
            child,
            input,
            lines: read_lines(output),
            errors: read_lines(errors),
        };
        turns.hear("open")?;
        Ok(turns)
    }

    /// Has every peer run once.
    ///
    /// # Errors
    /// When the program fails or hangs. A peer that fails is one of its checks.
    pub(super) fn round(&mut self, number: u32) -> anyhow::Result<()> {
        let asked = self.input.as_mut().map(|input| input.write_all(b"\n"));
        // One that has ended says why.
        if !matches!(asked, Some(Ok(()))) {
            return Err(self.failure("it does not listen any more"));
        }
        self.hear(&format!("round {number}"))
    }

    /// Asks for no more; the report of what was measured.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn finish(mut self) -> anyhow::Result<Report> {
        self.input = None;
        let begin = Instant::now();
        let mut text = String::new();
        loop {
            let left = ANSWER_MAX.saturating_sub(begin.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) => text = text + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(self.failure("it does not end")),
            }
        }
        // It fails when a check of its own does not hold, which its report then says.
        self.child.wait().context("cannot wait for sdp")?;
        serde_json::from_str(&text).map_err(|error| self.failure(&format!("no report: {error}")))
    }

    fn hear(&self, wanted: &str) -> anyhow::Result<()> {
        match self.lines.recv_timeout(ANSWER_MAX) {
            Ok(line) if line == wanted => Ok(()),
            Ok(line) => Err(self.failure(&format!("it says `{line}`, not `{wanted}`"))),
            Err(RecvTimeoutError::Disconnected) => Err(self.failure("it has ended")),
            Err(RecvTimeoutError::Timeout) => Err(self.failure("it says nothing")),
        }
    }

    /// What has gone wrong, with what the program itself has said of it.
    fn failure(&self, what: &str) -> anyhow::Error {
        // What it wrote last may still be on its way.
        let next = || self.errors.recv_timeout(LAST_WORDS).ok();
        let said: Vec<String> = std::iter::from_fn(next).collect();
        anyhow::anyhow!("sdp perf compare: {what}: {}", said.join(" "))
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        // One that has ended is what we want; its servers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
