//! The control connection: JSON lines over plain TCP.
//!
//! The client asks, the server answers each request once, in order. One test is `Open`, the data
//! connections (each begins with a [`Preface`]), `Connected`, then any number of runs of `Start`
//! and `Finish`. The connections of a run end in step without being closed: after the client's
//! threads have stopped, `Finish` says how much each sent; when it is answered, each sends one
//! more byte, the *trailer*, so that a reader never blocks past the end; `Done` comes when all
//! trailers have arrived.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Workload;
use super::pattern::Mismatch;
use crate::transport::{Counters, Endpoint};

/// Changes when the messages change: both ends must be of one version.
const VERSION: u32 = 1;

/// Longest line, against a peer that is none.
const LINE_MAX: u64 = 4 << 20;

/// What the client asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Prepare a test.
    Open(Open),
    /// Wait until all data connections have arrived.
    Connected,
    /// Take the counters and begin to receive.
    Start,
    /// Connection by connection, the bytes sent, without the trailer.
    Finish {
        /// Bytes by index of the connection.
        totals: Vec<u64>,
    },
}

/// A test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Open {
    version: u32,
    /// What is done.
    pub(crate) workload: Workload,
    /// Over which streams.
    pub(crate) endpoint: Endpoint,
    /// Over how many.
    pub(crate) conns: u32,
    /// Whether the receiver compares every byte.
    pub(crate) verify: bool,
    /// Whether the verbs must be counted.
    pub(crate) trace: bool,
}

impl Open {
    /// A test, for a server of this version.
    pub(crate) fn new(workload: Workload, endpoint: Endpoint, conns: u32) -> Self {
        Self {
            version: VERSION,
            workload,
            endpoint,
            conns,
            verify: false,
            trace: false,
        }
    }

    /// Whether it comes from a client of this version.
    pub(crate) fn is_current(&self) -> bool {
        self.version == VERSION
    }
}

/// What the server answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// To `Open`: connect there.
    Ready {
        /// Goes into each preface.
        session: u64,
        /// For the transport's connect.
        address: String,
    },
    /// To `Connected`: all are there.
    Connected,
    /// To `Start`.
    Started,
    /// To `Finish`: send the trailers.
    Finishing,
    /// After `Finishing`, when the run has ended.
    Done(Done),
    /// To anything: it cannot be done; the connection ends.
    Refused {
        /// Why.
        reason: String,
    },
}

/// The server's side of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Processor time of the server's process, in ns.
    pub(crate) cpu_ns: u64,
    /// By index of the connection.
    pub(crate) conns: Vec<ConnDone>,
    /// What its engines counted during the run, all connections together.
    pub(crate) engine: Option<Counters>,
    /// What the wrapper below them counted.
    pub(crate) verbs: Option<Counters>,
}

/// The server's side of one connection of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ConnDone {
    /// Bytes that arrived, without the trailer.
    pub(crate) received: u64,
    /// The first wrong byte, if any.
    pub(crate) wrong: Option<Mismatch>,
    /// Why the connection ended early, if it did.
    pub(crate) error: Option<String>,
}

/// The first bytes of a data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preface {
    /// From `Ready`.
    pub(crate) session: u64,
    /// Index of the connection.
    pub(crate) index: u32,
}

impl Preface {
    /// Bytes on the wire.
    pub(crate) const LEN: usize = 16;
    const MAGIC: u32 = 0x5344_5070;

    /// As it is sent.
    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&Self::MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.index.to_le_bytes());
        bytes[8..].copy_from_slice(&self.session.to_le_bytes());
        bytes
    }

    /// Reads one; none if these bytes are something else.
    pub(crate) fn decode(bytes: [u8; Self::LEN]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
        (word(0) == Self::MAGIC).then(|| Self {
            session: u64::from(word(8)) | u64::from(word(12)) << 32,
            index: word(4),
        })
    }
}

/// One end of a control connection.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: BufReader<TcpStream>,
}

impl Channel {
    /// Over this connection.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn new(stream: TcpStream) -> anyhow::Result<Self> {
        stream
            .set_nodelay(true)
            .context("cannot set TCP_NODELAY on the control connection")?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Bounds each wait for the other end; none waits for ever.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) -> anyhow::Result<()> {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(patience)
            .context("cannot set a time-out on the control connection")
    }

    /// Sends one message.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message).context("cannot encode a control message")?;
        line.push(b'\n');
        self.stream
            .get_mut()
            .write_all(&line)
            .context("cannot write to the control connection")
    }

    /// Waits for the next message; none at the end of the connection.
    ///
    /// # Errors
    /// Those of the socket, and lines that are no such message.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut line = String::new();
        let count = (&mut self.stream)
            .take(LINE_MAX)
            .read_line(&mut line)
            .context("cannot read from the control connection")?;
        if count == 0 {
            return Ok(None);
        }
        if !line.ends_with('\n') {
            bail!("a control message is cut off after {count} bytes");
        }
        let message = serde_json::from_str(&line)
            .with_context(|| format!("no control message: {}", line.trim_end()))?;
        Ok(Some(message))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::receive`]; also if the server refuses or ends.
    pub(crate) fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        self.send(request)?;
        self.answer()
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// As [`Self::receive`]; also if the server refuses or ends.
    pub(crate) fn answer(&mut self) -> anyhow::Result<Reply> {
        match self.receive()? {
            Some(Reply::Refused { reason }) => bail!("the server refuses: {reason}"),
            Some(reply) => Ok(reply),
            None => bail!("the server has ended the control connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_survives_the_wire_and_anything_else_is_none() {
        let preface = Preface {
            session: 0x0123_4567_89ab_cdef,
            index: 255,
        };
        assert_eq!(Preface::decode(preface.encode()), Some(preface));
        assert_eq!(Preface::decode([0; Preface::LEN]), None);
    }
}
