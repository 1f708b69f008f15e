//! The measuring end of a test.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use hdrhistogram::Histogram;

use super::control::{Channel, ConnDone, Done, Open, Preface, Reply, Request};
use super::cpu::process_time;
use super::flow::{Flow, TRAILER, UNKNOWN};
use super::pattern::{Mismatch, Pattern};
use super::session::{difference, sum};
use super::{Workload, bw, lat};
use crate::lab::keep_what_goes_on;
use crate::transport::{Buffer, Conn, Counters, verbs_counters, write_all};

/// How long to wait for an answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// How long to wait for the server's own account of a failure.
const ACCOUNT_MAX: Duration = Duration::from_secs(2);
/// A run without a message for so long hangs. An adapter that repeats what is lost takes seconds for
/// each time.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(100);

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// After this time.
    Time(Duration),
    /// After so many messages of each connection.
    Messages(u64),
}

/// What a run gave.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From the common start until the server had everything.
    pub(super) elapsed: Duration,
    /// Payload, both directions together.
    pub(super) bytes: u64,
    /// Messages (bulk) or round trips (ping-pong).
    pub(super) messages: u64,
    /// User and system time of both processes.
    pub(super) cpu: Duration,
    /// Half the round trip in ns, all connections together; empty for bulk.
    pub(super) latency: Histogram<u64>,
    /// What the engines of this end counted.
    pub(super) engine: Option<Counters>,
    /// What the wrapper below them counted.
    pub(super) verbs: Option<Counters>,
    /// The same of the server, and how each connection ended there.
    pub(super) server: Done,
    /// Connection and first wrong byte, seen by this end.
    pub(super) wrong: Vec<(usize, Mismatch)>,
}

/// One test: open connections with a thread each.
#[derive(Debug)]
pub(super) struct Client {
    control: Channel,
    open: Open,
    conns: Vec<Arc<dyn Conn>>,
    workers: Vec<Worker>,
    reports: Receiver<Report>,
}

#[derive(Debug)]
struct Worker {
    commands: Sender<Command>,
}

enum Command {
    Run(Arc<Flow>),
    Trailer,
}

/// What a thread says after each command.
struct Report {
    index: usize,
    outcome: std::io::Result<Sent>,
}

#[derive(Default)]
struct Sent {
    messages: u64,
    latency: Option<Histogram<u64>>,
    wrong: Option<Mismatch>,
}

impl Client {
    /// Opens a test at `server`.
    ///
    /// # Errors
    /// When the server refuses, or a connection or a thread cannot be had.
    pub(super) fn open(server: SocketAddr, open: Open) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server)
            .with_context(|| {
                format!("cannot reach a perf server at {server}; start one with `sdp perf server --listen ADDR:PORT`")
            })?;
        let mut control = Channel::new(stream)?;
        control.set_patience(Some(ANSWER_MAX))?;
        let reply = control.ask(&Request::Open(open.clone()))?;
        let Reply::Ready { session, address } = reply else {
            bail!("the server answers Open with {reply:?}");
        };
        let transport = open.endpoint.transport();
        let (sender, reports) = channel();
        let mut conns: Vec<Arc<dyn Conn>> = Vec::new();
        let mut workers = Vec::new();
        for index in 0..open.conns {
            let connect = || {
                let conn = transport.connect(&address)?;
                conn.set_nodelay()?;
                write_all(&*conn, &Preface { session, index }.encode())?;
                let mut buf = conn.buffer(open.endpoint.size)?;
                // Touched once before the first run.
                Pattern::of(index).fill(0, &mut buf);
                Ok((conn, buf))
            };
            let connected: std::io::Result<(Box<dyn Conn>, Buffer)> = connect();
            let (conn, buf) = connected
                .with_context(|| format!("connection {index} to {address} cannot be opened"))?;
            let conn: Arc<dyn Conn> = conn.into();
            workers.push(Worker::start(
                &open,
                index,
                Arc::clone(&conn),
                buf,
                sender.clone(),
            )?);
            conns.push(conn);
        }
        let reply = control
            .ask(&Request::Connected)
            .map_err(|error| error.context(keep_what_goes_on("perf")))?;
        if !matches!(reply, Reply::Connected) {
            bail!("the server answers Connected with {reply:?}");
        }
        Ok(Self {
            control,
            open,
            conns,
            workers,
            reports,
        })
    }

    /// Runs once, calling `tick` with the messages so far about ten times a second.
    ///
    /// # Errors
    /// When a connection breaks or hangs. The test cannot be used any more then.
    pub(super) fn run(
        &mut self,
        limit: Limit,
        tick: &mut dyn FnMut(u64),
    ) -> anyhow::Result<Outcome> {
        let engine = self.counters();
        let verbs = verbs_counters();
        let reply = self.control.ask(&Request::Start)?;
        if !matches!(reply, Reply::Started) {
            bail!("the server answers Start with {reply:?}");
        }
        let (time, messages_max) = match limit {
            Limit::Time(time) => (Some(time), None),
            Limit::Messages(max) => (None, Some(max)),
        };
        let flow = Arc::new(Flow::new(self.conns.len(), messages_max));
        let (cpu, begin) = (process_time(), Instant::now());
        for worker in &self.workers {
            worker.tell(Command::Run(Arc::clone(&flow)))?;
        }
        let sent = match self.collect(&flow, time.map(|time| begin + time), tick) {
            Ok(sent) => sent,
            Err(error) => return Err(self.explain(error)),
        };
        let server = self.finish(&flow, &sent)?;
        let elapsed = begin.elapsed();
        let cpu = process_time().saturating_sub(cpu) + Duration::from_nanos(server.cpu_ns);
        let verbs = difference(verbs_counters(), verbs.as_ref());
        let engine = difference(self.counters(), engine.as_ref());
        let mut latency = lat::histogram();
        let mut wrong = Vec::new();
        let mut messages = 0;
        for (index, sent) in sent.into_iter().enumerate() {
            messages += sent.messages;
            wrong.extend(sent.wrong.map(|wrong| (index, wrong)));
            if let Some(one) = sent.latency {
                latency
                    .add(one)
                    .map_err(|error| anyhow!("cannot add up histograms: {error}"))?;
            }
        }
        let one_way = messages * self.open.endpoint.size as u64;
        let bytes = match self.open.workload {
            Workload::Bw => one_way,
            Workload::Lat => 2 * one_way,
        };
        Ok(Outcome {
            elapsed,
            bytes,
            messages,
            cpu,
            latency,
            engine,
            verbs,
            server,
            wrong,
        })
    }

    fn counters(&self) -> Option<Counters> {
        sum(self.conns.iter().map(|conn| conn.counters()))
    }

    /// Waits for all threads, and stops them at `deadline`.
    fn collect(
        &self,
        flow: &Flow,
        deadline: Option<Instant>,
        tick: &mut dyn FnMut(u64),
    ) -> anyhow::Result<Vec<Sent>> {
        let mut all: Vec<Option<Sent>> = self.workers.iter().map(|_| None).collect();
        let (mut seen, mut moved) = (0, Instant::now());
        while all.iter().any(Option::is_none) {
            let now = Instant::now();
            let left = deadline.map_or(TICK, |deadline| deadline.saturating_duration_since(now));
            if left.is_zero() {
                flow.stop();
            }
            let nap = if left.is_zero() { TICK } else { left.min(TICK) };
            match self.reports.recv_timeout(nap) {
                Ok(Report { index, outcome }) => {
                    let sent = outcome.with_context(|| format!("connection {index}"))?;
                    all[index] = Some(sent);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("a measuring thread has ended"),
            }
            let messages = flow.messages();
            tick(messages);
            if messages != seen {
                (seen, moved) = (messages, Instant::now());
            } else if moved.elapsed() > STALL_MAX {
                let kept = keep_what_goes_on("perf");
                bail!("no message in {STALL_MAX:?}, after {messages}; {kept}");
            }
        }
        Ok(all.into_iter().flatten().collect())
    }

    /// Ends the run on all connections.
    fn finish(&mut self, flow: &Flow, sent: &[Sent]) -> anyhow::Result<Done> {
        let size = self.open.endpoint.size as u64;
        let totals = sent.iter().map(|sent| sent.messages * size).collect();
        let reply = self.control.ask(&Request::Finish { totals })?;
        if !matches!(reply, Reply::Finishing) {
            bail!("the server answers Finish with {reply:?}");
        }
        for worker in &self.workers {
            worker.tell(Command::Trailer)?;
        }
        let done = match self.control.answer()? {
            Reply::Done(done) => done,
            other => bail!("the server ends a run with {other:?}"),
        };
        if let Some(failure) = first_error(&done) {
            bail!("at the server, {failure}");
        }
        self.collect(flow, None, &mut |_| {})?;
        Ok(done)
    }

    /// Adds to an error what the server says about it, if it does so soon.
    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let mut account = || {
            self.control.set_patience(Some(ACCOUNT_MAX))?;
            let totals = vec![UNKNOWN; self.conns.len()];
            self.control.ask(&Request::Finish { totals })?;
            match self.control.answer()? {
                Reply::Done(done) => Ok(first_error(&done)),
                _ => Ok(None),
            }
        };
        // Without an account the error at this end has to do.
        let account: anyhow::Result<Option<String>> = account();
        match account {
            Ok(Some(failure)) => error.context(format!("at the server, {failure}; here")),
            _ => error,
        }
    }
}

fn first_error(done: &Done) -> Option<String> {
    let conns = done.conns.iter().enumerate();
    conns
        .filter_map(|(index, ConnDone { error, .. })| {
            error
                .as_ref()
                .map(|error| format!("connection {index}: {error}"))
        })
        .next()
}

impl Worker {
    fn start(
        open: &Open,
        index: u32,
        conn: Arc<dyn Conn>,
        mut buf: Buffer,
        reports: Sender<Report>,
    ) -> anyhow::Result<Self> {
        let (commands, inbox) = channel();
        let workload = open.workload;
        let pattern = open.verify.then(|| Pattern::of(index));
        let index = index as usize;
        let body = move || {
            for command in inbox {
                let conn = &*conn;
                let outcome = match (command, workload) {
                    (Command::Trailer, _) => write_all(conn, &TRAILER).map(|()| Sent::default()),
                    (Command::Run(flow), Workload::Bw) => {
                        bw::send(conn, &mut buf, pattern, &flow, index).map(|messages| Sent {
                            messages,
                            ..Sent::default()
                        })
                    }
                    (Command::Run(flow), Workload::Lat) => {
                        lat::ping(conn, &mut buf, pattern, &flow, index).map(|pings| Sent {
                            messages: pings.messages,
                            latency: Some(pings.latency),
                            wrong: pings.wrong,
                        })
                    }
                };
                if reports.send(Report { index, outcome }).is_err() {
                    return;
                }
            }
        };
        // It ends with the commands; nobody waits for it, as after a failure it may hang in a call.
        thread::Builder::new()
            .name(format!("perf-{index}"))
            .spawn(body)
            .context("cannot start a measuring thread")?;
        Ok(Self { commands })
    }

    fn tell(&self, command: Command) -> anyhow::Result<()> {
        self.commands
            .send(command)
            .map_err(|_| anyhow!("a measuring thread has ended"))
    }
}
