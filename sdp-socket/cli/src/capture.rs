//! `sdp capture`: runs a program with every message it sends or receives in a file.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, bail};

use crate::cli::CaptureArgs;

/// Stands for the process id in a file's name.
const PID: &str = "%p";

/// Runs the program and gives its exit status.
///
/// # Errors
/// The file exists, or the program cannot be started.
pub(crate) fn run(args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    let name = args
        .output
        .to_str()
        .context("the name of the file is not UTF-8")?;
    let is_pattern = name.contains(PID);
    if !is_pattern && args.output.exists() {
        bail!("{name} exists: remove it, or put {PID} into the name for one file per process");
    }
    let [program, arguments @ ..] = args.command.as_slice() else {
        bail!("which program?");
    };
    let mut command = Command::new(program);
    command.args(arguments).env("SDP_CAPTURE", absolute(name)?);
    for (variable, value) in [
        ("SDP_CAPTURE_PAYLOAD", &args.payload),
        ("SDP_CAPTURE_SIZE", &args.size),
    ] {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    // Whoever has closed standard error does not want to know.
    let _ = writeln!(
        std::io::stderr(),
        "sdp capture: {}",
        outcome(&args.output, is_pattern)
    );
    Ok(exit_code(status))
}

/// The program may change its working directory.
fn absolute(name: &str) -> anyhow::Result<OsString> {
    let path = std::path::absolute(name).context("the name of the file")?;
    Ok(path.into())
}

fn outcome(path: &Path, is_pattern: bool) -> String {
    if is_pattern {
        return format!("one file per process, as {}", path.display());
    }
    match fs::metadata(path) {
        Ok(metadata) => format!("{} bytes in {}", metadata.len(), path.display()),
        Err(error) => format!("no SDP socket was opened: {}: {error}", path.display()),
    }
}

/// As a shell would give it on: 128 and more for a signal.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(1))
}
