//! Which message came in which state, and what had gone wrong before.
//!
//! States and messages are those of the table in `sdp-core/src/tests/table.txt`, which is checked
//! against the engine; what the table calls legal must be reached.

use std::collections::BTreeMap;

use sdp_verbs::sim::{Fault, FaultCounts};
use sdp_wire::{Body, Head, ModeChange};

use super::{End, Mode};

/// The states, in the order of the table's columns.
pub(crate) const STATES: [&str; 15] = [
    "accepted",
    "open",
    "source advert",
    "source adverts",
    "source cancelling",
    "sink advert",
    "sink reading",
    "sink pipelined",
    "offering",
    "offered",
    "peer has closed",
    "closed",
    "asks to move",
    "is asked to move",
    "dead",
];

/// What the engine makes of each message in each state.
const TABLE: &str = include_str!("../../../../sdp-core/src/tests/table.txt");

/// Width of a message's name in the table.
const NAME_LEN: usize = 15;

/// A message in a state.
pub(crate) type Pair = (usize, &'static str);

/// How often each pair came, and with which faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<Pair, PairCount>);

/// How often a pair was reached.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PairCount {
    pub(crate) times: u64,
    /// Faults that happened in the same run: a bit for each.
    faults: u16,
}

impl PairCount {
    /// The faults that came together with it.
    pub(crate) fn faults(self) -> impl Iterator<Item = Fault> {
        let bits = self.faults;
        let all = Fault::ALL.into_iter().enumerate();
        all.filter(move |(bit, _)| bits & (1 << bit) != 0)
            .map(|(_, fault)| fault)
    }
}

/// The name of a message in the table.
fn message(head: &Head) -> &'static str {
    match head.body {
        Body::Data if head.payload_len == 0 => "Data, empty",
        Body::SrcAvail(_) if head.payload_len == 0 => "SrcAvail, bare",
        Body::ModeChange(ModeChange::RecvBuffered) => "ModeChange 00",
        Body::ModeChange(ModeChange::RecvCombined) => "ModeChange 10",
        Body::ModeChange(ModeChange::RecvPipelined) => "ModeChange 20",
        Body::ModeChange(ModeChange::SendCombined) => "ModeChange 90",
        body => body.mid().name(),
    }
}

/// The states that a side is in: several, if both halves are busy.
fn states(end: &End) -> Vec<&'static str> {
    if end.down {
        return vec!["dead"];
    }
    let (source, sink) = (&end.source, &end.sink);
    let reading = !sink.reads.is_empty();
    let pipelined = sink.mode == Mode::Pipelined;
    let all = [
        ("accepted", end.accepts && end.taken == 0),
        ("source cancelling", source.cancel.is_some()),
        (
            "source advert",
            source.open.len() == 1 && source.cancel.is_none(),
        ),
        (
            "source adverts",
            source.open.len() > 1 && source.cancel.is_none(),
        ),
        ("sink reading", reading && !pipelined),
        (
            "sink advert",
            !sink.open.is_empty() && !reading && !pipelined,
        ),
        ("sink pipelined", !sink.open.is_empty() && pipelined),
        ("offering", !sink.offers.is_empty()),
        ("offered", source.offered),
        ("peer has closed", end.heard_fin),
        ("closed", end.said_fin && !end.heard_fin),
        ("asks to move", end.moves.asks()),
        ("is asked to move", end.moves.is_asked()),
    ];
    let mut found: Vec<_> = all.iter().filter(|(_, is)| *is).map(|(s, _)| *s).collect();
    if found.is_empty() {
        found.push("open");
    }
    found
}

impl Coverage {
    /// A message comes to a side, which has not heard it yet.
    pub(super) fn note(&mut self, end: &End, head: &Head) {
        for state in states(end) {
            let index = STATES.iter().position(|name| *name == state).unwrap_or(0);
            let count = self.0.entry((index, message(head))).or_default();
            count.times += 1;
        }
    }

    /// The run is over, and these faults happened in it.
    pub(crate) fn set_faults(&mut self, counts: &FaultCounts) {
        for (bit, fault) in Fault::ALL.iter().enumerate() {
            if counts.of(*fault) > 0 {
                self.0
                    .values_mut()
                    .for_each(|count| count.faults |= 1 << bit);
            }
        }
    }

    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        for (pair, more) in &other.0 {
            let count = self.0.entry(*pair).or_default();
            count.times += more.times;
            count.faults |= more.faults;
        }
    }

    /// Legal pairs that were not reached.
    pub(crate) fn missed(&self) -> Vec<Pair> {
        let legal = Legal::new().0.into_iter();
        legal.filter(|pair| self.of(pair).times == 0).collect()
    }

    /// How often a pair was reached.
    pub(crate) fn of(&self, pair: &Pair) -> PairCount {
        self.0.get(pair).copied().unwrap_or_default()
    }
}

/// The pairs that the table calls legal, in its order.
#[derive(Debug)]
pub(crate) struct Legal(Vec<(usize, &'static str)>);

impl Legal {
    /// Reads the table.
    pub(crate) fn new() -> Self {
        let mut pairs = Vec::new();
        for line in TABLE.lines() {
            let (name, verdicts) = line.split_at(NAME_LEN.min(line.len()));
            for (state, verdict) in verdicts.split_whitespace().enumerate() {
                if !verdict.starts_with('§') {
                    pairs.push((state, name.trim_end()));
                }
            }
        }
        Self(pairs)
    }

    /// Why no run can reach a pair, if none can.
    pub(crate) fn why_unreachable((state, message): &Pair) -> Option<&'static str> {
        match (STATES[*state], *message) {
            ("accepted", "SrcAvailCancel") => {
                Some("a cancel follows an advert, so it is never the first message")
            }
            ("peer has closed", "SrcAvailCancel") => {
                Some("DisConn goes when no advert is open, so there is nothing to cancel")
            }
            ("is asked to move", "SrcAvailCancel") => {
                Some("SuspComm goes when no advert is open, so there is nothing to cancel")
            }
            ("asks to move", "ModeChange 00") => {
                Some("the stacks that enter Buffered mode do not speak SuspComm")
            }
            (_, "ModeChange 90") => {
                Some("our sending half is never Buffered, so nobody can call it back")
            }
            _ => None,
        }
    }

    /// How many can be reached.
    pub(crate) fn reachable(&self) -> usize {
        let reachable = |pair: &&Pair| Self::why_unreachable(pair).is_none();
        self.0.iter().filter(reachable).count()
    }

    /// All of them.
    pub(crate) fn pairs(&self) -> &[Pair] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_whole() {
        for line in TABLE.lines() {
            let verdicts = line.split_at(NAME_LEN).1.split_whitespace().count();
            assert_eq!(verdicts, STATES.len(), "{line}");
        }
        let legal = Legal::new();
        assert!(legal.pairs().contains(&(0, "Data")));
        assert!(!legal.pairs().contains(&(5, "Data")));
    }
}
