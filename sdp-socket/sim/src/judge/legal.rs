//! What can happen, by the engine's snapshots: each message in each state, each change of phase and
//! of mode. The engine's tests check the snapshots; what they call legal must be reached.

use std::fmt;
use std::sync::LazyLock;

const MESSAGES: &str = include_str!("../../../../sdp-core/src/tests/table.md");
const PHASES: &str = include_str!("../../../../sdp-core/src/tests/phases.txt");
const MODES: &str = include_str!("../../../../sdp-core/src/tests/modes.txt");
/// `cargo xtask diagrams` puts it on the page of the tables.
const UNREACHABLE: &str = include_str!("unreachable.md");

/// Something that can happen to a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Case {
    /// A message comes in a state.
    Message {
        message: &'static str,
        state: &'static str,
    },
    /// A phase or a mode changes.
    Step {
        from: &'static str,
        input: &'static str,
        to: &'static str,
    },
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message { message, state } => write!(f, "{message} in \"{state}\""),
            Self::Step { from, input, to } => write!(f, "{from} to {to} by {input}"),
        }
    }
}

impl Case {
    pub(crate) const fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. })
    }

    /// Why no run can reach it, if none can.
    pub(crate) fn why_unreachable(&self) -> Option<&'static str> {
        let name = self.to_string();
        reasons().find_map(|(case, why)| (case == name).then_some(why))
    }
}

/// What no run can reach, and why.
fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = UNREACHABLE.lines().skip(2).map(cells);
    rows.filter_map(|mut row| Some((row.next()?, row.next()?)))
}

/// What the snapshots call legal.
#[derive(Debug)]
pub(crate) struct Legal {
    /// The states, in the order of the table's columns.
    pub(crate) states: Vec<&'static str>,
    /// The cases, in the order of the snapshots.
    pub(crate) cases: Vec<Case>,
}

/// Read once.
pub(crate) static LEGAL: LazyLock<Legal> = LazyLock::new(Legal::read);

fn cells(row: &'static str) -> impl Iterator<Item = &'static str> {
    let row = row.trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(str::trim)
}

/// A line `from --input--> to`.
fn step(line: &'static str) -> Option<Case> {
    let (from, rest) = line.split_once(" --")?;
    let (input, to) = rest.split_once("--> ")?;
    Some(Case::Step { from, input, to })
}

/// Peers of the simulation break no rule.
fn is_legal(case: &Case) -> bool {
    !matches!(
        case,
        Case::Step { to: "end", .. }
            | Case::Step {
                input: "a broken rule",
                ..
            }
    )
}

impl Legal {
    fn read() -> Self {
        let mut rows = MESSAGES.lines();
        let states: Vec<_> = rows.next().into_iter().flat_map(cells).skip(1).collect();
        let mut cases = Vec::new();
        // Below the header is a rule.
        for row in rows.skip(1) {
            let mut row = cells(row);
            let message = row.next().unwrap_or_default();
            let verdicts = row.zip(&states);
            let legal = verdicts.filter(|(verdict, _)| !verdict.starts_with('§'));
            cases.extend(legal.map(|(_, state)| Case::Message { message, state }));
        }
        let steps = PHASES.lines().chain(MODES.lines()).filter_map(step);
        cases.extend(steps.filter(is_legal));
        Self { states, cases }
    }

    /// Messages in states, or changes of phase and mode, that a run can reach.
    pub(crate) fn to_reach(&self, messages: bool) -> impl Iterator<Item = &Case> {
        let cases = self.of_kind(messages);
        cases.filter(|case| case.why_unreachable().is_none())
    }

    /// Messages in states, or changes of phase and mode.
    pub(crate) fn of_kind(&self, messages: bool) -> impl Iterator<Item = &Case> {
        let cases = self.cases.iter();
        cases.filter(move |case| case.is_message() == messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshots_are_read_whole() {
        for row in MESSAGES.lines() {
            assert_eq!(cells(row).count(), 1 + LEGAL.states.len(), "{row}");
        }
        for line in PHASES.lines().chain(MODES.lines()) {
            assert!(step(line).is_some(), "{line}");
        }
        let is_legal = |message, state| LEGAL.cases.contains(&Case::Message { message, state });
        assert!(is_legal("Data", "accepted"));
        assert!(!is_legal("Data", "sink advert"));
    }

    /// A reason for something that is not legal any more explains nothing.
    #[test]
    fn what_is_unreachable_is_legal() {
        let legal: Vec<_> = LEGAL.cases.iter().map(Case::to_string).collect();
        for (case, why) in reasons() {
            assert!(legal.iter().any(|name| name == case), "{case}");
            assert!(!why.is_empty(), "{case}");
        }
    }
}
