//! A second process: this test program once more, in a role, spoken to over its pipes.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::watch::{LIMIT, doing, watched_for};

/// Says which role a child plays; the test function `child` plays it.
const ROLE: &str = "SDP_TEST_ROLE";
/// Marks our lines among those of the test harness.
const MARK: &str = "@@";

/// A child process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    role: String,
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a child in `role`.
    pub(crate) fn start(role: &str) -> Self {
        Self::start_in(role, &[])
    }

    /// Starts a child in `role` with more in its environment.
    pub(crate) fn start_in(role: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("our own name"));
        command
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("a child");
        let input = process.stdin.take();
        let output = process.stdout.take().expect("piped");
        Self {
            role: role.to_owned(),
            process,
            input,
            output: BufReader::new(output),
        }
    }

    /// Runs a child that needs nobody to talk to.
    pub(crate) fn run(role: &str) {
        Self::start(role).finish();
    }

    /// Tells it something.
    pub(crate) fn tell(&mut self, line: impl std::fmt::Display) {
        let input = self.input.as_mut().expect("not finished");
        writeln!(input, "{line}").expect("the child listens");
    }

    /// What it says next.
    ///
    /// # Panics
    /// At its end.
    pub(crate) fn hear(&mut self) -> String {
        doing(format!("hearing the child {:?}", self.role));
        loop {
            let mut line = String::new();
            let len = self.output.read_line(&mut line).expect("the child speaks");
            if len == 0 {
                panic!("the child {:?} ended: {:?}", self.role, self.process.wait());
            }
            // The harness may have begun the line.
            if let Some((_, ours)) = line.split_once(MARK) {
                return ours.trim_end().to_owned();
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it and waits until it is gone. What it has forked still has the other ends of its pipes.
    pub(crate) fn kill_alone(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// Kills it, as the kernel or an operator would, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// Stops it, and sees to it that it stands still.
    pub(crate) fn stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, Signal::STOP).expect("stop");
        let options = rustix::process::WaitOptions::UNTRACED;
        let waited = rustix::process::waitpid(Some(pid), options).expect("wait");
        assert!(
            waited.is_some_and(|(_, status)| status.stopped()),
            "{waited:?}"
        );
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn finish(self) {
        let role = self.role.clone();
        let status = self.end();
        assert!(status.success(), "the child {role:?}: {status}");
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.input.take());
        doing(format!("the end of the child {:?}", self.role));
        self.process.wait().expect("wait")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In the child: plays the role it was started in. In the parent: nothing.
///
/// # Panics
/// If the role does.
pub(crate) fn play(act: impl FnOnce(&str) + Send + 'static) {
    play_for(LIMIT, act);
}

/// As [`play`], with another limit than that of a test: for what is asked for by hand.
///
/// # Panics
/// As [`play`].
pub(crate) fn play_for(limit: Duration, act: impl FnOnce(&str) + Send + 'static) {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    // A test that fails leaves its children behind; they shall not outlive it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    watched_for(limit, move || act(&role));
}

/// In the child: says something.
pub(crate) fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{MARK}{line}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

/// In the child: what it is told next; `None` at the end.
pub(crate) fn told() -> Option<String> {
    doing("hearing the parent");
    let mut line = String::new();
    let len = std::io::stdin().lock().read_line(&mut line).expect("stdin");
    (len > 0).then(|| line.trim_end().to_owned())
}

/// As [`told`], an address.
pub(crate) fn told_address() -> SocketAddr {
    told().expect("an address").parse().expect("an address")
}

/// Descriptors this process has open.
pub(crate) fn open_descriptors() -> usize {
    // The one that reads the directory is in it.
    std::fs::read_dir("/proc/self/fd").expect("/proc").count() - 1
}

/// Mappings of this process that are shared memory of ours.
pub(crate) fn shared_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    maps.lines().filter(|line| line.contains("/memfd:")).count()
}
