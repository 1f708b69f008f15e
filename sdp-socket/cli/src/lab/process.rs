//! Processes of this program that speak to one another in lines of JSON over their pipes.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::diagnosis::diagnosis;

/// How long a process may take to say what it is doing.
const DOING_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Where a process listens; none when that was closed.
type Input = Mutex<Option<ChildStdin>>;

/// The processes started here, by process id, as long as they are of use.
static STARTED: Mutex<Vec<(u32, Weak<Input>)>> = Mutex::new(Vec::new());

/// This program in another process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Arc<Input>,
    lines: Receiver<String>,
}

/// An order to every process of this program: write into this file what you are doing. Whoever
/// listens for orders obeys it, whatever the other threads hang in.
#[derive(Debug, Serialize, Deserialize)]
struct Diagnose {
    diagnose: PathBuf,
}

impl Process {
    /// Starts it with these arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(args: &[String]) -> anyhow::Result<Self> {
        let program = env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(&program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let input = Arc::new(Mutex::new(child.stdin.take()));
        let mut started = lock(&STARTED);
        started.retain(|(_, input)| input.strong_count() > 0);
        started.push((child.id(), Arc::downgrade(&input)));
        drop(started);
        let output = child.stdout.take().context("no standard output")?;
        let (sender, lines) = channel();
        thread::Builder::new()
            .name("listen".to_owned())
            .spawn(move || {
                // A read error is the end of what it says; how it ended is seen by waiting.
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    /// Tells it something.
    ///
    /// # Errors
    /// When it does not listen any more.
    pub(crate) fn tell(&mut self, what: &impl Serialize) -> anyhow::Result<()> {
        tell(&self.input, what)
    }

    /// What it says next; none if it says nothing for `bound`.
    ///
    /// # Errors
    /// When it has ended, or speaks another language.
    pub(crate) fn hear<T: DeserializeOwned>(
        &mut self,
        bound: Duration,
    ) -> anyhow::Result<Option<T>> {
        match self.lines.recv_timeout(bound) {
            Ok(line) => serde_json::from_str(&line)
                .map(Some)
                .with_context(|| format!("the other process said `{line}`")),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().context("cannot wait")?;
                Err(anyhow!("the other process has ended: {status}"))
            }
        }
    }

    /// Waits until it ends by itself, which must be a success.
    ///
    /// # Errors
    /// When it fails, or has not ended within `bound`.
    pub(crate) fn finish(mut self, bound: Duration) -> anyhow::Result<()> {
        drop(lock(&self.input).take());
        loop {
            match self.lines.recv_timeout(bound) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("the other process does not end"),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().context("cannot wait")?;
        if !status.success() {
            bail!("the other process has failed: {status}");
        }
        Ok(())
    }

    /// Sends it SIGKILL and does not wait.
    ///
    /// # Errors
    /// Those of kill.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Waits for the end of a process that was killed.
    ///
    /// # Errors
    /// Those of wait.
    pub(crate) fn reap(&mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }

    /// Stops it, and returns when it stands still.
    ///
    /// # Errors
    /// Those of kill and wait.
    pub(crate) fn stop(&self) -> io::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP)?;
        match waitpid(Some(pid), WaitOptions::UNTRACED)? {
            Some((_, status)) if status.stopped() => Ok(()),
            other => Err(io::Error::other(format!("not stopped: {other:?}"))),
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// Those of kill.
    pub(crate) fn go_on(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::CONT)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tell(input: &Input, what: &impl Serialize) -> anyhow::Result<()> {
    let mut input = lock(input);
    let input = input.as_mut().context("its input is closed")?;
    let line = serde_json::to_string(what).context("cannot encode")?;
    writeln!(input, "{line}").context("the other process does not listen")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What each process started here that is still of use says that it is doing, by process id.
pub(super) fn children_are_doing() -> Vec<(u32, String)> {
    let started = lock(&STARTED).clone();
    let alive = started
        .into_iter()
        .filter_map(|(pid, input)| Some((pid, input.upgrade()?)));
    alive
        .map(|(pid, input)| {
            let doing = is_doing(pid, &input);
            (pid, doing.unwrap_or_else(|error| format!("{error:#}")))
        })
        .collect()
}

fn is_doing(pid: u32, input: &Input) -> anyhow::Result<String> {
    let diagnose = env::temp_dir().join(format!("sdp-doing-{}-{pid}", process::id()));
    let order = Diagnose { diagnose };
    tell(input, &order)?;
    let begun = Instant::now();
    loop {
        // It is there when it is complete.
        match fs::read_to_string(&order.diagnose) {
            Ok(text) => {
                fs::remove_file(&order.diagnose).context("cannot tidy up")?;
                return Ok(text);
            }
            Err(_) if begun.elapsed() < DOING_MAX => thread::sleep(LOOK),
            Err(error) => return Err(error).context("it says nothing"),
        }
    }
}

/// Obeys [`Diagnose`].
fn diagnose(into: &Path) -> io::Result<()> {
    let draft = into.with_extension("draft");
    fs::write(&draft, diagnosis())?;
    fs::rename(draft, into)
}

/// Says something to the process that started this one.
///
/// # Errors
/// When it does not listen any more.
pub(crate) fn say(what: &impl Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(what).context("cannot encode")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("nobody listens")
}

/// What the process that started this one says. When it is gone, this process ends too.
#[derive(Debug)]
pub(crate) struct Orders<T> {
    inbox: Receiver<T>,
}

impl<T: DeserializeOwned + Send + 'static> Orders<T> {
    /// Begins to listen on standard input.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let (sender, inbox) = channel();
        thread::Builder::new()
            .name("orders".to_owned())
            .spawn(move || {
                for line in io::stdin().lock().lines().map_while(Result::ok) {
                    if let Ok(order) = serde_json::from_str::<Diagnose>(&line) {
                        // If it cannot be written, who asked misses it, and says so.
                        let _ = diagnose(&order.diagnose);
                        continue;
                    }
                    let Ok(order) = serde_json::from_str(&line) else {
                        break;
                    };
                    if sender.send(order).is_err() {
                        break;
                    }
                }
                process::exit(0);
            })
            .context("cannot start a thread")?;
        Ok(Self { inbox })
    }

    /// The next one; none if none comes for `bound`.
    pub(crate) fn next(&self, bound: Duration) -> Option<T> {
        self.inbox.recv_timeout(bound).ok()
    }
}
