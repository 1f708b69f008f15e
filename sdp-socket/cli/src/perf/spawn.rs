//! A server of our own, on this machine.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::Context;

/// How long a server may take to end by itself.
const END_MAX: Duration = Duration::from_secs(2);

/// A server process, which ends with this value, or with this process.
#[derive(Debug)]
pub(super) struct OwnServer {
    child: Child,
    /// Its control address.
    pub(super) address: SocketAddr,
}

impl OwnServer {
    /// Starts one on the loopback address.
    ///
    /// # Errors
    /// When it cannot be started or does not say where it listens.
    pub(super) fn start(trace: bool) -> anyhow::Result<Self> {
        let program = env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(&program);
        command
            .args(["perf", "server", "--listen", "127.0.0.1:0", "--until-eof"])
            .args(trace.then_some("--trace"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        match read_address(&mut child) {
            Ok(address) => Ok(Self { child, address }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }
}

fn read_address(child: &mut Child) -> anyhow::Result<SocketAddr> {
    let stdout = child.stdout.take().context("no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .context("cannot read from the server")?;
    line.trim()
        .parse()
        .with_context(|| format!("the server did not say its address but `{}`", line.trim()))
}

/// Asks the server to end, and kills it if it does not.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let begin = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if begin.elapsed() > END_MAX {
            // It may have ended just now; wait() then says so.
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
