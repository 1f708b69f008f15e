//! Forks and other programs, started while connections are busy.

use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::fork::fork_exit;
use super::tally::Tally;

/// How long a child may take that has nothing to do.
const CHILD_MAX: Duration = Duration::from_secs(10);

/// Forks and starts a program `count` times each, evenly over `time`.
pub(super) fn run(count: u32, time: Duration) -> Tally {
    let mut tally = Tally::default();
    let began = Instant::now();
    for turn in 0..count {
        let due = time * turn / count;
        thread::sleep(due.saturating_sub(began.elapsed()));
        match fork_exit().and_then(ended_well) {
            Ok(()) => tally.forks += 1,
            Err(error) => tally.errors.add(format!("fork number {turn}: {error}")),
        }
        match start_program() {
            Ok(()) => tally.commands += 1,
            Err(error) => tally.errors.add(format!("program number {turn}: {error}")),
        }
    }
    tally
}

/// Waits for a child, which must exit with 0.
fn ended_well(pid: Pid) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) if status.exit_status() == Some(0) => return Ok(()),
            Ok(Some((_, status))) => {
                return Err(io::Error::other(format!("the child ended: {status:?}")));
            }
            Ok(None) if began.elapsed() < CHILD_MAX => {
                thread::sleep(Duration::from_micros(200));
            }
            Ok(None) => {
                kill_process(pid, Signal::KILL)?;
                waitpid(Some(pid), WaitOptions::empty())?;
                return Err(io::Error::other("the child hung and was killed"));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn start_program() -> io::Result<()> {
    let status = Command::new("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(status.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_programs_are_counted() {
        let tally = run(3, Duration::from_millis(10));
        assert_eq!((tally.forks, tally.commands), (3, 3), "{tally:?}");
    }
}
