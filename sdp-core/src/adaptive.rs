//! Whether a large send pays without a copy: decided by measurement, per kind of memory and class
//! of length (policy 7).
//!
//! What counts is how a program gets on: the time from the start of one send to the start of the
//! next one of its class, per byte. What is not the present choice is tried a few times in a row, and
//! the first send after every change of mechanism does not count. Copies look cheap as long as buffers
//! fill up, however slow the way behind them is: they count once both ends' buffers may be full.

use alloc::vec::Vec;

use crate::call::SendRequest;
use crate::ids::SendId;
use crate::stats::CopyReason;
use crate::time::Instant;

/// Where the choice begins, before anything was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adaptive {
    /// Memory that was registered for life is shown to the peer.
    pub registered: bool,
    /// Any other memory is.
    pub heap: bool,
}

/// How a send's bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// Through private buffers.
    Copy,
    /// Read by the peer out of the caller's memory.
    ZeroCopy,
}

/// Why a mechanism is the choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It is the beginning; the other one has not been measured.
    Start,
    /// It was measured to be no slower than the other one.
    Measured,
    /// It was measured to be at least twice as fast as the other one.
    FarFaster,
}

/// The choice for one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The class is of memory registered for life.
    pub registered: bool,
    /// Shortest send of the class.
    pub from: usize,
    /// The choice.
    pub mechanism: Mechanism,
    /// Its reason.
    pub why: Why,
    /// Picoseconds per byte by copy, if measured.
    pub copy_cost: Option<u64>,
    /// Picoseconds per byte without, if measured.
    pub zcopy_cost: Option<u64>,
    /// Sends of the class.
    pub sends: u64,
    /// Of these, sends that tried what was not the choice.
    pub explored: u64,
}

/// Classes are powers of two, from 4 KiB on; the last one has no end.
const CLASS_MIN: u32 = 12;
const CLASSES: usize = 13;
/// Sends in a row that try what is not the choice, beside those that fill buffers.
const BURST: u64 = 4;
/// Of so many sends of a class at most one tries what is not the choice, but for the first time.
const EXPLORE: u64 = 64;
/// As long as this many sends ago the other mechanism took twice the time, it is not tried.
const LATELY: u64 = 16_384;
/// Samples that say something about a mechanism.
const SAMPLES_MIN: u64 = 2;
/// A sample counts as at most so many times the mean: a program may pause.
const OUTLIER: u64 = 8;

/// What comparing the two costs means for the choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Keep,
    KeepForLong,
    Switch,
}

/// Compares the cost of what is the `choice` with the other's. Where both are as fast something else is
/// the limit, and a copy only costs processors: it must be faster by an eighth to become the choice, and
/// by a sixteenth to stay it.
const fn judge(is: Mechanism, choice: u64, other: u64) -> Verdict {
    let switches = match is {
        Mechanism::ZeroCopy => other < choice - choice / 8,
        Mechanism::Copy => other < choice.saturating_add(choice / 16),
    };
    if switches {
        Verdict::Switch
    } else if other >= choice.saturating_mul(2) {
        Verdict::KeepForLong
    } else {
        Verdict::Keep
    }
}

/// A mean of samples, later ones counting more.
#[derive(Clone, Copy, Default, Debug)]
struct Cost {
    mean: u64,
    samples: u64,
}

impl Cost {
    fn add(&mut self, sample: u64) {
        if self.samples == 0 {
            self.mean = sample;
        } else {
            let sample = sample.min(self.mean.saturating_mul(OUTLIER));
            let weight = self.samples.min(7) + 1;
            self.mean = (self.mean * (weight - 1) + sample) / weight;
        }
        self.samples += 1;
    }

    fn known(self) -> Option<u64> {
        (self.samples >= SAMPLES_MIN).then_some(self.mean)
    }
}

#[derive(Clone, Copy, Debug)]
struct Class {
    choice: Mechanism,
    why: Why,
    /// By copy, without.
    costs: [Cost; 2],
    sends: u64,
    explored: u64,
    /// Sends since the last ones that tried the other mechanism.
    since: u64,
    /// Sends still to try it.
    burst: u64,
    /// Sends before it is tried again.
    wait: u64,
}

impl Class {
    const fn new(choice: Mechanism) -> Self {
        Self {
            choice,
            why: Why::Start,
            costs: [Cost {
                mean: 0,
                samples: 0,
            }; 2],
            sends: 0,
            explored: 0,
            since: 0,
            burst: 0,
            wait: BURST * (EXPLORE - 1),
        }
    }

    /// The mechanism of the next send, of `len` bytes; both ends' buffers hold `held`.
    fn next(&mut self, len: usize, held: usize) -> Mechanism {
        self.sends += 1;
        let other = self.choice.other();
        // What the choice costs is to be known first.
        let wait = self.wait.max(BURST + fills(self.choice, len, held));
        if self.burst == 0 && self.since >= wait {
            self.burst = BURST + fills(other, len, held);
            self.wait = self.burst * (EXPLORE - 1);
            self.costs[other as usize] = Cost::default();
        }
        if self.burst == 0 {
            self.since += 1;
            return self.choice;
        }
        self.burst -= 1;
        self.explored += 1;
        self.since = 0;
        other
    }

    /// What was tried has been measured.
    fn decide(&mut self) {
        let [choice, other] = [self.choice, self.choice.other()].map(|m| self.costs[m as usize]);
        let (Some(choice), Some(other)) = (choice.known(), other.known()) else {
            return;
        };
        self.why = Why::Measured;
        match judge(self.choice, choice, other) {
            Verdict::Keep => {}
            Verdict::KeepForLong => {
                self.why = Why::FarFaster;
                self.wait = self.wait.max(LATELY);
            }
            Verdict::Switch => self.choice = self.choice.other(),
        }
    }
}

impl Mechanism {
    const fn other(self) -> Self {
        match self {
            Self::Copy => Self::ZeroCopy,
            Self::ZeroCopy => Self::Copy,
        }
    }
}

/// Sends of `len` bytes that only fill buffers, which hold `held`.
fn fills(mechanism: Mechanism, len: usize, held: usize) -> u64 {
    match mechanism {
        Mechanism::Copy => u64::try_from(held.div_ceil(len.max(1))).unwrap_or(u64::MAX / EXPLORE),
        Mechanism::ZeroCopy => 0,
    }
}

/// The last send, until the next one tells how long it took.
#[derive(Clone, Copy, Debug)]
struct Last {
    id: Option<SendId>,
    registered: bool,
    class: usize,
    mechanism: Mechanism,
    /// Bytes that went the same way just before it.
    run: usize,
    /// They are so many that it says something.
    settled: bool,
    /// It was the last one to try the other mechanism.
    decides: bool,
    len: usize,
    start: Instant,
}

/// The choices of one connection.
#[derive(Debug)]
pub(crate) struct Choices {
    start: Adaptive,
    /// Of heap, of registered memory; made when first needed.
    classes: [Vec<Class>; 2],
    last: Option<Last>,
}

fn class_of(len: usize) -> usize {
    let log = len.checked_ilog2().unwrap_or(0).max(CLASS_MIN) - CLASS_MIN;
    usize::try_from(log).map_or(0, |class| class.min(CLASSES - 1))
}

impl Choices {
    pub(crate) const fn new(start: Adaptive) -> Self {
        Self {
            start,
            classes: [Vec::new(), Vec::new()],
            last: None,
        }
    }

    /// A send starts, which is long enough and free to go either way; without a reader both ends'
    /// buffers hold `held` bytes. `Some`: it is to be copied.
    pub(crate) fn choose(
        &mut self,
        now: Instant,
        req: &SendRequest,
        held: usize,
    ) -> Option<CopyReason> {
        let (registered, class) = (req.registered, class_of(req.len));
        let run = self.measure(now, registered, class);
        let classes = &mut self.classes[usize::from(registered)];
        if classes.is_empty() {
            let on = if registered {
                self.start.registered
            } else {
                self.start.heap
            };
            let choice = if on {
                Mechanism::ZeroCopy
            } else {
                Mechanism::Copy
            };
            classes.resize(CLASSES, Class::new(choice));
        }
        let class_state = classes.get_mut(class)?;
        let mechanism = class_state.next(req.len, held);
        let run = run.filter(|(before, _)| *before == mechanism);
        let run = run.map_or(0, |(_, run)| run);
        let exploring = mechanism != class_state.choice;
        let decides = exploring && class_state.burst == 0;
        let why = class_state.why;
        self.last = Some(Last {
            id: None,
            registered,
            class,
            mechanism,
            run,
            settled: run > 0 && (mechanism == Mechanism::ZeroCopy || run >= held),
            decides,
            len: req.len,
            start: now,
        });
        match (mechanism, why) {
            (Mechanism::ZeroCopy, _) => None,
            (Mechanism::Copy, _) if exploring => Some(CopyReason::Exploring),
            (Mechanism::Copy, Why::Start) => Some(CopyReason::NotMeasured),
            (Mechanism::Copy, _) => Some(CopyReason::MeasuredSlower),
        }
    }

    /// The send just chosen for has this name.
    pub(crate) fn started(&mut self, id: SendId) {
        if let Some(last) = &mut self.last {
            last.id = Some(id);
        }
    }

    /// Send `id` has ended. One that did not send all of it tells nothing.
    pub(crate) fn ended(&mut self, id: SendId, sent: Option<usize>) {
        if let Some(last) = &mut self.last
            && last.id == Some(id)
        {
            last.id = None;
            if sent != Some(last.len) {
                self.last = None;
            }
        }
    }

    /// Takes the time of the last send, if this one is its successor. Tells how it went, and how many
    /// bytes have gone that way in a row.
    fn measure(
        &mut self,
        now: Instant,
        registered: bool,
        class: usize,
    ) -> Option<(Mechanism, usize)> {
        let last = self.last.take()?;
        let state = self.classes[usize::from(last.registered)].get_mut(last.class)?;
        // Still going on: two threads send at once.
        let alone = last.id.is_none();
        let same = (last.registered, last.class) == (registered, class);
        if alone && same && last.settled {
            let picos = now.since(last.start).as_nanos() * 1_000 / last.len.max(1) as u128;
            state.costs[last.mechanism as usize].add(u64::try_from(picos).unwrap_or(u64::MAX / 16));
        }
        if last.decides {
            state.decide();
        }
        (alone && same).then_some((last.mechanism, last.run.saturating_add(last.len)))
    }

    /// All classes that were used.
    pub(crate) fn list(&self) -> Vec<Choice> {
        let of = |registered: bool| {
            let classes = self.classes[usize::from(registered)].iter().enumerate();
            classes
                .filter(|(_, class)| class.sends > 0)
                .map(move |(index, class)| Choice {
                    registered,
                    from: 1 << (index + CLASS_MIN as usize),
                    mechanism: class.choice,
                    why: class.why,
                    copy_cost: class.costs[Mechanism::Copy as usize].known(),
                    zcopy_cost: class.costs[Mechanism::ZeroCopy as usize].known(),
                    sends: class.sends,
                    explored: class.explored,
                })
        };
        of(true).chain(of(false)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Adaptive = Adaptive {
        registered: true,
        heap: false,
    };

    /// A program that sends `len` bytes again and again; a send takes what `cost` says.
    struct Program {
        choices: Choices,
        now: u64,
        id: u32,
        /// What both ends' buffers hold.
        held: usize,
    }

    impl Program {
        fn new() -> Self {
            Self {
                choices: Choices::new(HOST),
                now: 0,
                id: 0,
                held: 0,
            }
        }

        fn send(&mut self, registered: bool, len: usize, cost: [u64; 2]) -> Option<CopyReason> {
            let req = SendRequest {
                len,
                segment_ends: [len].into_iter().collect(),
                nonblocking: false,
                urgent: false,
                registered,
                copy_reason: None,
            };
            let reason = self
                .choices
                .choose(Instant::from_nanos(self.now), &req, self.held);
            self.id += 1;
            self.choices.started(SendId(self.id));
            self.now += cost[usize::from(reason.is_none())];
            self.choices.ended(SendId(self.id), Some(len));
            reason
        }

        fn choice(&self, registered: bool, len: usize) -> Choice {
            let from = 1 << len.ilog2();
            let list = self.choices.list();
            let found = |c: &&Choice| c.registered == registered && c.from == from;
            *list.iter().find(found).expect("a class in use")
        }
    }

    #[test]
    fn what_is_faster_becomes_the_choice_and_the_reasons_are_named() {
        let mut program = Program::new();
        let cost = [10_000, 4_000];
        for _ in 0..252 {
            assert_eq!(
                program.send(false, 100_000, cost),
                Some(CopyReason::NotMeasured)
            );
        }
        for _ in 0..4 {
            assert_eq!(program.send(false, 100_000, cost), None);
        }
        for _ in 0..252 {
            assert_eq!(program.send(false, 100_000, cost), None, "the choice now");
        }
        assert_eq!(
            program.send(false, 100_000, cost),
            Some(CopyReason::Exploring)
        );
        let choice = program.choice(false, 100_000);
        assert_eq!(choice.mechanism, Mechanism::ZeroCopy);
        assert_eq!(choice.why, Why::Measured);
        assert_eq!(choice.zcopy_cost, Some(40));
        // Another class knows nothing of it.
        assert_eq!(
            program.send(false, 300_000, cost),
            Some(CopyReason::NotMeasured)
        );
    }

    #[test]
    fn what_becomes_slower_is_left_again() {
        let mut program = Program::new();
        for _ in 0..1_000 {
            program.send(true, 1 << 20, [90_000, 50_000]);
        }
        assert_eq!(program.choice(true, 1 << 20).mechanism, Mechanism::ZeroCopy);
        for _ in 0..1_000 {
            program.send(true, 1 << 20, [90_000, 300_000]);
        }
        assert_eq!(program.choice(true, 1 << 20).mechanism, Mechanism::Copy);
        assert_eq!(
            program.send(true, 1 << 20, [90_000, 300_000]),
            Some(CopyReason::MeasuredSlower)
        );
    }

    #[test]
    fn at_most_one_in_64_explores_and_none_where_it_lost_by_far() {
        for (cost, explored) in [([5_000, 6_000], 64_000 / 64), ([5_000, 10_000], 4 * 4)] {
            let mut program = Program::new();
            for sends in 1..=64_000 {
                program.send(false, 64 << 10, cost);
                let choice = program.choice(false, 64 << 10);
                assert!(choice.explored * 64 <= sends + 3 * 64, "{choice:?}");
            }
            let choice = program.choice(false, 64 << 10);
            assert_eq!(choice.mechanism, Mechanism::Copy);
            assert_eq!(choice.explored, explored, "{choice:?}");
            assert_eq!(choice.sends, 64_000);
        }
    }

    #[test]
    fn sends_that_cannot_be_compared_do_not_count() {
        let mut program = Program::new();
        for n in 0..10_000 {
            // Each is followed by one of another class, or fails.
            program.send(false, 64 << 10, [9_000, 1]);
            match n % 2 {
                0 => _ = program.send(false, 1 << 20, [1, 1]),
                _ => {
                    let id = SendId(program.id);
                    program.choices.started(id);
                    program.choices.ended(id, Some(1));
                }
            }
        }
        let choice = program.choice(false, 64 << 10);
        assert_eq!(
            (choice.mechanism, choice.why),
            (Mechanism::Copy, Why::Start)
        );
        assert_eq!(choice.copy_cost, None);
    }

    #[test]
    fn a_pause_is_no_cost() {
        let mut program = Program::new();
        for n in 0..200 {
            if n % 20 == 19 {
                program.now += 1_000_000_000;
            }
            program.send(false, 64 << 10, [6_553, 1]);
        }
        let cost = program.choice(false, 64 << 10).copy_cost.expect("measured");
        assert!(cost < 100 * 8, "{cost}");
    }

    #[test]
    fn copies_that_only_fill_buffers_do_not_count() {
        const LEN: usize = 64 << 10;
        let mut program = Program::new();
        program.held = 1 << 20;
        let mut buffered = 0;
        let mut copied = 0;
        for _ in 0..10_000 {
            // The way takes as long for either, but a copy waits only if buffers are full.
            let cost = if buffered < program.held { 1 } else { 6_000 };
            if program.send(true, LEN, [cost, 6_000]).is_some() {
                buffered += LEN;
                copied += 1;
            } else {
                buffered = 0;
            }
        }
        let choice = program.choice(true, LEN);
        assert_eq!(
            (choice.mechanism, choice.why),
            (Mechanism::ZeroCopy, Why::Measured)
        );
        assert_eq!(choice.copy_cost, choice.zcopy_cost);
        // 16 of them fill buffers, four are measured.
        assert_eq!(copied, 20 * (1 + (10_000 - 252 - 20) / (20 * 64)));
    }

    #[test]
    fn short_sends_fill_buffers_before_the_other_way_is_tried() {
        let mut program = Program::new();
        program.held = 8 << 20;
        for _ in 0..3 * (512 + 4 + 4) {
            program.send(false, 16 << 10, [4_000, 1_000]);
        }
        let choice = program.choice(false, 16 << 10);
        assert_eq!(choice.mechanism, Mechanism::ZeroCopy);
        assert!(choice.copy_cost.is_some());
    }

    #[test]
    fn a_copy_must_be_clearly_faster() {
        use Mechanism::{Copy, ZeroCopy};
        assert_eq!(judge(ZeroCopy, 100, 87), Verdict::Switch);
        assert_eq!(judge(ZeroCopy, 100, 88), Verdict::Keep);
        assert_eq!(judge(Copy, 100, 105), Verdict::Switch);
        assert_eq!(judge(Copy, 100, 106), Verdict::Keep);
        for is in [Copy, ZeroCopy] {
            assert_eq!(judge(is, 100, 199), Verdict::Keep);
            assert_eq!(judge(is, 100, 200), Verdict::KeepForLong);
        }
    }
}
