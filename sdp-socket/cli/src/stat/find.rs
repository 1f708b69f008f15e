//! The processes that there are, and what each of them tells.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use sdp_socket::SdpProcess;
use serde::Serialize;

use super::model::{Name, Report};

/// How long one process may take to answer.
const WAIT: Duration = Duration::from_secs(2);
/// After so long in all, each of the others gets little: somebody makes names that nobody answers
/// by.
const PATIENCE: Duration = Duration::from_secs(10);
/// How little.
const WAIT_SHORT: Duration = Duration::from_millis(50);

/// A process that told.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Process {
    /// As it is known here.
    pub(super) pid: u32,
    pub(super) uid: u32,
    /// What it runs, as the kernel says.
    pub(super) command: Name,
    pub(super) report: Report,
}

/// A process that did not, though it should have.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Silent {
    /// As it calls itself.
    pub(super) pid: u32,
    pub(super) reason: Name,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) processes: Vec<Process>,
    pub(super) silent: Vec<Silent>,
}

/// Asks the processes `wanted`, or all that there are.
///
/// # Errors
/// The kernel does not say which there are.
pub(super) fn find(wanted: &[u32]) -> io::Result<Found> {
    let begun = Instant::now();
    let mut found = Found::default();
    let all = SdpProcess::all()?;
    let is_wanted = |pid: u32| wanted.is_empty() || wanted.contains(&pid);
    // Those of another namespace know themselves by another number: they are asked only if the
    // wanted are not among the others.
    let (likely, others): (Vec<_>, Vec<_>) = all.iter().partition(|it| is_wanted(it.pid()));
    for process in &likely {
        ask(process, begun, &is_wanted, &mut found);
    }
    let missing = |found: &Found| {
        wanted.iter().any(|pid| {
            let told = found.processes.iter().any(|it| it.pid == *pid);
            !told && !found.silent.iter().any(|it| it.pid == *pid)
        })
    };
    if missing(&found) {
        let mut further = Found::default();
        for process in &others {
            ask(process, begun, &is_wanted, &mut further);
        }
        // Those that are silent are not known to be wanted.
        found.processes.append(&mut further.processes);
    }
    for pid in wanted {
        if !found.processes.iter().any(|it| it.pid == *pid)
            && !found.silent.iter().any(|it| it.pid == *pid)
        {
            let reason = Name::of(absence(*pid));
            found.silent.push(Silent { pid: *pid, reason });
        }
    }
    found.processes.sort_by_key(|process| process.pid);
    Ok(found)
}

fn ask(process: &SdpProcess, begun: Instant, is_wanted: &impl Fn(u32) -> bool, found: &mut Found) {
    let wait = if begun.elapsed() < PATIENCE {
        WAIT
    } else {
        WAIT_SHORT
    };
    let reason = match process.ask(wait) {
        Ok(told) if !is_wanted(told.pid) => return,
        Ok(told) => match Report::read(&told.json) {
            Ok(report) => {
                let command = command(told.pid).or_else(|| report.program.clone());
                found.processes.push(Process {
                    pid: told.pid,
                    uid: told.uid,
                    command: command.unwrap_or_default(),
                    report,
                });
                return;
            }
            Err(why) => why,
        },
        // Other users' processes are none of ours, and those that have ended are nobody's.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
            ) =>
        {
            return;
        }
        Err(error) => error.to_string(),
    };
    let pid = process.pid();
    found.silent.push(Silent {
        pid,
        reason: Name::of(&reason),
    });
}

/// The kernel's name for what a process runs.
fn command(pid: u32) -> Option<Name> {
    let text = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(Name::of(String::from_utf8_lossy(&text).trim_end()))
}

/// Why a process that was named is not among those that can be asked.
fn absence(pid: u32) -> &'static str {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    if !fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
        return "there is no such process";
    }
    match namespace(&pid.to_string()) {
        Some(other) if Some(&other) != namespace("self").as_ref() => {
            "in another network namespace: nsenter -t PID -n sdp stat"
        }
        _ => "no SDP socket yet, another user's, or SDP_STAT=off",
    }
}
