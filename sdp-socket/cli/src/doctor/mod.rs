//! `sdp doctor`: what SDP would use on this machine, and what stands in the way.

mod adapters;
mod finding;
mod loopback;
mod machine;
mod peer;
mod probe;

use std::env;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use sdp_socket::survey::survey;
use serde::Serialize;

use self::finding::{Finding, Verdict};
use self::peer::Peer;
use crate::cli::DoctorArgs;
use crate::report::{print, write_to};
pub(crate) use probe::run as run_probe;

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    version: &'static str,
    time: String,
    findings: &'a [Finding],
}

/// Looks at everything; whether nothing fails.
///
/// # Errors
/// What was found cannot be written.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<bool> {
    let peer = args.peer.as_deref().map(Peer::parse).transpose();
    let peer = peer.map_err(anyhow::Error::msg)?;
    let mut findings = machine::look();
    findings.extend(loopback::look());
    findings.push(preload());
    let addresses = match peer.as_ref().map(Peer::addresses).transpose() {
        Ok(addresses) => addresses.unwrap_or_default(),
        Err(unknown) => {
            findings.push(unknown);
            Vec::new()
        }
    };
    let asked = env::var_os("SDP_PROVIDER").is_some_and(|provider| provider == "rdma");
    findings.extend(adapters::look(asked || peer::is_elsewhere(&addresses)));
    if let Some(peer) = &peer {
        findings.extend(peer::look(peer, &addresses));
    }
    match &args.json {
        Some(target) => write_json(target, &findings)?,
        None => print(&text(&findings))?,
    }
    Ok(!findings.iter().any(|it| it.verdict == Verdict::Fail))
}

/// Whether `sdp run` finds its library.
fn preload() -> Finding {
    let name = "preload";
    let found = env::current_exe()
        .context("where this program is")
        .and_then(|own| crate::run::find_library(&own));
    match found {
        Ok(path) => Finding::ok(name, format!("sdp run loads {}", path.display())),
        Err(_) => Finding::warning(
            name,
            "sdp run does not find libsdp_preload.so",
            "cargo xtask install, or sdp run --library PATH; other commands need it not",
        ),
    }
}

/// A line for each finding, and one for its remedy.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{} {}: {}",
            finding.verdict.word(),
            finding.name,
            finding.detail
        );
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "            {remedy}");
        }
    }
    let count = |verdict| findings.iter().filter(|it| it.verdict == verdict).count();
    let (failed, warned) = (count(Verdict::Fail), count(Verdict::Warning));
    let _ = match (failed, survey().devices.is_empty()) {
        (0, true) => writeln!(text, "SDP works within this machine; {warned} warnings"),
        (0, false) => writeln!(text, "SDP works; {warned} warnings"),
        _ => writeln!(text, "{failed} FAILED, {warned} warnings"),
    };
    text
}

fn write_json(target: &Path, findings: &[Finding]) -> anyhow::Result<()> {
    let document = Document {
        schema: "sdp.doctor/1",
        version: env!("CARGO_PKG_VERSION"),
        time: jiff::Timestamp::now().to_string(),
        findings,
    };
    let text = serde_json::to_string_pretty(&document).context("cannot encode the report")? + "\n";
    write_to(target, &text)
}
