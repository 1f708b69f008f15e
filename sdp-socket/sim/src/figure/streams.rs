//! One point of the figure: streams between two machines, each with a thread at both ends that does
//! nothing but send or receive, in blocking calls.

use std::cell::{Cell, RefCell};
use std::io::{IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use sdp_socket::{Builder, Context, RecvFlags, SdpStream, ZcopyThreshold};
use sdp_verbs::hook::{Trace, TraceCounters};
use sdp_verbs::sim::{Busy, Drive, Fabric, Faults, SimProvider};

use super::machine::Machine;
use super::pattern::Pattern;
use crate::actor::{Actor, catch_up, wait};
use crate::program::ADDRESS;
use crate::stage::{Seat, Stage, Wings};

/// Sends from this length on are never copied in [`Mode::Read`] and [`Mode::Zcopy`]: the shortest that can be.
const ZCOPY_MIN: usize = 4 << 10;
/// From this length on [`Mode::Auto`] may choose.
const AUTO_MIN: usize = 64 << 10;
/// Time without any program, in which connections end.
const SETTLE_MAX: u64 = 10_000_000_000;

/// How bytes are to go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// Through message buffers.
    Bcopy,
    /// From the sender's memory into the receiver's, by RDMA READ as in the paper: receives wait until
    /// they are full (MSG_WAITALL), and the stack offers the memory of none that does.
    Read,
    /// The same as the stack likes it best, which writes where a receive has offered its memory.
    Zcopy,
    /// As the stack chooses if nobody tells it.
    Auto,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Bcopy, Self::Read, Self::Zcopy, Self::Auto];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bcopy => "bcopy",
            Self::Read => "read",
            Self::Zcopy => "zcopy",
            Self::Auto => "auto",
        }
    }

    const fn threshold(self) -> ZcopyThreshold {
        match self {
            Self::Bcopy => ZcopyThreshold::Off,
            Self::Read | Self::Zcopy => ZcopyThreshold::Bytes(ZCOPY_MIN),
            Self::Auto => ZcopyThreshold::Auto,
        }
    }
}

/// Where in the figure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Point {
    pub(crate) machine: Machine,
    pub(crate) mode: Mode,
    pub(crate) conns: usize,
    /// Bytes of each send, and of the memory of each receive.
    pub(crate) size: usize,
}

/// How much is sent in one point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Bytes that are measured, at least.
    pub(crate) bytes: usize,
    /// Sends of each connection that are, at least.
    pub(crate) sends: usize,
    /// The second receiver pauses for so long, once, before the measurement.
    pub(crate) pause: Duration,
}

/// Where it does, in its stream.
const PAUSE_AT: u64 = 4 << 20;

impl Point {
    /// Bytes of all connections before the measurement: receive buffers grow, keys are made, and
    /// the stack has tried both ways where it may choose.
    fn warm_up(&self) -> usize {
        let chooses = self.mode == Mode::Auto && self.size >= AUTO_MIN;
        let sends = if chooses { 420 } else { 8 };
        self.conns * (self.size * sends).max(512 << 10)
    }
}

/// What was measured.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Measured {
    pub(crate) point: Point,
    /// How long it took.
    pub(crate) time: Duration,
    /// Bytes that were received in that time.
    pub(crate) bytes: u64,
    /// What the processors of sender and receiver did in it.
    pub(crate) busy: [Busy; 2],
    /// What the layer below the stack has counted from the first byte to the last, at both ends.
    pub(crate) below: [TraceCounters; 2],
    /// Bytes from the first to the last.
    pub(crate) total: u64,
    /// Receives with a byte that was not sent.
    pub(crate) wrong: u64,
    /// Of everything that happened.
    pub(crate) hash: u64,
}

impl Measured {
    /// 10⁶ bytes per second.
    pub(crate) fn mb_per_s(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64() / 1e6
    }

    /// Per cent of one processor, of sender or receiver.
    pub(crate) fn cpu_percent(&self, side: usize) -> f64 {
        100.0 * self.busy[side].total().as_secs_f64() / self.time.as_secs_f64()
    }

    /// Seconds of processors for 10⁹ bytes, of sender and receiver together.
    pub(crate) fn cpu_s_per_gb(&self) -> f64 {
        let busy = self.busy.iter().map(|busy| busy.total().as_secs_f64());
        busy.sum::<f64>() / (self.bytes as f64 / 1e9)
    }

    /// Of all bytes, those that went by RDMA READ by the count below the stack.
    pub(crate) fn share_by_read(&self) -> f64 {
        self.below[1].read_bytes as f64 / self.total as f64
    }

    /// The same, by RDMA of either kind.
    pub(crate) fn share_by_rdma(&self) -> f64 {
        self.share_by_read() + self.below[0].write_bytes as f64 / self.total as f64
    }
}

/// A look at everything at one time.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    received: u64,
    busy: [Busy; 2],
}

/// What all programs of a point have.
struct Hall {
    point: Point,
    bytes: usize,
    pause: Duration,
    nodes: [Arc<SimProvider>; 2],
    builders: [Builder; 2],
    wings: Wings,
    pattern: Pattern,
    listening: Cell<bool>,
    /// Ends of connections with a thread.
    ready: Cell<usize>,
    received: Cell<u64>,
    wrong: Cell<u64>,
    /// Beginning and end of the measurement.
    marks: RefCell<Vec<Mark>>,
}

/// Runs the streams of a point, and measures.
///
/// # Errors
/// A program did not come to its end, or a rule of verbs was broken.
pub(crate) fn run(point: Point, amount: Amount, seed: u64) -> anyhow::Result<Measured> {
    let (timing, options) = (point.machine.timing(), point.machine.options());
    let fabric = Fabric::new(seed, Drive::Stepped, timing, Faults::none());
    fabric.set_pace(catch_up);
    let nodes = [0, 1].map(|_| fabric.node(options));
    let seats = nodes
        .each_ref()
        .map(|node| Seat::measured(Arc::clone(node)));
    let below = nodes
        .each_ref()
        .map(|node| Arc::new(Trace::new(Arc::clone(node) as _)));
    let mut builders = Vec::new();
    for (below, seat) in below.iter().zip(&seats) {
        let context = Context::new(Arc::clone(below) as _, Arc::clone(seat) as _)?;
        builders.push(
            Builder::new()
                .context(&context)
                .zcopy_threshold(point.mode.threshold()),
        );
    }
    let builders = <[Builder; 2]>::try_from(builders)
        .ok()
        .context("two machines")?;
    let mut stage = Stage::new(Arc::clone(&fabric), seed, seats.to_vec());
    stage.be_long();
    let hall = Rc::new(Hall {
        point,
        bytes: amount.bytes.max(point.conns * point.size * amount.sends),
        pause: amount.pause,
        nodes,
        builders,
        wings: stage.wings(),
        pattern: Pattern::new(seed, point.size),
        listening: Cell::new(false),
        ready: Cell::new(0),
        received: Cell::new(0),
        wrong: Cell::new(0),
        marks: RefCell::default(),
    });
    let (caller, listener) = (Rc::clone(&hall), Rc::clone(&hall));
    stage.wings().borrow_mut().extend([
        Actor::new("listener".to_owned(), 1, move || listener.listen()),
        Actor::new("caller".to_owned(), 0, move || caller.call()),
    ]);
    if let Err(stuck) = stage.run() {
        stage.abandon();
        anyhow::bail!("{point:?}: {stuck}");
    }
    stage.settle(SETTLE_MAX);
    let broken = fabric.violations();
    ensure!(broken.is_empty(), "{point:?}: {}", broken.join("; "));
    hall.measured(
        [below[0].counters(), below[1].counters()],
        fabric.trace_hash(),
    )
}

impl Hall {
    fn measured(&self, below: [TraceCounters; 2], hash: u64) -> anyhow::Result<Measured> {
        let marks = self.marks.borrow();
        let [begin, end] = &marks[..] else {
            anyhow::bail!("{:?}: it ended before it was measured", self.point);
        };
        Ok(Measured {
            point: self.point,
            time: end.at.saturating_sub(begin.at),
            bytes: end.received - begin.received,
            busy: [0, 1].map(|side| end.busy[side].since(&begin.busy[side])),
            below,
            total: self.received.get(),
            wrong: self.wrong.get(),
            hash,
        })
    }

    fn nanos(&self, side: usize) -> u64 {
        u64::try_from(self.nodes[side].now().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Accepts every connection, each with a thread of its own.
    fn listen(self: Rc<Self>) {
        let listener = self.builders[1].bind(SocketAddr::from(ADDRESS));
        let listener = listener.expect("a listener");
        self.listening.set(true);
        for conn in 0..self.point.conns {
            let (stream, _) = listener.accept().expect("a connection");
            let hall = Rc::clone(&self);
            let reader = Actor::new(format!("reader {conn}"), 1, move || {
                hall.receive(conn, stream);
            });
            self.wings.borrow_mut().push(reader.on(conn));
        }
    }

    /// Makes one connection after the other, so that both sides number them alike.
    fn call(self: Rc<Self>) {
        wait(
            "the listener",
            None,
            || self.nanos(0),
            || self.listening.get(),
        );
        for conn in 0..self.point.conns {
            let stream = self.builders[0].connect(SocketAddr::from(ADDRESS));
            let stream = stream.expect("a connection");
            let hall = Rc::clone(&self);
            let writer = Actor::new(format!("writer {conn}"), 0, move || {
                hall.send(conn, stream);
            });
            self.wings.borrow_mut().push(writer.on(conn));
        }
    }

    fn is_over(&self) -> bool {
        self.marks.borrow().len() == 2
    }

    /// All threads begin together.
    fn assemble(&self, side: usize) {
        self.ready.set(self.ready.get() + 1);
        let all = 2 * self.point.conns;
        wait(
            "the others",
            None,
            || self.nanos(side),
            || self.ready.get() == all,
        );
    }

    fn send(&self, conn: usize, mut stream: SdpStream) {
        self.assemble(0);
        let len = self.point.size;
        let mut buf = vec![0; len];
        let mut place = 0;
        while !self.is_over() {
            buf.copy_from_slice(self.pattern.at(conn, place, len));
            stream.write_all(&buf).expect("everything is sent");
            place += len as u64;
        }
        stream.shutdown(Shutdown::Write).expect("a stream may end");
        // Whatever the peer may still want of it, it is there.
        let end = stream.read(&mut [0]).expect("the peer ends its stream");
        assert_eq!(end, 0, "bytes that nobody sent");
    }

    fn receive(&self, conn: usize, stream: SdpStream) {
        self.assemble(1);
        let mut buf = vec![0; self.point.size];
        let mut place = 0;
        loop {
            let flags = RecvFlags {
                wait_all: self.point.mode == Mode::Read,
                ..RecvFlags::default()
            };
            let len = stream.recv_with(&mut [IoSliceMut::new(&mut buf)], flags);
            let len = len.expect("bytes, or the end");
            if len == 0 {
                break;
            }
            if buf[..len] != *self.pattern.at(conn, place, len) {
                self.wrong.set(self.wrong.get() + 1);
            }
            let before = place;
            place += len as u64;
            self.note(len as u64);
            if conn == 1 && (before..place).contains(&PAUSE_AT) {
                self.pause();
            }
        }
    }

    fn pause(&self) {
        let pause = u64::try_from(self.pause.as_nanos()).unwrap_or(u64::MAX);
        let until = self.nanos(1).saturating_add(pause);
        wait("time to pass", Some(until), || self.nanos(1), || false);
    }

    /// More was received. Begins the measurement when enough was, and ends it.
    fn note(&self, len: u64) {
        let received = self.received.get() + len;
        self.received.set(received);
        let mut marks = self.marks.borrow_mut();
        let due = match marks.last() {
            None => self.point.warm_up() as u64,
            Some(begin) => begin.received + self.bytes as u64,
        };
        if received >= due && marks.len() < 2 {
            marks.push(Mark {
                at: self.nodes[1].now(),
                received,
                busy: self.nodes.each_ref().map(|node| node.busy()),
            });
        }
    }
}
