//! One of the two processes.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context as _, bail};
use sdp_socket::{Builder, Context, SdpListener, SdpStream};

use super::disturb;
use super::plan::Life;
use super::slot::{Role, Slot};
use super::tally::{Event, Order, Tally};
use super::watch::{Activity, Watch};
use crate::cli::SoakEndArgs;
use crate::lab::{Census, Memory, Orders, say, use_one_arena};
use crate::transport::Provider;

/// How often the threads are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);
/// How long a new connection may take to say whose it is.
const PREFACE_MAX: Duration = Duration::from_secs(10);

/// Serves orders until the judge goes away.
///
/// # Errors
/// When it cannot begin; what fails later is told to the judge.
pub(super) fn run(args: &SoakEndArgs) -> anyhow::Result<()> {
    use_one_arena();
    let orders = Orders::listen()?;
    let outcome = End::open(args).and_then(|(mut end, address)| {
        say(&Event::Ready { address })?;
        end.serve(&orders)
    });
    if let Err(error) = &outcome {
        say(&Event::Failed {
            reason: format!("{error:#}"),
        })?;
    }
    outcome
}

struct End {
    slots: Vec<Slot>,
    activities: Vec<Activity>,
}

impl End {
    fn open(args: &SoakEndArgs) -> anyhow::Result<(Self, Option<SocketAddr>)> {
        let context = match args.lazy {
            None => None,
            Some(_) if args.provider != Provider::Host => bail!("--lazy is for --provider host"),
            Some(seed) => Some(Context::lazy_host(seed).context("no lazy provider")?),
        };
        let builder = match &context {
            Some(context) => Builder::new().context(context),
            None => Builder::new().provider(args.provider.kind()),
        };
        let (mut slots, mut senders) = (Vec::new(), Vec::new());
        for index in 0..args.conns {
            let role = if let Some(address) = args.connect {
                Role::Connects {
                    builder: builder.clone(),
                    address,
                }
            } else {
                let (sender, inbox) = channel();
                senders.push(sender);
                Role::Accepts { inbox }
            };
            slots.push(Slot::new(args.seed, index, role, context.as_ref())?);
        }
        let mut address = None;
        if args.connect.is_none() {
            let listener = builder.bind((args.address, 0)).context("cannot listen")?;
            address = Some(listener.local_addr().context("no local address")?);
            accept_on_a_thread(listener, args.seed, senders)?;
        }
        let activities = slots.iter().map(|_| Activity::default()).collect();
        Ok((Self { slots, activities }, address))
    }

    fn serve(&mut self, orders: &Orders<Order>) -> anyhow::Result<()> {
        loop {
            match orders.next(Duration::MAX) {
                None => return Ok(()),
                Some(Order::Run {
                    seconds,
                    disturbances,
                }) => {
                    let time = Duration::try_from_secs_f64(seconds).context("a bad time")?;
                    let tally = self.carry(orders, time, disturbances)?;
                    say(&Event::Ended(Box::new(tally)))?;
                }
                Some(Order::WindUp | Order::Stop) => {}
                Some(Order::Count) => {
                    let census = Census::settled()?;
                    let memory = Memory::measure()?;
                    say(&Event::Counted { census, memory })?;
                }
            }
        }
    }

    /// Carries connections until told to end.
    fn carry(
        &mut self,
        orders: &Orders<Order>,
        time: Duration,
        disturbances: u32,
    ) -> anyhow::Result<Tally> {
        let (over, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let activities = &self.activities;
        let bytes = || -> u64 { activities.iter().map(|a| a.receive.bytes()).sum() };
        let before = bytes();
        let mut watch = Watch::of(activities);
        let mut told = Instant::now();
        thread::scope(|scope| {
            let (over, stop) = (&over, &stop);
            let pairs = self.slots.iter_mut().zip(activities);
            let mut workers: Vec<_> = pairs
                .map(|(slot, activity)| scope.spawn(move || slot.run(activity, over, stop)))
                .collect();
            workers.push(scope.spawn(move || disturb::run(disturbances, time)));
            while workers.iter().any(|worker| !worker.is_finished()) {
                match orders.next(TICK) {
                    Some(Order::WindUp) => over.store(true, Ordering::Relaxed),
                    Some(Order::Stop) => stop.store(true, Ordering::Relaxed),
                    _ => {}
                }
                if let Some(reason) = watch.look() {
                    say(&Event::Hangs { reason })?;
                }
                if told.elapsed() > TELL {
                    told = Instant::now();
                    say(&Event::Progress {
                        bytes: bytes() - before,
                    })?;
                }
            }
            let mut tally = Tally::default();
            for worker in workers {
                match worker.join() {
                    Ok(one) => tally.merge(one),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(tally)
        })
    }
}

/// Accepts for ever, and hands each connection to its slot.
fn accept_on_a_thread(
    listener: SdpListener,
    seed: u64,
    slots: Vec<Sender<(SdpStream, Life)>>,
) -> anyhow::Result<()> {
    thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || {
            loop {
                if let Err(error) = accept(&listener, seed, &slots) {
                    let reason = format!("accepting: {error}");
                    // Nobody is left to tell if the judge is gone.
                    let _ = say(&Event::Failed { reason });
                    process::exit(1);
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

fn accept(
    listener: &SdpListener,
    seed: u64,
    slots: &[Sender<(SdpStream, Life)>],
) -> io::Result<()> {
    let mut stream = match listener.accept() {
        Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
        other => other?.0,
    };
    let mut preface = [0; Life::PREFACE_LEN];
    stream.set_read_timeout(Some(PREFACE_MAX))?;
    stream.read_exact(&mut preface)?;
    stream.set_read_timeout(None)?;
    let life = Life::of_preface(seed, &preface)
        .ok_or_else(|| io::Error::other(format!("a preface of {preface:?}")))?;
    let slot = usize::try_from(life.slot).ok().and_then(|at| slots.get(at));
    slot.ok_or_else(|| io::Error::other(format!("{life:?} is for no slot")))?
        .send((stream, life))
        .map_err(|_| io::Error::other(format!("{life:?} is for a slot that has ended")))
}
