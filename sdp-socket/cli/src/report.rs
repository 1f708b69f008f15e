//! The machine-readable report of every command.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use crate::transport::Counters;

/// What a command reports as its results.
pub(crate) trait Results: Serialize + Sized {
    /// The results of one run, for people: lines, each with its end.
    fn render(results: &[Self]) -> String;
}

/// One run of one command: what was measured, what was promised, what was left out.
#[derive(Debug, Serialize)]
pub(crate) struct Report<R = Measured> {
    /// `sdp.<command>/1`.
    pub(crate) schema: String,
    /// Version of this program.
    pub(crate) version: &'static str,
    /// Git commit it was built from, if known.
    pub(crate) commit: Option<&'static str>,
    /// When the run began, RFC 3339.
    pub(crate) started: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// What was measured.
    pub(crate) results: Vec<R>,
    /// Promises, each kept or broken.
    pub(crate) checks: Vec<Check>,
    /// What was not run, each with a reason.
    pub(crate) skipped: Vec<Skipped>,
}

/// The machine of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Processors this process may use.
    pub(crate) cpus: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Verbs provider, where the run used one.
    pub(crate) provider: Option<String>,
    /// Adapter, where the run used one.
    pub(crate) device: Option<String>,
}

/// A value over several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// The middle value; the mean of the two middle ones if their number is even.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
    /// How many rounds.
    pub(crate) rounds: usize,
}

impl Figure {
    /// The figure of these rounds; none without a round.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rounds = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let median = f64::midpoint(sorted[(rounds - 1) / 2], sorted[rounds / 2]);
        Some(Self {
            median,
            min,
            max,
            rounds,
        })
    }
}

/// One measured thing. Fields that make no sense for a workload or a peer are null.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Measured {
    /// `bw` or `lat`.
    pub(crate) workload: &'static str,
    /// `sdp`, `tcp`, `uds` or `floor`.
    pub(crate) peer: &'static str,
    /// Verbs provider of an SDP peer.
    pub(crate) provider: Option<String>,
    /// `auto`, `bcopy`, `zcopy`; of a floor `ring` or `single_copy`.
    pub(crate) mode: Option<String>,
    /// `heap` or `registered`.
    pub(crate) buffers: String,
    /// Bytes of one message.
    pub(crate) size: usize,
    /// Connections.
    pub(crate) conns: u32,
    /// `spin`, `sleep` or `adaptive`.
    pub(crate) wait: String,
    /// Throughput, 10⁹ bytes each second.
    pub(crate) gb_per_s: Option<Figure>,
    /// User and system time of both processes for 10⁹ bytes.
    pub(crate) cpu_s_per_gb: Option<Figure>,
    /// Half the round trip, median, µs.
    pub(crate) us_p50: Option<Figure>,
    /// Half the round trip, 99 of 100 are faster, µs.
    pub(crate) us_p99: Option<Figure>,
    /// Half the round trip, 999 of 1000 are faster, µs.
    pub(crate) us_p999: Option<Figure>,
    /// Messages (`bw`) or round trips (`lat`) each second.
    pub(crate) per_s: Option<Figure>,
    /// Round by round, the figure of this peer divided by that of TCP (`us_p50` for `lat`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_to_tcp: Option<Figure>,
    /// Bytes all runs together moved.
    pub(crate) bytes: u64,
    /// Of these, sent straight from the program's own buffer.
    pub(crate) bytes_zcopy: Option<u64>,
    /// Of these, copied through private buffers.
    pub(crate) bytes_bcopy: Option<u64>,
    /// Of these, sent inline with an advert.
    pub(crate) bytes_inline: Option<u64>,
    /// Whether every byte that arrived was compared and found right.
    pub(crate) verified: bool,
    /// One way of a spinning ping-pong between two processors in the same round, µs.
    pub(crate) spin_us: Option<Figure>,
    /// What each figure was round by round: what ratios to another peer are made of.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) each: BTreeMap<&'static str, Vec<f64>>,
    /// What the engine of each end counted, by end (`client`, `server`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) engine: BTreeMap<&'static str, Counters>,
    /// What the wrapper below the engine counted, by end.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) verbs: BTreeMap<&'static str, Counters>,
}

/// A promise with a stable name.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// Stable name.
    pub(crate) name: String,
    /// Whether it holds.
    pub(crate) ok: bool,
    /// What was found, in `unit`.
    pub(crate) value: Option<f64>,
    /// What was promised, in `unit`.
    pub(crate) limit: Option<f64>,
    /// Unit of `value` and `limit`.
    pub(crate) unit: &'static str,
    /// What a reader needs to understand the outcome.
    pub(crate) detail: String,
}

impl Check {
    /// A promise that `value` is at most `limit`.
    pub(crate) fn at_most(
        name: impl Into<String>,
        value: f64,
        limit: f64,
        unit: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            value: Some(value),
            limit: Some(limit),
            unit,
            ..Self::plain(name, value <= limit, detail)
        }
    }

    /// A promise that `value` is at least `limit`.
    pub(crate) fn at_least(
        name: impl Into<String>,
        value: f64,
        limit: f64,
        unit: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            value: Some(value),
            limit: Some(limit),
            unit,
            ..Self::plain(name, value >= limit, detail)
        }
    }

    /// A promise that holds or not, without a figure.
    pub(crate) fn plain(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok,
            value: None,
            limit: None,
            unit: "",
            detail: detail.into(),
        }
    }
}

/// Something that was not run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Skipped {
    /// What.
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
}

/// Starts the clock of a report.
#[derive(Debug)]
pub(crate) struct Started {
    at: String,
    clock: Instant,
}

impl Started {
    /// Notes the time now.
    pub(crate) fn now() -> Self {
        Self {
            at: jiff::Timestamp::now().to_string(),
            clock: Instant::now(),
        }
    }

    /// An otherwise empty report of `command`, with the time since the start.
    ///
    /// # Errors
    /// When the machine cannot be described (no /proc).
    pub(crate) fn report<R>(
        self,
        command: &str,
        provider: Option<String>,
    ) -> anyhow::Result<Report<R>> {
        let release = "/proc/sys/kernel/osrelease";
        let kernel =
            fs::read_to_string(release).with_context(|| format!("cannot read {release}"))?;
        let cpus = std::thread::available_parallelism().context("cannot count processors")?;
        Ok(Report {
            schema: format!("sdp.{command}/1"),
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("SDP_COMMIT"),
            started: self.at,
            seconds: self.clock.elapsed().as_secs_f64(),
            machine: Machine {
                cpus: cpus.get(),
                kernel: kernel.trim().to_owned(),
                provider,
                device: None,
            },
            results: Vec::new(),
            checks: Vec::new(),
            skipped: Vec::new(),
        })
    }
}

impl<R: Results> Report<R> {
    /// Whether every check holds.
    pub(crate) fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// Writes the report: as JSON to `target`, where `-` is standard output, or as a table to
    /// standard output without one. What failed or was skipped is said on standard error if the
    /// table is not shown.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, target: Option<&Path>) -> anyhow::Result<()> {
        let Some(target) = target else {
            let text = crate::table::render(self);
            return print(&text);
        };
        let mut text = serde_json::to_string_pretty(self).context("cannot encode the report")?;
        text.push('\n');
        write_to(target, &text)?;
        io::stderr()
            .lock()
            .write_all(crate::table::complaints(self).as_bytes())
            .context("cannot write to standard error")
    }
}

/// Writes a report to a file, or for `-` to standard output.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_to(target: &Path, text: &str) -> anyhow::Result<()> {
    if target.as_os_str() == "-" {
        return print(text);
    }
    fs::write(target, text)
        .with_context(|| format!("cannot write the report to {}", target.display()))
}

/// Writes a report to standard output.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .context("cannot write the report")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_figure_is_the_median_with_its_range() {
        let odd = Figure::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (odd.median, odd.min, odd.max, odd.rounds),
            (2.0, 1.0, 3.0, 3)
        );
        assert_eq!(Figure::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn passes_exactly_when_every_check_is_ok() {
        let mut report: Report = Started::now().report("perf", None).unwrap();
        report.checks.push(Check::plain("a", true, ""));
        assert!(report.passed());
        report.checks.push(Check::plain("b", false, ""));
        assert!(!report.passed());
    }

    #[test]
    fn the_written_file_has_the_documented_fields() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let mut report = Started::now()
            .report("perf", Some("host".to_owned()))
            .unwrap();
        report.results.push(Measured {
            gb_per_s: Figure::of(&[1.0]),
            ..Measured::default()
        });
        report.checks.push(Check::plain("a", true, ""));
        report.write(Some(&path)).unwrap();
        let value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["schema"], "sdp.perf/1");
        assert_eq!(value["machine"]["provider"], "host");
        assert!(value["machine"]["device"].is_null());
        assert!(
            value["started"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .is_ok()
        );
        for field in ["version", "commit", "seconds", "skipped"] {
            assert!(value.get(field).is_some(), "{field}");
        }
        let result = value["results"][0].as_object().unwrap();
        for field in [
            "workload",
            "peer",
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
            "bytes_zcopy",
            "bytes_bcopy",
            "bytes_inline",
            "verified",
            "spin_us",
        ] {
            assert!(result.contains_key(field), "{field}");
        }
        for field in ["median", "min", "max", "rounds"] {
            assert!(result["gb_per_s"].get(field).is_some(), "{field}");
        }
        for field in ["name", "ok", "value", "limit", "unit", "detail"] {
            assert!(value["checks"][0].get(field).is_some(), "{field}");
        }
    }
}
