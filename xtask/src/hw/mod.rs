//! `cargo xtask hw-test`: real devices between two nodes of a lab.

mod devices;
mod html;
mod local;
mod perf;
mod perftest;
mod place;
mod server;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use self::perf::{Ends, Test};
use self::server::Server;
use crate::binaries::Binaries;
use crate::cli::HwTestOptions;
use crate::libtest;
use crate::report::{Check, Report, Skipped, Started};
use crate::run::Run;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// The conformance suite on a device.
const CONFORMANCE: &str = "conformance_rdma";
/// How long the peer may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a client runs before it is killed.
const KILLED_AFTER: Duration = Duration::from_secs(2);
/// Connections of the verified transfers.
const VERIFIED_CONNS: u32 = 16;
/// What of the device's own throughput zero copy must reach.
const SHARE_MIN: f64 = 0.9;
/// Where the page of a run that measured something goes, unless told otherwise.
const PAGE: &str = "hw-test.html";
/// What makes a program of ours use one device and no other.
const DEVICE: &str = "SDP_RDMA_DEVICE";

/// Runs this node's part and reports; `Ok(true)` exactly when every check holds.
///
/// # Errors
/// When a program cannot be built or started, or the report cannot be written.
pub(crate) fn run(ui: &Ui, options: &HwTestOptions) -> anyhow::Result<bool> {
    let started = Started::now();
    let mut report = started.report("hw-test", Path::new("."), Some("rdma"))?;
    let mut findings = Findings {
        ui,
        report: &mut report,
    };
    let device = local::check(&mut findings, options.device.as_deref())?;
    if let Some(device) = &device {
        findings.report.machine.device = Some(device.name.clone());
        if options.server {
            serve(ui, options, device)?;
        } else {
            together(options, device, &mut findings)?;
        }
    }
    report.seconds = started.seconds();
    report.write(options.json.as_deref())?;
    let page = page_target(options, &report);
    if let Some(target) = page {
        std::fs::write(target, html::page(&report)?)
            .with_context(|| format!("cannot write {}", target.display()))?;
    }
    ui.line(&format!(
        "{}; {}",
        report.summary(),
        page.map_or_else(
            || "nothing was measured, no page written".to_owned(),
            |target| target.display().to_string()
        )
    ))?;
    Ok(report.passed())
}

/// Where the page goes: where it was asked for, else to [`PAGE`] if it has a figure to show.
fn page_target<'a>(options: &'a HwTestOptions, report: &Report) -> Option<&'a Path> {
    let measured = report.results.iter().any(|r| r["workload"].is_string());
    let default = measured.then_some(Path::new(PAGE));
    options.html.as_deref().or(default)
}

/// What was found, printed as it is found.
#[derive(Debug)]
struct Findings<'a> {
    ui: &'a Ui,
    report: &'a mut Report,
}

impl Findings<'_> {
    /// A promise kept, or broken with a remedy.
    fn check(&mut self, name: &str, ok: bool, detail: String) -> anyhow::Result<()> {
        self.measured(name, ok, None, detail)
    }

    /// The same with value and limit, as a ratio.
    fn measured(
        &mut self,
        name: &str,
        ok: bool,
        figures: Option<(f64, f64)>,
        detail: String,
    ) -> anyhow::Result<()> {
        let word = if ok { "ok" } else { "FAIL" };
        self.ui.line(&format!("{word:5} {name:28} {detail}"))?;
        self.report.checks.push(Check {
            name: name.to_owned(),
            ok,
            value: figures.map(|(value, _)| value),
            limit: figures.map(|(_, limit)| limit),
            unit: figures.map_or("", |_| "ratio").to_owned(),
            detail,
        });
        Ok(())
    }

    fn skip(&mut self, name: String, reason: String) -> anyhow::Result<()> {
        self.ui.line(&format!("SKIP  {name:28} {reason}"))?;
        self.report.skipped.push(Skipped { name, reason });
        Ok(())
    }
}

/// The program, built unless it was given: a node without Rust can test too.
fn sdp(ui: &Ui, options: &HwTestOptions) -> anyhow::Result<PathBuf> {
    match &options.sdp {
        Some(given) => Ok(given.clone()),
        None => Ok(Binaries::build(&Workspace::load()?, ui, &[], true, false)?
            .sdp()?
            .clone()),
    }
}

/// The node that serves.
fn serve(ui: &Ui, options: &HwTestOptions, device: &devices::Device) -> anyhow::Result<()> {
    let found = match (options.address, device.active_port()) {
        (None, Some(port)) => server::address(port)?,
        (named, _) => named,
    };
    let address = found.with_context(|| {
        format!(
            "{} has no IP address: set one on its interface, or name it by --address",
            device.name
        )
    })?;
    let program = sdp(ui, options)?;
    let at = SocketAddr::new(address, options.port);
    let server = Server::start(None, &program.display().to_string(), at, &device.name)?;
    ui.line(&format!(
        "serving; on the other node: cargo xtask hw-test --peer {address} --port {}",
        options.port
    ))?;
    server.serve()
}

/// The node that tests and measures.
fn together(
    options: &HwTestOptions,
    device: &devices::Device,
    findings: &mut Findings<'_>,
) -> anyhow::Result<()> {
    let Some(peer) = options.peer else {
        let remedy = "no peer: run `cargo xtask hw-test --server` on the other node, and here with \
                      --peer and the address of its device";
        return findings.check("peer", false, remedy.to_owned());
    };
    if !local::check_route(findings, device, peer)? {
        return Ok(());
    }
    let program = sdp(findings.ui, options)?;
    let at = SocketAddr::new(peer, options.port);
    // Its end, at the end of this function, ends the programs over there.
    let _server = match &options.ssh {
        None => None,
        Some(host) => {
            let there = server::install(host, &program)?;
            let name = options.peer_device.as_ref().unwrap_or(&device.name);
            Some(Server::start(Some(host), &there, at, name)?)
        }
    };
    if !check_peer(findings, at)? {
        return Ok(());
    }
    let ends = Ends {
        sdp: program,
        server: at,
        device: device.name.clone(),
        seconds: options.seconds,
    };
    conformance(options, device, findings)?;
    let verifying = ends.at(server::VERIFYING);
    if integrity(&verifying, "integrity", findings)? {
        faults(&verifying, findings)?;
        measure(&ends, options, findings)?;
    }
    Ok(())
}

/// Whether the peer's server answers, by plain TCP.
fn check_peer(findings: &mut Findings<'_>, at: SocketAddr) -> anyhow::Result<bool> {
    let answer = TcpStream::connect_timeout(&at, ANSWER_MAX);
    let detail = match &answer {
        Ok(_) => format!("peer {at} serves"),
        Err(why) => format!(
            "peer {at}: {why}: run `cargo xtask hw-test --server --port {}` there, and let its \
             firewall pass this port and the next four",
            at.port()
        ),
    };
    findings.check("peer", answer.is_ok(), detail)?;
    Ok(answer.is_ok())
}

/// The conformance suite, both ends on this node's device.
fn conformance(
    options: &HwTestOptions,
    device: &devices::Device,
    findings: &mut Findings<'_>,
) -> anyhow::Result<()> {
    let path = match &options.conformance {
        Some(given) => given.clone(),
        None => Binaries::build(
            &Workspace::load()?,
            findings.ui,
            &[CONFORMANCE],
            false,
            false,
        )?
        .test(CONFORMANCE)?
        .clone(),
    };
    let mut command = Command::new(path);
    command
        .args(["--include-ignored", "--test-threads=2"])
        .env("SDP_TEST_RDMA_DEVICES", &device.name);
    let progress = findings.ui.progress(CONFORMANCE)?;
    let tally = libtest::tally(&Run::new(command).run(|line| progress.note(line))?);
    drop(progress);
    if tally.failed > 0 {
        findings.ui.line(&tally.output)?;
    }
    for skipped in tally.skipped {
        findings.skip(format!("conformance.{}", skipped.name), skipped.reason)?;
    }
    let ok = tally.failed == 0 && tally.passed > 0;
    let detail = format!("{} passed, {} failed", tally.passed, tally.failed);
    findings.check("conformance", ok, detail)
}

/// Verified transfers in every mode; whether all were right.
fn integrity(ends: &Ends, name: &str, findings: &mut Findings<'_>) -> anyhow::Result<bool> {
    let mut all = true;
    for (workload, mode, conns) in [
        ("bw", "bcopy", VERIFIED_CONNS),
        ("bw", "zcopy", VERIFIED_CONNS),
        ("bw", "auto", VERIFIED_CONNS),
        ("lat", "auto", 1),
    ] {
        let test = Test {
            workload,
            transport: "sdp",
            mode: Some(mode),
            size: 1 << 20,
            conns,
            verify: true,
        };
        let outcome = test.run(ends);
        let ok = outcome.is_ok();
        let detail = match outcome {
            Ok(_) => "every byte arrived as it was sent".to_owned(),
            Err(why) => format!("{why:#}"),
        };
        findings.check(&format!("{name}.{workload}.{mode}"), ok, detail)?;
        all &= ok;
    }
    Ok(all)
}

/// A client that is killed in the middle of a transfer costs nothing to the server, which goes on to
/// serve verified transfers.
fn faults(ends: &Ends, findings: &mut Findings<'_>) -> anyhow::Result<()> {
    let victim = Test {
        workload: "bw",
        transport: "sdp",
        mode: Some("zcopy"),
        size: 1 << 20,
        conns: VERIFIED_CONNS,
        verify: false,
    };
    let killed = victim.killed(ends, KILLED_AFTER)?;
    findings.check(
        "fault.killed",
        killed,
        if killed {
            "a client was killed in the middle of a transfer".to_owned()
        } else {
            "the client that was to be killed ended by itself".to_owned()
        },
    )?;
    integrity(ends, "fault.after", findings)?;
    Ok(())
}

/// The matrix, the reference, and what they promise together.
fn measure(
    ends: &Ends,
    options: &HwTestOptions,
    findings: &mut Findings<'_>,
) -> anyhow::Result<()> {
    for test in perf::matrix(&options.sizes, &options.conns) {
        let progress = findings.ui.progress(&test.name())?;
        let outcome = test.run(ends);
        drop(progress);
        match outcome {
            Ok(results) => findings.report.results.extend(results),
            Err(why) => {
                findings.check(&format!("perf.{}", test.name()), false, format!("{why:#}"))?
            }
        }
    }
    let (results, missing) = perf::reference(ends)?;
    findings.report.results.extend(results);
    for missing in missing {
        findings.skip(missing.name, missing.reason)?;
    }
    let results = &findings.report.results;
    let throughput = |peer: &str, mode: &str| {
        let one = |r: &&Value| r["workload"] == "bw" && r["conns"] == 1 && r["size"] == 1 << 20;
        let found = results
            .iter()
            .filter(one)
            .find(|r| r["peer"] == peer && r["mode"] == mode);
        found.and_then(|result| result["gb_per_s"]["median"].as_f64())
    };
    let pair = throughput("sdp", "zcopy").zip(throughput("perftest", "read"));
    let name = "bw.1MiB.x1.zcopy_vs_ib_read_bw";
    match pair {
        Some((ours, device)) if device > 0.0 => findings.measured(
            name,
            ours / device >= SHARE_MIN,
            Some((ours / device, SHARE_MIN)),
            format!("{ours:.2} GB/s; the device alone {device:.2} GB/s"),
        ),
        _ => findings.skip(
            name.to_owned(),
            "needs ib_read_bw, and 1048576 and 1 among --sizes and --conns".to_owned(),
        ),
    }
}
