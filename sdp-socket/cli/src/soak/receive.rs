//! The thread that receives, and compares.

use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::thread;
use std::time::{Duration, Instant};

use sdp_socket::SdpStream;

use super::pace::Pace;
use super::plan::{CALL_MAX, Life, Side};
use super::room::Room;
use super::send::timed_out;
use super::tally::{Flow, Tally};
use super::watch::Job;
use crate::lab::Rng;

/// Longest call that waits until its memory is full.
const WAIT_ALL_MAX: usize = 1 << 20;

/// Receives what the other side of a life sends, to the end of the stream.
#[derive(Debug)]
pub(super) struct Receiver<'a> {
    pub(super) stream: &'a SdpStream,
    pub(super) life: Life,
    pub(super) side: Side,
    pub(super) room: &'a mut Room,
    pub(super) job: &'a Job,
}

/// A way to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Read,
    Vectored,
    Peek,
    WaitAll,
}

impl Form {
    fn draw(rng: &mut Rng, nonblocking: bool) -> Self {
        match rng.below(10) {
            0 | 1 => Self::Vectored,
            2 => Self::Peek,
            3 if !nonblocking => Self::WaitAll,
            _ => Self::Read,
        }
    }

    /// Bytes of one call at most.
    const fn len_max(self) -> usize {
        match self {
            Self::WaitAll => WAIT_ALL_MAX,
            Self::Read | Self::Vectored | Self::Peek => CALL_MAX,
        }
    }
}

impl Receiver<'_> {
    /// Does all of it.
    pub(super) fn run(mut self) -> Tally {
        let mut tally = Tally::default();
        let (life, way) = (self.life, self.side.way().back());
        if let Err(error) = self.receive(&mut tally) {
            let at = tally.bytes_received;
            tally
                .errors
                .add(format!("{life:?}: receiving at {at}: {error}"));
        }
        self.job.idle();
        tally.flows.push(Flow::new(life, way, tally.bytes_received));
        tally
    }

    fn receive(&mut self, tally: &mut Tally) -> io::Result<()> {
        let way = self.side.way().back();
        let nonblocking = self.life.nonblocking(self.side);
        let pattern = self.life.pattern(way);
        let mut rng = self.life.rng("receive", way);
        let mut pace = Pace::default();
        let registered = u64::from(self.room.is_registered());
        let mut slow = rng.one_in(8);
        loop {
            if slow {
                self.dawdle(&mut rng);
            }
            slow = rng.one_in(64);
            let form = Form::draw(&mut rng, nonblocking);
            let len = rng.length(form.len_max());
            let timeout = (!nonblocking && rng.one_in(8))
                .then(|| Duration::from_micros(rng.between(200, 5000) as u64));
            self.stream.set_read_timeout(timeout)?;
            let mut window = self.room.window(&mut rng, len);
            let at = tally.bytes_received;
            self.job
                .doing(&|| format!("{form:?} of {len} at {at}, time-out {timeout:?}"));
            let began = Instant::now();
            let count = match call(self.stream, form, window.bytes(), &mut rng) {
                Ok(0) => return self.ended(),
                Ok(count) if count > len => {
                    return Err(io::Error::other(format!("{count} of {len}")));
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock && nonblocking => {
                    tally.would_blocks += 1;
                    pace.pause();
                    continue;
                }
                Err(error) => {
                    timed_out(error, timeout, began)?;
                    tally.timeouts += 1;
                    continue;
                }
            };
            pace.done();
            let call = || format!("{:?} {way:?}: {form:?} of {len} at {at}", self.life);
            if let Err(wrong) = pattern.check(at, &window.bytes()[..count]) {
                tally
                    .mismatches
                    .add(format!("{} gave {count}: {wrong}", call()));
            }
            if !window.edges_hold() {
                tally.mismatches.add(format!("{} wrote beside it", call()));
            }
            tally.receives += 1;
            tally.registered += registered;
            match form {
                Form::Peek => {
                    tally.peeks += 1;
                    continue;
                }
                Form::Vectored => tally.vectored += 1,
                Form::WaitAll => tally.wait_alls += 1,
                Form::Read => {}
            }
            tally.bytes_received += count as u64;
            self.job.moved(count);
            if form == Form::WaitAll && count < len {
                if timeout.is_none() {
                    return self.must_have_ended(len, count);
                }
                tally.timeouts += 1;
            }
        }
    }

    /// Does nothing for a while, as a program that is busy elsewhere.
    fn dawdle(&self, rng: &mut Rng) {
        self.job.doing(&|| "being slow".to_owned());
        thread::sleep(Duration::from_micros(rng.length(20_000) as u64));
    }

    /// The stream has ended; it stays so.
    fn ended(&self) -> io::Result<()> {
        match read(self.stream, &mut [0]) {
            Ok(0) => Ok(()),
            other => Err(io::Error::other(format!(
                "after the end of the stream: {other:?}"
            ))),
        }
    }

    /// A call that waits until its memory is full gave less.
    fn must_have_ended(&self, len: usize, count: usize) -> io::Result<()> {
        self.stream.set_read_timeout(None)?;
        match read(self.stream, &mut [0]) {
            Ok(0) => Ok(()),
            other => Err(io::Error::other(format!(
                "a call for all of {len} gave {count}, and then: {other:?}"
            ))),
        }
    }
}

fn call(stream: &SdpStream, form: Form, bytes: &mut [u8], rng: &mut Rng) -> io::Result<usize> {
    match form {
        Form::Read => read(stream, bytes),
        Form::Peek => stream.peek(bytes),
        Form::WaitAll => stream.read_waitall(bytes),
        Form::Vectored => {
            let mut rest = bytes;
            let mut slices = Vec::new();
            for _ in 0..rng.between(1, 4) {
                let (piece, after) = rest.split_at_mut(rng.below(rest.len() + 1));
                slices.push(IoSliceMut::new(piece));
                rest = after;
            }
            slices.push(IoSliceMut::new(rest));
            (&mut &*stream).read_vectored(&mut slices)
        }
    }
}

fn read(mut stream: &SdpStream, bytes: &mut [u8]) -> io::Result<usize> {
    stream.read(bytes)
}
