//! What can happen, by the engine's snapshots: each message in each state, each change of phase and
//! of mode. The engine's tests check the snapshots; what they call legal must be reached.

use std::fmt;
use std::sync::LazyLock;

const MESSAGES: &str = include_str!("../../../../sdp-core/src/tests/table.md");
const PHASES: &str = include_str!("../../../../sdp-core/src/tests/phases.txt");
const MODES: &str = include_str!("../../../../sdp-core/src/tests/modes.txt");

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
        match *self {
            Self::Message { message, state } => match (message, state) {
                ("SrcAvailCancel", "accepted") => {
                    Some("a cancel follows an advert, so it is never the first message")
                }
                ("SrcAvailCancel", "peer has closed") => {
                    Some("DisConn goes when no advert is open, so there is nothing to cancel")
                }
                ("SrcAvailCancel", "is asked to move") => {
                    Some("SuspComm goes when no advert is open, so there is nothing to cancel")
                }
                ("ModeChange 00", "asks to move") => {
                    Some("the stacks that enter Buffered mode do not speak SuspComm")
                }
                ("ModeChange 90", _) => {
                    Some("our sending half is never Buffered, so nobody can call it back")
                }
                _ => None,
            },
            Self::Step { from, input, .. } => match (from, input) {
                ("Handshake", "close()") => {
                    Some("before the handshake is over no program has a stream to close")
                }
                _ => None,
            },
        }
    }
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
        let unreachable = LEGAL.cases.iter().filter(|c| c.why_unreachable().is_some());
        assert_eq!(unreachable.count(), 6);
    }
}
