//! `sdp soak`: everything a stream can do, at once, for a while, every byte compared.
//!
//! Three processes: this one judges and uses no socket of ours; a server and a client carry
//! connections, each in a slot, one life after the other, by choices that follow from the seed.

mod disturb;
mod end;
mod fork;
mod judge;
mod pace;
mod plan;
mod receive;
mod room;
mod send;
mod slot;
mod tally;
mod watch;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Layer, SoakArgs, SoakEndArgs};
use crate::lab::{Process, fresh_seed, keep_what_goes_on};
use crate::report::Started;
use crate::transport::name;
use judge::{Held, Judged};
use tally::{Event, Order, Tally};

/// How long the first part of a run is, in which memory grows to what it needs.
const WARM_MAX: Duration = Duration::from_secs(10);
/// How long a process may take to begin, or to count what it holds.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long connections may take to end when nothing more is sent. The processes themselves find
/// a thread that hangs sooner than that.
const END_MAX: Duration = Duration::from_secs(120);
/// How often the two processes are listened to.
const TICK: Duration = Duration::from_millis(20);

/// Runs the judge; whether every check holds.
///
/// # Errors
/// When the run cannot begin or its report cannot be written.
pub(crate) fn run(args: &SoakArgs) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let started = Started::now();
    let mut runs = Vec::new();
    for layer in &args.layers {
        let lazy = (*layer == Layer::Lazy).then_some(args.lazy_seed);
        let bar = ProgressBar::new_spinner();
        // Constant and valid; a plain spinner serves as well.
        if let Ok(style) = ProgressStyle::with_template("{spinner} soak {elapsed} {msg}") {
            bar.set_style(style);
        }
        let plan = Plan { args, seed, lazy };
        let mut judged = Judged::new(&plan);
        let outcome = soak(&plan, &bar, &mut judged);
        bar.finish_and_clear();
        runs.push((judged, outcome));
    }
    let mut report = started.report("soak", Some(name(args.provider)))?;
    for (judged, outcome) in runs {
        judged.write(outcome, &mut report);
    }
    report.write(args.json.as_deref())?;
    Ok(report.passed())
}

/// One soak of those that a run consists of.
#[derive(Debug, Clone, Copy)]
struct Plan<'a> {
    args: &'a SoakArgs,
    /// The seed of all choices.
    seed: u64,
    /// The seed of the layer that does everything late, if it is used.
    lazy: Option<u32>,
}

/// Runs one of the two processes.
///
/// # Errors
/// When it cannot begin.
pub(crate) fn run_end(args: &SoakEndArgs) -> anyhow::Result<bool> {
    end::run(args).map(|()| true)
}

fn soak(plan: &Plan<'_>, bar: &ProgressBar, judged: &mut Judged) -> anyhow::Result<()> {
    let args = plan.args;
    let mut pair = Pair::start(plan)?;
    let whole = Duration::try_from_secs_f64(args.seconds).context("a bad time")?;
    let warm = WARM_MAX.min(whole / 3);
    for tally in pair.run(warm, 0, bar)? {
        judged.add(tally);
    }
    judged.before = Some(pair.count()?);
    for tally in pair.run(whole.saturating_sub(warm), args.disturbances, bar)? {
        judged.add(tally);
    }
    judged.after = Some(pair.count()?);
    for end in pair.ends {
        end.process.finish(ANSWER_MAX)?;
    }
    Ok(())
}

/// The two processes.
struct Pair {
    /// Server and client.
    ends: [End; 2],
}

struct End {
    name: &'static str,
    process: Process,
    bytes: u64,
    ended: Option<Tally>,
}

impl Pair {
    fn start(plan: &Plan<'_>) -> anyhow::Result<Self> {
        let (server, address) = End::start("server", plan, None)?;
        let address = address.context("the server did not say where it listens")?;
        let (client, _) = End::start("client", plan, Some(address))?;
        Ok(Self {
            ends: [server, client],
        })
    }

    /// Lets both carry connections for so long, and says what each did: server, client.
    fn run(
        &mut self,
        time: Duration,
        disturbances: u32,
        bar: &ProgressBar,
    ) -> anyhow::Result<[(&'static str, Tally); 2]> {
        let carried = self.carry(time, disturbances, bar);
        carried.map_err(|error| error.context(keep_what_goes_on("soak")))
    }

    fn carry(
        &mut self,
        time: Duration,
        disturbances: u32,
        bar: &ProgressBar,
    ) -> anyhow::Result<[(&'static str, Tally); 2]> {
        let began = Instant::now();
        for end in &mut self.ends {
            (end.bytes, end.ended) = (0, None);
            end.process.tell(&Order::Run {
                seconds: time.as_secs_f64(),
                disturbances,
            })?;
        }
        let (mut over, mut stopped) = (false, false);
        while self.ends.iter().any(|end| end.ended.is_none()) {
            for end in &mut self.ends {
                end.listen(TICK)?;
            }
            if !over && began.elapsed() >= time {
                over = true;
                for end in &mut self.ends {
                    end.process.tell(&Order::WindUp)?;
                }
            }
            let [server, client] = &mut self.ends;
            if !stopped && client.ended.is_some() {
                stopped = true;
                server.process.tell(&Order::Stop)?;
            }
            if began.elapsed() > time + END_MAX {
                bail!("the connections do not end");
            }
            let bytes = server.bytes + client.bytes;
            bar.set_message(format!(
                "{} MB at {:.0} MB/s",
                bytes / 1_000_000,
                judge::float(bytes) / 1e6 / began.elapsed().as_secs_f64()
            ));
        }
        let mut tallies = Vec::new();
        for end in &mut self.ends {
            tallies.push((end.name, end.ended.take().context("it has ended")?));
        }
        let two = tallies.try_into();
        two.map_err(|_| anyhow::anyhow!("there are two ends"))
    }

    /// What both hold at rest: server, client.
    fn count(&mut self) -> anyhow::Result<[Held; 2]> {
        for end in &mut self.ends {
            end.process.tell(&Order::Count)?;
        }
        let [server, client] = &mut self.ends;
        Ok([server.held()?, client.held()?])
    }
}

impl End {
    fn start(
        side: &'static str,
        plan: &Plan<'_>,
        connect: Option<SocketAddr>,
    ) -> anyhow::Result<(Self, Option<SocketAddr>)> {
        let mut words: Vec<String> = [
            "soak-end",
            "--conns",
            &plan.args.conns.to_string(),
            "--seed",
            &plan.seed.to_string(),
            "--provider",
            &name(plan.args.provider),
            "--address",
            &plan.args.address.to_string(),
        ]
        .map(str::to_owned)
        .into();
        if let Some(lazy) = plan.lazy {
            // The two hold things back in different ways.
            let lazy = u64::from(lazy) + (u64::from(connect.is_some()) << 32);
            words.extend(["--lazy".to_owned(), lazy.to_string()]);
        }
        if let Some(address) = connect {
            words.extend(["--connect".to_owned(), address.to_string()]);
        }
        let mut end = Self {
            name: side,
            process: Process::start(&words)?,
            bytes: 0,
            ended: None,
        };
        match end.answer()? {
            Event::Ready { address } => Ok((end, address)),
            other => bail!("the {side} began with {other:?}"),
        }
    }

    /// What it says next that is not progress.
    fn answer(&mut self) -> anyhow::Result<Event> {
        loop {
            let side = self.name;
            let heard = self.process.hear(ANSWER_MAX).context(side)?;
            match heard.with_context(|| format!("the {side} says nothing"))? {
                Event::Progress { .. } => {}
                Event::Failed { reason } => bail!("the {side}: {reason}"),
                other => return Ok(other),
            }
        }
    }

    /// Takes in one thing that it says, if it says one now.
    fn listen(&mut self, bound: Duration) -> anyhow::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        match self.process.hear(bound).context(self.name)? {
            None => {}
            Some(Event::Progress { bytes }) => self.bytes = bytes,
            Some(Event::Ended(tally)) => self.ended = Some(*tally),
            Some(Event::Failed { reason } | Event::Hangs { reason }) => {
                bail!("the {}: {reason}", self.name)
            }
            Some(other) => bail!("the {} said {other:?}", self.name),
        }
        Ok(())
    }

    fn held(&mut self) -> anyhow::Result<Held> {
        match self.answer()? {
            Event::Counted { census, memory } => Ok((census, memory)),
            other => bail!("the {} said {other:?}", self.name),
        }
    }
}
