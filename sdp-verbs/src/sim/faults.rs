//! What goes wrong.

use std::collections::BTreeSet;

use crate::rng::Rng;

/// What can go wrong, on the fabric or in the programs on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// A SEND finds its receive not ready.
    Rnr,
    /// A request is lost as often as it is tried.
    RetryExceeded,
    /// A queue pair breaks.
    QpBreak,
    /// A completion is reported late.
    LateCompletion,
    /// The packets of one queue pair are overtaken by those of others.
    Reorder,
    /// A connect request is turned away.
    CmReject,
    /// A message of connection management is lost as often as it is sent.
    CmTimeout,
    /// The confirmation of an accept is lost once.
    CmLostRtu,
    /// An event of connection management comes twice.
    CmDuplicate,
    /// What a side sends first lies there unseen until something comes later.
    Unseen,
    /// Registering memory, or getting a window, fails.
    RegisterFails,
    /// There is no memory for a receive.
    NoRecvMemory,
    /// There is no memory for a message.
    NoSendMemory,
    /// More memory was to be registered than a machine has room for.
    RegisteredExhausted,
    /// Everything stands still for a while.
    ClockJump,
    /// A program lets what it is sent wait.
    ReaderSlow,
    /// A program reads nothing for longer than any patience of the other side.
    ReaderAbsent,
    /// A program closes, a half of the connection or all of it, while others still use it.
    ProgramCloses,
    /// A program resets the connection.
    ProgramAborts,
    /// A program's time-out ends a call, or an attempt to connect.
    ProgramTimesOut,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Rnr,
        Self::RetryExceeded,
        Self::QpBreak,
        Self::LateCompletion,
        Self::Reorder,
        Self::CmReject,
        Self::CmTimeout,
        Self::CmLostRtu,
        Self::CmDuplicate,
        Self::Unseen,
        Self::RegisterFails,
        Self::NoRecvMemory,
        Self::NoSendMemory,
        Self::RegisteredExhausted,
        Self::ClockJump,
        Self::ReaderSlow,
        Self::ReaderAbsent,
        Self::ProgramCloses,
        Self::ProgramAborts,
        Self::ProgramTimesOut,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rnr => "rnr",
            Self::RetryExceeded => "retry_exceeded",
            Self::QpBreak => "qp_break",
            Self::LateCompletion => "late_completion",
            Self::Reorder => "reorder",
            Self::CmReject => "cm_reject",
            Self::CmTimeout => "cm_timeout",
            Self::CmLostRtu => "cm_lost_rtu",
            Self::CmDuplicate => "cm_duplicate",
            Self::Unseen => "unseen",
            Self::RegisterFails => "register_fails",
            Self::NoRecvMemory => "no_recv_memory",
            Self::NoSendMemory => "no_send_memory",
            Self::RegisteredExhausted => "registered_exhausted",
            Self::ClockJump => "clock_jump",
            Self::ReaderSlow => "reader_slow",
            Self::ReaderAbsent => "reader_absent",
            Self::ProgramCloses => "program_closes",
            Self::ProgramAborts => "program_aborts",
            Self::ProgramTimesOut => "program_times_out",
        }
    }
}

/// How often each fault happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FaultCounts([u64; Fault::ALL.len()]);

impl FaultCounts {
    /// How often this one did.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}

/// What goes wrong, and how often: parts of a million, for each occasion.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    chances: [u32; Fault::ALL.len()],
    /// How late, at most, a late completion or an overtaken packet is: nanoseconds.
    pub late_max: u64,
    /// How long, at most, everything stands still: nanoseconds.
    pub jump_max: u64,
    /// Faults that do not happen, by their number in the run: for finding those that matter.
    pub spared: BTreeSet<u64>,
}

impl Faults {
    /// Nothing goes wrong.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Sets how often a fault happens, in parts of a million.
    #[must_use]
    pub fn with(mut self, fault: Fault, chance: u32) -> Self {
        self.chances[fault as usize] = chance;
        self
    }

    /// How often a fault happens, in parts of a million.
    #[must_use]
    pub fn chance(&self, fault: Fault) -> u32 {
        self.chances[fault as usize]
    }
}

/// For how long, at most, a side does not see what is sent to it first: nanoseconds.
const DEAF_MAX: u64 = 30_000_000;

/// Decides, from a stream of its own: sparing one fault leaves the dice of the others as they are.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    rng: Rng,
    counts: FaultCounts,
    number: u64,
}

impl Dice {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            faults,
            rng: Rng::new(seed, 0xFA),
            counts: FaultCounts::default(),
            number: 0,
        }
    }

    /// Whether a fault happens on this occasion.
    pub(super) fn fires(&mut self, fault: Fault) -> bool {
        if !self.rng.chance(self.faults.chance(fault)) {
            return false;
        }
        let number = self.number;
        self.number += 1;
        if self.faults.spared.contains(&number) {
            return false;
        }
        self.happened(fault);
        true
    }

    /// A fault that no dice decided has happened.
    pub(super) fn happened(&mut self, fault: Fault) {
        self.counts.0[fault as usize] += 1;
    }

    /// How late something is.
    pub(super) fn lateness(&mut self) -> u64 {
        // Mostly a little, sometimes much.
        let shift = self.rng.below(20);
        self.rng.below((self.faults.late_max >> shift).max(1))
    }

    /// For how long a side does not see what is sent to it first.
    pub(super) fn deafness(&mut self) -> u64 {
        1 + self.rng.below(DEAF_MAX)
    }

    /// How long everything stands still.
    pub(super) fn jump(&mut self) -> u64 {
        self.rng.below(self.faults.jump_max.max(1))
    }

    pub(super) fn set(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub(super) fn counts(&self) -> FaultCounts {
        self.counts
    }

    /// Faults that have come up so far, spared ones included.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}
