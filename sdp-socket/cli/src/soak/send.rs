//! The thread that sends.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sdp_socket::SdpStream;

use super::pace::Pace;
use super::plan::{CALL_MAX, Life, Side};
use super::room::Room;
use super::tally::{Flow, Tally};
use super::watch::Job;
use crate::lab::Rng;

/// Sends what a life has to send, then ends the way.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    pub(super) stream: &'a SdpStream,
    pub(super) life: Life,
    pub(super) side: Side,
    pub(super) room: &'a mut Room,
    pub(super) job: &'a Job,
    /// No more than what is begun.
    pub(super) over: &'a AtomicBool,
}

impl Sender<'_> {
    /// Does all of it.
    pub(super) fn run(mut self) -> Tally {
        let mut tally = Tally::default();
        let (life, way) = (self.life, self.side.way());
        let mut sent = 0;
        let ended = self.send(&mut sent, &mut tally).and_then(|()| {
            if self.side == Side::Client && life.closes_only() {
                return Ok(());
            }
            self.job.doing(&|| "shutdown".to_owned());
            self.stream.shutdown(Shutdown::Write)
        });
        if let Err(error) = ended {
            tally
                .errors
                .add(format!("{life:?}: sending at {sent}: {error}"));
        }
        self.job.idle();
        tally.bytes_sent = sent;
        tally.flows.push(Flow::new(life, way, sent));
        tally
    }

    fn send(&mut self, sent: &mut u64, tally: &mut Tally) -> io::Result<()> {
        let way = self.side.way();
        let nonblocking = self.life.nonblocking(self.side);
        let pattern = self.life.pattern(way);
        let total = self.life.total(way);
        let mut rng = self.life.rng("send", way);
        let mut pace = Pace::default();
        let registered = u64::from(self.room.is_registered());
        while *sent < total && !self.over.load(Ordering::Relaxed) {
            let left = usize::try_from(total - *sent).unwrap_or(usize::MAX);
            let len = rng.length(CALL_MAX).min(left);
            let timeout = (!nonblocking && rng.one_in(8))
                .then(|| Duration::from_micros(rng.between(200, 5000) as u64));
            self.stream.set_write_timeout(timeout)?;
            let pieces = if rng.one_in(4) { rng.between(2, 5) } else { 1 };
            let mut window = self.room.window(&mut rng, len);
            let bytes = window.bytes();
            pattern.fill(*sent, bytes);
            // A call that took only a part, or nothing, is continued exactly there.
            let mut done = 0;
            while done < len {
                let rest = &bytes[done..];
                self.job
                    .doing(&|| format!("write of {} at {sent}, time-out {timeout:?}", rest.len()));
                let began = Instant::now();
                match write(self.stream, rest, pieces, &mut rng) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) if count > rest.len() => {
                        return Err(io::Error::other(format!("{count} of {}", rest.len())));
                    }
                    Ok(count) => {
                        tally.sends += 1;
                        tally.vectored += u64::from(pieces > 1);
                        tally.registered += registered;
                        tally.timeouts += u64::from(timeout.is_some() && count < rest.len());
                        done += count;
                        *sent += count as u64;
                        pace.done();
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock && nonblocking => {
                        tally.would_blocks += 1;
                        pace.pause();
                    }
                    Err(error) => {
                        timed_out(error, timeout, began)?;
                        tally.timeouts += 1;
                    }
                }
                if rng.one_in(4) {
                    break;
                }
            }
            if rng.one_in(2) {
                // Nobody may read it any more: who does shall read nonsense.
                bytes.fill(0x5c);
            }
        }
        Ok(())
    }
}

/// One write, of several pieces if so asked.
fn write(mut stream: &SdpStream, bytes: &[u8], pieces: usize, rng: &mut Rng) -> io::Result<usize> {
    if pieces == 1 {
        return stream.write(bytes);
    }
    let mut rest = bytes;
    let mut slices = Vec::with_capacity(pieces);
    for _ in 1..pieces {
        let (piece, after) = rest.split_at(rng.below(rest.len() + 1));
        slices.push(IoSlice::new(piece));
        rest = after;
    }
    slices.push(IoSlice::new(rest));
    stream.write_vectored(&slices)
}

/// Passes on an error that is no time-out, and one that came too early.
///
/// # Errors
/// Those.
pub(super) fn timed_out(
    error: io::Error,
    timeout: Option<Duration>,
    began: Instant,
) -> io::Result<()> {
    let is_timeout = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    match timeout {
        Some(_) if !is_timeout => Err(error),
        Some(timeout) if began.elapsed() < timeout => Err(io::Error::other(format!(
            "a time-out of {timeout:?} was over after {:?}",
            began.elapsed()
        ))),
        Some(_) => Ok(()),
        None if is_timeout => Err(io::Error::other(format!(
            "a blocking call without a time-out ended by one: {error}"
        ))),
        None => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_expected_where_one_was_set_and_not_before_it_is_over() {
        let error = || io::Error::from(ErrorKind::WouldBlock);
        let soon = Duration::ZERO;
        assert!(timed_out(error(), Some(soon), Instant::now()).is_ok());
        assert!(timed_out(error(), Some(Duration::from_secs(60)), Instant::now()).is_err());
        assert!(timed_out(error(), None, Instant::now()).is_err());
        let reset = io::Error::from(ErrorKind::ConnectionReset);
        assert!(timed_out(reset, Some(soon), Instant::now()).is_err());
    }
}
