//! Our sockets, over every way to run them.

use std::fmt::Debug;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sdp_socket::{Builder, Context, SdpBuffer, SdpListener, SdpStream, ZcopyThreshold};
use sdp_verbs::Provider;
use sdp_verbs::hook::{Lazy, Trace};
use sdp_verbs::host::HostProvider;
#[cfg(target_pointer_width = "64")]
use sdp_verbs::rdma::{RdmaOptions, RdmaProvider};

use super::net::{Listener, Net, Stream, forward_to_std_names};
use super::script::Script;
use super::threads;
use super::watch::{Actor, on_threads};

/// SDP between two ends of one process.
#[derive(Clone, Debug)]
pub(crate) struct Sdp {
    /// Makes the connecting ends.
    pub(crate) client: Builder,
    /// Makes the accepting ends.
    pub(crate) server: Builder,
    client_context: Option<Arc<Context>>,
    script: Option<Arc<Script>>,
    started: Instant,
    address: IpAddr,
}

/// Opens the host provider.
pub(crate) fn host() -> Arc<dyn Provider> {
    Arc::new(HostProvider::open().expect("the host provider"))
}

/// The host provider behind a wrapper that does everything late.
pub(crate) fn lazy(seed: u64) -> Arc<dyn Provider> {
    Arc::new(Lazy::new(host()).seeded(seed))
}

/// Opens an adapter for the connecting side, 0, or the accepting one, 1: that of the two that
/// `SDP_TEST_RDMA_DEVICES` names, or its only one. `SDP_TEST_RDMA_WINDOWS=0` does without memory
/// windows.
#[cfg(target_pointer_width = "64")]
pub(crate) fn rdma(side: usize) -> Arc<RdmaProvider> {
    let named = std::env::var("SDP_TEST_RDMA_DEVICES").unwrap_or_default();
    let names: Vec<_> = named.split(',').filter(|name| !name.is_empty()).collect();
    let name = names.get(side).or_else(|| names.first());
    let options = RdmaOptions {
        device: name.map(|name| (*name).to_owned()),
        without_windows: std::env::var("SDP_TEST_RDMA_WINDOWS").as_deref() == Ok("0"),
    };
    Arc::new(RdmaProvider::open_with(&options).expect("an RDMA device"))
}

/// Where a peer reaches an adapter.
#[cfg(target_pointer_width = "64")]
pub(crate) fn rdma_address(provider: &RdmaProvider) -> IpAddr {
    let addresses = provider.addresses().expect("addresses");
    let v4 = addresses.iter().find(|addr| addr.is_ipv4());
    v4.expect("an IPv4 address behind the device").ip()
}

/// A context of one's own on threads.
pub(crate) fn threaded(provider: Arc<dyn Provider>) -> Arc<Context> {
    Context::threaded(provider).expect("a context")
}

/// What the layer below the engine has counted at the two ends.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) client: Arc<Trace>,
    pub(crate) server: Arc<Trace>,
}

impl Sdp {
    fn on_builders(client: Builder, server: Builder) -> Self {
        Self {
            client,
            server,
            client_context: None,
            script: None,
            started: Instant::now(),
            address: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Both ends in the one context of the process: what ordinary programs have.
    pub(crate) fn shared() -> Self {
        Self::on_builders(Builder::new(), Builder::new())
    }

    /// Each end in a context of its own.
    pub(crate) fn between(client: &Arc<Context>, server: &Arc<Context>) -> Self {
        Self {
            client_context: Some(Arc::clone(client)),
            ..Self::on_builders(
                Builder::new().context(client),
                Builder::new().context(server),
            )
        }
    }

    /// As [`between`](Self::between), on one thread at a time.
    pub(crate) fn scripted_between(
        script: &Arc<Script>,
        client: &Arc<Context>,
        server: &Arc<Context>,
    ) -> Self {
        Self {
            script: Some(Arc::clone(script)),
            ..Self::between(client, server)
        }
    }

    /// Each end over a host provider of its own, in a context of its own.
    pub(crate) fn over_host() -> Self {
        Self::between(&threaded(host()), &threaded(host()))
    }

    /// Each end over a lazy provider of its own.
    pub(crate) fn lazy(seed: u64) -> Self {
        Self::between(&threaded(lazy(seed)), &threaded(lazy(seed + 1_000_000)))
    }

    /// Each end on an adapter with an instance of its own.
    #[cfg(target_pointer_width = "64")]
    pub(crate) fn rdma() -> Self {
        let (client, server) = (rdma(0), rdma(1));
        Self {
            address: rdma_address(&server),
            ..Self::between(&threaded(client), &threaded(server))
        }
    }

    /// Each end over a counting provider of its own.
    pub(crate) fn traced() -> (Self, Traces) {
        Self::traced_over(host)
    }

    /// As [`traced`](Self::traced), over other providers.
    pub(crate) fn traced_over(provider: impl Fn() -> Arc<dyn Provider>) -> (Self, Traces) {
        let traces = Traces {
            client: Arc::new(Trace::new(provider())),
            server: Arc::new(Trace::new(provider())),
        };
        let client: Arc<dyn Provider> = Arc::<Trace>::clone(&traces.client);
        let server: Arc<dyn Provider> = Arc::<Trace>::clone(&traces.server);
        (Self::between(&threaded(client), &threaded(server)), traces)
    }

    /// With other options, on both ends.
    pub(crate) fn with(&self, set: impl Fn(Builder) -> Builder) -> Self {
        Self {
            client: set(self.client.clone()),
            server: set(self.server.clone()),
            ..self.clone()
        }
    }

    /// Registered memory of the connecting end.
    pub(crate) fn client_buffer(&self, len: usize) -> io::Result<SdpBuffer> {
        match &self.client_context {
            Some(context) => SdpBuffer::with_context(context, len),
            None => SdpBuffer::new(len),
        }
    }

    /// Sends of `len` bytes and more are read by the peer, which is waited for without end.
    pub(crate) fn rendezvous(&self, len: usize) -> Self {
        self.with(|builder| {
            builder
                .zcopy_threshold(ZcopyThreshold::Bytes(len))
                .rendezvous_wait(Duration::MAX)
        })
    }
}

/// Runs a body on one thread at a time, in an order given by a seed, over providers of its own;
/// then closes everything and checks that nothing is left of the two contexts.
pub(crate) fn scripted(
    seed: u64,
    provider: impl Fn() -> Arc<dyn Provider>,
    body: impl FnOnce(&Sdp),
) {
    let script = Script::new(seed);
    let contexts = [(), ()].map(|()| Context::new(provider(), script.seat()).expect("a context"));
    let left: Vec<Weak<Context>> = contexts.iter().map(Arc::downgrade).collect();
    let net = Sdp::scripted_between(&script, &contexts[0], &contexts[1]);
    drop(contexts);
    body(&net);
    drop(net);
    script.until("the closed sockets to be gone", &|| {
        left.iter().all(|context| context.strong_count() == 0)
    });
}

impl Net for Sdp {
    type Stream = SdpStream;
    type Listener = SdpListener;

    const SDP: bool = true;

    fn fits(len: usize) -> RangeInclusive<usize> {
        // What both buffers hold. Credits count messages, not bytes: the last two may be too long,
        // and some that the sender has not heard of yet come on top.
        2 * len..=2 * len + len / 4 + 2 * (len / 4).min(32 << 10)
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    fn bind(&self, addr: SocketAddr) -> io::Result<SdpListener> {
        self.server.bind(addr)
    }

    fn connect(&self, addr: SocketAddr) -> io::Result<SdpStream> {
        self.client.connect(addr)
    }

    fn sized(&self, len: usize) -> Self {
        self.with(|builder| builder.send_buffer_size(len).recv_buffer_size(len))
    }

    fn all(&self, actors: Vec<Actor<'_>>) {
        match &self.script {
            Some(script) => script.all(actors),
            None => on_threads(actors),
        }
    }

    fn pass(&self) {
        match &self.script {
            Some(script) => script.pass(),
            None => std::thread::yield_now(),
        }
    }

    fn until_others_wait(&self) {
        match &self.script {
            Some(script) => script.rest(),
            None => threads::until_others_sleep(),
        }
    }

    fn now(&self) -> Duration {
        match &self.script {
            Some(script) => script.now(),
            None => self.started.elapsed(),
        }
    }
}

impl Listener for SdpListener {
    type Stream = SdpStream;

    fn accept(&self) -> io::Result<(SdpStream, SocketAddr)> {
        self.accept()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.set_nonblocking(on)
    }
}

impl Stream for SdpStream {
    forward_to_std_names!();

    fn set_linger(&self, time: Option<Duration>) -> io::Result<()> {
        self.set_linger(time)
    }

    fn linger(&self) -> io::Result<Option<Duration>> {
        self.linger()
    }

    fn read_waitall(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_waitall(buf)
    }

    fn set_recv_low_water(&self, len: usize) -> io::Result<()> {
        self.set_recv_low_water(len)
    }

    fn send_urgent(&self, buf: &[u8]) -> io::Result<usize> {
        self.send_urgent(buf)
    }

    fn recv_urgent(&self) -> io::Result<Option<u8>> {
        self.recv_urgent()
    }

    fn peek_urgent(&self) -> io::Result<Option<u8>> {
        self.peek_urgent()
    }

    fn at_mark(&self) -> io::Result<bool> {
        self.at_mark()
    }

    fn set_oob_inline(&self, on: bool) -> io::Result<()> {
        self.set_oob_inline(on)
    }

    fn recv_queue_len(&self) -> io::Result<usize> {
        self.recv_queue_len()
    }

    fn send_queue_len(&self) -> io::Result<usize> {
        self.send_queue_len()
    }
}
