//! Two sides, a wire between them, and virtual time.

mod acts;
mod happenings;
mod opening;

use alloc::collections::BinaryHeap;
use core::cmp::Reverse;
use std::vec::Vec;

use sdp_wire::{HELLO_LEN, Mid, RemoteAddr, Rkey};

use super::Rng;
use super::app::App;
use super::nic::Nic;
use crate::connection::Connection;
use crate::stats::mid_index;
use crate::{
    Action, CallId, Config, CopyWhat, Instant, JobId, KeyId, Phase, ReadInto, SendId, WorkId,
};
use opening::Opening;

/// How the world behaves.
#[derive(Clone, Debug)]
pub(in crate::tests) struct Laws {
    /// One way, nanoseconds.
    pub(in crate::tests) latency: u64,
    /// Added to everything, at random, up to this.
    pub(in crate::tests) jitter: u64,
    /// How long a copy takes, and the making of a key.
    pub(in crate::tests) copy: u64,
    pub(in crate::tests) seed: u64,
    /// The confirmation of the handshake is lost.
    pub(in crate::tests) lose_rtu: bool,
    /// Of 100 requests for memory, keys and reads, so many fail.
    pub(in crate::tests) trouble: u64,
    /// Only the side that connected may send first, and what comes to the other one up to so long
    /// after its answer is not seen before something else comes.
    pub(in crate::tests) opening: Option<u64>,
}

impl Default for Laws {
    fn default() -> Self {
        Self {
            latency: 1_000,
            jitter: 0,
            copy: 0,
            seed: 1,
            lose_rtu: false,
            trouble: 0,
            opening: None,
        }
    }
}

/// A read on its way.
#[derive(Debug)]
struct ReadJob {
    rkey: Rkey,
    remote: RemoteAddr,
    into: ReadInto,
    len: u32,
}

/// A write on its way.
#[derive(Debug)]
struct WriteJob {
    call: SendId,
    at: usize,
    remote: RemoteAddr,
    rkey: Rkey,
    len: u32,
    /// Once the sending side is in error: what its adapter had taken.
    bytes: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Happening {
    Land(WriteJob),
    Arrive {
        bytes: Vec<u8>,
        invalidate: Option<Rkey>,
    },
    Complete {
        work: WorkId,
        read: Option<ReadJob>,
        kill: Option<KeyId>,
        flushed: bool,
    },
    /// Of a write without bytes nothing shows.
    Knock,
    Copied(JobId, CopyWhat),
    Bind {
        key: KeyId,
        call: CallId,
        at: usize,
        len: u32,
    },
    Response(Vec<u8>),
    Established,
    Disconnected,
    /// There is a way to the peer's port: this side calls on a new queue pair.
    Path,
    /// The peer calls on a new queue pair, and the old one is down.
    Call(Vec<u8>),
    Refused,
    Task(usize),
    Timeout,
}

/// Two connected sides.
#[derive(Debug)]
pub(in crate::tests) struct World {
    pub(in crate::tests) now: u64,
    pub(in crate::tests) nics: Vec<Nic>,
    pub(in crate::tests) apps: Vec<App>,
    laws: Laws,
    rng: Rng,
    heap: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// At which side, and what; what comes from the other one belongs to a queue pair of it.
    happenings: Vec<Option<(usize, u32, Happening)>>,
    /// Work of each side that a flush must end.
    outstanding: [Vec<(WorkId, Option<ReadInto>)>; 2],
    order: u64,
    /// This side is stopped: nothing happens at it.
    stopped: [bool; 2],
    /// Timers asked for, so that none is asked for twice.
    timers: [Option<u64>; 2],
    openings: [Opening; 2],
}

impl World {
    /// Side 0 calls side 1.
    pub(in crate::tests) fn new(configs: [Config; 2], laws: Laws) -> Self {
        let [a, b] = configs.map(|config| Config {
            caller_first: laws.opening.is_some(),
            ..config
        });
        let now = Instant::from_nanos(0);
        let calling = Connection::connect(now, a, 4711, None, None);
        let mut nics = std::vec![Nic::new(calling)];
        // The request travels at once: the rest of the handshake takes its time.
        let mut hello = None;
        while let Some(action) = nics[0].conn.poll_action() {
            if let Some(Action::Connect(data)) = nics[0].act(action) {
                hello = Some(data);
            }
        }
        let hello = hello.expect("no Hello");
        assert!(hello.len() <= HELLO_LEN);
        let accepting = Connection::accept(now, b, &hello).expect("Hello refused");
        nics.push(Nic::new(accepting));
        let mut world = Self {
            now: 0,
            nics,
            apps: std::vec![App::default(), App::default()],
            rng: Rng::new(laws.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            laws,
            heap: BinaryHeap::new(),
            happenings: Vec::new(),
            outstanding: [Vec::new(), Vec::new()],
            order: 0,
            stopped: [false, false],
            timers: [None, None],
            openings: [Opening::default(), Opening::default()],
        };
        world.drain(1);
        world
    }

    /// Two sides with the same settings, the handshake over.
    pub(in crate::tests) fn connected(config: &Config) -> Self {
        Self::connected_with([config.clone(), config.clone()], Laws::default())
    }

    pub(in crate::tests) fn connected_with(configs: [Config; 2], laws: Laws) -> Self {
        let mut world = Self::new(configs, laws);
        world.run_until(|world| world.nics.iter().all(|nic| nic.conn.is_connected()));
        world
    }

    /// Messages of kind `mid` that `side` has sent.
    pub(in crate::tests) fn sent(&self, side: usize, mid: Mid) -> u64 {
        self.nics[side].conn.stats().sent[mid_index(mid)]
    }

    pub(in crate::tests) fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn at(&mut self, time: u64, side: usize, what: Happening) {
        let index = self.happenings.len();
        let pair = self.nics.get(1 - side).map_or(0, |nic| nic.pair);
        self.happenings.push(Some((side, pair, what)));
        self.order += 1;
        self.heap.push(Reverse((time, self.order, index)));
    }

    fn jittered(&mut self, delay: u64) -> u64 {
        self.now + delay + self.rng.below(self.laws.jitter + 1)
    }

    /// Time for task `task` of `side` to go on.
    pub(in crate::tests) fn schedule_task(&mut self, side: usize, task: usize, delay: u64) {
        let time = self.now + delay;
        self.at(time, side, Happening::Task(task));
    }

    /// Something is to go wrong.
    pub(in crate::tests) fn trouble(&mut self) -> bool {
        self.laws.trouble > 0 && self.rng.below(100) < self.laws.trouble
    }

    pub(in crate::tests) fn copy_delay(&mut self) -> u64 {
        if self.laws.copy == 0 {
            0
        } else {
            1 + self.rng.below(self.laws.copy)
        }
    }

    /// Carries out all that `side` wants done, and hears what it tells.
    pub(in crate::tests) fn drain(&mut self, side: usize) {
        if self.trouble() {
            let (now, scarce) = (self.instant(), self.rng.below(2) == 0);
            self.nics[side].conn.set_memory_scarce(now, scarce);
        }
        while let Some(action) = self.nics[side].conn.poll_action() {
            if let Action::PostRecv { buf, len } = action
                && self.nics[side].buf_lens.get(&buf) != Some(&(len as usize))
                && !matches!(
                    self.nics[side].conn.phase(),
                    Phase::Handshake | Phase::Moving
                )
                && self.trouble()
            {
                let now = self.instant();
                self.nics[side].conn.buffer_unavailable(now, buf);
            } else if let Some(action) = self.nics[side].act(action) {
                self.carry_out(side, action);
            }
        }
        while let Some(event) = self.nics[side].conn.poll_event() {
            self.nics[side].events.push(event.clone());
            App::on_event(self, side, &event);
        }
        let conn = &self.nics[side].conn;
        let wanted = [conn.poll_timeout(), conn.poll_housekeeping()];
        let wanted = wanted.into_iter().flatten().min().map(Instant::as_nanos);
        if let Some(at) = wanted
            && self.timers[side].is_none_or(|set| at < set)
        {
            let at = at.max(self.now);
            self.timers[side] = Some(at);
            self.at(at, side, Happening::Timeout);
        }
    }

    /// Lets the next thing happen. `false`: nothing will ever happen again.
    pub(in crate::tests) fn step(&mut self) -> bool {
        let Some(Reverse((time, _, index))) = self.heap.pop() else {
            return false;
        };
        assert!(time >= self.now);
        self.now = time;
        let Some((side, pair, what)) = self.happenings[index].take() else {
            return true;
        };
        let is_stale = match what {
            Happening::Arrive { .. }
            | Happening::Knock
            | Happening::Response(_)
            | Happening::Established
            | Happening::Disconnected => pair != self.nics[side].pair,
            _ => false,
        };
        if !self.stopped[side] && !is_stale {
            self.happen(side, what);
            self.drain(side);
        }
        true
    }

    /// Nothing reaches `side` any more, and it does nothing.
    pub(in crate::tests) fn cut(&mut self, side: usize) {
        self.stopped[side] = true;
    }

    /// Runs until `done`.
    ///
    /// # Panics
    /// If nothing happens any more before, or if it takes too long.
    pub(in crate::tests) fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..4_000_000 {
            if done(self) {
                return;
            }
            if !self.step() {
                panic!("nothing happens any more: {}", self.picture());
            }
        }
        panic!("no end: {}", self.picture());
    }

    /// Runs until nothing happens any more.
    pub(in crate::tests) fn run(&mut self) {
        for _ in 0..4_000_000 {
            if !self.step() {
                return;
            }
        }
        panic!("no end: {}", self.picture());
    }

    /// What a failing test shows.
    pub(in crate::tests) fn picture(&self) -> std::string::String {
        use core::fmt::Write;
        let mut out = std::format!("now {} ", self.now);
        for side in 0..2 {
            let nic = &self.nics[side];
            write!(
                out,
                "\nside {side}: {:?} unread {} unsent {} posted {} tasks {:?}\n  {:?}",
                nic.conn.phase(),
                nic.conn.readable_len(),
                nic.conn.unsent_len(),
                nic.posted.len(),
                self.apps[side],
                nic.conn,
            )
            .unwrap();
        }
        out
    }
}
