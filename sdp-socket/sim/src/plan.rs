//! What a seed stands for: machines, faults, and what the programs do.

use sdp_verbs::sim::{Fault, Faults, SimOptions, Timing};
use sdp_verbs::{Caps, Rng};
use sdp_wire::Mid;

use crate::cli::Peer;

/// How rough a run is, and so what may be asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// The fabric does nothing wrong.
    Calm,
    /// Only what an adapter may do without breaking anything: every byte arrives.
    Rough,
    /// Anything: what arrives is right, and every call ends.
    Stormy,
}

/// How a call is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    Plain,
    Nonblocking,
    /// At most so many nanoseconds.
    Limited(u64),
    /// In three pieces.
    Vectored,
    /// From or into memory that was registered before.
    Registered,
    Peek,
    WaitAll,
}

/// One thing that a program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Send(usize, How),
    /// So many bytes, the last of them urgent.
    Urgent(usize),
    /// To another queue pair.
    Move,
    Recv(usize, How),
    Sleep(u64),
}

/// What cuts a conversation short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// All handles of one side are dropped.
    Close,
    /// The same, with a linger of zero.
    Abort,
    ShutdownWrite,
    ShutdownRead,
}

/// When that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// So many nanoseconds after the connection was made.
    After(u64),
    /// As soon as a side has sent a message of this kind for the nth time, or after so many
    /// nanoseconds.
    Said {
        side: usize,
        message: &'static str,
        nth: u64,
        latest: u64,
    },
}

impl Moment {
    /// Nanoseconds after which it has come in any case.
    pub(crate) const fn latest(self) -> u64 {
        match self {
            Self::After(time) | Self::Said { latest: time, .. } => time,
        }
    }
}

/// A conversation is cut short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cut {
    /// By which side.
    pub(crate) side: usize,
    pub(crate) when: Moment,
    pub(crate) how: Ending,
}

/// A connection that is not wanted any more before it is there. Times are in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GivenUp {
    /// The connecting side waits no longer than this.
    Connect(u64),
    /// The listener is there no longer than this, and nobody accepts.
    Listen(u64),
}

/// One side's program.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) sends: Vec<Op>,
    /// What a second thread sends meanwhile.
    pub(crate) also_sends: Vec<Op>,
    /// Urgent bytes that a third thread sends meanwhile.
    pub(crate) urgents: Vec<Op>,
    /// Moves that a thread of its own makes meanwhile.
    pub(crate) moves: Vec<Op>,
    /// Urgent bytes are received in line.
    pub(crate) oob_inline: bool,
    pub(crate) recvs: Vec<Op>,
    /// Length of the receives that read to the end.
    pub(crate) last_recv_len: usize,
    pub(crate) send_buffer: usize,
    pub(crate) recv_buffer: usize,
    pub(crate) threshold: Option<usize>,
    pub(crate) rendezvous_wait: Option<u64>,
    pub(crate) nodelay: bool,
    pub(crate) signal_every: u64,
    pub(crate) options: SimOptions,
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) timing: Timing,
    pub(crate) faults: Faults,
    pub(crate) sides: [Side; 2],
    pub(crate) cut: Option<Cut>,
    pub(crate) given_up: Option<GivenUp>,
    /// The side that is not our stack, and what it is instead.
    pub(crate) stranger: Option<(usize, Peer)>,
}

/// How long a call that must end waits for the peer.
pub(crate) const CANCEL_WAIT: u64 = 1_000_000_000;

/// How late things may be in rough weather: far below every time-out.
const LATE_MAX: u64 = 2_000_000;

/// Nanoseconds without a receive that make a reader an absent one: longer than any call waits for
/// the peer, and shorter than a close without progress may take.
pub(crate) const ABSENT_MIN: u64 = 2 * CANCEL_WAIT;
const ABSENT_MAX: u64 = 20 * CANCEL_WAIT;

fn len(rng: &mut Rng) -> usize {
    let max = *rng.pick(&[1, 64, 64, 5_000, 5_000, 60_000, 60_000, 400_000, 900_000]);
    usize::try_from(rng.between(1, max)).unwrap_or(1)
}

fn limit(rng: &mut Rng) -> u64 {
    let max = *rng.pick(&[20_000, 400_000, 5_000_000]);
    rng.between(1, max)
}

fn sends(rng: &mut Rng) -> Vec<Op> {
    let count = rng.below(14);
    let op = |rng: &mut Rng| {
        let how = match rng.below(12) {
            0 => How::Nonblocking,
            1 | 2 => How::Limited(limit(rng)),
            3 | 4 => How::Vectored,
            5 | 6 => How::Registered,
            7 => return Op::Sleep(limit(rng)),
            _ => How::Plain,
        };
        Op::Send(len(rng), how)
    };
    (0..count).map(|_| op(rng)).collect()
}

/// From this length on an urgent send takes its turn behind others.
const URGENT_LONG: usize = 4 << 10;

/// In one of three runs, some at any time.
fn urgents(rng: &mut Rng) -> Vec<Op> {
    let count = *rng.pick(&[0, 0, 0, 0, 1, 6]);
    let op = |rng: &mut Rng| {
        let len = match rng.below(4) {
            0 => URGENT_LONG + len(rng),
            _ => 1,
        };
        [Op::Sleep(limit(rng)), Op::Urgent(len)]
    };
    (0..count).flat_map(|_| op(rng)).collect()
}

/// In one of three runs, a few at any time.
fn moves(rng: &mut Rng) -> Vec<Op> {
    let count = *rng.pick(&[0, 0, 0, 0, 1, 3]);
    let op = |rng: &mut Rng| [Op::Sleep(limit(rng)), Op::Move];
    (0..count).flat_map(|_| op(rng)).collect()
}

/// As a message of some kind is on its way.
fn said(rng: &mut Rng) -> Moment {
    Moment::Said {
        side: usize::from(rng.coin()),
        message: rng.pick(&Mid::ALL).name(),
        nth: *rng.pick(&[1, 1, 2, 4]),
        latest: *rng.pick(&[50_000_000, 1_000_000_000]),
    }
}

fn recvs(rng: &mut Rng) -> Vec<Op> {
    let count = rng.below(14);
    let op = |rng: &mut Rng| {
        let how = match rng.below(14) {
            0 => How::Nonblocking,
            1 | 2 => How::Limited(limit(rng)),
            3 | 4 => How::Vectored,
            5 => How::Registered,
            6 => How::Peek,
            7 => How::WaitAll,
            8 | 9 => return Op::Sleep(limit(rng) * 2),
            _ => How::Plain,
        };
        Op::Recv(len(rng), how)
    };
    (0..count).map(|_| op(rng)).collect()
}

fn side(rng: &mut Rng, weather: Weather) -> Side {
    let buffers = [4 << 10, 4 << 10, 40 << 10, 300 << 10, 4 << 20];
    let mut options = SimOptions::default();
    options.limits.read_depth_max = *rng.pick(&[1, 2, 4, 16]);
    if rng.below(8) == 0 {
        options.caps -= Caps::SEND_WITH_INV;
    }
    if weather != Weather::Calm && rng.below(6) == 0 {
        options.registered_max = *rng.pick(&[100 << 10, 1 << 20]);
    }
    Side {
        sends: sends(rng),
        also_sends: Vec::new(),
        urgents: Vec::new(),
        moves: Vec::new(),
        oob_inline: false,
        recvs: recvs(rng),
        last_recv_len: *rng.pick(&[1_500, 5_000, 70_000, 300_000]),
        send_buffer: *rng.pick(&buffers),
        recv_buffer: *rng.pick(&buffers),
        threshold: *rng.pick(&[None, Some(0), Some(4 << 10), Some(16 << 10)]),
        rendezvous_wait: *rng.pick(&[None, None, Some(0), Some(50_000), Some(2_000_000)]),
        nodelay: rng.coin(),
        signal_every: *rng.pick(&[0, 0, 0, 3, 10]),
        options,
    }
}

fn timing(rng: &mut Rng) -> Timing {
    Timing {
        link_rate: *rng.pick(&[125_000_000, 2_500_000_000, 50_000_000_000]),
        latency: *rng.pick(&[0, 1_000, 1_000, 50_000]),
        mtu: *rng.pick(&[256, 2_048, 4_096]),
        register: *rng.pick(&[(0, 0), (30_000, 200)]),
        copy_rate: *rng.pick(&[500_000_000, 10_000_000_000]),
        post: *rng.pick(&[0, 150]),
        poll: *rng.pick(&[0, 50]),
        interrupt: *rng.pick(&[0, 3_000]),
        system_call: *rng.pick(&[0, 500]),
        ..Timing::default()
    }
}

fn faults(rng: &mut Rng, weather: Weather) -> Faults {
    let mut faults = Faults::none();
    if weather == Weather::Calm {
        return faults;
    }
    for fault in [
        Fault::Rnr,
        Fault::LateCompletion,
        Fault::Reorder,
        Fault::CmLostRtu,
        Fault::CmDuplicate,
        Fault::RegisterFails,
        Fault::ClockJump,
    ] {
        let often = *rng.pick(&[0, 0, 1_000, 20_000, 200_000]);
        let often = if fault == Fault::ClockJump {
            often / 20
        } else {
            often
        };
        faults = faults.with(fault, often);
    }
    faults.late_max = *rng.pick(&[10_000, 200_000, LATE_MAX]);
    faults.jump_max = LATE_MAX * 5;
    if weather == Weather::Stormy {
        for (fault, most) in [
            (Fault::RetryExceeded, 20_000),
            (Fault::QpBreak, 20_000),
            (Fault::CmReject, 60_000),
            (Fault::CmTimeout, 60_000),
            (Fault::NoRecvMemory, 100_000),
            (Fault::NoSendMemory, 20_000),
        ] {
            let often = *rng.pick(&[0, 0, most / 20, most]);
            faults = faults.with(fault, often);
        }
        if rng.below(8) == 0 {
            faults.jump_max = 3_000_000_000;
        }
    }
    faults
}

impl Plan {
    /// The run of a seed, with `peer` at one of its ends if one was asked for.
    pub(crate) fn of(seed: u64, peer: Option<Peer>) -> Self {
        let mut rng = Rng::new(seed, 0x91);
        let weather = *rng.pick(&[
            Weather::Calm,
            Weather::Rough,
            Weather::Rough,
            Weather::Stormy,
            Weather::Stormy,
        ]);
        let cut = (weather == Weather::Stormy && rng.coin()).then(|| {
            let side = usize::from(rng.coin());
            let how = *rng.pick(&[
                Ending::Close,
                Ending::Abort,
                Ending::ShutdownWrite,
                Ending::ShutdownRead,
            ]);
            let when = Moment::After(limit(&mut rng) * 2);
            Cut { side, when, how }
        });
        let (timing, faults) = (timing(&mut rng), faults(&mut rng, weather));
        let mut sides = [side(&mut rng, weather), side(&mut rng, weather)];
        let mut rng = Rng::new(seed, 0x92);
        for side in &mut sides {
            side.options.poll_max = *rng.pick(&[1, 1, 1, usize::MAX]);
            if rng.below(4) == 0 {
                side.also_sends = sends(&mut rng);
            }
        }
        let stranger = match peer {
            None => seed.is_multiple_of(4).then_some(Peer::Any),
            Some(Peer::Strict) => None,
            other => other,
        };
        let stranger = stranger.map(|who| (usize::from(rng.coin()), who));
        if peer == Some(Peer::Strict) {
            sides.iter_mut().for_each(|side| side.options.poll_max = 1);
        }
        if let Some((side, Peer::Gen1)) = stranger {
            // It has no way to say that it cannot read.
            sides[side].options.registered_max = SimOptions::default().registered_max;
        }
        if stranger.is_none() {
            let mut rng = Rng::new(seed, 0x93);
            for side in &mut sides {
                side.urgents = urgents(&mut rng);
                side.oob_inline = rng.coin();
            }
            // The stacks of the field do not speak SuspComm.
            let mut rng = Rng::new(seed, 0x94);
            for side in &mut sides {
                side.moves = moves(&mut rng);
            }
        }
        let mut plan = Self {
            seed,
            weather,
            timing,
            faults,
            sides,
            cut,
            given_up: None,
            stranger,
        };
        plan.disturb(Rng::new(seed, 0x95));
        if plan.stranger.is_none() {
            plan.let_the_caller_begin(Rng::new(seed, 0x96));
        }
        plan
    }

    /// Only the side that connects may send first, in a quarter of all runs, and may not be seen at
    /// once. The stacks of the field know nothing of it.
    fn let_the_caller_begin(&mut self, mut rng: Rng) {
        if rng.below(3) > 0 {
            return;
        }
        for side in &mut self.sides {
            side.options.caps |= Caps::CALLER_FIRST;
        }
        if self.weather != Weather::Calm {
            let often = *rng.pick(&[0, 200_000, 1_000_000]);
            self.faults = self.faults.clone().with(Fault::Unseen, often);
        }
    }

    /// Programs that do not wait for each other as they should.
    fn disturb(&mut self, mut rng: Rng) {
        if let Some(cut) = self.cut.as_mut().filter(|_| rng.coin()) {
            cut.when = said(&mut rng);
        }
        let given_up = self.weather == Weather::Stormy && rng.below(8) == 0;
        self.given_up = given_up.then(|| {
            let limit = limit(&mut rng);
            match rng.coin() {
                true => GivenUp::Connect(limit),
                false => GivenUp::Listen(limit),
            }
        });
        for side in &mut self.sides {
            if self.weather != Weather::Calm && rng.below(16) == 0 {
                let place = rng.below(side.recvs.len() as u64 + 1);
                let place = usize::try_from(place).unwrap_or(0);
                let time = rng.between(ABSENT_MIN, ABSENT_MAX);
                side.recvs.insert(place, Op::Sleep(time));
            }
        }
        let ours = self.stranger.is_none() && self.given_up.is_none();
        if ours && self.weather == Weather::Stormy && rng.below(16) == 0 {
            self.reset_at_answer(&mut rng);
        }
    }

    /// Receives time out while their memory is offered, and the other side resets the connection
    /// as it says what it has written there, or that it will not: by chance that hardly ever comes
    /// together.
    fn reset_at_answer(&mut self, rng: &mut Rng) {
        let source = usize::from(rng.coin());
        let send = |rng: &mut Rng| [Op::Send(900_000, How::Plain), Op::Sleep(limit(rng))];
        self.sides[source].sends = (0..8).flat_map(|_| send(rng)).collect();
        let recv = |rng: &mut Rng| Op::Recv(900_000, How::Limited(limit(rng)));
        self.sides[1 - source].recvs = (0..16).map(|_| recv(rng)).collect();
        for side in &mut self.sides {
            side.threshold = Some(4 << 10);
            side.also_sends.clear();
            side.urgents.clear();
            side.moves.clear();
        }
        self.faults = Faults::none().with(Fault::LateCompletion, 800_000);
        self.faults.late_max = LATE_MAX;
        let message = *rng.pick(&[Mid::SinkCancelAck, Mid::RdmaWrCompl]);
        self.cut = Some(Cut {
            side: source,
            when: Moment::Said {
                side: source,
                message: message.name(),
                nth: *rng.pick(&[1, 2]),
                latest: 1_000_000_000,
            },
            how: Ending::Abort,
        });
    }

    /// Operations of both sides, numbered through.
    pub(crate) fn op_count(&self) -> usize {
        self.sides
            .iter()
            .map(|side| {
                let sends = side.sends.len() + side.also_sends.len() + side.urgents.len();
                sends + side.recvs.len() + side.moves.len()
            })
            .sum()
    }

    /// Leaves operations out, by their numbers.
    pub(crate) fn without(&self, skipped: &dyn Fn(usize) -> bool) -> Self {
        let mut plan = self.clone();
        let mut number = 0;
        for side in &mut plan.sides {
            for ops in [
                &mut side.sends,
                &mut side.recvs,
                &mut side.also_sends,
                &mut side.urgents,
                &mut side.moves,
            ] {
                ops.retain(|_| {
                    number += 1;
                    !skipped(number - 1)
                });
            }
        }
        plan
    }
}
