//! Rounds in which the peer stands still for a while.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use sdp_socket::{SdpListener, SdpStream};

use super::bytes::{Flow, memory};
use super::round::{accept, start};
use super::script::{Moves, Part, Script, Word};
use super::victim::{receive_all, send_all};
use crate::lab::{Process, Rng};

/// How long the peer stands still.
const STILL: Duration = Duration::from_secs(3);
/// SO_SNDTIMEO of the rounds with one.
const TIMEOUT: Duration = Duration::from_millis(500);
/// How long the other process may take to say something.
const WORD_MAX: Duration = Duration::from_secs(60);
/// Bytes each way of a round without a time-out.
const TOTAL: usize = 24 << 20;
/// Bytes of the rounds with one: more than all buffers together.
const LARGE: usize = 16 << 20;
/// Longest call.
const CALL_MAX: usize = 1 << 20;

/// What such a round showed.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// What it was.
    pub(super) kind: &'static str,
    /// The longest call with a time-out, ms; none without.
    pub(super) call_ms: Option<f64>,
    /// Bytes delivered to either side and compared.
    pub(super) delivered: u64,
    /// What must not be.
    pub(super) problem: Option<String>,
}

/// One round.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub(super) number: u32,
    pub(super) rng: Rng,
    pub(super) listener: &'a SdpListener,
}

impl Round<'_> {
    /// Plays it: four kinds in turn.
    ///
    /// # Errors
    /// When it cannot be played.
    pub(super) fn play(mut self) -> anyhow::Result<Seen> {
        match self.number % 4 {
            0 => self.without_timeout("copied, no time-out", Moves::Copied),
            1 => self.without_timeout("zero copy, no time-out", Moves::Registered),
            2 => self.copied_with_timeout(),
            _ => self.advert_with_timeout(),
        }
    }

    fn doom(&mut self, moves: Moves, len: usize) -> anyhow::Result<(Process, SdpStream)> {
        let script = Script {
            part: Part::BothWays,
            address: Some(self.listener.local_addr().context("no local address")?),
            pattern: 2 * self.number,
            seed: 0,
            moves,
            len,
            counter: None,
        };
        let mut process = start(&script)?;
        let stream = accept(self.listener)?;
        let Some(Word::Ready(None)) = process.hear(WORD_MAX)? else {
            bail!("the peer does not say that it is connected");
        };
        stream.set_zcopy_threshold(match moves {
            Moves::Copied => sdp_socket::ZcopyThreshold::Off,
            Moves::Registered | Moves::Heap => sdp_socket::ZcopyThreshold::Bytes(4 << 10),
        })?;
        Ok((process, stream))
    }

    /// Both ways are busy when the peer stops, and all arrives when it goes on.
    fn without_timeout(&mut self, kind: &'static str, moves: Moves) -> anyhow::Result<Seen> {
        let (mut process, stream) = self.doom(moves, TOTAL)?;
        let pause = Duration::from_micros(self.rng.length(20_000) as u64);
        let mut sent = Flow::new(2 * self.number + 1);
        let mut received = Flow::new(2 * self.number);
        let mut out = memory(moves, CALL_MAX)?;
        let mut room = memory(moves, CALL_MAX)?;
        let ended = thread::scope(|scope| {
            let (stream, process) = (&stream, &mut process);
            let sending = scope.spawn(|| send_all(stream, &mut sent, &mut out, TOTAL as u64));
            let stopping = scope.spawn(move || {
                thread::sleep(pause);
                process.stop()?;
                thread::sleep(STILL);
                process.go_on()
            });
            let receiving = receive_all(stream, &mut received, &mut room);
            let joined = [sending, stopping].map(|thread| match thread.join() {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.into_iter().fold(receiving, |all, one| all.and(one))
        });
        let problem = ended.err().map(|error| error.to_string());
        let (theirs, problem) = hear_done(process, TOTAL as u64, problem)?;
        let lost = received.at != TOTAL as u64;
        Ok(Seen {
            kind,
            call_ms: None,
            delivered: received.at + theirs,
            problem: problem.or_else(|| lost.then(|| format!("received {}", received.at))),
        })
    }

    /// The peer stands still while we send through buffers: the calls that find them full time
    /// out, and all arrives when the peer goes on.
    fn copied_with_timeout(&mut self) -> anyhow::Result<Seen> {
        let (process, stream) = self.doom(Moves::Copied, 0)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut flow = Flow::new(2 * self.number + 1);
        let mut bytes = memory(Moves::Copied, CALL_MAX)?;
        process.stop()?;
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        let mut going = false;
        let mut timeouts = 0;
        while flow.at < LARGE as u64 {
            flow.fill(&mut bytes);
            let at = Instant::now();
            match flow.send(&stream, &bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => timeouts += 1,
                Err(error) => return Err(error).context("a write with a time-out"),
            }
            longest = longest.max(at.elapsed());
            if !going && begun.elapsed() > STILL {
                going = true;
                process.go_on()?;
            }
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut problem = (timeouts == 0).then(|| "no call timed out".to_owned());
        let total = flow.at;
        let ended = receive_all(&stream, &mut Flow::new(2 * self.number), &mut [0; 100]);
        problem = problem.or_else(|| ended.err().map(|error| error.to_string()));
        let (theirs, problem) = hear_done(process, total, problem)?;
        Ok(Seen {
            kind: "copied, time-out",
            call_ms: Some(longest.as_secs_f64() * 1e3),
            delivered: theirs,
            problem,
        })
    }

    /// The peer stands still while it looks at our memory: the call that shows it must be back
    /// soon, though the peer cannot say that it looks no more.
    fn advert_with_timeout(&mut self) -> anyhow::Result<Seen> {
        let moves = Moves::Registered;
        let (mut process, stream) = self.doom(moves, 0)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut flow = Flow::new(2 * self.number + 1);
        let mut bytes = memory(moves, LARGE)?;
        flow.fill(&mut bytes);
        process.stop()?;
        let begun = Instant::now();
        let outcome = flow.send(&stream, &bytes);
        let call = begun.elapsed();
        bytes.fill(0xee);
        thread::sleep(STILL.saturating_sub(call));
        process.go_on()?;
        drop(stream);
        // The connection may have been given up; what the peer has received must be right, and
        // not less than what was counted if it has not.
        let Some(Word::Done {
            received, problem, ..
        }) = process.hear(WORD_MAX)?
        else {
            bail!("the peer does not say what it has found");
        };
        process.finish(WORD_MAX)?;
        let problem = match problem {
            Some(problem) if problem.contains("wrong byte") => Some(problem),
            // Given up: it has been told so.
            Some(_) => None,
            None if received < flow.at => Some(format!("{received} of {}", flow.at)),
            None => None,
        };
        let unexpected = match outcome {
            Ok(_) => None,
            Err(error) => {
                let kinds = [ErrorKind::WouldBlock, ErrorKind::ConnectionReset];
                (!kinds.contains(&error.kind()) && error.kind() != ErrorKind::TimedOut)
                    .then(|| format!("the call ended by {error}"))
            }
        };
        Ok(Seen {
            kind: "zero copy, time-out",
            call_ms: Some(call.as_secs_f64() * 1e3),
            delivered: received,
            problem: problem.or(unexpected),
        })
    }
}

/// What the peer has received, which must be `total`, and the first problem.
fn hear_done(
    mut process: Process,
    total: u64,
    ours: Option<String>,
) -> anyhow::Result<(u64, Option<String>)> {
    let Some(Word::Done {
        received, problem, ..
    }) = process.hear(WORD_MAX)?
    else {
        bail!("the peer does not say what it has found (here: {ours:?})");
    };
    process.finish(WORD_MAX)?;
    let lost = (received != total).then(|| format!("the peer received {received} of {total}"));
    Ok((received, ours.or(problem).or(lost)))
}
