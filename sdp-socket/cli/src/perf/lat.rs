//! Ping-pong: one side sends a message, the other sends it back.

use std::io;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::control::ConnDone;
use super::flow::{Flow, Inflow};
use super::pattern::{Mismatch, Pattern};
use crate::transport::{Conn, read_full, write_all};

/// Longest time that is told apart from a longer one.
const LONGEST: Duration = Duration::from_secs(100);

/// What the asking side saw.
#[derive(Debug)]
pub(super) struct Pings {
    /// Round trips.
    pub(super) messages: u64,
    /// Half of each, in ns.
    pub(super) latency: Histogram<u64>,
    /// The first wrong byte of an answer.
    pub(super) wrong: Option<Mismatch>,
}

/// An empty histogram of times in ns.
pub(super) fn histogram() -> Histogram<u64> {
    let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, longest, 3).expect("constant bounds are valid")
}

/// Sends messages of `buf.len()` bytes and waits for each answer until the flow says so.
///
/// # Errors
/// Those of the stream.
pub(super) fn ping(
    conn: &dyn Conn,
    buf: &mut [u8],
    pattern: Option<Pattern>,
    flow: &Flow,
    index: usize,
) -> io::Result<Pings> {
    let mut pings = Pings {
        messages: 0,
        latency: histogram(),
        wrong: None,
    };
    let mut begin = Instant::now();
    while flow.goes_on(index, pings.messages) {
        let offset = pings.messages * buf.len() as u64;
        if let Some(pattern) = pattern {
            pattern.fill(offset, buf);
            begin = Instant::now();
        }
        write_all(conn, buf)?;
        read_full(conn, buf)?;
        let end = Instant::now();
        let half = (end - begin) / 2;
        begin = end;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        pings.latency.saturating_record(nanos);
        if let (Some(pattern), None) = (pattern, pings.wrong) {
            pings.wrong = pattern.check(offset, buf).err();
        }
        pings.messages += 1;
    }
    Ok(pings)
}

/// Sends back messages of `buf.len()` bytes until the trailer.
pub(super) fn echo(
    conn: &dyn Conn,
    buf: &mut [u8],
    pattern: Option<Pattern>,
    total: &AtomicU64,
) -> ConnDone {
    let mut inflow = Inflow::new(conn, pattern, total);
    let error = echo_messages(conn, buf, &mut inflow).err();
    let (received, wrong) = inflow.outcome();
    ConnDone {
        received,
        wrong,
        error: error.map(|cause| cause.to_string()),
    }
}

fn echo_messages(conn: &dyn Conn, buf: &mut [u8], inflow: &mut Inflow<'_>) -> io::Result<()> {
    let mut filled = 0;
    while !inflow.ended() {
        filled += inflow.read(&mut buf[filled..])?;
        if filled == buf.len() {
            write_all(conn, buf)?;
            filled = 0;
        }
    }
    Ok(())
}
