//! Running tshark, and installing it where it is missing.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use super::frame::Frame;
use crate::ui::Ui;

const PROGRAM: &str = "tshark";
/// Lets SDP have every payload first, without a connection that was seen to begin, and keeps
/// another protocol from claiming it.
const OPTIONS: [&str; 6] = [
    "-o",
    "infiniband.try_heuristic_first:FALSE",
    "-d",
    "infiniband,infiniband_sdp",
    "--disable-heuristic",
    "rpcrdma_infiniband",
];

/// What is seen without options.
#[derive(Debug, Serialize)]
pub(super) struct Plain {
    pub(super) frames: usize,
    pub(super) sdp: usize,
    pub(super) malformed: usize,
}

/// The version of tshark, which is installed first if it is missing.
///
/// # Errors
/// When it cannot be installed.
pub(super) fn ensure(ui: &Ui) -> anyhow::Result<String> {
    if let Some(version) = version() {
        return Ok(version);
    }
    ui.line("tshark is missing: installing the package of this system by apt-get")?;
    let is_root = rustix::process::geteuid().is_root();
    for arguments in [
        &["update", "-q"][..],
        &["install", "-q", "-y", "--no-install-recommends", PROGRAM],
    ] {
        let mut command = if is_root {
            Command::new("apt-get")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.arg("apt-get");
            sudo
        };
        command
            .args(["-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        let output = command.output().context("cannot run apt-get")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "apt-get {}: {said}install tshark by hand",
                arguments.join(" ")
            );
        }
    }
    version().context("tshark is installed and does not run")
}

fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let first = text.lines().next()?.trim_end_matches('.').to_owned();
    output.status.success().then_some(first)
}

/// The frames of a capture, as SDP.
///
/// # Errors
/// When tshark fails or cannot be understood.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Frame>> {
    frames(path, &OPTIONS)
}

/// What somebody sees who just opens the capture.
///
/// # Errors
/// As [`read`].
pub(super) fn read_plainly(path: &Path) -> anyhow::Result<Plain> {
    let frames = frames(path, &[])?;
    let sdp = frames.iter().filter(|frame| frame.sdp.is_some());
    Ok(Plain {
        sdp: sdp.clone().count(),
        malformed: sdp.filter(|frame| frame.malformed).count(),
        frames: frames.len(),
    })
}

fn frames(path: &Path, options: &[&str]) -> anyhow::Result<Vec<Frame>> {
    let output = Command::new(PROGRAM)
        .args(options)
        .args(["-T", "json", "-x", "-r"].map(OsStr::new))
        .arg(path)
        .output()
        .context("cannot run tshark")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("tshark cannot read {}: {said}", path.display());
    }
    let packets: Vec<Value> =
        serde_json::from_slice(&output.stdout).context("tshark's answer is not JSON")?;
    Ok(packets.iter().map(Frame::of).collect())
}
