//! One round: a peer is brought into a phase and killed; what the survivor sees.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sdp_socket::{Builder, SdpListener, SdpStream};

use super::bytes::{Flow, memory, shown_max};
use super::counter::Counter;
use super::script::{Moves, Part, Phase, Role, Script, Word};
use crate::lab::{Process, Rng};

/// How long the other process may take to say something.
const WORD_MAX: Duration = Duration::from_secs(20);
/// How long a phase may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(20);
/// Longest call.
const CALL_MAX: usize = 8 << 20;
/// What each connection of a handshake round carries.
const GREETING: usize = 1000;

/// What a round showed.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// From the kill to the survivor's error or end of stream, ms.
    pub(super) ms: f64,
    /// How the survivor's call ended.
    pub(super) end: String,
    /// Bytes delivered.
    pub(super) delivered: u64,
    /// Bytes that had reached the survivor, as far as the peer had counted them.
    pub(super) reached: u64,
    /// What must not be.
    pub(super) problem: Option<String>,
}

/// All that a round needs.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) phase: Phase,
    pub(super) role: Role,
    pub(super) number: u32,
    pub(super) rng: Rng,
    pub(super) listener: &'a SdpListener,
}

/// A peer that will be killed, and the connection with it.
struct Doomed {
    process: Process,
    stream: SdpStream,
}

/// The end of a stream as the survivor saw it.
struct End {
    at: Instant,
    /// The error; none for an orderly end.
    error: Option<io::Error>,
}

impl Round<'_> {
    /// Plays it.
    ///
    /// # Errors
    /// When the phase could not be reached, or a wrong byte came.
    pub(super) fn play(mut self) -> anyhow::Result<Seen> {
        match (self.phase, self.role) {
            (Phase::Handshake, Role::Sender) => self.peer_connects(),
            (Phase::Handshake, Role::Receiver) => self.peer_listens(),
            (Phase::Bcopy, Role::Sender) => self.peer_streams(Moves::Copied, 0),
            (Phase::Bcopy, Role::Receiver) => self.peer_receives(Moves::Copied, 64 << 10),
            (Phase::AdvertOpen, Role::Sender) => self.peer_advertises(),
            (Phase::AdvertOpen, Role::Receiver) => self.peer_ignores_an_advert(),
            (Phase::ReadRunning, Role::Sender) => {
                let moves = self.uncopied();
                self.peer_streams(moves, shown_max(CALL_MAX))
            }
            (Phase::ReadRunning, Role::Receiver) => {
                let moves = self.uncopied();
                self.peer_receives(moves, shown_max(CALL_MAX))
            }
            (Phase::Closing, Role::Sender) => self.peer_closes(),
            (Phase::Closing, Role::Receiver) => self.peer_is_closed_to(),
        }
    }

    fn uncopied(&mut self) -> Moves {
        if self.rng.one_in(3) {
            Moves::Heap
        } else {
            Moves::Registered
        }
    }

    /// What the peer's bytes are.
    fn flow_in(&self) -> Flow {
        Flow::new(2 * self.number)
    }

    fn flow_out(&self) -> Flow {
        Flow::new(2 * self.number + 1)
    }

    fn script(&mut self, part: Part, moves: Moves, len: usize) -> anyhow::Result<Script> {
        Ok(Script {
            part,
            address: Some(self.listener.local_addr().context("no local address")?),
            pattern: 2 * self.number,
            seed: self.rng.length(1 << 30) as u64,
            moves,
            len,
            counter: None,
        })
    }

    /// Starts a peer that connects.
    fn doom(&self, script: &Script) -> anyhow::Result<Doomed> {
        let mut process = start(script)?;
        let stream = accept(self.listener)?;
        let Some(Word::Ready(None)) = process.hear(WORD_MAX)? else {
            bail!("the peer does not say that it is connected");
        };
        Ok(Doomed { process, stream })
    }

    /// The peer sends; it is killed after some bytes, or while its bytes pile up.
    fn peer_streams(&mut self, moves: Moves, len: usize) -> anyhow::Result<Seen> {
        let counter = Counter::create()?;
        let mut script = self.script(Part::Stream, moves, len)?;
        script.counter = Some(counter.path());
        let Doomed {
            mut process,
            stream,
        } = self.doom(&script)?;
        let mut flow = self.flow_in();
        let mut bytes = memory(moves, shown_max(CALL_MAX))?;
        // Some kills find it while the receiver's memory still grows, some when it has.
        if moves == Moves::Copied && self.rng.one_in(2) {
            let full = stream.recv_buffer_size()?;
            let queued = || Ok(stream.recv_queue_len()? >= full);
            until("a full receive buffer", queued)?;
        }
        let enough = self.rng.length(32 << 20) as u64;
        while flow.at < enough {
            if flow.read(&stream, &mut bytes)? == 0 {
                bail!("an end of the stream while the peer sends");
            }
        }
        let (pause, late) = (self.rng.length(4000), self.rng.one_in(2));
        let (killed, end) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                thread::sleep(Duration::from_micros(pause as u64));
                kill(&mut process)
            });
            if late {
                // Let its bytes pile up.
                thread::sleep(Duration::from_micros(2 * pause as u64));
            }
            let end = read_to_end(&stream, &mut flow, &mut bytes)?;
            Ok::<_, anyhow::Error>((join(killer)?, end))
        })?;
        process.reap()?;
        Ok(seen(killed, &end, flow.at, counter.get()?, false))
    }

    /// The peer receives; it is killed after some bytes.
    fn peer_receives(&mut self, moves: Moves, len: usize) -> anyhow::Result<Seen> {
        // Some peers of the copying kind receive nothing at all, so that we block.
        let part = if moves == Moves::Copied && self.rng.one_in(2) {
            Part::Idle
        } else {
            Part::Drain
        };
        let script = self.script(part, moves, len)?;
        let Doomed {
            mut process,
            stream,
        } = self.doom(&script)?;
        stream.set_zcopy_threshold(threshold(moves))?;
        let mut flow = self.flow_out();
        let mut bytes = memory(moves, len)?;
        let enough = self.rng.length(32 << 20) as u64;
        let pause = Duration::from_micros(self.rng.length(4000) as u64);
        let written = AtomicU64::new(0);
        let (killed, end) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let begun = Instant::now();
                // An idle peer takes what fits the buffers, and no more.
                let idle = Duration::from_millis(100);
                while written.load(Ordering::Relaxed) < enough
                    && (part == Part::Drain && begun.elapsed() < BEGIN_MAX
                        || begun.elapsed() < idle)
                {
                    thread::sleep(Duration::from_micros(100));
                }
                thread::sleep(pause);
                kill(&mut process)
            });
            let error = loop {
                match flow.write(&stream, &mut bytes) {
                    Ok(_) => written.store(flow.at, Ordering::Relaxed),
                    Err(error) => break error,
                }
            };
            let end = End {
                at: Instant::now(),
                error: Some(error),
            };
            Ok::<_, anyhow::Error>((join(killer)?, end))
        })?;
        process.reap()?;
        Ok(seen(killed, &end, 0, 0, false))
    }

    /// The peer is in a large send, and nobody reads.
    fn peer_advertises(&mut self) -> anyhow::Result<Seen> {
        let moves = self.uncopied();
        let len = self.rng.between(64 << 10, shown_max(CALL_MAX));
        let script = self.script(Part::Advertise, moves, len)?;
        let Doomed {
            mut process,
            stream,
        } = self.doom(&script)?;
        until("the peer's advert", || {
            Ok(messages(&stream, "SrcAvail").1 > 0)
        })?;
        let killed = kill(&mut process)?;
        let inline = stream.stats().rx_bytes_inline;
        let mut flow = self.flow_in();
        let mut bytes = memory(Moves::Heap, CALL_MAX)?;
        let end = read_to_end(&stream, &mut flow, &mut bytes)?;
        process.reap()?;
        let mut seen = seen(killed, &end, flow.at, inline, false);
        if flow.at > len as u64 {
            seen.problem = Some(format!("{} of {len} bytes", flow.at));
        }
        Ok(seen)
    }

    /// We are in a large send, and the peer does not read.
    fn peer_ignores_an_advert(&mut self) -> anyhow::Result<Seen> {
        let moves = self.uncopied();
        let len = self.rng.between(64 << 10, shown_max(CALL_MAX));
        // Who waits without end for a reader must be the one that connects.
        let script = self.script(Part::Listen, moves, len)?;
        let mut process = start(&script)?;
        let Some(Word::Ready(Some(address))) = process.hear(WORD_MAX)? else {
            bail!("the peer does not say where it listens");
        };
        let stream = moves.builder().connect(address)?;
        let mut flow = self.flow_out();
        let mut bytes = memory(moves, len)?;
        let (killed, end) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                until("our advert", || Ok(messages(&stream, "SrcAvail").0 > 0))?;
                kill(&mut process)
            });
            // A call of which some had been taken gives the count; the next one tells the error.
            let error = loop {
                if let Err(error) = flow.write(&stream, &mut bytes) {
                    break error;
                }
            };
            let end = End {
                at: Instant::now(),
                error: Some(error),
            };
            Ok::<_, anyhow::Error>((join(killer)?, end))
        })?;
        process.reap()?;
        Ok(seen(killed, &end, 0, 0, false))
    }

    /// The peer has sent and closes.
    fn peer_closes(&mut self) -> anyhow::Result<Seen> {
        let counter = Counter::create()?;
        let len = self.rng.length(128 << 10);
        let mut script = self.script(Part::Close, Moves::Copied, len)?;
        script.counter = Some(counter.path());
        let Doomed {
            mut process,
            stream,
        } = self.doom(&script)?;
        let Some(Word::Closing) = process.hear(WORD_MAX)? else {
            bail!("the peer does not close");
        };
        let pause = self.rng.below(600);
        if pause > 100 {
            thread::sleep(Duration::from_micros(pause as u64 - 100));
        }
        let killed = kill(&mut process)?;
        let mut flow = self.flow_in();
        let mut bytes = memory(Moves::Heap, CALL_MAX)?;
        let end = read_to_end(&stream, &mut flow, &mut bytes)?;
        process.reap()?;
        let mut seen = seen(killed, &end, flow.at, counter.get()?, true);
        if end.error.is_none() && flow.at != len as u64 {
            seen.problem = Some(format!("an orderly end after {} of {len} bytes", flow.at));
        }
        Ok(seen)
    }

    /// We have sent and end our way, and the peer has not received it.
    fn peer_is_closed_to(&mut self) -> anyhow::Result<Seen> {
        let script = self.script(Part::Idle, Moves::Copied, 0)?;
        let Doomed {
            mut process,
            stream,
        } = self.doom(&script)?;
        let mut out = self.flow_out();
        let len = self.rng.length(1 << 20);
        out.write(&stream, &mut memory(Moves::Copied, len)?)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let pause = Duration::from_micros(self.rng.length(2000) as u64);
        let mut flow = self.flow_in();
        let (killed, end) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                thread::sleep(pause);
                kill(&mut process)
            });
            let end = read_to_end(&stream, &mut flow, &mut [0; 100])?;
            Ok::<_, anyhow::Error>((join(killer)?, end))
        })?;
        process.reap()?;
        Ok(seen(killed, &end, flow.at, 0, false))
    }

    /// The peer connects, again and again.
    fn peer_connects(&mut self) -> anyhow::Result<Seen> {
        let listener = Builder::new().bind((self.listener.local_addr()?.ip(), 0))?;
        let script = Script {
            address: Some(listener.local_addr()?),
            ..self.script(Part::ConnectForEver, Moves::Copied, GREETING)?
        };
        let mut process = start(&script)?;
        let mut streams = vec![accept(&listener)?];
        listener.set_nonblocking(true)?;
        let pause = Duration::from_micros(self.rng.length(8000) as u64);
        let begun = Instant::now();
        while begun.elapsed() < pause {
            streams.extend(accept_now(&listener)?);
        }
        let killed = kill(&mut process)?;
        process.reap()?;
        let (mut delivered, mut orderly) = (0, 0);
        let mut problem = None;
        let mut bytes = [0; 2 * GREETING];
        loop {
            streams.extend(accept_now(&listener)?);
            let Some(stream) = streams.pop() else { break };
            let mut flow = self.flow_in();
            let end = read_to_end(&stream, &mut flow, &mut bytes)?;
            delivered += flow.at;
            if end.error.is_none() {
                orderly += 1;
                if flow.at != GREETING as u64 {
                    problem = Some(format!("an orderly end after {} bytes", flow.at));
                }
            }
            let one = seen(killed, &end, flow.at, 0, true);
            problem = problem.or(one.problem);
        }
        Ok(Seen {
            ms: killed.elapsed().as_secs_f64() * 1e3,
            end: if orderly > 0 {
                "some ended"
            } else {
                "all reset"
            }
            .to_owned(),
            delivered,
            reached: 0,
            problem,
        })
    }

    /// The peer listens, and does not answer.
    fn peer_listens(&mut self) -> anyhow::Result<Seen> {
        let script = self.script(Part::Listen, Moves::Copied, 0)?;
        let mut process = start(&script)?;
        let Some(Word::Ready(Some(address))) = process.hear(WORD_MAX)? else {
            bail!("the peer does not say where it listens");
        };
        // With a link that is there already, and without.
        let first = self.rng.one_in(2).then(|| SdpStream::connect(address));
        let first = first.transpose().context("the first connection")?;
        process.stop()?;
        let pause = Duration::from_micros(self.rng.length(30_000) as u64);
        let (killed, end) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                thread::sleep(pause);
                kill(&mut process)
            });
            let connected = SdpStream::connect(address);
            let at = Instant::now();
            let end = match connected {
                Err(error) => End {
                    at,
                    error: Some(error),
                },
                Ok(stream) => read_to_end(&stream, &mut self.flow_in(), &mut [0; 10])?,
            };
            Ok::<_, anyhow::Error>((join(killer)?, end))
        })?;
        process.reap()?;
        let mut seen = seen(killed, &end, 0, 0, false);
        if let Some(first) = first {
            let end = read_to_end(&first, &mut self.flow_in(), &mut [0; 10])?;
            seen.ms = seen.ms.max(since(killed, end.at));
        }
        Ok(seen)
    }
}

fn threshold(moves: Moves) -> sdp_socket::ZcopyThreshold {
    match moves {
        Moves::Copied => sdp_socket::ZcopyThreshold::Off,
        Moves::Registered | Moves::Heap => sdp_socket::ZcopyThreshold::Bytes(4 << 10),
    }
}

/// Starts the other process.
///
/// # Errors
/// When it cannot be started.
pub(super) fn start(script: &Script) -> anyhow::Result<Process> {
    let script = serde_json::to_string(script).context("cannot encode")?;
    Process::start(&["kill-victim".to_owned(), script])
}

/// The next connection.
///
/// # Errors
/// Those of accept.
pub(super) fn accept(listener: &SdpListener) -> io::Result<SdpStream> {
    loop {
        match listener.accept() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other.map(|(stream, _)| stream),
        }
    }
}

/// A connection that is there now.
fn accept_now(listener: &SdpListener) -> io::Result<Option<SdpStream>> {
    match accept(listener) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Kills, and says when.
fn kill(process: &mut Process) -> anyhow::Result<Instant> {
    let now = Instant::now();
    process.kill().context("cannot kill")?;
    Ok(now)
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    match thread.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Messages of one kind that a connection has sent and received.
fn messages(stream: &SdpStream, kind: &str) -> (u64, u64) {
    let stats = stream.stats();
    let found = stats.messages.iter().find(|(name, ..)| *name == kind);
    found.map_or((0, 0), |(_, sent, received)| (*sent, *received))
}

fn until(what: &str, done: impl Fn() -> io::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !done()? {
        if begun.elapsed() > BEGIN_MAX {
            bail!("{what} does not come");
        }
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Reads to an error or the end. An error is told once; after it comes the end.
fn read_to_end(stream: &SdpStream, flow: &mut Flow, bytes: &mut [u8]) -> anyhow::Result<End> {
    loop {
        match flow.read(stream, bytes) {
            Ok(0) => {
                let at = Instant::now();
                return Ok(End { at, error: None });
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(error.into()),
            Err(error) => {
                let at = Instant::now();
                match flow.read(stream, bytes) {
                    Ok(0) => {}
                    other => bail!("after {error}: {other:?} in place of the end"),
                }
                let error = Some(error);
                return Ok(End { at, error });
            }
        }
    }
}

/// From `then` to `at`, ms.
fn since(then: Instant, at: Instant) -> f64 {
    at.saturating_duration_since(then).as_secs_f64() * 1e3
}

/// Judges one end.
fn seen(killed: Instant, end: &End, delivered: u64, reached: u64, may_end: bool) -> Seen {
    let kind = end.error.as_ref().map(io::Error::kind);
    let problem = match kind {
        _ if delivered < reached => Some(format!("{delivered} delivered of {reached}")),
        None if may_end => None,
        None => Some("an orderly end of a peer that was killed".to_owned()),
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionRefused) => {
            (end.at < killed && !may_end).then(|| "an error before the kill".to_owned())
        }
        Some(_) => Some(format!("{:?}", end.error)),
    };
    Seen {
        ms: since(killed, end.at),
        end: kind.map_or_else(|| "EndOfStream".to_owned(), |kind| format!("{kind:?}")),
        delivered,
        reached,
        problem,
    }
}
