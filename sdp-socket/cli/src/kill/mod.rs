//! `sdp kill`: peers that die, and peers that stand still.
//!
//! This process is the survivor. Each round starts another one, brings the connection with it
//! into a phase, kills or stops it, and looks at what becomes of the survivor's calls.

mod bytes;
mod counter;
mod judge;
mod round;
mod script;
mod stalls;
mod stop;
mod victim;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use std::{env, thread};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use sdp_socket::{Builder, SdpListener};

use crate::cli::{KillArgs, KillVictimArgs};
use crate::lab::{Census, Rng, fresh_seed, keep_what_goes_on};
use crate::report::Started;
use judge::{Judged, Outcome};
use script::{Phase, Role};
use stalls::Stalls;

/// A round that takes longer hangs.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// Rounds with a peer that stands still that go on at once.
const STOPPED_AT_ONCE: u32 = 5;

/// Runs all rounds; whether every check holds.
///
/// # Errors
/// When the rounds cannot begin or the report cannot be written.
pub(crate) fn run(args: &KillArgs) -> anyhow::Result<bool> {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let started = Started::now();
    let rounds = args.rounds.unwrap_or(if args.stop { 20 } else { 200 });
    let bar = ProgressBar::new(rounds.into());
    // Constant and valid; a plain bar serves as well.
    if let Ok(style) = ProgressStyle::with_template("kill {elapsed} {bar:40} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let mut judged = Judged::new(seed, rounds);
    let stalls = Stalls::watch().context("cannot start a thread")?;
    let listener = Arc::new(
        Builder::new()
            .bind((args.address, 0))
            .context("cannot listen")?,
    );
    let survivor = Survivor {
        listener,
        seed,
        address: args.address,
    };
    if args.stop {
        survivor.stops(rounds, &bar, &mut judged);
    } else {
        survivor.kills(rounds, &bar, &mut judged)?;
    }
    bar.finish_and_clear();
    judged.stalled = stalls.longest();
    let provider = env::var("SDP_PROVIDER").unwrap_or_else(|_| "host".to_owned());
    let mut report = started.report("kill", Some(provider))?;
    judged.write(args, &mut report);
    report.write(args.json.as_deref())?;
    Ok(report.passed())
}

/// Runs the other process.
///
/// # Errors
/// When its part cannot be played.
pub(crate) fn run_victim(args: &KillVictimArgs) -> anyhow::Result<bool> {
    victim::run(args).map(|()| true)
}

#[derive(Debug)]
struct Survivor {
    listener: Arc<SdpListener>,
    seed: u64,
    address: IpAddr,
}

impl Survivor {
    /// All pairs of a phase and a role, in turn.
    fn pair(number: u32) -> (Phase, Role) {
        let phases = Phase::ALL.len();
        let at = number as usize % (2 * phases);
        let role = if at < phases {
            Role::Sender
        } else {
            Role::Receiver
        };
        (Phase::ALL[at % phases], role)
    }

    /// Rounds that kill, one after the other; those before the first count are not judged, but
    /// take what a process takes only once.
    fn kills(&self, rounds: u32, bar: &ProgressBar, judged: &mut Judged) -> anyhow::Result<()> {
        let warm = 2 * u32::try_from(Phase::ALL.len())?;
        let mut before = None;
        for number in 0..warm + rounds {
            if number == warm {
                before = Some(Census::settled()?);
            }
            let (phase, role) = Self::pair(number);
            bar.set_message(format!("{} {role}", phase.name()));
            let (listener, seed) = (Arc::clone(&self.listener), self.seed);
            let outcome = bounded(move || {
                let rng = Rng::of(&[seed, u64::from(number), 3]);
                round::Round {
                    phase,
                    role,
                    number,
                    rng,
                    listener: &listener,
                }
                .play()
            })?;
            let hung = matches!(outcome, Outcome::Hung(_));
            if number >= warm || !matches!(outcome, Outcome::Seen(_)) {
                judged.add_kill(number, phase, role, outcome);
                bar.inc(1);
            }
            if hung {
                // Its thread holds the listener and the connection: what follows would be of no
                // worth.
                return Ok(());
            }
        }
        let before = before.context("no round was played")?;
        judged.held = Some((before, Census::settled()?));
        Ok(())
    }

    /// Rounds in which the peer stands still, several at once.
    fn stops(&self, rounds: u32, bar: &ProgressBar, judged: &mut Judged) {
        for first in (0..rounds).step_by(STOPPED_AT_ONCE as usize) {
            let numbers = first..rounds.min(first + STOPPED_AT_ONCE);
            let outcomes: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = numbers
                    .map(|number| {
                        let (seed, address) = (self.seed, self.address);
                        let play = move || stop_round(seed, number, address);
                        (number, scope.spawn(move || bounded(play)))
                    })
                    .collect();
                let join = |(number, thread): (u32, thread::ScopedJoinHandle<'_, _>)| {
                    let outcome = match thread.join() {
                        Ok(outcome) => outcome,
                        Err(panic) => std::panic::resume_unwind(panic),
                    };
                    (number, outcome)
                };
                threads.into_iter().map(join).collect()
            });
            for (number, outcome) in outcomes {
                let outcome = outcome.unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
                judged.add_stop(number, outcome);
                bar.inc(1);
            }
        }
    }
}

/// Each has a listener of its own, so that rounds at once do not take each other's connections.
fn stop_round(seed: u64, number: u32, address: IpAddr) -> anyhow::Result<stop::Seen> {
    let listener = Builder::new().bind((address, 0)).context("cannot listen")?;
    let rng = Rng::of(&[seed, u64::from(number), 4]);
    stop::Round {
        number,
        rng,
        listener: &listener,
    }
    .play()
}

/// Plays a round on a thread of its own, which is left behind if it hangs.
fn bounded<T: Send + 'static>(
    play: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Outcome<T>> {
    let (sender, outcome): (Sender<anyhow::Result<T>>, _) = channel();
    let thread = thread::Builder::new()
        .name("round".to_owned())
        .spawn(move || {
            // Nobody waits any more if it took too long.
            let _ = sender.send(play());
        })
        .context("cannot start a thread")?;
    match outcome.recv_timeout(ROUND_MAX) {
        Ok(outcome) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
            Ok(match outcome {
                Ok(seen) => Outcome::Seen(seen),
                Err(error) => Outcome::Failed(format!("{error:#}")),
            })
        }
        Err(RecvTimeoutError::Timeout) => Ok(Outcome::Hung(keep_what_goes_on("kill"))),
        Err(RecvTimeoutError::Disconnected) => Ok(Outcome::Failed("it panicked".to_owned())),
    }
}
