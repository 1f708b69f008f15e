//! `sdp perf compare`: all peers, interleaved round by round.

use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::client::{Client, Limit};
use super::control::Open;
use super::lineup::{PING_PONG, Peer, Row, peers, rows};
use super::marker::spin_us;
use super::peers::Sample;
use super::spawn::OwnServer;
use super::{Workload, turns};
use crate::cli::CompareArgs;
use crate::report::{Check, Figure, Report, Skipped, Started};
use crate::table::size as size_name;
use crate::transport::{Endpoint, Kind, name};

/// Length of one run if nothing else is asked for.
const DEFAULT_RUN: Duration = Duration::from_millis(150);
/// Length of the run that warms a new connection up, at most.
const WARM_UP: Duration = Duration::from_millis(20);

/// Measures and reports; whether every check holds.
///
/// # Errors
/// When a server cannot be started, a peer is unknown, or the report cannot be written.
pub(super) fn run(args: &CompareArgs) -> anyhow::Result<bool> {
    let started = Started::now();
    let all = peers(args.provider);
    let mut skipped = Vec::new();
    let mut peers = Vec::new();
    if let Some(unknown) = args
        .peers
        .iter()
        .flatten()
        .find(|wanted| !knows(&all, wanted))
    {
        let names: Vec<_> = all.iter().map(|peer| peer.name.as_str()).collect();
        bail!(
            "no peer is called {unknown}; there are {}",
            names.join(", ")
        );
    }
    for peer in all {
        if peer.is_wanted(args.peers.as_ref()) {
            peers.push(peer);
        } else if peer.usual {
            skipped.push(Skipped {
                name: format!("{} {}", peer.workload.name(), peer.name),
                reason: "left out by --peers".to_owned(),
            });
        }
    }
    let mut rows = rows(args, &peers);
    if rows.is_empty() {
        bail!("none of these peers runs this workload with messages of this size");
    }
    let time = run_time(args, &rows);
    let bar = progress(&rows, args.rounds);
    open(&mut peers, &mut rows, time)?;
    if args.turns {
        turns::tell("open")?;
    }
    for round in 0..args.rounds {
        if args.turns && !turns::asked()? {
            break;
        }
        for row in &mut rows {
            measure(row, &mut peers, round, time, &bar);
        }
        if args.turns {
            turns::tell(&format!("round {}", round + 1))?;
        }
    }
    bar.finish_and_clear();
    let provider = peers
        .iter()
        .any(|peer| peer.endpoint.kind == Kind::Sdp)
        .then(|| name(args.provider));
    // The connections go before their servers.
    for entry in rows.iter_mut().flat_map(|row| &mut row.entries) {
        entry.client = None;
    }
    for peer in &mut peers {
        peer.server = None;
    }
    let mut report = started.report("perf", provider)?;
    report.skipped = skipped;
    fill(&mut report, &peers, &rows);
    report.write(args.json.as_deref())?;
    Ok(report.passed())
}

fn knows(peers: &[Peer], wanted: &str) -> bool {
    peers.iter().any(|peer| peer.name == *wanted)
}

fn entries(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.entries.len()).sum()
}

/// How long one run takes.
fn run_time(args: &CompareArgs, rows: &[Row]) -> Duration {
    let runs = entries(rows) as f64 * f64::from(args.rounds);
    match (args.seconds, args.round_ms) {
        (Some(seconds), _) => Duration::from_secs_f64((seconds / runs).max(1e-3)),
        (None, Some(millis)) => Duration::from_millis(millis),
        (None, None) => DEFAULT_RUN,
    }
}

fn progress(rows: &[Row], rounds: u32) -> ProgressBar {
    let bar = ProgressBar::new(entries(rows) as u64 * u64::from(rounds));
    // Constant and valid; a plain bar serves as well.
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Starts a server for each peer, opens all its connections and warms them up.
fn open(peers: &mut [Peer], rows: &mut [Row], time: Duration) -> anyhow::Result<()> {
    for peer in peers.iter_mut() {
        let server = OwnServer::start(false);
        peer.server = Some(server.with_context(|| format!("no server for {}", peer.name))?);
    }
    for row in rows {
        for entry in &mut row.entries {
            let peer = &mut peers[entry.peer];
            let (Some(server), None) = (&peer.server, &peer.failure) else {
                continue;
            };
            let endpoint = Endpoint {
                size: row.size,
                ..peer.endpoint.clone()
            };
            let opened = Client::open(server.address, Open::new(row.workload, endpoint, row.conns));
            let warmed = opened.and_then(|mut client| {
                client.run(Limit::Time(time.min(WARM_UP)), &mut |_| {})?;
                Ok(client)
            });
            match warmed {
                Ok(client) => entry.client = Some(client),
                Err(error) => peer.failure = Some(failure(row.size, row.conns, &error)),
            }
        }
    }
    Ok(())
}

fn failure(size: usize, conns: u32, error: &anyhow::Error) -> String {
    format!("{} x{conns}: {error:#}", size_name(size))
}

/// Runs every peer of a row once, in reversed order every second round.
fn measure(row: &mut Row, peers: &mut [Peer], round: u32, time: Duration, bar: &ProgressBar) {
    let marker = spin_us();
    let count = row.entries.len();
    for turn in 0..count {
        let at = if round.is_multiple_of(2) {
            turn
        } else {
            count - 1 - turn
        };
        let entry = &mut row.entries[at];
        let peer = &mut peers[entry.peer];
        let what = format!("{} {} x{}", peer.name, size_name(row.size), row.conns);
        bar.set_message(what);
        bar.inc(1);
        let (Some(client), None) = (&mut entry.client, &peer.failure) else {
            continue;
        };
        match client.run(Limit::Time(time), &mut |_| bar.tick()) {
            Ok(outcome) => entry.runs.add(&outcome, marker),
            Err(error) => peer.failure = Some(failure(row.size, row.conns, &error)),
        }
    }
}

/// Fills in results and checks.
fn fill(report: &mut Report, peers: &[Peer], rows: &[Row]) {
    for row in rows {
        let tcp = tcp(row, peers);
        for entry in &row.entries {
            let mut result = entry.runs.measured();
            result.ratio_to_tcp = tcp
                .as_deref()
                .and_then(|tcp| ratio(row.workload, entry.runs.samples(), tcp));
            report.results.push(result);
        }
    }
    for peer in peers {
        if let Some(failure) = &peer.failure {
            let name = format!("{}.{}.runs", peer.workload.name(), peer.name);
            report.checks.push(Check::plain(name, false, failure));
        }
    }
    let bulk = |size, conns| Cell {
        rows,
        peers,
        workload: Workload::Bw,
        size,
        conns,
    };
    let (one, eight) = (bulk(1 << 20, 1), bulk(1 << 20, 8));
    let lat = Cell {
        workload: Workload::Lat,
        size: PING_PONG.0[0],
        conns: PING_PONG.1[0],
        ..one
    };
    let best = ["sdp-bcopy", "sdp-auto", "sdp-zcopy", "sdp-registered"];
    let promises = [
        ("bw.1MiB.x8.sdp_best_vs_tcp", 2.5, eight, &best[..], "tcp"),
        ("lat.64B.sdp_vs_tcp", 0.5, lat, &["sdp-spin"], "tcp"),
        (
            "bw.1MiB.x1.bcopy_vs_ring_floor",
            0.5,
            one,
            &["sdp-bcopy"],
            "floor-ring",
        ),
        (
            "bw.1MiB.x8.bcopy_vs_ring_floor",
            0.5,
            eight,
            &["sdp-bcopy"],
            "floor-ring",
        ),
    ];
    for (name, limit, cell, ours, theirs) in promises {
        if let Some(left_out) = cell.left_out(ours, theirs) {
            report.skipped.push(Skipped {
                name: name.to_owned(),
                reason: left_out,
            });
        } else {
            report.checks.push(cell.check(name, limit, ours, theirs));
        }
    }
}

/// The figure that peers are compared by: throughput of bulk, median time of a ping-pong.
fn judged(workload: Workload, sample: &Sample) -> f64 {
    match workload {
        Workload::Bw => sample.gb_per_s,
        Workload::Lat => sample.us_p50,
    }
}

/// TCP's figures of a row, round by round: of several variants the better one as a whole.
fn tcp(row: &Row, peers: &[Peer]) -> Option<Vec<f64>> {
    let variants = row.entries.iter().filter(|entry| {
        peers[entry.peer].endpoint.kind == Kind::Tcp && !entry.runs.samples().is_empty()
    });
    let figures = variants.map(|entry| {
        let samples = entry.runs.samples().iter();
        samples.map(|sample| judged(row.workload, sample)).collect()
    });
    let middle = |figures: &Vec<f64>| Figure::of(figures).map_or(0.0, |figure| figure.median);
    figures.min_by(|a: &Vec<f64>, b| match row.workload {
        Workload::Bw => middle(b).total_cmp(&middle(a)),
        Workload::Lat => middle(a).total_cmp(&middle(b)),
    })
}

/// The ratios of single rounds.
fn ratio(workload: Workload, ours: &[Sample], theirs: &[f64]) -> Option<Figure> {
    let pairs = ours.iter().zip(theirs);
    let ratios: Vec<_> = pairs
        .map(|(ours, theirs)| judged(workload, ours) / theirs)
        .collect();
    Figure::of(&ratios)
}

/// One row of the comparison, to be judged.
#[derive(Clone, Copy)]
struct Cell<'a> {
    rows: &'a [Row],
    peers: &'a [Peer],
    workload: Workload,
    size: usize,
    conns: u32,
}

impl Cell<'_> {
    fn row(&self) -> Option<&Row> {
        self.rows.iter().find(|row| {
            (row.workload, row.size, row.conns) == (self.workload, self.size, self.conns)
        })
    }

    fn samples(&self, name: &str) -> Option<&[Sample]> {
        let mut entries = self.row()?.entries.iter();
        let entry = entries.find(|entry| self.peers[entry.peer].name == name)?;
        Some(entry.runs.samples())
    }

    /// Why the promise cannot be judged, if a peer was left out.
    fn left_out(&self, ours: &[&str], theirs: &str) -> Option<String> {
        if self.row().is_none() {
            let (size, conns) = (size_name(self.size), self.conns);
            return Some(format!("{size} x{conns} was not measured"));
        }
        let needed = ours.iter().chain([&theirs]);
        let mut missing = needed.filter(|name| self.samples(name).is_none());
        missing
            .next()
            .map(|name| format!("{name} was left out by --peers"))
    }

    /// Judges the best of `ours` against `theirs`.
    fn check(&self, name: &str, limit: f64, ours: &[&str], theirs: &str) -> Check {
        let base = match theirs {
            "tcp" => self.row().and_then(|row| tcp(row, self.peers)),
            other => self.samples(other).map(|samples| {
                let each = samples.iter();
                each.map(|sample| judged(self.workload, sample)).collect()
            }),
        };
        let ratios = ours.iter().filter_map(|name| {
            let figure = ratio(self.workload, self.samples(name)?, base.as_deref()?)?;
            Some((figure.median, *name))
        });
        let best = match self.workload {
            Workload::Bw => ratios.max_by(|a, b| a.0.total_cmp(&b.0)),
            Workload::Lat => ratios.min_by(|a, b| a.0.total_cmp(&b.0)),
        };
        let value = best.map(|(value, _)| value);
        Check {
            name: name.to_owned(),
            ok: value.is_some_and(|value| match self.workload {
                Workload::Bw => value >= limit,
                Workload::Lat => value <= limit,
            }),
            value,
            limit: Some(limit),
            unit: "ratio",
            detail: best.map_or_else(
                || "no run of these peers succeeded".to_owned(),
                |(_, name)| format!("{name} to {theirs}, median of the rounds"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::client::Outcome;
    use crate::perf::control::Done;
    use crate::perf::lat::histogram;
    use crate::perf::lineup::args;
    use crate::transport::Provider;

    /// A run of 1 s that moved so many GB, or took so many µs.
    fn outcome(value: u64) -> Outcome {
        let mut latency = histogram();
        latency.record(value * 1000).unwrap();
        Outcome {
            elapsed: Duration::from_secs(1),
            bytes: value * 1_000_000_000,
            messages: 1,
            cpu: Duration::from_secs(1),
            latency,
            engine: None,
            verbs: None,
            server: Done {
                cpu_ns: 0,
                conns: Vec::new(),
                engine: None,
                verbs: None,
            },
            wrong: Vec::new(),
        }
    }

    /// A report in which every peer named has had these runs everywhere.
    fn report(runs: &[(&str, &[u64])]) -> Report {
        let peers: Vec<_> = peers(Provider::Host)
            .into_iter()
            .filter(|peer| runs.iter().any(|(name, _)| peer.name == *name))
            .collect();
        let mut rows = rows(&args(&[]), &peers);
        for entry in rows.iter_mut().flat_map(|row| &mut row.entries) {
            let name = &peers[entry.peer].name;
            let (_, values) = runs.iter().find(|(peer, _)| peer == name).unwrap();
            for value in *values {
                entry.runs.add(&outcome(*value), None);
            }
        }
        let mut report = Started::now().report("perf", None).unwrap();
        fill(&mut report, &peers, &rows);
        report
    }

    fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
        report
            .checks
            .iter()
            .find(|check| check.name == name)
            .unwrap()
    }

    const ALL: [(&str, &[u64]); 8] = [
        ("tcp", &[1, 10, 100]),
        ("tcp-spin", &[2, 20, 200]),
        ("sdp-bcopy", &[2, 20, 200]),
        ("sdp-auto", &[2, 20, 200]),
        ("sdp-zcopy", &[1, 1, 1]),
        ("sdp-registered", &[3, 40, 500]),
        ("sdp-spin", &[1, 2, 30]),
        ("floor-ring", &[8, 40, 100]),
    ];

    #[test]
    fn the_promises_are_medians_of_the_ratios_of_single_rounds() {
        let report = report(&ALL);
        let best = check(&report, "bw.1MiB.x8.sdp_best_vs_tcp");
        assert_eq!((best.value, best.ok), (Some(4.0), true));
        assert!(best.detail.contains("sdp-registered"), "{}", best.detail);
        // 1/1, 2/10, 30/100 of the better variant of TCP, which is the blocking one here.
        let lat = check(&report, "lat.64B.sdp_vs_tcp");
        // A histogram keeps three digits.
        let near = lat.value.is_some_and(|value| (value - 0.3).abs() < 1e-3);
        assert!(near && lat.ok, "{lat:?}");
        for name in [
            "bw.1MiB.x1.bcopy_vs_ring_floor",
            "bw.1MiB.x8.bcopy_vs_ring_floor",
        ] {
            let floor = check(&report, name);
            assert_eq!((floor.value, floor.ok), (Some(0.5), true), "{name}");
        }
        assert!(report.passed());
    }

    #[test]
    fn a_promise_is_broken_beyond_its_limit_and_without_a_run() {
        let mut runs = ALL;
        runs[5].1 = &[2, 24, 240];
        runs[6].1 = &[1, 6, 60];
        runs[7].1 = &[];
        let report = report(&runs);
        for check in &report.checks {
            assert!(!check.ok, "{}", check.name);
        }
        assert_eq!(check(&report, "bw.1MiB.x1.bcopy_vs_ring_floor").value, None);
    }

    #[test]
    fn a_promise_whose_peer_was_left_out_is_skipped_by_name() {
        let report = report(&ALL[..3]);
        let skipped = |name: &str| report.skipped.iter().any(|item| item.name == name);
        assert!(skipped("bw.1MiB.x8.sdp_best_vs_tcp") && skipped("lat.64B.sdp_vs_tcp"));
        assert!(report.checks.is_empty());
    }

    #[test]
    fn a_peer_that_broke_is_a_failed_check() {
        let mut peers = peers(Provider::Host);
        peers[3].failure = Some("1 MiB x8: connection reset".to_owned());
        let rows = rows(&args(&[]), &peers);
        let mut report = Started::now().report("perf", None).unwrap();
        fill(&mut report, &peers, &rows);
        let check = check(&report, "bw.sdp-auto.runs");
        assert!(!check.ok && check.detail.contains("connection reset"));
    }
}
