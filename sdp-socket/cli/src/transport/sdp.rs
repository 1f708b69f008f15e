//! SDP streams, by the library as programs use it.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use rustix::event::PollFlags;
use sdp_socket::{
    Builder, ProviderKind, Readiness, SdpBuffer, SdpListener, SdpStream, SpinPolicy, Stats,
    VerbsCounters, ZcopyThreshold,
};

use super::patience::repeat;
use super::tcp::socket_address;
use super::{
    Buffer, Buffers, Conn, Counters, Endpoint, Listener, Mode, Provider, Transport, Wait,
    ZCOPY_MIN, heap,
};

/// How long a connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// SDP streams of one configuration.
#[derive(Debug)]
pub(super) struct Sdp {
    builder: Builder,
    buffers: Buffers,
    wait: Wait,
}

impl Sdp {
    /// Streams as `endpoint` asks.
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let threshold = match endpoint.mode {
            Mode::Auto => ZcopyThreshold::Auto,
            Mode::Bcopy => ZcopyThreshold::Off,
            Mode::Zcopy => ZcopyThreshold::Bytes(ZCOPY_MIN),
        };
        let spin = match endpoint.wait {
            Wait::Adaptive => SpinPolicy::Adaptive,
            Wait::Spin => SpinPolicy::Always,
            Wait::Sleep | Wait::Poll => SpinPolicy::Never,
        };
        let mut builder = Builder::new()
            .provider(endpoint.provider.kind())
            .zcopy_threshold(threshold)
            .spin(spin);
        if endpoint.mode == Mode::Zcopy {
            // No byte is buffered while the reader is late: the sender waits for it.
            builder = builder.rendezvous_wait(Duration::MAX);
        }
        Self {
            builder,
            buffers: endpoint.buffers,
            wait: endpoint.wait,
        }
    }
}

impl Provider {
    /// As the library calls it.
    pub(crate) fn kind(self) -> ProviderKind {
        match self {
            Self::Host => ProviderKind::Host,
            Self::Rdma => ProviderKind::Rdma,
            Self::Sim => ProviderKind::Sim,
        }
    }
}

/// Switches the counting wrapper below the engine on; before the first socket.
pub(crate) fn set_trace() {
    sdp_socket::set_trace(true);
}

/// What the wrapper has counted in this process; none if it is off.
pub(crate) fn verbs_counters() -> Option<Counters> {
    sdp_socket::verbs_counters().map(|counters| named(&counters))
}

fn named(counters: &VerbsCounters) -> Counters {
    let pairs = [
        ("send_count", counters.send_count),
        ("send_bytes", counters.send_bytes),
        ("recv_count", counters.recv_count),
        ("recv_bytes", counters.recv_bytes),
        ("read_count", counters.read_count),
        ("read_bytes", counters.read_bytes),
        ("write_count", counters.write_count),
        ("write_bytes", counters.write_bytes),
        ("bind_count", counters.bind_count),
        ("local_inv_count", counters.local_inv_count),
        ("refused_count", counters.refused_count),
        ("flushed_count", counters.flushed_count),
        ("refused_peer_count", counters.refused_peer_count),
        ("register_count", counters.register_count),
        ("register_bytes", counters.register_bytes),
    ];
    pairs.map(|(name, count)| (name.to_owned(), count)).into()
}

impl Transport for Sdp {
    fn listen(&self, near: IpAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Accepting {
            listener: self.builder.bind((near, 0))?,
            buffers: self.buffers,
            wait: self.wait,
        }))
    }

    fn connect(&self, address: &str) -> io::Result<Box<dyn Conn>> {
        let address = socket_address(address)?;
        let stream = self.builder.connect_timeout(&address, CONNECT_MAX)?;
        Stream::open(stream, self.buffers, self.wait)
    }
}

#[derive(Debug)]
struct Accepting {
    listener: SdpListener,
    buffers: Buffers,
    wait: Wait,
}

impl Listener for Accepting {
    fn address(&self) -> io::Result<String> {
        Ok(self.listener.local_addr()?.to_string())
    }

    fn accept(&self) -> io::Result<Box<dyn Conn>> {
        let (stream, _) = self.listener.accept()?;
        Stream::open(stream, self.buffers, self.wait)
    }
}

#[derive(Debug)]
struct Stream {
    stream: SdpStream,
    buffers: Buffers,
    /// What tells of a stream that is polled.
    readiness: Option<Readiness>,
}

impl Stream {
    fn open(stream: SdpStream, buffers: Buffers, wait: Wait) -> io::Result<Box<dyn Conn>> {
        let readiness = match wait {
            Wait::Poll => {
                stream.set_nonblocking(true)?;
                let readiness = stream.readiness()?;
                // It is poll(2) that waits, for IN or for OUT.
                stream.set_edges(false)?;
                Some(readiness)
            }
            // The library's own ways of waiting, within its calls.
            Wait::Adaptive | Wait::Spin | Wait::Sleep => None,
        };
        Ok(Box::new(Self {
            stream,
            buffers,
            readiness,
        }))
    }

    fn repeat(
        &self,
        wanted: PollFlags,
        mut call: impl FnMut(&SdpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match &self.readiness {
            None => call(&self.stream),
            Some(fd) => repeat(Wait::Poll, fd, wanted, || call(&self.stream)),
        }
    }
}

impl Conn for Stream {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.repeat(PollFlags::IN, |mut stream| stream.read(buf))
    }

    fn write(&self, buf: &[u8]) -> io::Result<usize> {
        self.repeat(PollFlags::OUT, |mut stream| stream.write(buf))
    }

    fn set_nodelay(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }

    fn buffer(&self, len: usize) -> io::Result<Buffer> {
        Ok(match self.buffers {
            Buffers::Heap => heap(len),
            Buffers::Registered => Box::new(SdpBuffer::for_stream(&self.stream, len)?),
        })
    }

    fn counters(&self) -> Option<Counters> {
        Some(engine_counters(&self.stream.stats()))
    }
}

fn engine_counters(stats: &Stats) -> Counters {
    let pairs = [
        ("tx_bytes_bcopy", stats.tx_bytes_bcopy),
        ("tx_bytes_inline", stats.tx_bytes_inline),
        ("tx_bytes_zcopy", stats.tx_bytes_zcopy),
        ("tx_bytes_written", stats.tx_bytes_written),
        ("rx_bytes_bcopy", stats.rx_bytes_bcopy),
        ("rx_bytes_inline", stats.rx_bytes_inline),
        ("rx_bytes_zcopy", stats.rx_bytes_zcopy),
        ("rx_bytes_written", stats.rx_bytes_written),
        ("rx_bytes_read_ahead", stats.rx_bytes_read_ahead),
        ("credit_stalls", stats.credit_stalls),
    ];
    let mut all: Counters = pairs.map(|(name, count)| (name.to_owned(), count)).into();
    for (reason, count, bytes) in &stats.copy_reasons {
        all.insert(format!("copies.{reason}.count"), *count);
        all.insert(format!("copies.{reason}.bytes"), *bytes);
    }
    for (message, sent, received) in &stats.messages {
        all.insert(format!("messages.{message}.sent"), *sent);
        all.insert(format!("messages.{message}.received"), *received);
    }
    all
}
