//! From what the two processes say to checks and a report.

use std::fmt::Write;

use serde::Serialize;

use super::Plan;
use super::tally::{Findings, Tally, differences};
use crate::lab::{Census, Memory};
use crate::report::{Check, Report, Results, Skipped};
use crate::transport::name;

/// Shortest run whose resident memory is judged: before, it is still growing to what it needs.
const RSS_SECONDS_MIN: f64 = 20.0;
/// What memory, resident or allocated, may grow by.
const GROWTH_MAX: f64 = (1 << 20) as f64;

/// What one process holds at rest.
pub(super) type Held = (Census, Memory);

/// What one end did in the whole run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Soaked {
    /// `client` or `server`.
    side: &'static str,
    /// The verbs provider.
    provider: String,
    /// The seed of the provider that does everything late, if it was used.
    lazy: Option<u32>,
    /// The seed of all choices.
    seed: u64,
    /// Connections at once.
    conns: u32,
    /// All counts.
    #[serde(flatten)]
    tally: Tally,
    /// What it held after the first part of the run.
    before: Option<Census>,
    /// What it held at the end.
    after: Option<Census>,
    /// Memory after the first part of the run.
    memory_before: Option<Memory>,
    /// Memory at the end.
    memory_after: Option<Memory>,
}

/// Gathers what a run shows.
#[derive(Debug)]
pub(super) struct Judged {
    ends: [Soaked; 2],
    disturbances: u32,
    seconds: f64,
    /// What server and client held after the first part of the run.
    pub(super) before: Option<[Held; 2]>,
    /// What they held at the end.
    pub(super) after: Option<[Held; 2]>,
}

impl Judged {
    /// Nothing yet.
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        let Plan { args, seed, lazy } = *plan;
        let end = |side| Soaked {
            side,
            provider: name(args.provider),
            lazy,
            seed,
            conns: args.conns,
            tally: Tally::default(),
            before: None,
            after: None,
            memory_before: None,
            memory_after: None,
        };
        Self {
            ends: [end("server"), end("client")],
            disturbances: args.disturbances,
            seconds: args.seconds,
            before: None,
            after: None,
        }
    }

    /// Adds what one end did.
    pub(super) fn add(&mut self, (side, tally): (&str, Tally)) {
        for end in self.ends.iter_mut().filter(|end| end.side == side) {
            end.tally.merge(tally.clone());
        }
    }

    /// What the checks' names begin with.
    fn prefix(&self) -> &'static str {
        match self.ends[0].lazy {
            None => "soak",
            Some(_) => "soak.lazy",
        }
    }

    /// Writes results and checks.
    pub(super) fn write(mut self, outcome: anyhow::Result<()>, report: &mut Report<Soaked>) {
        let seed = self.ends[0].seed;
        let detail = match &outcome {
            Ok(()) => format!("seed {seed}"),
            Err(error) => format!("seed {seed}: {error:#}"),
        };
        let prefix = self.prefix();
        let checks = &mut report.checks;
        checks.push(Check::plain(
            format!("{prefix}.completed"),
            outcome.is_ok(),
            detail,
        ));
        let [server, client] = &self.ends;
        let mut flows = Findings::default();
        if outcome.is_ok() {
            flows = differences(&client.tally.flows, &server.tally.flows);
        }
        let both = |of: fn(&Tally) -> &Findings| {
            let mut all = Findings::default();
            for end in &self.ends {
                all.merge(of(&end.tally).clone());
            }
            all
        };
        checks.push(none_of(
            format!("{prefix}.mismatches"),
            &both(|t| &t.mismatches),
        ));
        checks.push(none_of(format!("{prefix}.errors"), &both(|t| &t.errors)));
        checks.push(none_of(format!("{prefix}.flows"), &flows));
        checks.push(self.coverage());
        for end in &self.ends {
            for (what, count) in [("forks", end.tally.forks), ("commands", end.tally.commands)] {
                checks.push(Check::at_least(
                    format!("{prefix}.{}.{what}", end.side),
                    float(count),
                    f64::from(self.disturbances),
                    "children",
                    "",
                ));
            }
        }
        self.held(report);
        for end in &mut self.ends {
            end.tally.flows.clear();
        }
        report.results.extend(self.ends);
    }

    /// Everything that a soak is for has occurred.
    fn coverage(&self) -> Check {
        let mut all = Tally::default();
        for end in &self.ends {
            all.merge(end.tally.clone());
        }
        let counts = [
            ("non-blocking sockets", all.nonblocking),
            ("vectored calls", all.vectored),
            ("peeks", all.peeks),
            ("calls for all", all.wait_alls),
            ("registered memory", all.registered),
            ("time-outs", all.timeouts),
            ("calls that would block", all.would_blocks),
            ("zero copy", all.bytes_zcopy),
            ("copies", all.bytes_bcopy),
            ("reading ahead", all.bytes_read_ahead),
        ];
        let missing: Vec<_> = counts
            .iter()
            .filter(|(_, count)| *count == 0)
            .map(|(what, _)| *what)
            .collect();
        let detail = if missing.is_empty() {
            String::new()
        } else {
            format!("did not occur: {}", missing.join(", "))
        };
        Check::plain(
            format!("{}.coverage", self.prefix()),
            missing.is_empty(),
            detail,
        )
    }

    /// Nothing is held at the end that was not held before.
    fn held(&mut self, report: &mut Report<Soaked>) {
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return;
        };
        let prefix = self.prefix();
        for ((end, before), after) in self.ends.iter_mut().zip(before).zip(after) {
            let side = end.side;
            let counts = [
                ("descriptors", before.0.descriptors, after.0.descriptors),
                ("threads", before.0.threads, after.0.threads),
                ("maps", before.0.maps, after.0.maps),
            ];
            for (what, before, after) in counts {
                report.checks.push(Check::at_most(
                    format!("{prefix}.{side}.{what}"),
                    float(after as u64),
                    float(before as u64),
                    what,
                    "",
                ));
            }
            let growth = float(after.1.allocated) - float(before.1.allocated);
            report.checks.push(Check::at_most(
                format!("{prefix}.{side}.allocated_growth"),
                growth,
                GROWTH_MAX,
                "bytes",
                "",
            ));
            let growth = float(after.1.rss) - float(before.1.rss);
            let name = format!("{prefix}.{side}.rss_growth");
            if self.seconds < RSS_SECONDS_MIN {
                report.skipped.push(Skipped {
                    name,
                    reason: format!("memory is judged in runs of {RSS_SECONDS_MIN} s or more"),
                });
            } else {
                let detail = format!("{:?}, before {:?}", after.1, before.1);
                let limit = GROWTH_MAX;
                let check = Check::at_most(name, growth, limit, "bytes", detail);
                report.checks.push(check);
            }
            (end.before, end.after) = (Some(before.0), Some(after.0));
            (end.memory_before, end.memory_after) = (Some(before.1), Some(after.1));
        }
    }
}

fn none_of(name: String, findings: &Findings) -> Check {
    let detail = findings.texts.join("; ");
    Check::at_most(name, float(findings.count), 0.0, "findings", detail)
}

/// A count as a figure: exact up to 2⁵³, which no count of ours reaches.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a run are far below 2^53"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

impl Results for Soaked {
    fn render(results: &[Self]) -> String {
        let mut text = String::new();
        for Self {
            side,
            provider,
            lazy,
            seed,
            tally,
            ..
        } in results
        {
            let lazy = lazy.map_or_else(String::new, |lazy| format!(", held back by seed {lazy}"));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{side} over {provider}{lazy}, seed {seed}: {} connections ({} non-blocking), \
                 {} MB sent, {} MB received, {} sends, {} receives, {} vectored, {} peeks, \
                 {} for all, {} registered, {} time-outs, {} would block; sent {} MB zero copy, \
                 {} MB copied, {} MB inline; {} MB read ahead; {} forks, {} programs",
                tally.lives,
                tally.nonblocking,
                tally.bytes_sent / 1_000_000,
                tally.bytes_received / 1_000_000,
                tally.sends,
                tally.receives,
                tally.vectored,
                tally.peeks,
                tally.wait_alls,
                tally.registered,
                tally.timeouts,
                tally.would_blocks,
                tally.bytes_zcopy / 1_000_000,
                tally.bytes_bcopy / 1_000_000,
                tally.bytes_inline / 1_000_000,
                tally.bytes_read_ahead / 1_000_000,
                tally.forks,
                tally.commands,
            );
        }
        text
    }
}
