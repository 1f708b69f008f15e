//! From what the rounds show to checks and a report.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::script::{Phase, Role};
use super::{round, stop};
use crate::cli::KillArgs;
use crate::lab::Census;
use crate::report::{Check, Figure, Report, Results};

/// A call with a time-out of 500 ms whose peer stands still is back by then, ms.
const CALL_MS_MAX: f64 = 1600.0;
/// Each phase occurs in one of so many rounds at least.
const PHASE_SHARE: u32 = 10;

/// How a round ended.
#[derive(Debug, Clone)]
pub(super) enum Outcome<T> {
    /// It was played.
    Seen(T),
    /// It could not be played, or a wrong byte came.
    Failed(String),
    /// It did not end; where it is written what goes on.
    Hung(String),
}

/// What the rounds of one kind showed.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Killed {
    /// Phase at the kill; none if the peer was stopped.
    phase: Option<Phase>,
    /// What the peer was; none if it was stopped.
    role: Option<Role>,
    /// What was done when the peer was stopped.
    kind: Option<&'static str>,
    /// The seed of all choices.
    seed: u64,
    /// Rounds.
    rounds: u32,
    /// From the kill to the survivor's error, or the longest call with a time-out, ms.
    ms: Option<Figure>,
    /// Bytes delivered and compared.
    delivered: u64,
    /// Bytes that had left a sender for good when it was killed, by its own count.
    reached: u64,
    /// How the survivor's call ended, and how often.
    ends: BTreeMap<String, u32>,
}

/// Gathers what the rounds show.
#[derive(Debug)]
pub(super) struct Judged {
    seed: u64,
    rounds: u32,
    kinds: BTreeMap<String, (Killed, Vec<f64>)>,
    problems: Vec<String>,
    failed: Vec<String>,
    hung: Vec<String>,
    /// What this process held before the rounds that are judged, and after.
    pub(super) held: Option<(Census, Census)>,
    /// The longest time that a thread of this process was kept waiting for a processor.
    pub(super) stalled: Duration,
}

impl Judged {
    /// No round yet.
    pub(super) fn new(seed: u64, rounds: u32) -> Self {
        Self {
            seed,
            rounds,
            kinds: BTreeMap::new(),
            problems: Vec::new(),
            failed: Vec::new(),
            hung: Vec::new(),
            held: None,
            stalled: Duration::ZERO,
        }
    }

    fn kind(&mut self, name: String, new: Killed) -> &mut (Killed, Vec<f64>) {
        let seed = self.seed;
        self.kinds
            .entry(name)
            .or_insert_with(|| (Killed { seed, ..new }, Vec::new()))
    }

    /// What a played round showed, if it was played.
    fn played<T>(&mut self, what: &str, outcome: Outcome<T>) -> Option<T> {
        match outcome {
            Outcome::Seen(seen) => return Some(seen),
            Outcome::Failed(why) => self.failed.push(format!("{what}: {why}")),
            Outcome::Hung(doing) => self.hung.push(format!("{what}: {doing}")),
        }
        None
    }

    /// Adds a round in which the peer was killed.
    pub(super) fn add_kill(
        &mut self,
        number: u32,
        phase: Phase,
        role: Role,
        outcome: Outcome<round::Seen>,
    ) {
        let what = format!("round {number}, {} {role}", phase.name());
        let Some(seen) = self.played(&what, outcome) else {
            return;
        };
        let new = Killed {
            phase: Some(phase),
            role: Some(role),
            ..Killed::default()
        };
        let (killed, ms) = self.kind(format!("{phase:?} {role}"), new);
        killed.rounds += 1;
        killed.delivered += seen.delivered;
        killed.reached += seen.reached;
        *killed.ends.entry(seen.end).or_default() += 1;
        ms.push(seen.ms);
        let problem = seen.problem.map(|problem| format!("{what}: {problem}"));
        self.problems.extend(problem);
    }

    /// Adds a round in which the peer stood still.
    pub(super) fn add_stop(&mut self, number: u32, outcome: Outcome<stop::Seen>) {
        let what = format!("round {number}, stopped");
        let Some(seen) = self.played(&what, outcome) else {
            return;
        };
        let new = Killed {
            kind: Some(seen.kind),
            ..Killed::default()
        };
        let (killed, ms) = self.kind(seen.kind.to_owned(), new);
        killed.rounds += 1;
        killed.delivered += seen.delivered;
        ms.extend(seen.call_ms);
        let problem = seen.problem;
        let problem = problem.map(|problem| format!("{what}, {}: {problem}", seen.kind));
        self.problems.extend(problem);
    }

    /// Writes results and checks.
    pub(super) fn write(self, args: &KillArgs, report: &mut Report<Killed>) {
        let stopped = args.stop;
        let (prefix, limit) = if stopped {
            ("stop", CALL_MS_MAX)
        } else {
            ("kill", f64::from(args.told_ms))
        };
        let checks = &mut report.checks;
        let seed = format!("seed {}", self.seed);
        checks.push(Check::plain(format!("{prefix}.seed"), true, seed));
        for (what, found) in [
            ("hung", &self.hung),
            ("failed", &self.failed),
            ("wrong", &self.problems),
        ] {
            checks.push(Check::at_most(
                format!("{prefix}.{what}"),
                f64::from(u32::try_from(found.len()).unwrap_or(u32::MAX)),
                0.0,
                "rounds",
                found.join("; "),
            ));
        }
        let all = self.kinds.values().flat_map(|(_, ms)| ms);
        let max = all.copied().fold(0.0, f64::max);
        checks.push(Check::at_most(
            format!("{prefix}.max_ms"),
            max,
            limit,
            "ms",
            format!("a sleeping thread woke up to {:.1?} late", self.stalled),
        ));
        if !stopped {
            let least = f64::from(self.rounds / PHASE_SHARE);
            for phase in Phase::ALL {
                let of = |(killed, _): &&(Killed, Vec<f64>)| killed.phase == Some(phase);
                let rounds: u32 = self.kinds.values().filter(of).map(|(k, _)| k.rounds).sum();
                let name = format!("kill.phase.{}", phase.name());
                checks.push(Check::at_least(name, rounds.into(), least, "rounds", ""));
            }
        }
        if let Some((before, after)) = &self.held {
            let detail = format!("{after:?}, before {before:?}");
            checks.push(Check::plain("kill.leaks", after.within(before), detail));
        }
        for (mut killed, ms) in self.kinds.into_values() {
            killed.ms = Figure::of(&ms);
            report.results.push(killed);
        }
    }
}

impl Results for Killed {
    fn render(results: &[Self]) -> String {
        let mut text = String::new();
        for killed in results {
            let what = match (killed.phase, killed.role) {
                (Some(phase), Some(role)) => format!("{} of a {role}", phase.name()),
                _ => format!("stopped: {}", killed.kind.unwrap_or_default()),
            };
            let ms = killed.ms.map_or_else(String::new, |ms| {
                format!(", {:.1} ms (at most {:.1})", ms.median, ms.max)
            });
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{what}: {} rounds{ms}, {} kB delivered, {} kB had left, ends {:?}",
                killed.rounds,
                killed.delivered / 1000,
                killed.reached / 1000,
                killed.ends,
            );
        }
        text
    }
}
