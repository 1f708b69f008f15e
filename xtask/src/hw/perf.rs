//! What is measured between the two nodes, by the `sdp` program, beside TCP and perftest.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::DEVICE;
use super::perftest::{TOOLS, Tool};
use crate::report::{Report, Skipped};
use crate::run::Run;

/// Who is measured, in the order of the charts' legends.
pub(super) const PEERS: [&str; 7] = [
    "sdp zcopy",
    "sdp bcopy",
    "sdp auto",
    "tcp",
    "perftest read",
    "perftest write",
    "perftest send",
];
/// Payload below which zero copy makes no sense.
const ZCOPY_MIN: u64 = 4096;
/// Time beyond the measurement itself that a run may take.
const SLACK: Duration = Duration::from_secs(60);
/// Time that one of perftest's programs may take; those that hang do so for ever.
const PERFTEST_MAX: Duration = Duration::from_secs(30);

/// One run of `sdp perf`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Test {
    /// `bw` or `lat`.
    pub(super) workload: &'static str,
    /// `sdp` or `tcp`.
    pub(super) transport: &'static str,
    /// `auto`, `bcopy`, `zcopy`; none for TCP.
    pub(super) mode: Option<&'static str>,
    /// Bytes of a message.
    pub(super) size: u64,
    /// Connections.
    pub(super) conns: u32,
    /// Whether every byte is compared.
    pub(super) verify: bool,
}

/// The two ends.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    /// The program on this node.
    pub(super) sdp: PathBuf,
    /// The control connection of the server.
    pub(super) server: SocketAddr,
    /// The device on this node.
    pub(super) device: String,
    /// Length of one measurement.
    pub(super) seconds: f64,
}

impl Ends {
    /// The same with the server that is `offset` ports further.
    pub(super) fn at(&self, offset: u16) -> Self {
        let port = self.server.port().saturating_add(offset);
        Self {
            server: SocketAddr::new(self.server.ip(), port),
            ..self.clone()
        }
    }
}

/// All runs for these sizes and numbers of connections. Every size with one connection and with
/// the most; every number of connections with the largest size.
pub(super) fn matrix(sizes: &[u64], conns: &[u32]) -> Vec<Test> {
    let most = conns.iter().copied().max().unwrap_or(1);
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let mut tests = Vec::new();
    for size in sizes {
        for count in conns {
            if *count == 1 || *count == most || *size == largest {
                tests.extend(ways(*size).map(|(transport, mode)| Test {
                    workload: "bw",
                    transport,
                    mode,
                    size: *size,
                    conns: *count,
                    verify: false,
                }));
            }
        }
        tests.extend(
            [("sdp", Some("auto")), ("tcp", None)].map(|(transport, mode)| Test {
                workload: "lat",
                transport,
                mode,
                size: *size,
                conns: 1,
                verify: false,
            }),
        );
    }
    tests
}

/// The ways a message of this size can go.
fn ways(size: u64) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    let zcopy = (size >= ZCOPY_MIN).then_some(("sdp", Some("zcopy")));
    [("sdp", Some("bcopy")), ("sdp", Some("auto")), ("tcp", None)]
        .into_iter()
        .chain(zcopy)
}

impl Test {
    /// `bw.sdp.zcopy.1048576.x16`.
    pub(super) fn name(&self) -> String {
        let mode = self.mode.map(|mode| format!(".{mode}")).unwrap_or_default();
        format!(
            "{}.{}{mode}.{}.x{}",
            self.workload, self.transport, self.size, self.conns
        )
    }

    /// Runs it and gives its results.
    ///
    /// # Errors
    /// When the program fails, says that a byte was wrong, or gives no report.
    pub(super) fn run(&self, ends: &Ends) -> anyhow::Result<Vec<Value>> {
        let total = Duration::from_secs_f64(ends.seconds) + SLACK;
        let outcome = Run::new(self.command(ends))
            .show_stderr()
            .total_max(total)
            .run(|_| ())?;
        let report = serde_json::from_str::<Report>(&outcome.lines.join("\n"));
        if let (Some(why), Ok(report)) = (&outcome.failure, &report) {
            let broken = report.checks.iter().find(|check| !check.ok);
            bail!(
                "{why}: {}",
                broken.map_or("no check says why", |check| &check.detail)
            );
        }
        if let Some(why) = outcome.failure {
            bail!("{why}: {}", outcome.lines.join(" "));
        }
        let report = report.context("sdp gave no report")?;
        anyhow::ensure!(!report.results.is_empty(), "sdp reported no result");
        if self.verify {
            let all = report
                .results
                .iter()
                .all(|result| result["verified"] == true);
            anyhow::ensure!(all, "the report does not say that the bytes were verified");
        }
        Ok(report.results)
    }

    /// Starts it for long and kills it after `after`; whether it was killed, and had not ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn killed(&self, ends: &Ends, after: Duration) -> anyhow::Result<bool> {
        let long = Ends {
            seconds: after.as_secs_f64() + SLACK.as_secs_f64(),
            ..ends.clone()
        };
        let mut client = self
            .command(&long)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the client")?;
        thread::sleep(after);
        let ran = client
            .try_wait()
            .context("cannot look at the client")?
            .is_none();
        // One that has ended meanwhile is not there to kill.
        let _ = client.kill();
        client.wait().context("cannot wait for the client")?;
        Ok(ran)
    }

    fn command(&self, ends: &Ends) -> Command {
        let mut command = Command::new(&ends.sdp);
        command
            .env(DEVICE, &ends.device)
            .args(["perf", self.workload, "--json", "-"])
            .args(["--connect", &ends.server.to_string()])
            .args(["--transport", self.transport])
            .args(["--size", &self.size.to_string()])
            .args(["--conns", &self.conns.to_string()])
            .args(["--seconds", &ends.seconds.to_string()]);
        if self.transport == "sdp" {
            command.args(["--provider", "rdma"]);
        }
        if let Some(mode) = self.mode {
            command.args(["--mode", mode]);
        }
        if self.verify {
            command.arg("--verify");
        }
        command
    }
}

/// Runs every program of perftest against its server; results, and what could not be run and why.
///
/// # Errors
/// When a program cannot be started.
pub(super) fn reference(ends: &Ends) -> anyhow::Result<(Vec<Value>, Vec<Skipped>)> {
    let (mut results, mut missing) = (Vec::new(), Vec::new());
    for tool in TOOLS {
        let name = tool.program.to_owned();
        if !is_program(tool.program) {
            let reason = "not installed: apt-get install perftest on both nodes".to_owned();
            missing.push(Skipped { name, reason });
            continue;
        }
        // Its server begins anew after each client, and some of these programs crash where that is late.
        let result = match run_tool(tool, ends)? {
            Err(first) => run_tool(tool, ends)?.map_err(|again| format!("{first}; again: {again}")),
            measured => measured,
        };
        match result {
            Ok(result) => results.push(result),
            Err(reason) => missing.push(Skipped { name, reason }),
        }
    }
    Ok((results, missing))
}

/// Runs a program once: its figures, or why there are none.
fn run_tool(tool: Tool, ends: &Ends) -> anyhow::Result<Result<Value, String>> {
    let peer = ends.server.ip().to_string();
    let command = tool.command(&ends.device, ends.server.port(), Some(&peer));
    let outcome = Run::new(command).total_max(PERFTEST_MAX).run(|_| ())?;
    Ok(match (tool.result(&outcome.lines), outcome.failure) {
        (Some(result), None) => Ok(result),
        (_, failure) => Err(format!(
            "{}: {}",
            failure.unwrap_or_else(|| "no figures".to_owned()),
            outcome.lines.last().map_or("", String::as_str)
        )),
    })
}

/// Whether a program is in the folders of programs.
pub(super) fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder: PathBuf| Path::new(&folder).join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_every_size_and_every_number_of_connections() {
        let tests = matrix(&[64, 65_536], &[1, 4, 16]);
        let has = |size, conns, mode| {
            tests
                .iter()
                .any(|t| t.workload == "bw" && (t.size, t.conns, t.mode) == (size, conns, mode))
        };
        assert!(has(64, 1, Some("bcopy")) && has(64, 16, Some("auto")));
        assert!(
            !has(64, 4, Some("bcopy")),
            "a middle number with a small size"
        );
        assert!(!has(64, 1, Some("zcopy")), "zero copy of a small message");
        assert!(has(65_536, 4, Some("zcopy")) && has(65_536, 16, None));
        let mut names: Vec<_> = tests.iter().map(Test::name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "two tests of one name");
    }

    #[test]
    fn the_command_says_provider_and_mode_for_sdp_only() {
        let ends = Ends {
            sdp: "sdp".into(),
            server: "10.0.0.1:7000".parse().unwrap(),
            device: "rxe0".to_owned(),
            seconds: 1.0,
        };
        let words = |transport, mode| {
            let test = Test {
                workload: "bw",
                transport,
                mode,
                size: 64,
                conns: 1,
                verify: true,
            };
            let command = test.command(&ends);
            let words: Vec<_> = command
                .get_args()
                .map(|a| a.to_string_lossy().into_owned())
                .collect();
            words.join(" ")
        };
        let sdp = words("sdp", Some("bcopy"));
        assert!(
            sdp.contains("--provider rdma")
                && sdp.contains("--mode bcopy")
                && sdp.contains("--verify")
        );
        assert!(!words("tcp", None).contains("provider"));
    }
}
