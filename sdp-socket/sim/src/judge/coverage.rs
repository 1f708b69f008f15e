//! Which cases came, how often, and what had gone wrong in the same run.

use std::collections::BTreeMap;

use sdp_verbs::sim::{Fault, FaultCounts};
use sdp_wire::{Body, Head, ModeChange};

use super::legal::{Case, LEGAL};
use super::{End, Mode};

/// How often each case came, and with which faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage(BTreeMap<Case, Count>);

/// How often a case was reached.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) times: u64,
    /// Faults that happened in the same run: a bit for each.
    faults: u32,
}

impl Count {
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

/// The states that a side is in, by their names in the table: several, if both halves are busy.
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

const fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Buffered => "Buffered",
        Mode::Combined => "Combined",
        Mode::Pipelined => "Pipelined",
    }
}

impl Coverage {
    /// A message comes to a side, which has not heard it yet.
    pub(super) fn note(&mut self, end: &End, head: &Head) {
        let message = message(head);
        for state in states(end) {
            self.reached(Case::Message { message, state });
        }
        let from = name(end.sink.mode);
        let (input, to) = match head.body {
            Body::ModeChange(ModeChange::RecvBuffered) => ("RecvBuffered", Mode::Buffered),
            Body::ModeChange(ModeChange::RecvCombined) => ("RecvCombined", Mode::Combined),
            Body::ModeChange(ModeChange::RecvPipelined) => ("RecvPipelined", Mode::Pipelined),
            _ => return,
        };
        let to = name(to);
        self.reached(Case::Step { from, input, to });
    }

    /// Something has happened.
    pub(super) fn reached(&mut self, case: Case) {
        self.0.entry(case).or_default().times += 1;
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
        for (case, more) in &other.0 {
            let count = self.0.entry(*case).or_default();
            count.times += more.times;
            count.faults |= more.faults;
        }
    }

    /// Cases of a kind that can be reached, and were not.
    pub(crate) fn missed(&self, messages: bool) -> Vec<Case> {
        let legal = LEGAL.to_reach(messages).copied();
        legal.filter(|case| self.of(case).times == 0).collect()
    }

    /// Cases that were reached although a reason is given why that cannot be.
    pub(crate) fn refuted(&self) -> Vec<Case> {
        let cases = LEGAL.cases.iter().copied();
        cases
            .filter(|case| self.of(case).times > 0 && case.why_unreachable().is_some())
            .collect()
    }

    /// How often a case was reached.
    pub(crate) fn of(&self, case: &Case) -> Count {
        self.0.get(case).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each state of the table is one that the witness can be in.
    #[test]
    fn the_states_are_those_of_the_table() {
        let named = |end: &End| states(end).into_iter().all(|s| LEGAL.states.contains(&s));
        let mut end = End {
            accepts: true,
            ..End::default()
        };
        assert!(named(&end));
        end.down = true;
        assert_eq!(states(&end), ["dead"]);
        assert!(named(&end));
    }
}
