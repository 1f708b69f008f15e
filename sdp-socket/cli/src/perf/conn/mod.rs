//! `sdp perf conn`: how fast connections are set up, how many may be open, and that none leaves
//! anything behind.
//!
//! This process connects, another one accepts. Both lower their limit of open descriptors first.

mod end;
mod judge;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sdp_socket::{Builder, SdpListener, SdpStream};
use serde::{Deserialize, Serialize};

use self::judge::Tally;
use crate::cli::ConnArgs;
use crate::lab::{Census, Process};
use crate::report::Started;
use crate::transport::{Kind, Provider, name};

pub(super) use self::end::run as run_end;

/// The other process answers within this time, or hangs.
const ANSWER_MAX: Duration = Duration::from_secs(300);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(20);
/// Peers take turns in so many rounds.
const ROUNDS: u64 = 10;

/// What the accepting process is to do next.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Order {
    /// Accept so many connections one after the other, each until its end.
    Pass { kind: Kind, count: u64 },
    /// Accept so many and keep them; then echo a number on each; then wait for each one's end.
    Hold { count: u64 },
    /// Count what the process holds, once it has come to rest.
    Count,
}

/// What the accepting process says.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Word {
    Listening { sdp: SocketAddr, tcp: SocketAddr },
    Done,
    Held(Census),
}

/// A stream of either kind.
trait Stream: Read + Write + Send + fmt::Debug {}
impl Stream for TcpStream {}
impl Stream for SdpStream {}

/// A listener of either kind.
#[derive(Debug)]
enum Listener {
    Sdp(SdpListener),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Sdp(listener) => Box::new(listener.accept()?.0),
            Self::Tcp(listener) => Box::new(listener.accept()?.0),
        })
    }
}

fn limit_descriptors(limit: u64) -> anyhow::Result<()> {
    let limit = Rlimit {
        current: Some(limit),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).context("cannot lower the limit of descriptors")
}

/// Measures and reports; whether every check holds.
///
/// # Errors
/// When it cannot be measured or reported.
pub(super) fn run(args: &ConnArgs) -> anyhow::Result<bool> {
    limit_descriptors(args.descriptors)?;
    let started = Started::now();
    let other = [
        ["perf".to_owned(), "conn-end".to_owned()],
        ["--descriptors".to_owned(), args.descriptors.to_string()],
        ["--provider".to_owned(), name(args.provider)],
        ["--address".to_owned(), args.address.to_string()],
    ];
    let mut other = Process::start(&other.concat())?;
    let Some(Word::Listening { sdp, tcp }) = other.hear(ANSWER_MAX)? else {
        bail!("the other process does not say where it listens");
    };
    let mut run = Run {
        other,
        addresses: Addresses {
            sdp,
            tcp,
            provider: args.provider,
        },
        tally: Tally::default(),
    };
    let bar = ProgressBar::new(3);
    // Constant and valid; a plain bar serves as well.
    if let Ok(style) = ProgressStyle::with_template("conn {elapsed} {bar:40} {msg}") {
        bar.set_style(style);
    }
    run.measure(args, &bar)?;
    bar.finish_and_clear();
    let Run { other, tally, .. } = run;
    other.finish(END_MAX)?;
    let mut report = started.report("perf", Some(name(args.provider)))?;
    tally.write(args, &mut report);
    report.write(args.json.as_deref())?;
    Ok(report.passed())
}

struct Run {
    other: Process,
    addresses: Addresses,
    tally: Tally,
}

/// Where the other process listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    sdp: SocketAddr,
    tcp: SocketAddr,
    provider: Provider,
}

impl Addresses {
    fn connect_sdp(&self) -> io::Result<SdpStream> {
        Builder::new()
            .provider(self.provider.kind())
            .connect(self.sdp)
    }

    fn connect(&self, kind: Kind) -> io::Result<Box<dyn Stream>> {
        Ok(match kind {
            Kind::Sdp => Box::new(self.connect_sdp()?),
            _ => Box::new(TcpStream::connect(self.tcp)?),
        })
    }
}

impl Run {
    fn measure(&mut self, args: &ConnArgs, bar: &ProgressBar) -> anyhow::Result<()> {
        // What a process takes only once is there before the first count.
        for kind in [Kind::Sdp, Kind::Tcp] {
            self.cycles(kind, u64::from(args.parallel), args.parallel)?;
        }
        let before = self.census()?;
        bar.set_message("one at a time");
        self.in_turns(args.cycles / 10, |run, kind, count| {
            let times = run.set_up(kind, count)?;
            run.tally.add_set_up(kind, &times);
            Ok(())
        })?;
        bar.inc(1);
        bar.set_message("in parallel");
        self.in_turns(args.cycles, |run, kind, count| {
            let (done, time) = run.cycles(kind, count, args.parallel)?;
            run.tally.add_cycles(kind, done, time);
            Ok(())
        })?;
        bar.inc(1);
        bar.set_message("all open");
        self.hold(args.open)?;
        bar.inc(1);
        let after = self.census()?;
        self.tally.counts = Some((before, after));
        Ok(())
    }

    /// Both kinds, round by round, in reversed order every second round.
    fn in_turns(
        &mut self,
        count: u64,
        mut part: impl FnMut(&mut Self, Kind, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for round in 0..ROUNDS {
            let mut kinds = [Kind::Sdp, Kind::Tcp];
            if round % 2 == 1 {
                kinds.reverse();
            }
            let count = count / ROUNDS + u64::from(round < count % ROUNDS);
            for kind in kinds {
                part(self, kind, count)?;
            }
        }
        Ok(())
    }

    fn done(&mut self) -> anyhow::Result<()> {
        match self.other.hear(ANSWER_MAX)? {
            Some(Word::Done) => Ok(()),
            other => bail!("the other process said {other:?}"),
        }
    }

    /// Connects one after the other; how long each took, µs.
    fn set_up(&mut self, kind: Kind, count: u64) -> anyhow::Result<Vec<f64>> {
        self.other.tell(&Order::Pass { kind, count })?;
        let mut times = Vec::new();
        for _ in 0..count {
            let begin = Instant::now();
            let stream = self.addresses.connect(kind).context("connect")?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
            at_end(stream)?;
        }
        self.done()?;
        Ok(times)
    }

    /// Connects and closes from several threads at once; how often, and in what time.
    fn cycles(&mut self, kind: Kind, count: u64, parallel: u32) -> anyhow::Result<(u64, Duration)> {
        self.other.tell(&Order::Pass { kind, count })?;
        let left = AtomicU64::new(count);
        let begin = Instant::now();
        let addresses = self.addresses;
        let take =
            &|| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        thread::scope(|scope| {
            let work = || {
                while take().is_ok() {
                    drop(addresses.connect(kind).context("connect")?);
                }
                anyhow::Ok(())
            };
            let start = |_| thread::Builder::new().spawn_scoped(scope, work);
            let threads = (0..parallel).map(start).collect::<Result<Vec<_>, _>>();
            let threads = threads.context("cannot start the connecting threads")?;
            let ends = threads.into_iter().map(|thread| match thread.join() {
                Ok(end) => end,
                Err(_) => bail!("a connecting thread panicked"),
            });
            ends.collect::<anyhow::Result<Vec<()>>>()
        })?;
        self.done()?;
        Ok((count, begin.elapsed()))
    }

    /// Has all of them open at once, and each one working.
    fn hold(&mut self, count: u64) -> anyhow::Result<()> {
        self.other.tell(&Order::Hold { count })?;
        let begin = Instant::now();
        let mut streams = Vec::new();
        for n in 0..count {
            let mut stream = self
                .addresses
                .connect_sdp()
                .with_context(|| format!("number {n}"))?;
            stream.write_all(&n.to_le_bytes()).context("write")?;
            streams.push(stream);
        }
        let time = begin.elapsed();
        let descriptors = Census::take()?.descriptors;
        let mut right = 0;
        for (n, stream) in (0..count).zip(&mut streams) {
            let mut number = [0; 8];
            stream.read_exact(&mut number).context("read")?;
            right += u64::from(u64::from_le_bytes(number) == n);
        }
        drop(streams);
        self.done()?;
        self.tally.held(count, right, time, descriptors);
        Ok(())
    }

    /// What both processes hold.
    fn census(&mut self) -> anyhow::Result<[Census; 2]> {
        self.other.tell(&Order::Count)?;
        let here = Census::settled()?;
        match self.other.hear(ANSWER_MAX)? {
            Some(Word::Held(there)) => Ok([here, there]),
            other => bail!("the other process said {other:?}"),
        }
    }
}

/// Closes our end in order and waits for the other one's.
fn at_end(mut stream: Box<dyn Stream>) -> anyhow::Result<()> {
    stream.write_all(&[0]).context("write")?;
    let mut rest = [0; 1];
    match stream.read(&mut rest).context("read")? {
        0 => Ok(()),
        _ => bail!("bytes came that nobody sent"),
    }
}
