//! What the threads of a run share, and the receiving side of a stream.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::pattern::{Mismatch, Pattern};
use crate::transport::{Conn, read_some};

/// What the last message of a run is followed by.
pub(super) const TRAILER: [u8; 1] = [0x2e];

/// What the client's threads of a run share.
#[derive(Debug)]
pub(super) struct Flow {
    stop: AtomicBool,
    messages_max: Option<u64>,
    progress: Vec<Line>,
}

/// One counter in a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Flow {
    /// For `conns` threads, each of which ends after `messages_max` messages, if that is given.
    pub(super) fn new(conns: usize, messages_max: Option<u64>) -> Self {
        Self {
            stop: AtomicBool::new(false),
            messages_max,
            progress: (0..conns).map(|_| Line::default()).collect(),
        }
    }

    /// Asks all threads to end after the current message.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Messages of all threads so far.
    pub(super) fn messages(&self) -> u64 {
        let each = self.progress.iter();
        each.map(|line| line.0.load(Ordering::Relaxed)).sum()
    }

    /// Whether thread `index`, which has done `messages`, goes on.
    pub(super) fn goes_on(&self, index: usize, messages: u64) -> bool {
        self.progress[index].0.store(messages, Ordering::Relaxed);
        !self.stop.load(Ordering::Relaxed) && self.messages_max.is_none_or(|max| messages < max)
    }
}

/// The receiving side of one connection during one run.
pub(super) struct Inflow<'a> {
    conn: &'a dyn Conn,
    pattern: Option<Pattern>,
    total: &'a AtomicU64,
    received: u64,
    wrong: Option<Mismatch>,
    ended: bool,
}

/// Stands for a total that is not known yet.
pub(super) const UNKNOWN: u64 = u64::MAX;

impl<'a> Inflow<'a> {
    /// Reads from `conn` until `total`, [`UNKNOWN`] until the sender has stopped, and compares
    /// with `pattern` if there is one.
    pub(super) fn new(conn: &'a dyn Conn, pattern: Option<Pattern>, total: &'a AtomicU64) -> Self {
        Self {
            conn,
            pattern,
            total,
            received: 0,
            wrong: None,
            ended: false,
        }
    }

    /// Whether the trailer has come.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Payload received so far and the first wrong byte in it.
    pub(super) fn outcome(&self) -> (u64, Option<Mismatch>) {
        (self.received, self.wrong)
    }

    /// Reads some payload; at the end of the run maybe none.
    ///
    /// # Errors
    /// Those of the stream; `InvalidData` if more arrives than was sent.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = read_some(self.conn, buf)?;
        let total = self.total.load(Ordering::Acquire);
        let left = total.saturating_sub(self.received);
        let payload = u64::try_from(count).map_or(left, |count| count.min(left));
        // At most `count`.
        let payload = usize::try_from(payload).unwrap_or(count);
        match &buf[payload..count] {
            [] => {}
            trailer if *trailer == TRAILER => self.ended = true,
            more => {
                let message = format!("{} bytes arrived after the last of {total}", more.len());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        if let (Some(pattern), None) = (self.pattern, self.wrong) {
            self.wrong = pattern.check(self.received, &buf[..payload]).err();
        }
        self.received += payload as u64;
        Ok(payload)
    }
}
