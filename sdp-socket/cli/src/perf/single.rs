//! `sdp perf bw` and `sdp perf lat`: one kind of stream, one run.

use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use super::Workload;
use super::client::{Client, Limit, Outcome};
use super::control::Open;
use super::marker::spin_us;
use super::peers::Runs;
use super::spawn::OwnServer;
use crate::cli::TestArgs;
use crate::report::{Check, Measured, Report, Started};
use crate::transport::{Buffers, Counters, Endpoint, Kind, Mode, ZCOPY_MIN, name, set_trace};

/// How long to measure if neither time nor amount is given.
const DEFAULT_TIME: Duration = Duration::from_secs(2);

/// Measures and reports; whether every check holds.
///
/// # Errors
/// When it cannot be measured or reported.
pub(super) fn run(workload: Workload, size: usize, args: &TestArgs) -> anyhow::Result<bool> {
    judge(size, args)?;
    let sdp = args.transport == Kind::Sdp;
    let trace = sdp && (args.trace || args.verify);
    if trace {
        set_trace();
    }
    let started = Started::now();
    let (address, own) = match args.connect {
        Some(address) => (address, None),
        None => {
            let own = OwnServer::start(trace)?;
            (own.address, Some(own))
        }
    };
    let endpoint = Endpoint {
        kind: args.transport,
        provider: args.provider,
        mode: args.mode,
        buffers: args.buffers,
        wait: args.wait,
        size,
    };
    let mut open = Open::new(workload, endpoint.clone(), args.conns);
    open.verify = args.verify;
    open.trace = trace;
    let mut runs = Runs::new(workload, endpoint, args.conns);
    let marker = spin_us();
    let mut client = Client::open(address, open)?;
    let (limit, progress) = limit(size, args);
    let outcome = client.run(limit, &mut |messages| progress.tick(messages))?;
    progress.bar.finish_and_clear();
    drop(client);
    drop(own);

    runs.add(&outcome, marker);
    let mut report = started.report("perf", sdp.then(|| name(args.provider)))?;
    fill(&mut report, workload, args, runs.measured(), &outcome);
    if trace && args.mode == Mode::Zcopy {
        report.checks.extend(zcopy_checks(&outcome));
    }
    if trace && args.verify {
        report.checks.push(released_keys_check(&outcome));
    }
    report.write(args.json.as_deref())?;
    Ok(report.passed())
}

/// Refuses options that would have no effect.
fn judge(size: usize, args: &TestArgs) -> anyhow::Result<()> {
    let sdp = args.transport == Kind::Sdp;
    if !sdp && (args.mode != Mode::Auto || args.buffers != Buffers::Heap) {
        bail!(
            "--mode and --buffers are for --transport sdp; {} has no choice",
            name(args.transport)
        );
    }
    if sdp && args.mode == Mode::Zcopy && size < ZCOPY_MIN {
        bail!("--mode zcopy moves messages of at least {ZCOPY_MIN} bytes; --size is {size}");
    }
    Ok(())
}

/// Fills in the result and whether it was verified.
fn fill(
    report: &mut Report,
    workload: Workload,
    args: &TestArgs,
    mut result: Measured,
    outcome: &Outcome,
) {
    let wrong = first_wrong(outcome);
    result.verified = args.verify && wrong.is_none();
    let server = &outcome.server;
    for (end, engine, verbs) in [
        ("client", &outcome.engine, &outcome.verbs),
        ("server", &server.engine, &server.verbs),
    ] {
        let named = |counters: &Counters| (end, counters.clone());
        result.engine.extend(engine.as_ref().map(named));
        result.verbs.extend(verbs.as_ref().map(named));
    }
    report.results.push(result);
    if args.verify {
        let check = format!("{}.verified", workload.name());
        let ok = wrong.is_none();
        let detail = wrong.unwrap_or_else(|| format!("{} bytes compared", outcome.bytes));
        report.checks.push(Check::plain(check, ok, detail));
    }
}

/// A bar that grows with the time or with the messages.
struct Progress {
    bar: ProgressBar,
    timed: bool,
}

impl Progress {
    fn tick(&self, messages: u64) {
        let position = if self.timed {
            u64::try_from(self.bar.elapsed().as_millis()).unwrap_or(u64::MAX)
        } else {
            messages
        };
        self.bar.set_position(position);
        self.bar.set_message(format!("{messages} messages"));
    }
}

fn limit(size: usize, args: &TestArgs) -> (Limit, Progress) {
    let (limit, length, timed) = match args.bytes {
        Some(bytes) => {
            let each = bytes.div_ceil(size as u64 * u64::from(args.conns));
            (Limit::Messages(each), each * u64::from(args.conns), false)
        }
        None => {
            let time = args.seconds.map_or(DEFAULT_TIME, Duration::from_secs_f64);
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            (Limit::Time(time), millis, true)
        }
    };
    let bar = ProgressBar::new(length);
    // Constant and valid; a plain bar serves as well.
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
        bar.set_style(style);
    }
    (limit, Progress { bar, timed })
}

/// Where the first wrong byte was found, if one was.
fn first_wrong(outcome: &Outcome) -> Option<String> {
    let at_server = outcome.server.conns.iter().enumerate();
    let at_server = at_server.filter_map(|(index, done)| Some((index, done.wrong?, "server")));
    let here = outcome.wrong.iter();
    let here = here.map(|(index, wrong)| (*index, *wrong, "client"));
    at_server
        .chain(here)
        .map(|(index, wrong, end)| format!("connection {index}, received by the {end}: {wrong}"))
        .next()
}

/// What both ends have counted together.
fn total(ends: [&Option<Counters>; 2], counter: &str) -> u64 {
    let each = ends.into_iter().flatten();
    each.filter_map(|counters| counters.get(counter)).sum()
}

/// Both ends keep to the protocol, so a request that an adapter refused came with a key that had been
/// given back: a repetition that was late.
fn released_keys_check(outcome: &Outcome) -> Check {
    let ended = total(
        [&outcome.verbs, &outcome.server.verbs],
        "refused_peer_count",
    );
    Check::at_most(
        "remote_access_after_release",
        ended as f64,
        0.0,
        "connections",
        "ended by an adapter that refused a request",
    )
}

/// What zero copy promises, judged by what the verbs below the engine did.
fn zcopy_checks(outcome: &Outcome) -> Vec<Check> {
    let ends = [&outcome.verbs, &outcome.server.verbs];
    let [Some(_), Some(_)] = ends else {
        let missing = "the verbs were not counted at both ends";
        return vec![Check::plain("verbs.rdma_bytes", false, missing)];
    };
    let bytes = outcome.bytes as f64;
    let moved = total(ends, "read_bytes") + total(ends, "write_bytes");
    let sent = total(ends, "send_bytes");
    let engine = total([&outcome.engine, &outcome.server.engine], "tx_bytes_zcopy");
    let share = |name: &str, count: u64, limit: f64, ok: fn(f64, f64) -> bool| {
        let value = count as f64 / bytes;
        Check {
            name: name.to_owned(),
            ok: ok(value, limit),
            value: Some(value),
            limit: Some(limit),
            unit: "of the payload",
            detail: format!("{count} of {} bytes", outcome.bytes),
        }
    };
    vec![
        share("verbs.rdma_bytes", moved, 0.999, |value, limit| {
            value >= limit
        }),
        share("verbs.send_bytes", sent, 0.002, |value, limit| {
            value < limit
        }),
        Check::plain(
            "engine agrees",
            engine == moved,
            format!("{engine} bytes of zero copy by the engine, {moved} bytes moved by the verbs"),
        ),
    ]
}
