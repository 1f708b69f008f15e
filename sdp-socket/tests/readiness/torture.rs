//! Two hundred sockets, random traffic both ways, and threads that sleep on nothing but epoll.
//!
//! Each side is one thread. Both know from a seed how many bytes each socket carries in each
//! round, and a round is over when all of them have come: if the thread then sleeps too long, an
//! event was missed. A write that would block right after OUT means that an event was false; a read
//! right after IN may, as rarely as a peer is interrupted while it puts a token.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use sdp_socket::SdpStream;

use crate::common::child::{Child, say, told};
use crate::common::net::{Listener, Net, Stream, would_block};
use crate::common::pattern::Pattern;
use crate::common::rng::Rng;
use crate::common::sdp::Sdp;
use crate::common::watch::{actor, doing};

/// Connections; each has two sockets.
const PAIRS: usize = 100;
/// Both buffers of each socket: small, so that writers block.
const BUFFER_LEN: usize = 4 << 10;
/// More than a connection holds with these buffers.
const BURST_MAX: usize = 300 << 10;
/// A thread that sleeps so long has missed something.
const SLEEP_MAX: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// The socket that is in two epolls.
const TWIN: usize = 10;
/// The socket that is in an epoll that is in an epoll.
const NESTED: usize = 11;
/// How an event of the inner epoll is named in the outer one.
const INNER: u64 = 1 << 32;
const CALL_MAX: usize = 40_000;
/// What the two processes of a run in two know.
const APART_SEED: u64 = 5;
const DONE: &str = "done";

/// How a socket is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Level,
    Edge,
    OneShot,
}

impl Mode {
    fn of(index: usize) -> Self {
        match index {
            TWIN | NESTED => Self::Level,
            _ if index % 5 == 4 => Self::OneShot,
            _ if index % 2 == 1 => Self::Edge,
            _ => Self::Level,
        }
    }
}

/// One socket and what it has done.
#[derive(Debug)]
struct Socket {
    stream: SdpStream,
    mode: Mode,
    sends: Pattern,
    gets: Pattern,
    sent: u64,
    to_send: u64,
    got: u64,
    to_get: u64,
    /// The last write found no room, and epoll has not said since that there is some.
    blocked: bool,
}

/// What has been looked at in a run.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    rounds: u64,
    ins: u64,
    outs: u64,
    blocked: u64,
    probes: u64,
    /// IN, and a read that would block.
    false_ins: u64,
}

/// One of the two threads.
#[derive(Debug)]
struct Side {
    number: usize,
    sockets: Vec<Socket>,
    outer: OwnedFd,
    /// The other epoll of the socket that is in two.
    second: OwnedFd,
    /// The epoll within.
    inner: OwnedFd,
    plan: Plan,
    rng: Rng,
    tally: Tally,
}

/// What both sides know: how many bytes each socket of either side sends in each round.
#[derive(Clone, Debug)]
struct Plan([Rng; 2]);

impl Plan {
    fn new(seed: u64) -> Self {
        Self([Rng::new(seed), Rng::new(seed + 1_000)])
    }

    /// Of one side, in the next round.
    fn next(&mut self, side: usize) -> Vec<u64> {
        let rng = &mut self.0[side];
        let dense = rng.below(4) == 0;
        (0..PAIRS)
            .map(|_| match (dense || rng.below(8) == 0, rng.below(16)) {
                (false, _) => 0,
                (true, 0) => rng.between(1, BURST_MAX) as u64,
                (true, _) => rng.between(1, 2_000) as u64,
            })
            .collect()
    }
}

/// Runs both sides for `time`.
///
/// # Panics
/// If an event is false or missed, or a byte is wrong.
pub(crate) fn run(net: &Sdp, seed: u64, time: Duration) {
    let net = net.sized(BUFFER_LEN);
    let pairs: Vec<_> = (0..PAIRS).map(|_| net.pair()).collect();
    let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let begun = Instant::now();
    let last = OnceLock::new();
    let play = |number: usize, streams: Vec<SdpStream>| {
        let mut side = Side::new(number, streams, seed);
        for round in 0u64.. {
            if number == 0 && begun.elapsed() >= time {
                // The other side is at most one round ahead, and cannot begin the one after that
                // before this one has got there.
                last.get_or_init(|| round + 2);
            }
            if last.get().is_some_and(|last| round >= *last) {
                break;
            }
            side.round(round);
        }
        side
    };
    let sides = Mutex::new(Vec::new());
    // Kept until both are done: the other one would see the end of its streams.
    let keep = |side| sides.lock().expect("no panic").push(side);
    net.all(vec![
        actor("clients", || keep(play(0, clients))),
        actor("servers", || keep(play(1, servers))),
    ]);
    judge(&sides.into_inner().expect("no panic"));
}

/// As [`run`], for so many rounds, with the servers in the process that plays [`serve`] as `role`.
///
/// # Panics
/// As [`run`].
pub(crate) fn run_apart(role: &str, rounds: u64) {
    let mut child = Child::start(role);
    let addr = child.hear().parse().expect("an address");
    let net = Sdp::over_host().sized(BUFFER_LEN);
    let streams = (0..PAIRS).map(|_| net.connect(addr).expect("connect"));
    let mut side = Side::new(0, streams.collect(), APART_SEED);
    (0..rounds).for_each(|round| side.round(round));
    // Each keeps its streams until the other is done.
    assert_eq!(child.hear(), DONE);
    child.finish();
    judge(&[side]);
}

/// The other process of [`run_apart`].
///
/// # Panics
/// As [`run`].
pub(crate) fn serve(rounds: u64) {
    let net = Sdp::over_host().sized(BUFFER_LEN);
    let (listener, addr) = net.listen();
    say(addr);
    let streams = (0..PAIRS).map(|_| Listener::accept(&listener).expect("accept").0);
    let mut side = Side::new(1, streams.collect(), APART_SEED);
    (0..rounds).for_each(|round| side.round(round));
    say(DONE);
    assert_eq!(told(), None);
    judge(&[side]);
}

/// Enough was looked at, and little of it was false.
fn judge(sides: &[Side]) {
    let sum = |of: fn(&Tally) -> u64| -> u64 { sides.iter().map(|side| of(&side.tally)).sum() };
    let counts = [
        ("rounds", sum(|t| t.rounds), 4),
        ("IN", sum(|t| t.ins), 200),
        ("OUT", sum(|t| t.outs), 40),
        ("calls that would block", sum(|t| t.blocked), 4),
        ("probes", sum(|t| t.probes), 1),
    ];
    eprintln!("{counts:?}");
    // One may come of a token whose peer was interrupted while it put it.
    let (ins, wrong) = (sum(|t| t.ins), sum(|t| t.false_ins));
    assert!(wrong * 100 <= ins, "{wrong} of {ins} times IN was false");
    eprintln!("{wrong} of {ins} times IN was false");
    for (what, count, least) in counts {
        assert!(count >= least, "{what}: {count}, too few to prove anything");
    }
}

fn new_epoll() -> OwnedFd {
    epoll::create(CreateFlags::CLOEXEC).expect("an epoll")
}

/// What has happened, by name; `None` after `time` without anything.
fn wait(epoll: &OwnedFd, time: &Timespec) -> Vec<(u64, EventFlags)> {
    let mut events: Vec<Event> = Vec::with_capacity(2 * PAIRS);
    let spare = rustix::buffer::spare_capacity(&mut events);
    epoll::wait(epoll, spare, Some(time)).expect("epoll_wait");
    events
        .iter()
        .map(|event| (event.data.u64(), event.flags))
        .collect()
}

impl Side {
    fn new(number: usize, streams: Vec<SdpStream>, seed: u64) -> Self {
        let (outer, second, inner) = (new_epoll(), new_epoll(), new_epoll());
        let mut side = Self {
            number,
            sockets: Vec::new(),
            plan: Plan::new(seed),
            rng: Rng::new(seed * 7 + number as u64),
            tally: Tally::default(),
            outer,
            second,
            inner,
        };
        for (index, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true).expect("set_nonblocking");
            let key = |from: usize| Pattern((2 * index + from) as u64 + 500);
            let socket = Socket {
                stream,
                mode: Mode::of(index),
                sends: key(number),
                gets: key(1 - number),
                sent: 0,
                to_send: 0,
                got: 0,
                to_get: 0,
                blocked: false,
            };
            // Of those that wait for a level, some look like what may wait for edges.
            let edges = socket.mode == Mode::Edge || index % 4 == 0;
            socket.stream.set_edges(edges).expect("set_edges");
            let (flags, name) = (socket.interest(), EventData::new_u64(index as u64));
            epoll::add(side.home(index), &socket.stream, name, flags).expect("add");
            if index == TWIN {
                epoll::add(&side.second, &socket.stream, name, EventFlags::IN).expect("add");
            }
            side.sockets.push(socket);
        }
        let name = EventData::new_u64(INNER);
        epoll::add(&side.outer, &side.inner, name, EventFlags::IN).expect("add");
        side
    }

    /// The epoll that a socket is waited for with.
    fn home(&self, index: usize) -> &OwnedFd {
        if index == NESTED {
            &self.inner
        } else {
            &self.outer
        }
    }

    fn round(&mut self, round: u64) {
        let (sends, gets) = (self.plan.next(self.number), self.plan.next(1 - self.number));
        for (socket, (sends, gets)) in self.sockets.iter_mut().zip(sends.iter().zip(&gets)) {
            socket.to_send += sends;
            socket.to_get += gets;
        }
        self.tally.rounds += 1;
        doing(format!("round {round}"));
        loop {
            let mut idle = true;
            for index in 0..PAIRS {
                if self.sockets[index].may_send() {
                    idle = false;
                    self.write(index, false);
                }
            }
            let is_done = |s: &Socket| s.sent == s.to_send && s.got >= s.to_get;
            if self.sockets.iter().all(is_done) {
                return;
            }
            let readable = self.probe();
            let sleep = idle && readable.is_none();
            let events = wait(&self.outer, if sleep { &SLEEP_MAX } else { &NOW });
            assert!(!sleep || !events.is_empty(), "{}", self.stuck());
            if let Some(index) = readable {
                self.tally.probes += 1;
                let told = |(name, flags): &(u64, EventFlags)| {
                    *name == index as u64 && flags.contains(EventFlags::IN)
                };
                assert!(events.iter().any(told), "{index} is readable: {events:?}");
            }
            for (name, flags) in events {
                self.handle(name, flags);
            }
        }
    }

    /// Now and then: a socket that is known to be readable, of which epoll must say so at once.
    fn probe(&mut self) -> Option<usize> {
        let index = self.rng.below(PAIRS);
        let socket = self.sockets.get(index)?;
        let plain = socket.mode == Mode::Level && index != NESTED;
        (plain && socket.stream.recv_queue_len().expect("SIOCINQ") > 0).then_some(index)
    }

    fn stuck(&self) -> String {
        let mut text = format!("side {}: no event came, but:", self.number);
        for (index, socket) in self.sockets.iter().enumerate() {
            let missing = socket.to_get.saturating_sub(socket.got);
            if missing > 0 || socket.blocked {
                let Socket { mode, blocked, .. } = socket;
                let unread = socket.stream.recv_queue_len().expect("SIOCINQ");
                text += &format!(
                    "\n  {index} {mode:?}: {missing} bytes to come, {unread} there, blocked {blocked}"
                );
            }
        }
        text
    }

    fn handle(&mut self, name: u64, flags: EventFlags) {
        if name == INNER {
            let within = wait(&self.inner, &NOW);
            if within.is_empty() {
                // A token that came late was taken back between the two looks.
                self.tally.ins += 1;
                self.tally.false_ins += 1;
            }
            for (name, flags) in within {
                assert_eq!(name, NESTED as u64);
                self.handle(name, flags);
            }
            return;
        }
        let index = usize::try_from(name).expect("an index");
        let ends = EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP;
        assert!(!flags.intersects(ends), "{index}: {flags:?}");
        if flags.contains(EventFlags::IN) {
            self.tally.ins += 1;
            let twin = match index {
                TWIN => wait(&self.second, &NOW),
                _ => vec![(name, EventFlags::IN)],
            };
            let false_before = self.tally.false_ins;
            self.read(index);
            // It may be silent of a token that was late, and taken back since.
            let told = twin == [(name, EventFlags::IN)] || self.tally.false_ins > false_before;
            assert!(told, "the second epoll: {twin:?}");
        }
        if flags.contains(EventFlags::OUT) {
            self.tally.outs += 1;
            self.sockets[index].blocked = false;
            if self.sockets[index].may_send() {
                self.write(index, true);
            }
        }
        if self.sockets[index].mode != Mode::Edge {
            self.register(index);
        }
    }

    fn register(&self, index: usize) {
        let socket = &self.sockets[index];
        let name = EventData::new_u64(index as u64);
        let flags = socket.interest();
        epoll::modify(self.home(index), &socket.stream, name, flags).expect("modify");
    }

    /// After IN: there is something. An edge-triggered socket is read until there is nothing.
    fn read(&mut self, index: usize) {
        let socket = &mut self.sockets[index];
        let mut buf = vec![0; self.rng.between(1, CALL_MAX)];
        for call in 0.. {
            let read = socket.stream.read(&mut buf);
            if would_block(&read) {
                self.tally.false_ins += u64::from(call == 0);
                return;
            }
            let count = read.expect("read");
            assert!(count > 0, "{index}: an end of the stream");
            socket.gets.check(socket.got, &buf[..count]);
            socket.got += count as u64;
            if socket.mode != Mode::Edge {
                return;
            }
        }
    }

    /// One write; `told`: epoll has said that there is room.
    fn write(&mut self, index: usize, told: bool) {
        let socket = &mut self.sockets[index];
        let left = usize::try_from(socket.to_send - socket.sent).expect("fits");
        let len = left.min(self.rng.between(1, CALL_MAX));
        let wrote = socket.stream.write(&socket.sends.bytes(socket.sent, len));
        if would_block(&wrote) {
            assert!(!told, "{index} {:?}: a false OUT", socket.mode);
            socket.blocked = true;
            self.tally.blocked += 1;
            if socket.mode != Mode::Edge {
                self.register(index);
            }
            return;
        }
        socket.sent += wrote.expect("write") as u64;
    }
}

impl Socket {
    /// There is something to send, and nothing is known to stand against it.
    fn may_send(&self) -> bool {
        self.sent < self.to_send && !self.blocked
    }

    fn interest(&self) -> EventFlags {
        let always = EventFlags::IN | EventFlags::RDHUP;
        match self.mode {
            Mode::Edge => always | EventFlags::OUT | EventFlags::ET,
            _ if self.blocked => always | EventFlags::OUT | self.one_shot(),
            _ => always | self.one_shot(),
        }
    }

    fn one_shot(&self) -> EventFlags {
        match self.mode {
            Mode::OneShot => EventFlags::ONESHOT,
            _ => EventFlags::empty(),
        }
    }
}

/// How often the threads of this process have been switched to, but for the calling one.
pub(crate) fn switches() -> BTreeMap<String, u64> {
    let me = rustix::thread::gettid().as_raw_nonzero().to_string();
    let tasks = fs::read_dir("/proc/self/task").expect("/proc");
    let of = |tid: &str| {
        // A thread that has ended meanwhile is switched to no more.
        let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        let counts = counts.filter_map(|line| line.rsplit('\t').next()?.parse::<u64>().ok());
        Some(counts.sum())
    };
    tasks
        .map(|task| {
            task.expect("/proc")
                .file_name()
                .into_string()
                .expect("a number")
        })
        .filter(|tid| *tid != me)
        .filter_map(|tid| of(&tid).map(|count| (tid, count)))
        .collect()
}

/// A process in which no thread was switched to for so long has come to rest.
const LULL: Duration = Duration::from_millis(200);

/// Lets a span of time pass between two counts. It is what is measured; nothing is waited for.
fn measure_for(span: Duration) {
    std::thread::sleep(span);
}

/// With sockets of every mode waited for, and nothing to be told, nothing is done for `time`.
///
/// # Panics
/// If a thread of this process is switched to.
pub(crate) fn idle(time: Duration) {
    let net = Sdp::shared();
    let pairs: Vec<_> = (0..PAIRS).map(|_| net.pair()).collect();
    let (clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let sides = [Side::new(0, clients, 1), Side::new(1, servers, 1)];
    for (client, server) in sides[0].sockets.iter().zip(&sides[1].sockets) {
        client.stream.put(b"a");
        while would_block(&server.stream.read(&mut [0; 1])) {
            std::thread::yield_now();
        }
    }
    doing("waiting for rest");
    let mut before = switches();
    loop {
        measure_for(LULL);
        let now = switches();
        if now == before {
            break;
        }
        before = now;
    }
    measure_for(time);
    assert_eq!(switches(), before, "a thread was at work in {time:?}");
    assert!(before.len() > 1, "no thread to look at");
}
