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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::{bw, lat};
    use crate::transport::{Buffer, Counters, heap};
    use std::sync::Mutex;

    const SIZE: usize = 100;

    /// Gives what it was made with in pieces of 7 bytes, and keeps what is written.
    struct Script {
        input: Mutex<Vec<u8>>,
        output: Mutex<Vec<u8>>,
    }

    impl Script {
        fn new(input: Vec<u8>) -> Self {
            Self {
                input: Mutex::new(input),
                output: Mutex::default(),
            }
        }
    }

    impl Conn for Script {
        fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
            let mut input = self.input.lock().unwrap();
            let count = input.len().min(buf.len()).min(7);
            buf[..count].copy_from_slice(&input[..count]);
            input.drain(..count);
            Ok(count)
        }

        fn write(&self, buf: &[u8]) -> io::Result<usize> {
            self.output.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }

        fn set_nodelay(&self) -> io::Result<()> {
            Ok(())
        }

        fn buffer(&self, len: usize) -> io::Result<Buffer> {
            Ok(heap(len))
        }

        fn counters(&self) -> Option<Counters> {
            None
        }
    }

    /// Three messages and the trailer.
    fn stream() -> Vec<u8> {
        let mut bytes = vec![0; 3 * SIZE];
        Pattern::of(0).fill(0, &mut bytes);
        bytes.extend(TRAILER);
        bytes
    }

    fn received(bytes: Vec<u8>, total: u64) -> super::super::control::ConnDone {
        let total = AtomicU64::new(total);
        let pattern = Some(Pattern::of(0));
        bw::receive(&Script::new(bytes), &mut [0; SIZE], pattern, &total)
    }

    #[test]
    fn a_run_ends_with_the_trailer_after_the_announced_total() {
        let done = received(stream(), 300);
        assert_eq!((done.received, done.wrong, done.error), (300, None, None));
    }

    #[test]
    fn a_wrong_byte_is_named_and_the_run_goes_on_to_its_end() {
        let mut bytes = stream();
        bytes[123] ^= 1;
        bytes[200] ^= 1;
        let done = received(bytes, 300);
        assert_eq!(done.wrong.map(|wrong| wrong.offset), Some(123));
        assert_eq!((done.received, done.error), (300, None));
    }

    #[test]
    fn lost_and_surplus_bytes_are_errors() {
        let mut lost = stream();
        lost.drain(40..41);
        let error = received(lost, 300).error.unwrap();
        assert!(error.contains("end of file"), "{error}");
        let mut surplus = stream();
        surplus.insert(40, 0);
        let error = received(surplus, 300).error.unwrap();
        assert!(error.contains("after the last of 300"), "{error}");
    }

    #[test]
    fn a_ping_pong_sends_back_what_came_but_not_the_trailer() {
        let script = Script::new(stream());
        let total = AtomicU64::new(300);
        let done = lat::echo(&script, &mut [0; SIZE], None, &total);
        assert_eq!((done.received, done.error), (300, None));
        assert_eq!(*script.output.lock().unwrap(), stream()[..300]);
    }

    #[test]
    fn a_sender_ends_after_its_messages_or_when_told_to() {
        let script = Script::new(Vec::new());
        let flow = Flow::new(1, Some(3));
        let pattern = Some(Pattern::of(0));
        let sent = bw::send(&script, &mut [0; SIZE], pattern, &flow, 0).unwrap();
        assert_eq!((sent, flow.messages()), (3, 3));
        assert_eq!(*script.output.lock().unwrap(), stream()[..300]);
        let stopped = Flow::new(1, None);
        stopped.stop();
        assert_eq!(
            bw::send(&script, &mut [0; SIZE], None, &stopped, 0).unwrap(),
            0
        );
    }
}
