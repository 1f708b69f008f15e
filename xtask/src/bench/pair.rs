//! A server and a client of another project, run once, with their processor time.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::processors::process_times;
use crate::run::read_lines;

/// How often a server that begins is looked at.
const TICK: Duration = Duration::from_millis(1);
/// State of a socket that listens, in /proc/net/tcp.
const LISTENS: &str = "0A";

/// What a run gave.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the client wrote.
    pub(super) lines: Vec<String>,
    /// User and system time of both processes, from their beginning to their end.
    pub(super) cpu: Duration,
}

/// Runs `server` and, once it listens on `port`, `client`, both to their end within `limit`.
///
/// # Errors
/// When one cannot be started, fails, or takes longer.
pub(super) fn run(
    server: Command,
    client: Command,
    port: u16,
    limit: Duration,
) -> anyhow::Result<Outcome> {
    let deadline = Instant::now() + limit;
    let mut server = Process::start(server)?;
    while !listens(port)? {
        let ended = server.child.try_wait().context("cannot wait")?;
        ensure!(ended.is_none(), "the server ended before it listened");
        ensure!(Instant::now() < deadline, "the server does not listen");
        thread::sleep(TICK);
    }
    let (lines, ours) = Process::start(client)?.end(deadline)?;
    let (_, theirs) = server.end(deadline)?;
    Ok(Outcome {
        lines,
        cpu: ours + theirs,
    })
}

/// A port that nobody has just now.
///
/// # Errors
/// When there is none.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr().context("no local address")?.port())
}

/// Whether somebody listens on a port. A connection made to find out would be taken for the client.
fn listens(port: u16) -> anyhow::Result<bool> {
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // There is no second one without IPv6.
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        if text.lines().skip(1).any(|line| is_listener(line, port)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `0: 00000000:1F90 00000000:0000 0A …`
fn is_listener(line: &str, port: u16) -> bool {
    let mut fields = line.split_whitespace().skip(1);
    let number = fields.next().and_then(|name| name.rsplit_once(':'));
    number.is_some_and(|(_, number)| number == format!("{port:04X}"))
        && fields.nth(1) == Some(LISTENS)
}

/// One of the two; killed if it is dropped before its end.
struct Process {
    child: Child,
    lines: Receiver<String>,
    name: String,
}

impl Process {
    fn start(mut command: Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Self {
            child,
            lines: read_lines(output),
            name,
        })
    }

    /// Waits for its end: what it wrote, and its processor time.
    fn end(mut self, deadline: Instant) -> anyhow::Result<(Vec<String>, Duration)> {
        let mut lines = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("{} does not end", self.name),
            }
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a child without a number")?;
        // Its times are there until it has been waited for.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).context("cannot wait")?;
        let file = format!("/proc/{}/stat", self.child.id());
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let [user, system, ..] =
            process_times(&text).with_context(|| format!("{file} has no times"))?;
        let cpu = (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64;
        let status = self.child.wait().context("cannot wait")?;
        ensure!(status.success(), "{}: {status}", self.name);
        Ok((lines, Duration::from_secs_f64(cpu)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_known_by_port_and_state() {
        let line = "   0: 0100007F:3415 00000000:0000 0A 00000000:00000000 00:00000000";
        assert!(is_listener(line, 0x3415));
        assert!(!is_listener(line, 0x3416));
        assert!(!is_listener(&line.replace(" 0A ", " 01 "), 0x3415));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(listens(listener.local_addr().unwrap().port()).unwrap());
    }

    /// The one that listens is this test, so the server may end when it likes.
    #[test]
    fn both_run_to_their_end_and_a_failure_says_whose() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let limit = Duration::from_secs(60);
        let outcome = run(shell("true"), shell("echo a; echo b"), port, limit).unwrap();
        assert_eq!(outcome.lines, ["a", "b"]);
        let error = run(shell("true"), shell("exit 3"), port, limit).unwrap_err();
        assert!(error.to_string().contains("sh: exit status: 3"), "{error}");
        let late = run(shell("true"), shell("exec sleep 60"), port, Duration::ZERO);
        assert!(late.unwrap_err().to_string().contains("does not end"));
    }
}
