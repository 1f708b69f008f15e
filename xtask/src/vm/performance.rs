//! What the job `performance` has measured, beside what is promised.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::step::Tally;

/// Rounds; in each, every program runs once.
const ROUNDS: usize = 5;
/// The programs of perftest write MB where they mean MiB.
const MIB: f64 = 1_048_576.0;

/// Where a figure stands in what a program has said. All are as of speeds: more is better.
#[derive(Debug, Clone, Copy)]
enum Figure {
    /// Our report: throughput.
    Report,
    /// Our report: one over the time one way, or of a connect.
    ReportTime,
    /// Our report: throughput of single MiBs by the time that each takes one way.
    ReportMib,
    /// Throughput of rstream, by the time that each transfer takes: it prints two digits of its Gb/s.
    Rstream,
    /// One over rstream's time one way.
    RstreamTime,
    /// Average of perftest.
    Perftest,
    /// One over a time that stands alone.
    Alone,
}

/// At least so many times as fast as another program.
#[derive(Debug, Clone, Copy)]
struct Promise {
    name: &'static str,
    ours: (&'static str, Figure),
    theirs: (&'static str, Figure),
    at_least: f64,
}

impl Promise {
    const fn new(
        name: &'static str,
        at_least: f64,
        ours: (&'static str, Figure),
        theirs: (&'static str, Figure),
    ) -> Self {
        Self {
            name,
            ours,
            theirs,
            at_least,
        }
    }
}

const PROMISES: [Promise; 7] = {
    use Figure::{Alone, Perftest, Report, ReportMib, ReportTime, Rstream, RstreamTime};
    let (bulk, large) = ("64 KiB beside rstream", "1 MiB beside rstream");
    let registered = "1 MiB of registered memory beside rstream";
    let (read, write) = (
        "Read ZCopy beside ib_read_bw",
        "Write ZCopy beside ib_write_bw",
    );
    let (small, conn) = ("64 B one way beside rstream", "set-up beside rsockets");
    [
        Promise::new(bulk, 1.1, ("sdp.64K", Report), ("rstream.64K", Rstream)),
        Promise::new(large, 1.1, ("sdp.1M", Report), ("rstream.1M", Rstream)),
        Promise::new(
            registered,
            1.1,
            ("sdp.registered", Report),
            ("rstream.1M", Rstream),
        ),
        Promise::new(read, 0.9, ("sdp.read", Report), ("ib_read_bw", Perftest)),
        Promise::new(
            write,
            0.9,
            ("sdp.write", ReportMib),
            ("ib_write_bw", Perftest),
        ),
        Promise::new(
            small,
            1.0,
            ("sdp.64", ReportTime),
            ("rstream.64", RstreamTime),
        ),
        Promise::new(conn, 1.0, ("sdp.conn", ReportTime), ("rsetup", Alone)),
    ]
};

/// Compares what stands in `folder`, round by round.
///
/// # Errors
/// When a program has left no figure.
pub(super) fn judge(folder: &Path) -> anyhow::Result<Tally> {
    let said = folder.join("said");
    let mut tally = Tally::default();
    for promise in PROMISES {
        let speeds = |(name, figure): (&str, Figure)| -> anyhow::Result<Vec<f64>> {
            let each = (1..=ROUNDS).map(|round| {
                let path = said.join(format!("{name}.{round}"));
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let speed = figure.of(&text).filter(|speed| *speed > 0.0);
                speed.with_context(|| format!("no figure in {}", path.display()))
            });
            each.collect()
        };
        let (ours, theirs) = (speeds(promise.ours)?, speeds(promise.theirs)?);
        let ratio = median(ours.iter().zip(&theirs).map(|(a, b)| a / b).collect());
        tally.figures.push(format!(
            "{}: {ratio:.3} times as fast, promised {}",
            promise.name, promise.at_least
        ));
        if ratio >= promise.at_least {
            tally.passed += 1;
        } else {
            tally.failed += 1;
        }
    }
    Ok(tally)
}

impl Figure {
    /// GB/s, or the inverse of µs.
    fn of(self, said: &str) -> Option<f64> {
        match self {
            Self::Report => report(said)?["gb_per_s"]["median"].as_f64(),
            Self::ReportTime => report(said)?["us_p50"]["median"].as_f64().map(f64::recip),
            Self::ReportMib => Some(MIB / 1e3 / report(said)?["us_p50"]["median"].as_f64()?),
            // name bytes xfers iters total time Gb/sec usec/xfer
            Self::Rstream => Some(rstream_len(said)? / 1e3 / last_row(said, 8)?[7]),
            Self::RstreamTime => Some(last_row(said, 8)?[7].recip()),
            // bytes iterations peak average rate
            Self::Perftest => Some(last_row(said, 5)?[3] * MIB / 1e9),
            Self::Alone => said.trim().parse::<f64>().ok().map(f64::recip),
        }
    }
}

/// The first result of a report of ours.
fn report(said: &str) -> Option<Value> {
    let mut report: Value = serde_json::from_str(said).ok()?;
    Some(report["results"].get_mut(0)?.take())
}

/// The last line of `columns` words of which the last one is a number; words that are none are NaN.
fn last_row(said: &str, columns: usize) -> Option<Vec<f64>> {
    said.lines().rev().find_map(|line| {
        let words = line.split_whitespace();
        let row: Vec<f64> = words.map(|word| word.parse().unwrap_or(f64::NAN)).collect();
        (row.len() == columns && row.last().is_some_and(|last| !last.is_nan())).then_some(row)
    })
}

/// Bytes of one transfer of rstream, which writes 64k and 1m.
fn rstream_len(said: &str) -> Option<f64> {
    let row = said.lines().rfind(|line| line.starts_with("custom"))?;
    let len = row.split_whitespace().nth(1)?;
    let (number, unit) = match len.strip_suffix('k') {
        Some(number) => (number, 1024.0),
        None => match len.strip_suffix('m') {
            Some(number) => (number, MIB),
            None => (len, 1.0),
        },
    };
    Some(number.parse::<f64>().ok()? * unit)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSTREAM: &str = "\
name      bytes   xfers   iters   total       time     Gb/sec    usec/xfer
custom    64k     300     1       37m         0.48s      0.66     797.63
";
    const PERFTEST: &str = "\
 #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 1048576    50               58.33              58.14  		   0.000058
---------------------------------------------------------------------------------------
";

    #[test]
    fn figures_are_found_in_what_programs_print() {
        let of = |figure: Figure, text: &str| figure.of(text).unwrap();
        assert!((of(Figure::Rstream, RSTREAM) - 65.536 / 797.63).abs() < 1e-9);
        assert_eq!(rstream_len(&RSTREAM.replace("64k", "1m")), Some(MIB));
        assert_eq!(rstream_len(&RSTREAM.replace("64k", "64 ")), Some(64.0));
        assert!((of(Figure::RstreamTime, RSTREAM) - 1.0 / 797.63).abs() < 1e-9);
        assert!((of(Figure::Perftest, PERFTEST) - 0.060_964).abs() < 1e-5);
        assert!((of(Figure::Alone, "250.0\n") - 0.004).abs() < 1e-9);
        let report = r#"{ "results": [{ "gb_per_s": { "median": 0.5 } }] }"#;
        assert!((of(Figure::Report, report) - 0.5).abs() < 1e-9);
        let report = r#"{ "results": [{ "us_p50": { "median": 20.0 } }] }"#;
        assert!((of(Figure::ReportTime, report) - 0.05).abs() < 1e-9);
        // In the unit of what it is compared with.
        assert!((of(Figure::ReportMib, report) - 52.4288).abs() < 1e-9);
        assert_eq!(Figure::Perftest.of("Couldn't connect"), None);
    }

    #[test]
    fn the_middle_round_counts() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
    }
}
