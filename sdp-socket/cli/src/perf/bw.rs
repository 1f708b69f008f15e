//! Bulk: one side sends messages back to back, the other receives them.

use std::io;
use std::sync::atomic::AtomicU64;

use super::control::ConnDone;
use super::flow::{Flow, Inflow};
use super::pattern::Pattern;
use crate::transport::{Conn, write_all};

/// Sends messages of `buf.len()` bytes until the flow says so, and gives their number. With
/// `pattern` each is written anew first; without, `buf` is sent as it is.
///
/// # Errors
/// Those of the stream.
pub(super) fn send(
    conn: &dyn Conn,
    buf: &mut [u8],
    pattern: Option<Pattern>,
    flow: &Flow,
    index: usize,
) -> io::Result<u64> {
    let mut messages = 0;
    while flow.goes_on(index, messages) {
        if let Some(pattern) = pattern {
            pattern.fill(messages * buf.len() as u64, buf);
        }
        write_all(conn, buf)?;
        messages += 1;
    }
    Ok(messages)
}

/// Receives messages of `buf.len()` bytes until the trailer.
pub(super) fn receive(
    conn: &dyn Conn,
    buf: &mut [u8],
    pattern: Option<Pattern>,
    total: &AtomicU64,
) -> ConnDone {
    let mut inflow = Inflow::new(conn, pattern, total);
    let mut filled = 0;
    let mut error = None;
    while !inflow.ended() {
        match inflow.read(&mut buf[filled..]) {
            Ok(count) => filled = (filled + count) % buf.len(),
            Err(cause) => {
                error = Some(cause.to_string());
                break;
            }
        }
    }
    let (received, wrong) = inflow.outcome();
    ConnDone {
        received,
        wrong,
        error,
    }
}
