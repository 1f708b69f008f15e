//! Running a child with bounds: its output line by line, and no child that hangs for ever.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// How often a silent child is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long the output may stay open after the child has ended: a grandchild may hold it.
const DRAIN: Duration = Duration::from_secs(5);
/// A child that writes nothing for this long is taken to hang. Cargo, libtest and our own programs
/// all say something at least once a minute or per unit of work; loom is the slowest.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(900);

/// A child to run.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    stderr: Stderr,
    silence_max: Duration,
    total_max: Option<Duration>,
    /// What it makes when it begins, and by when.
    begins: Option<(PathBuf, Duration)>,
}

/// What becomes of standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stderr {
    /// Read with standard output, in the order written.
    Merged,
    /// Left to the terminal.
    Shown,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Its lines, without line ends.
    pub(crate) lines: Vec<String>,
    /// Why it did not succeed; none if it did.
    pub(crate) failure: Option<String>,
}

impl Run {
    /// Runs `command` with standard error merged into standard output.
    pub(crate) fn new(command: Command) -> Self {
        let (stderr, silence_max) = (Stderr::Merged, SILENCE_MAX);
        Self {
            command,
            stderr,
            silence_max,
            total_max: None,
            begins: None,
        }
    }

    /// Leaves standard error to the terminal; only standard output is read.
    pub(crate) fn show_stderr(mut self) -> Self {
        self.stderr = Stderr::Shown;
        self
    }

    /// Ends the child after `total_max`, talking or not.
    pub(crate) fn total_max(mut self, total_max: Duration) -> Self {
        self.total_max = Some(total_max);
        self
    }

    /// Ends the child if it has not made `file` within `limit`.
    pub(crate) fn begins_with(mut self, file: PathBuf, limit: Duration) -> Self {
        self.begins = Some((file, limit));
        self
    }

    /// Runs the child to its end and hands each line to `on_line` as it comes.
    ///
    /// # Errors
    /// When the child cannot be started or waited for. A child that fails is an `Outcome`.
    pub(crate) fn run(mut self, mut on_line: impl FnMut(&str)) -> anyhow::Result<Outcome> {
        let name = self.command.get_program().to_string_lossy().into_owned();
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        if self.stderr == Stderr::Merged {
            self.command
                .stderr(writer.try_clone().context("cannot share a pipe")?);
        }
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(writer)
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        // The command keeps our write ends; without dropping it the pipe would never close.
        let (silence_max, total_max) = (self.silence_max, self.total_max);
        let mut begins = self.begins.take();
        drop(self);

        let lines = read_lines(reader);
        let mut outcome = Outcome {
            lines: Vec::new(),
            failure: None,
        };
        let began = Instant::now();
        let mut heard = began;
        let mut ended: Option<(Instant, ExitStatus)> = None;
        loop {
            match lines.recv_timeout(TICK) {
                Ok(line) => {
                    heard = Instant::now();
                    on_line(&line);
                    outcome.lines.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ended.is_none() {
                ended = child
                    .try_wait()
                    .context("cannot wait")?
                    .map(|s| (Instant::now(), s));
            }
            if begins.as_ref().is_some_and(|(file, _)| file.exists()) {
                begins = None;
            }
            let unbegun = begins.as_ref().map(|(_, limit)| *limit);
            let late = match ended {
                Some((at, _)) if at.elapsed() > DRAIN => {
                    outcome.failure = Some("left a process behind that holds its output".into());
                    break;
                }
                Some(_) => None,
                None if heard.elapsed() > silence_max => Some(("wrote nothing for", silence_max)),
                None if unbegun.is_some_and(|limit| began.elapsed() > limit) => {
                    unbegun.map(|limit| ("did not begin within", limit))
                }
                None => total_max
                    .filter(|max| began.elapsed() > *max)
                    .map(|m| ("ran over", m)),
            };
            if let Some((what, limit)) = late {
                kill_tree(&mut child)?;
                outcome.failure = Some(format!("{what} {} s and was killed", limit.as_secs()));
                break;
            }
        }
        let status = child
            .wait()
            .with_context(|| format!("cannot wait for {name}"))?;
        if outcome.failure.is_none() && !status.success() {
            outcome.failure = Some(status.to_string());
        }
        Ok(outcome)
    }
}

/// Reads lines on a thread of their own; the channel closes at the end of the output.
pub(crate) fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // A read error ends the output as its end does; the exit status then decides.
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Kills `child` and all that came from it. Cargo does not pass a signal on to the test it runs.
fn kill_tree(child: &mut Child) -> anyhow::Result<()> {
    let mut doomed = vec![child.id()];
    let mut at = 0;
    let parents = parents().context("cannot list processes")?;
    while at < doomed.len() {
        let parent = doomed[at];
        doomed.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    for pid in doomed.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            // One that has ended since the list was made is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// All processes as (pid, parent).
fn parents() -> io::Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile has no stat any more.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // `pid (name) state parent …`, where the name may hold blanks and brackets.
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
        let parent = after_name.and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        found.extend(parent.map(|parent| (pid, parent)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    fn shell(script: &str) -> Run {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Run::new(command)
    }

    /// A child that has not begun in time is ended; one that has goes on.
    #[test]
    fn a_child_must_begin() {
        let folder = tempfile::tempdir().unwrap();
        let sign = folder.path().join("begun");
        let outcome = shell("exec sleep 60")
            .begins_with(sign.clone(), Duration::ZERO)
            .run(|_| {})
            .unwrap();
        let failure = outcome.failure.unwrap();
        assert!(failure.starts_with("did not begin"), "{failure}");
        fs::write(&sign, "").unwrap();
        let outcome = shell("true")
            .begins_with(sign, Duration::ZERO)
            .run(|_| {})
            .unwrap();
        assert_eq!(outcome.failure, None);
    }

    #[test]
    fn both_outputs_arrive_in_order() {
        let mut seen = Vec::new();
        let outcome = shell("echo a; echo b >&2; echo c")
            .run(|line| seen.push(line.to_owned()))
            .unwrap();
        assert_eq!(seen, ["a", "b", "c"]);
        assert_eq!(outcome.lines, seen);
        assert_eq!(outcome.failure, None);
    }

    #[test]
    fn a_failing_child_is_an_outcome_that_says_its_status() {
        let outcome = shell("exit 3").run(|_| ()).unwrap();
        assert!(outcome.failure.unwrap().contains('3'));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let error = Run::new(Command::new("no-such-program-here"))
            .run(|_| ())
            .unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program-here"));
    }

    #[test]
    fn a_silent_child_is_killed_with_its_children() {
        let mut run = shell("sleep 1000 & echo $!; wait");
        run.silence_max = Duration::from_millis(200);
        let outcome = run.run(|_| ()).unwrap();
        assert!(outcome.failure.unwrap().contains("wrote nothing"));
        let grandchild = &outcome.lines[0];
        wait_until_gone(grandchild.parse().unwrap());
    }

    /// Waits for the end of a process that is not our child. No process is gone as well.
    fn wait_until_gone(pid: i32) {
        let pid = Pid::from_raw(pid).unwrap();
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) {
            let bound = Timespec {
                tv_sec: 30,
                tv_nsec: 0,
            };
            let mut polled = [PollFd::new(&fd, PollFlags::IN)];
            assert_eq!(poll(&mut polled, Some(&bound)).unwrap(), 1, "still runs");
        }
    }

    #[test]
    fn a_talking_child_is_killed_at_the_total_limit() {
        let run =
            shell("while :; do echo x; sleep 0.05; done").total_max(Duration::from_millis(300));
        assert!(
            run.run(|_| ())
                .unwrap()
                .failure
                .unwrap()
                .contains("ran over")
        );
    }
}
