//! What was measured of connections, and what was promised.

use std::time::Duration;

use serde::Serialize;

use crate::cli::ConnArgs;
use crate::lab::Census;
use crate::report::{Check, Figure, Report, Results};
use crate::transport::{Kind, name};

/// Descriptors that connections may need together: none each.
const DESCRIPTORS_MAX: f64 = 128.0;

/// Everything of one run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sdp: Rounds,
    tcp: Rounds,
    held: Option<Held>,
    /// Of this process and the other one, before and after.
    pub(super) counts: Option<([Census; 2], [Census; 2])>,
}

/// One value of each round.
#[derive(Debug, Default)]
struct Rounds {
    p50: Vec<f64>,
    p99: Vec<f64>,
    per_s: Vec<f64>,
    cycles: u64,
}

#[derive(Debug)]
struct Held {
    count: u64,
    right: u64,
    time: Duration,
    descriptors: usize,
}

impl Tally {
    fn rounds(&mut self, kind: Kind) -> &mut Rounds {
        if kind == Kind::Sdp {
            &mut self.sdp
        } else {
            &mut self.tcp
        }
    }

    /// The times of one round, µs.
    pub(super) fn add_set_up(&mut self, kind: Kind, times: &[f64]) {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rounds = self.rounds(kind);
        rounds.p50.extend(sorted.get(sorted.len() / 2));
        rounds.p99.extend(sorted.get(sorted.len() * 99 / 100));
    }

    pub(super) fn add_cycles(&mut self, kind: Kind, count: u64, time: Duration) {
        let rounds = self.rounds(kind);
        #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
        rounds.per_s.push(count as f64 / time.as_secs_f64());
        rounds.cycles += count;
    }

    pub(super) fn held(&mut self, count: u64, right: u64, time: Duration, descriptors: usize) {
        self.held = Some(Held {
            count,
            right,
            time,
            descriptors,
        });
    }

    pub(super) fn write(self, args: &ConnArgs, report: &mut Report<Connections>) {
        let against = |ours: &[f64], theirs: &[f64]| -> Option<Figure> {
            let ratios: Vec<_> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
            Figure::of(&ratios)
        };
        let ratio = against(&self.sdp.p50, &self.tcp.p50);
        let cycles = self.sdp.cycles;
        for (kind, rounds) in [(Kind::Sdp, self.sdp), (Kind::Tcp, self.tcp)] {
            let ours = kind == Kind::Sdp;
            report.results.push(Connections {
                workload: "conn",
                peer: name(kind),
                provider: ours.then(|| name(args.provider)),
                parallel: args.parallel,
                us_p50: Figure::of(&rounds.p50),
                us_p99: Figure::of(&rounds.p99),
                per_s: Figure::of(&rounds.per_s),
                ratio_to_tcp: ratio.filter(|_| ours),
                open: self.held.as_ref().filter(|_| ours).map(|held| held.count),
                open_s: self
                    .held
                    .as_ref()
                    .filter(|_| ours)
                    .map(|h| h.time.as_secs_f64()),
            });
        }
        let wanted = args.cycles;
        report.checks.push(Check::plain(
            "conn.cycles",
            cycles == wanted,
            format!(
                "{cycles} of {wanted} connected and closed, {} at once",
                args.parallel
            ),
        ));
        if let Some(held) = &self.held {
            let limit = args.descriptors;
            report.checks.push(Check::plain(
                "conn.open",
                held.right == held.count,
                format!("{} of {} echo, `ulimit -n {limit}`", held.right, held.count),
            ));
            #[expect(clippy::cast_precision_loss, reason = "a count of descriptors")]
            let used = held.descriptors as f64;
            let check = Check::at_most("conn.descriptors", used, DESCRIPTORS_MAX, "", "all open");
            report.checks.push(check);
        }
        if let Some((before, after)) = &self.counts {
            for (at, end) in ["client", "server"].into_iter().enumerate() {
                report.checks.push(Check::plain(
                    format!("conn.leak.{end}"),
                    after[at].within(&before[at]),
                    format!("{:?} before, {:?} after", before[at], after[at]),
                ));
            }
        }
    }
}

/// One kind of connection.
#[derive(Debug, Serialize)]
pub(super) struct Connections {
    workload: &'static str,
    peer: String,
    provider: Option<String>,
    /// Threads that connect at once where `per_s` was measured.
    parallel: u32,
    /// How long connect takes, one at a time, µs.
    us_p50: Option<Figure>,
    us_p99: Option<Figure>,
    /// Connections set up and closed each second.
    per_s: Option<Figure>,
    /// Round by round, `us_p50` divided by that of TCP.
    ratio_to_tcp: Option<Figure>,
    /// How many were open at once, and how long it took to open them.
    open: Option<u64>,
    open_s: Option<f64>,
}

impl Results for Connections {
    fn render(results: &[Self]) -> String {
        let middle = |figure: Option<Figure>| figure.map_or(f64::NAN, |figure| figure.median);
        let mut text = String::new();
        for result in results {
            text += &format!(
                "conn {:4}  set-up {:8.1} µs (p99 {:8.1})  {:8.0} cycles/s, {} at once",
                result.peer,
                middle(result.us_p50),
                middle(result.us_p99),
                middle(result.per_s),
                result.parallel,
            );
            if let Some(ratio) = result.ratio_to_tcp {
                text += &format!("  {:.2} x TCP's set-up", ratio.median);
            }
            if let (Some(open), Some(seconds)) = (result.open, result.open_s) {
                text += &format!("  {open} open after {seconds:.2} s");
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Provider;

    fn args() -> ConnArgs {
        ConnArgs {
            open: 2,
            cycles: 20,
            parallel: 4,
            descriptors: 1024,
            provider: Provider::Host,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            json: None,
        }
    }

    fn tally(right: u64, descriptors_after: usize) -> Tally {
        let census = |descriptors| Census {
            descriptors,
            threads: 2,
            maps: 3,
        };
        let mut tally = Tally::default();
        for kind in [Kind::Sdp, Kind::Tcp] {
            tally.add_set_up(kind, &[3.0, 1.0, 2.0]);
            tally.add_cycles(kind, 20, Duration::from_secs(2));
        }
        tally.held(2, right, Duration::from_secs(1), 50);
        tally.counts = Some(([census(9); 2], [census(9), census(descriptors_after)]));
        tally
    }

    fn failed(tally: Tally) -> Vec<String> {
        let started = crate::report::Started::now();
        let mut report = started.report("perf", None).unwrap();
        tally.write(&args(), &mut report);
        assert_eq!(report.results[0].us_p50.unwrap().median, 2.0);
        let failed = report.checks.into_iter().filter(|check| !check.ok);
        failed.map(|check| check.name).collect()
    }

    #[test]
    fn everything_right_passes() {
        assert!(failed(tally(2, 9)).is_empty());
    }

    #[test]
    fn a_wrong_echo_and_a_leak_fail_by_name() {
        assert_eq!(failed(tally(1, 10)), ["conn.open", "conn.leak.server"]);
    }
}
