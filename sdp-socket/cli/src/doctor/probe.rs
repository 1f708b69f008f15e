//! What is tried is tried in processes of its own: what a library or the kernel does to them, they
//! tell, or their end tells.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::finding::Finding;
use super::{loopback, peer};
use crate::cli::{Probe, ProbeArgs};

/// How long a probe may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What a probe says, one in a line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// Where it listens.
    Listening(SocketAddr),
    Finding(Finding),
}

impl Said {
    /// Says it, in the probe.
    ///
    /// # Errors
    /// Nobody listens.
    pub(super) fn say(&self) -> anyhow::Result<()> {
        let line = serde_json::to_string(self).context("cannot encode a finding")?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .context("nobody listens")
    }
}

/// A probe that runs; it ends with this.
#[derive(Debug)]
pub(super) struct Running {
    process: Child,
    said: Receiver<Said>,
}

impl Running {
    /// Starts one.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(probe: &str, args: &[String]) -> anyhow::Result<Self> {
        let own = env::current_exe().context("where this program is")?;
        let mut command = Command::new(own);
        command.args(["doctor-probe", probe]).args(args);
        // What is tried is no part of what the user captures.
        command.env_remove("SDP_CAPTURE");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start a probe")?;
        let output = process.stdout.take().context("a probe without output")?;
        let said = listen(output);
        Ok(Self { process, said })
    }

    /// What it says next; `None` at its end.
    ///
    /// # Errors
    /// It says nothing for too long.
    pub(super) fn next(&self) -> Result<Option<Said>, Finding> {
        match self.said.recv_timeout(SILENCE_MAX) {
            Ok(said) => Ok(Some(said)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Finding::fail(
                "probe",
                format!("nothing happened for {} s", SILENCE_MAX.as_secs()),
                "SDP_LOG=debug shows what it hangs in",
            )),
        }
    }

    /// Everything that it finds, and how it ended if that was not well.
    pub(super) fn findings(mut self) -> Vec<Finding> {
        let mut findings = Vec::new();
        loop {
            match self.next() {
                Ok(Some(Said::Finding(finding))) => findings.push(finding),
                Ok(Some(Said::Listening(_))) => {}
                Ok(None) => break,
                Err(silent) => {
                    findings.push(silent);
                    return findings;
                }
            }
        }
        match self.process.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => findings.push(Finding::fail(
                "probe",
                format!("a process that tried it ended by {status}"),
                "is a system call forbidden to it (seccomp)? Its words are above",
            )),
            Err(error) => findings.push(Finding::fail("probe", error.to_string(), "try again")),
        }
        findings
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn listen(output: ChildStdout) -> Receiver<Said> {
    let (sender, said) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(said) = serde_json::from_str(&line) else {
                continue;
            };
            if sender.send(said).is_err() {
                return;
            }
        }
    });
    said
}

/// In the probe.
///
/// # Errors
/// Nobody listens to what it finds.
pub(crate) fn run(args: &ProbeArgs) -> anyhow::Result<bool> {
    let parent =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    parent.context("prctl")?;
    match &args.probe {
        Probe::Serve => loopback::serve()?,
        Probe::Call { address } => loopback::call(*address)?,
        Probe::Reach {
            address,
            route_only,
        } => peer::reach(*address, *route_only)?,
    }
    Ok(true)
}
