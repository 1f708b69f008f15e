//! What the process does that will be killed or stopped, and what it says.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use sdp_socket::{Builder, ZcopyThreshold};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where in its life a connection is when the peer dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It is being made.
    Handshake,
    /// Bytes go through private buffers.
    Bcopy,
    /// A large send has shown its memory, and nobody reads.
    AdvertOpen,
    /// Large sends are being read out of their memory.
    ReadRunning,
    /// It is being ended.
    Closing,
}

impl Phase {
    /// All.
    pub(super) const ALL: [Self; 5] = [
        Self::Handshake,
        Self::Bcopy,
        Self::AdvertOpen,
        Self::ReadRunning,
        Self::Closing,
    ];

    /// As reports spell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Bcopy => "bcopy",
            Self::AdvertOpen => "advert_open",
            Self::ReadRunning => "read_running",
            Self::Closing => "closing",
        }
    }
}

/// What the process that dies was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// It sent; in a handshake: it connected.
    Sender,
    /// It received; in a handshake: it listened.
    Receiver,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sender => "sender",
            Self::Receiver => "receiver",
        })
    }
}

/// What the other process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    /// Connects, sends `len` bytes and closes, again and again.
    ConnectForEver,
    /// Listens and accepts, and keeps what it accepts.
    Listen,
    /// Sends without end.
    Stream,
    /// Receives without end.
    Drain,
    /// Connects, and that is all.
    Idle,
    /// Sends `len` bytes in one call.
    Advertise,
    /// Sends `len` bytes and closes.
    Close,
    /// Sends `len` bytes and receives to the end, at once; then says what it has found.
    BothWays,
}

/// All that it needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Script {
    /// What it does.
    pub(super) part: Part,
    /// Where to connect.
    pub(super) address: Option<SocketAddr>,
    /// Whose bytes it sends; those that it receives are of the next number.
    pub(super) pattern: u32,
    /// Seed of its choices.
    pub(super) seed: u64,
    /// How bytes move.
    pub(super) moves: Moves,
    /// How many.
    pub(super) len: usize,
    /// A file in which it keeps how many have left this process for good.
    pub(super) counter: Option<PathBuf>,
}

/// How bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Moves {
    /// Through private buffers.
    Copied,
    /// Out of registered memory, however long the reader takes.
    Registered,
    /// Out of the heap, however long the reader takes.
    Heap,
}

impl Moves {
    /// Makes such streams.
    pub(super) fn builder(self) -> Builder {
        match self {
            Self::Copied => Builder::new().zcopy_threshold(ZcopyThreshold::Off),
            Self::Registered | Self::Heap => Builder::new()
                .zcopy_threshold(ZcopyThreshold::Bytes(4 << 10))
                .rendezvous_wait(Duration::MAX),
        }
    }
}

/// What the other process says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Word {
    /// It is connected, or it listens there, or has connected once.
    Ready(Option<SocketAddr>),
    /// It is about to close.
    Closing,
    /// Both ways have ended.
    Done {
        /// Bytes received and compared.
        received: u64,
        /// Bytes sent.
        sent: u64,
        /// What went wrong.
        problem: Option<String>,
    },
}
