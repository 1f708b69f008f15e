//! UCX, by its own ucx_perftest between two processes, over shared memory.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::figure::Figure;
use super::matrix::{Cell, Workload};
use super::pair;
use crate::packages;
use crate::report::Skipped;
use crate::ui::Ui;

/// How `--peers` calls them: streams, and messages with a tag, which is what UCX is made for.
pub(super) const NAMES: [&str; 2] = ["ucx-stream", "ucx-tag"];
/// The transports: those between processes of one machine. Its other choices need a device.
const TRANSPORTS: &str = "posix,sysv,cma,self";
/// Bytes of a first run, which finds out how many iterations a run takes, but so many at least.
const FIRST_BYTES: u64 = 4 << 20;
const FIRST: (u64, u64) = (20, 2000);
/// Iterations grow by no more than this from one run to the next.
const GROWTH: f64 = 64.0;
/// A run takes this long at least, since processor time is counted in hundredths of a second.
const RUN_MIN: Duration = Duration::from_millis(150);
/// Runs before the first round: one with next to no iterations, and one that finds out how many fill
/// the time.
pub(super) const TRIALS: u32 = 2;
/// A run this long, beyond its own time, has met a busy machine: both sides spin, and do not yield.
const RUN_MAX: Duration = Duration::from_secs(5);
/// Bytes of a megabyte as ucx_perftest counts.
const MEGABYTE: f64 = 1_048_576.0;

/// Why nothing can be measured, if so, after installing what is missing unless `installed`.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn absent(ui: &Ui, installed: bool) -> anyhow::Result<Option<Skipped>> {
    let absent = match installed {
        true => packages::missing(packages::UCX),
        false => packages::install_what_can_be(ui, packages::UCX)?,
    };
    Ok(absent.first().map(|need| Skipped {
        name: "ucx".to_owned(),
        reason: format!("no {} (package {})", need.file, need.package),
    }))
}

/// What ucx_perftest says of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    /// One way, µs; of bulk the time between two sends.
    us_p50: f64,
    us_mean: f64,
    gb_per_s: f64,
    messages_per_s: f64,
}

/// Reads its `-f -v` output: a header, and one line of eight values with commas between them, of which
/// averages are of the last second or of the whole.
fn parse(lines: &[String]) -> Option<Line> {
    let values = lines.iter().rev().find_map(|line| {
        let fields = line.split(',').map(|field| field.trim().parse::<f64>());
        let fields: Vec<f64> = fields.collect::<Result<_, _>>().ok()?;
        <[f64; 8]>::try_from(fields).ok()
    })?;
    let [_, us_p50, _, us_mean, _, megabytes, _, messages_per_s] = values;
    (us_mean > 0.0).then_some(Line {
        us_p50,
        us_mean,
        gb_per_s: megabytes * MEGABYTE / 1e9,
        messages_per_s,
    })
}

/// One round.
#[derive(Debug, Clone, Copy)]
struct Sample {
    line: Line,
    iterations: u64,
    cpu: Duration,
}

impl Sample {
    /// Iterations in a second.
    fn rate(&self, workload: Workload) -> f64 {
        match workload {
            Workload::Bw => self.line.messages_per_s,
            Workload::Lat => 1e6 / (2.0 * self.line.us_mean),
        }
    }
}

/// The rounds of one of its tests in one cell.
#[derive(Debug)]
pub(super) struct Series {
    /// `stream` or `tag`.
    mode: &'static str,
    cell: Cell,
    run: Duration,
    /// What a run costs that has next to no iterations.
    first: Option<Sample>,
    /// A run before the first round.
    trial: Option<Sample>,
    samples: Vec<Sample>,
    /// Why there will be no more.
    failure: Option<String>,
}

impl Series {
    /// The test called `name` in a cell, before its first round, with runs of about this length.
    pub(super) fn new(name: &str, cell: Cell, run: Duration) -> Self {
        let mode = if name == NAMES[0] { "stream" } else { "tag" };
        let mut series = Self::empty(mode, cell, run);
        let first = (FIRST_BYTES / cell.size.max(1)).clamp(FIRST.0, FIRST.1);
        series.first = series.measure(first);
        series.trial = series.next();
        series
    }

    fn empty(mode: &'static str, cell: Cell, run: Duration) -> Self {
        Self {
            mode,
            cell,
            run: run.max(RUN_MIN),
            first: None,
            trial: None,
            samples: Vec::new(),
            failure: None,
        }
    }

    /// Runs once more, unless it has failed before.
    pub(super) fn round(&mut self) {
        let sample = self.next();
        self.samples.extend(sample);
    }

    fn next(&mut self) -> Option<Sample> {
        let known = self.samples.last().or(self.trial.as_ref());
        let last = known.or(self.first.as_ref()).copied();
        match (last, &self.failure) {
            (Some(last), None) => self.measure(iterations(&last, self.cell.workload, self.run)),
            _ => None,
        }
    }

    fn measure(&mut self, iterations: u64) -> Option<Sample> {
        match self.try_measure(iterations) {
            Ok(sample) => Some(sample),
            Err(error) => {
                self.failure = Some(format!("{error:#}"));
                None
            }
        }
    }

    fn try_measure(&self, iterations: u64) -> anyhow::Result<Sample> {
        let port = pair::free_port()?;
        let command = || {
            let mut command = Command::new("ucx_perftest");
            command
                .env("UCX_TLS", TRANSPORTS)
                .env("LC_ALL", "C")
                .args(["-p", &port.to_string()]);
            command
        };
        let mut client = command();
        // The time at the beginning is not that of the test: a tenth of it is for warming up.
        client
            .arg("127.0.0.1")
            .args([
                "-t",
                &format!("{}_{}", self.mode, self.cell.workload.name()),
            ])
            .args(["-s", &self.cell.size.to_string()])
            .args(["-n", &iterations.to_string()])
            .args(["-w", &(iterations / 10).max(1).to_string()])
            .args(["-f", "-v"]);
        let outcome = pair::run(command(), client, port, RUN_MAX + self.run)?;
        let line = parse(&outcome.lines);
        let said = || format!("no figures: {}", outcome.lines.join(" "));
        Ok(Sample {
            line: line.ok_or_else(|| anyhow::anyhow!(said()))?,
            iterations,
            cpu: outcome.cpu,
        })
    }

    /// The result of all rounds; without a round why there is none.
    pub(super) fn result(&self) -> Result<Value, Skipped> {
        if let Some(reason) = &self.failure {
            let name = format!("{} ucx {}", self.cell.title(), self.mode);
            let reason = format!("ucx_perftest: {reason}");
            return Err(Skipped { name, reason });
        }
        let workload = self.cell.workload;
        let of =
            |value: fn(&Sample) -> f64| -> Vec<f64> { self.samples.iter().map(value).collect() };
        let mut result = json!({ "workload": workload.name(), "peer": "ucx", "provider": null,
            "mode": self.mode, "buffers": "registered", "size": self.cell.size,
            "conns": self.cell.conns, "wait": "spin", "verified": false, "gb_per_s": null,
            "cpu_s_per_gb": null, "us_p50": null, "us_p99": null, "us_p999": null });
        match workload {
            Workload::Bw => {
                let gb_per_s = of(|sample| sample.line.gb_per_s);
                let costs = self.costs();
                result["gb_per_s"] = Figure::json(&gb_per_s);
                result["cpu_s_per_gb"] = Figure::json(&costs);
                result["each"] = json!({ "gb_per_s": gb_per_s, "cpu_s_per_gb": costs });
            }
            Workload::Lat => {
                let us_p50 = of(|sample| sample.line.us_p50);
                result["us_p50"] = Figure::json(&us_p50);
                result["each"] = json!({ "us_p50": us_p50 });
            }
        }
        let rates: Vec<f64> = self.samples.iter().map(|one| one.rate(workload)).collect();
        result["per_s"] = Figure::json(&rates);
        Ok(result)
    }

    /// Processor time of each round for a gigabyte: beyond that of the first run, since both processes
    /// spend a tenth of a second on beginning. None if a round leaves nothing to tell.
    fn costs(&self) -> Vec<f64> {
        let of = |sample: &Sample| {
            let first = self.first.as_ref()?;
            let cpu = sample.cpu.checked_sub(first.cpu)?.as_secs_f64();
            let more = sample.iterations.checked_sub(first.iterations)?;
            // A tenth more of both is for warming up.
            let gigabytes = more as f64 * 1.1 * self.cell.size as f64 / 1e9;
            (more > first.iterations && cpu > 0.0).then(|| cpu / gigabytes)
        };
        let costs = self.samples.iter().map(of).collect::<Option<_>>();
        costs.unwrap_or_default()
    }
}

/// How many iterations take this long, by the run before.
fn iterations(last: &Sample, workload: Workload, run: Duration) -> u64 {
    let wanted = last.rate(workload) * run.as_secs_f64();
    let most = last.iterations as f64 * GROWTH;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least one, and what is beyond the largest number stays there"
    )]
    let iterations = wanted.min(most).max(1.0) as u64;
    iterations
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ucx_perftest 1.13.1 writes.
    const BULK: &str = "\
iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr
2000,20.994,349.188,349.188,2863.78,2000.00,2864,2000";
    const PING_PONG: &str = "\
iterations,50.0_percentile_lat,avg_lat,overall_lat,avg_bw,overall_bw,avg_mr,overall_mr
20000,0.115,23.093,0.125,2.64,0.25,43303,4000000";

    fn line(text: &str) -> Option<Line> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        parse(&lines)
    }

    fn series(workload: Workload, text: &str, runs: &[(u64, u64)]) -> Series {
        let sample = |(iterations, cpu_ms): (u64, u64)| Sample {
            line: line(text).unwrap(),
            iterations,
            cpu: Duration::from_millis(cpu_ms),
        };
        let mut samples = runs.iter().copied().map(sample);
        let cell = Cell {
            workload,
            size: 1_000_000,
            conns: 1,
        };
        Series {
            first: samples.next(),
            samples: samples.collect(),
            ..Series::empty("stream", cell, Duration::from_millis(100))
        }
    }

    #[test]
    fn figures_are_those_of_the_whole_run_in_our_units() {
        let bulk = line(BULK).unwrap();
        assert_eq!((bulk.gb_per_s, bulk.messages_per_s), (2.097_152, 2000.0));
        let ping_pong = line(PING_PONG).unwrap();
        assert_eq!((ping_pong.us_p50, ping_pong.us_mean), (0.115, 0.125));
        for text in [
            "",
            "Connection refused",
            "1,2,3",
            BULK.lines().next().unwrap(),
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }

    /// 2.2 s more for 1,000 more messages of 1 MB, and the hundred more of warming up.
    #[test]
    fn a_result_has_the_fields_of_reports_and_no_cost_of_beginning() {
        let bulk = series(Workload::Bw, BULK, &[(20, 300), (1020, 2500), (1020, 2500)]);
        let result = bulk.result().unwrap();
        assert_eq!(result["peer"], "ucx");
        for field in [
            "workload",
            "provider",
            "mode",
            "buffers",
            "size",
            "conns",
            "wait",
            "gb_per_s",
            "cpu_s_per_gb",
            "us_p50",
            "us_p99",
            "us_p999",
            "per_s",
            "verified",
        ] {
            assert!(result.get(field).is_some(), "{field}");
        }
        for field in ["median", "min", "max", "rounds"] {
            assert!(result["gb_per_s"].get(field).is_some(), "{field}");
        }
        assert_eq!(result["gb_per_s"]["rounds"], 2);
        assert_eq!(result["cpu_s_per_gb"]["median"], 2.0);
        assert_eq!(result["us_p50"], Value::Null);
        let lat = series(Workload::Lat, PING_PONG, &[(20, 300), (40, 300)]);
        let result = lat.result().unwrap();
        assert_eq!(result["us_p50"]["median"], 0.115);
        // Round trips, of which its own rate counts the halves.
        assert_eq!(result["per_s"]["median"], 4_000_000.0);
        assert_eq!(result["cpu_s_per_gb"], Value::Null);
    }

    #[test]
    fn what_is_no_longer_than_its_beginning_has_no_cost() {
        let short = series(Workload::Bw, BULK, &[(20, 300), (30, 310)]);
        assert_eq!(short.result().unwrap()["cpu_s_per_gb"], Value::Null);
    }

    #[test]
    fn a_series_that_failed_is_skipped_by_name() {
        let mut failed = series(Workload::Bw, BULK, &[(20, 300)]);
        failed.failure = Some("signal: 11".to_owned());
        let skipped = failed.result().unwrap_err();
        assert!(skipped.name.contains("ucx stream") && skipped.reason.contains("signal: 11"));
    }

    /// 2,000 in a second are 200 in a tenth of it, but not more than 64 times those before.
    #[test]
    fn iterations_follow_from_the_run_before() {
        let bulk = series(Workload::Bw, BULK, &[(1000, 0), (2, 0)]);
        let tenth = Duration::from_millis(100);
        let of = |sample: &Sample| iterations(sample, Workload::Bw, tenth);
        assert_eq!(of(bulk.first.as_ref().unwrap()), 200);
        assert_eq!(of(&bulk.samples[0]), 128);
    }
}
