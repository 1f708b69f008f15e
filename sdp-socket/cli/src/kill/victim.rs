//! The process that is killed or stopped.

use std::io;
use std::net::SocketAddr;
use std::thread;

use anyhow::Context;
use sdp_socket::SdpStream;

use super::bytes::{Flow, memory};
use super::counter::Counter;
use super::script::{Part, Script, Word};
use crate::cli::KillVictimArgs;
use crate::lab::{Orders, Rng, say};

/// Threads that connect at once.
const CONNECTORS: u32 = 4;
/// Longest call of an endless sender.
const CALL_MAX: usize = 256 << 10;

/// Plays a part. The parts that end do so when the other process goes away.
///
/// # Errors
/// When it cannot be played.
pub(super) fn run(args: &KillVictimArgs) -> anyhow::Result<()> {
    let script: Script = serde_json::from_str(&args.script).context("a bad script")?;
    let orders = Orders::<()>::listen()?;
    match script.part {
        Part::ConnectForEver => connect_for_ever(&script)?,
        Part::Listen => listen(&script)?,
        Part::Stream => stream(&script)?,
        Part::Drain => drain(&script)?,
        Part::Idle => {
            let stream = connect(&script)?;
            orders.next(std::time::Duration::MAX);
            drop(stream);
        }
        Part::Advertise => {
            let stream = advertise(&script)?;
            orders.next(std::time::Duration::MAX);
            drop(stream);
        }
        Part::Close => close(&script)?,
        Part::BothWays => both_ways(&script)?,
    }
    // To be killed, or to end with the other process.
    orders.next(std::time::Duration::MAX);
    Ok(())
}

fn address(script: &Script) -> anyhow::Result<SocketAddr> {
    script.address.context("no address")
}

fn connect(script: &Script) -> anyhow::Result<SdpStream> {
    let stream = script.moves.builder().connect(address(script)?)?;
    say(&Word::Ready(None))?;
    Ok(stream)
}

fn connect_for_ever(script: &Script) -> anyhow::Result<()> {
    let address = address(script)?;
    let once = |first: bool| -> anyhow::Result<()> {
        let stream = script.moves.builder().connect(address)?;
        if first {
            say(&Word::Ready(None))?;
        }
        let (mut flow, mut bytes) = (Flow::new(script.pattern), vec![0; script.len]);
        flow.write(&stream, &mut bytes)?;
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTORS)
            .map(|number| {
                scope.spawn(move || -> anyhow::Result<()> {
                    once(number == 0)?;
                    loop {
                        // The other side takes its time to accept: its backlog may be full.
                        let _ = once(false);
                    }
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

fn listen(script: &Script) -> anyhow::Result<()> {
    let near = address(script)?.ip();
    let listener = script.moves.builder().bind((near, 0))?;
    say(&Word::Ready(Some(listener.local_addr()?)))?;
    let mut accepted = Vec::new();
    loop {
        accepted.push(listener.accept()?);
    }
}

/// Payload bytes that are in the peer's hands: sent, or read by it. What waits in this process's
/// own queue for memory of the peer's is not.
fn gone(stream: &SdpStream) -> u64 {
    let stats = stream.stats();
    let sent = stats.tx_bytes_bcopy + stats.tx_bytes_inline + stats.tx_bytes_zcopy;
    sent.saturating_sub(stats.tx_bytes_queued)
}

fn keep_count(counter: Option<&Counter>, stream: &SdpStream) -> io::Result<()> {
    counter.map_or(Ok(()), |counter| counter.set(gone(stream)))
}

fn open_counter(script: &Script) -> anyhow::Result<Option<Counter>> {
    let path = script.counter.as_deref();
    path.map(Counter::open).transpose().context("no counter")
}

fn stream(script: &Script) -> anyhow::Result<()> {
    let counter = open_counter(script)?;
    let mut bytes = memory(script.moves, script.len.max(CALL_MAX))?;
    let stream = connect(script)?;
    let mut rng = Rng::of(&[script.seed, 1]);
    let mut flow = Flow::new(script.pattern);
    loop {
        let len = if script.len == 0 {
            rng.length(CALL_MAX)
        } else {
            script.len
        };
        flow.write(&stream, &mut bytes[..len])?;
        keep_count(counter.as_ref(), &stream)?;
    }
}

fn drain(script: &Script) -> anyhow::Result<()> {
    let mut bytes = memory(script.moves, script.len)?;
    let stream = connect(script)?;
    let mut flow = Flow::new(script.pattern + 1);
    while flow.read(&stream, &mut bytes)? > 0 {}
    Ok(())
}

fn advertise(script: &Script) -> anyhow::Result<SdpStream> {
    let mut bytes = memory(script.moves, script.len)?;
    let stream = connect(script)?;
    Flow::new(script.pattern).write(&stream, &mut bytes)?;
    Ok(stream)
}

fn close(script: &Script) -> anyhow::Result<()> {
    let counter = open_counter(script)?;
    let mut bytes = memory(script.moves, script.len)?;
    let stream = connect(script)?;
    let mut flow = Flow::new(script.pattern);
    while flow.at < script.len as u64 {
        let left = script.len - usize::try_from(flow.at)?;
        flow.write(&stream, &mut bytes[..left])?;
    }
    keep_count(counter.as_ref(), &stream)?;
    say(&Word::Closing)?;
    drop(stream);
    Ok(())
}

fn both_ways(script: &Script) -> anyhow::Result<()> {
    let mut out = memory(script.moves, CALL_MAX)?;
    let mut room = memory(script.moves, CALL_MAX)?;
    let stream = connect(script)?;
    let (mut sent, mut received) = (Flow::new(script.pattern), Flow::new(script.pattern + 1));
    let ended = thread::scope(|scope| {
        let stream = &stream;
        let sending = scope.spawn(|| send_all(stream, &mut sent, &mut out, script.len as u64));
        let receiving = receive_all(stream, &mut received, &mut room);
        match sending.join() {
            Ok(sending) => sending.and(receiving),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    say(&Word::Done {
        received: received.at,
        sent: sent.at,
        problem: ended.err().map(|error| error.to_string()),
    })
}

/// Sends up to `total` bytes, then ends the way.
///
/// # Errors
/// Those of the stream.
pub(super) fn send_all(
    stream: &SdpStream,
    flow: &mut Flow,
    bytes: &mut [u8],
    total: u64,
) -> io::Result<()> {
    while flow.at < total {
        let left = usize::try_from(total - flow.at).unwrap_or(usize::MAX);
        let len = bytes.len().min(left);
        flow.write(stream, &mut bytes[..len])?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// Receives to the end of the stream.
///
/// # Errors
/// Those of the stream, and wrong bytes.
pub(super) fn receive_all(stream: &SdpStream, flow: &mut Flow, bytes: &mut [u8]) -> io::Result<()> {
    while flow.read(stream, bytes)? > 0 {}
    Ok(())
}
