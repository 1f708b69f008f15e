//! The kinds of stream that are measured, behind one small pair of traits.

mod floor;
mod patience;
mod sdp;
mod shm;
mod tcp;
mod uds;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::DerefMut;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub(crate) use sdp::{set_trace, verbs_counters};

/// Named counts of one end, for reports.
pub(crate) type Counters = BTreeMap<String, u64>;

/// Smallest message that SDP moves straight from the program's buffer when it is told to, in bytes.
pub(crate) const ZCOPY_MIN: usize = 4096;

/// Memory that a payload lives in.
pub(crate) type Buffer = Box<dyn DerefMut<Target = [u8]> + Send>;

/// A kind of stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Sockets Direct Protocol.
    Sdp,
    /// Kernel TCP.
    Tcp,
    /// Unix sockets of the kernel, on one machine.
    Uds,
    /// Not a socket: what one copy between two processes can do.
    #[value(hide = true)]
    FloorSingle,
    /// Not a socket: what two copies through shared memory can do.
    #[value(hide = true)]
    FloorRing,
}

/// A verbs provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Provider {
    /// Two processes of one machine.
    Host,
    /// An RDMA adapter.
    Rdma,
    /// The deterministic simulator.
    Sim,
}

/// How SDP moves a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// By its own measurements.
    Auto,
    /// Copied through private buffers.
    Bcopy,
    /// Straight between the programs' buffers, however long the reader takes.
    Zcopy,
}

/// Where a payload lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Buffers {
    /// Memory of the ordinary allocator.
    Heap,
    /// Memory registered for life by the library.
    Registered,
}

/// How a thread waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    /// A bounded spin that learns, then sleep.
    Adaptive,
    /// Never sleep.
    Spin,
    /// Sleep at once.
    Sleep,
    /// Non-blocking calls, and poll(2) where they would wait, as servers of many streams do.
    Poll,
}

/// The name of a value as the command line and the reports spell it.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

/// One way to open streams: what both ends must agree on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Kind of stream.
    pub(crate) kind: Kind,
    /// Verbs provider, for SDP.
    pub(crate) provider: Provider,
    /// How the payload moves, for SDP.
    pub(crate) mode: Mode,
    /// Where it lives.
    pub(crate) buffers: Buffers,
    /// How threads wait.
    pub(crate) wait: Wait,
    /// Bytes of one message; a floor sizes its shared memory by it.
    pub(crate) size: usize,
}

impl Endpoint {
    /// The transport that opens such streams.
    pub(crate) fn transport(&self) -> Box<dyn Transport> {
        let wait = self.wait;
        match self.kind {
            Kind::Tcp => Box::new(tcp::Tcp { wait }),
            Kind::Uds => Box::new(uds::Uds { wait }),
            Kind::Sdp => Box::new(sdp::Sdp::new(self)),
            Kind::FloorSingle => Box::new(floor::Floor::single(self.size)),
            Kind::FloorRing => Box::new(floor::Floor::ring()),
        }
    }
}

/// A way to open streams.
pub(crate) trait Transport {
    /// Listens; network transports on a free port of `near`.
    ///
    /// # Errors
    /// Those of the transport.
    fn listen(&self, near: IpAddr) -> io::Result<Box<dyn Listener>>;

    /// Opens a stream to what [`Listener::address`] said.
    ///
    /// # Errors
    /// Those of the transport; `InvalidInput` if `address` is not one of this transport.
    fn connect(&self, address: &str) -> io::Result<Box<dyn Conn>>;
}

/// Accepts streams.
pub(crate) trait Listener: Send {
    /// The address for [`Transport::connect`].
    ///
    /// # Errors
    /// Those of the transport.
    fn address(&self) -> io::Result<String>;

    /// Waits for the next stream.
    ///
    /// # Errors
    /// Those of the transport.
    fn accept(&self) -> io::Result<Box<dyn Conn>>;
}

/// One stream.
pub(crate) trait Conn: Send + Sync {
    /// Reads some bytes, as `read`: 0 at the end of the stream.
    ///
    /// # Errors
    /// Those of the transport.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes some bytes, as `write`.
    ///
    /// # Errors
    /// Those of the transport.
    fn write(&self, buf: &[u8]) -> io::Result<usize>;

    /// Sends small messages at once.
    ///
    /// # Errors
    /// Those of the transport.
    fn set_nodelay(&self) -> io::Result<()>;

    /// `len` zeroed bytes for payload.
    ///
    /// # Errors
    /// If the transport must provide the memory and has none.
    fn buffer(&self, len: usize) -> io::Result<Buffer>;

    /// What the engine under this stream has counted so far; none if it has no engine of ours.
    fn counters(&self) -> Option<Counters>;
}

impl fmt::Debug for dyn Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conn")
    }
}

/// Memory of the ordinary allocator.
pub(crate) fn heap(len: usize) -> Buffer {
    Box::new(vec![0; len])
}

/// Writes all of `buf`.
///
/// # Errors
/// Those of the stream; `WriteZero` if it takes nothing.
pub(crate) fn write_all(conn: &dyn Conn, mut buf: &[u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match conn.write(buf) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => buf = &buf[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some bytes, at least one.
///
/// # Errors
/// Those of the stream; `UnexpectedEof` at its end.
pub(crate) fn read_some(conn: &dyn Conn, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match conn.read(buf) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Fills `buf`.
///
/// # Errors
/// As [`read_some`].
pub(crate) fn read_full(conn: &dyn Conn, buf: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buf.len() {
        filled += read_some(conn, &mut buf[filled..])?;
    }
    Ok(())
}
