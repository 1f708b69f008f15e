//! Sockets with options that must be set before they are made.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use sdp_verbs::BindRequest;
use smallvec::smallvec;

use crate::bound::{Hold, SdpBound};
use crate::connecting::{self, SdpConnecting};
use crate::context::Context;
use crate::error;
use crate::listener::{BACKLOG, SdpListener};
use crate::options::{Options, ZcopyThreshold};
use crate::park::SpinPolicy;
use crate::provider::{Contexts, ProviderKind, asked_for, by_route, everywhere, shared, towards};
use crate::stream::SdpStream;

/// Makes [`SdpStream`]s and [`SdpListener`]s. Options of a listener are those its accepted
/// connections start with. A clone is changed by itself.
#[derive(Debug, Default)]
pub struct Builder {
    provider: Option<ProviderKind>,
    context: Option<Arc<Context>>,
    pub(crate) options: Options,
    only_v6: bool,
    reuse_port: bool,
}

impl Clone for Builder {
    fn clone(&self) -> Self {
        Self {
            provider: self.provider,
            context: self.context.clone(),
            // Options as such are shared by their clones, as those of one socket are.
            options: self.options.inherited(),
            only_v6: self.only_v6,
            reuse_port: self.reuse_port,
        }
    }
}

impl Builder {
    /// Defaults everywhere.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses the provider; otherwise `SDP_PROVIDER` does, otherwise the address does: `host` for
    /// addresses of this machine, `rdma` for others. Without either, a listener is on `host` and on
    /// `rdma` at once, where its address belongs to an adapter.
    #[must_use]
    pub fn provider(mut self, kind: ProviderKind) -> Self {
        self.provider = Some(kind);
        self
    }

    /// Uses a context of one's own instead of the process's.
    #[must_use]
    pub fn context(mut self, context: &Arc<Context>) -> Self {
        self.context = Some(Arc::clone(context));
        self
    }

    /// From which length on sends are not copied.
    #[must_use]
    pub fn zcopy_threshold(self, threshold: ZcopyThreshold) -> Self {
        self.options.set_threshold(threshold);
        self
    }

    /// SO_SNDBUF: bytes that sends may leave behind in private memory, 4 KiB to 64 MiB.
    #[must_use]
    pub fn send_buffer_size(mut self, len: usize) -> Self {
        self.options.fixed.send_buffer_len = Some(len);
        self
    }

    /// SO_RCVBUF: bytes that may wait in private memory to be received, 4 KiB to 64 MiB.
    #[must_use]
    pub fn recv_buffer_size(mut self, len: usize) -> Self {
        self.options.fixed.recv_buffer_len = Some(len);
        self
    }

    /// How waiting threads pass the time before they sleep.
    #[must_use]
    pub fn spin(mut self, policy: SpinPolicy) -> Self {
        self.options.fixed.spin = policy;
        self
    }

    /// How long a large send waits for a reader before both ends buffer. Zero: at once;
    /// `Duration::MAX`: for ever.
    #[must_use]
    pub fn rendezvous_wait(mut self, wait: Duration) -> Self {
        self.options.fixed.rendezvous_wait = Some(wait);
        self
    }

    /// How long a call that must end waits for the peer to let go of its memory before the
    /// connection is aborted.
    #[must_use]
    pub fn cancel_wait(mut self, wait: Duration) -> Self {
        self.options.fixed.cancel_wait = Some(wait);
        self
    }

    /// Names version 1.1 of the protocol when connecting: the first implementations refuse any
    /// other. Whoever calls us is answered in their own version.
    #[must_use]
    pub fn version_1(mut self, on: bool) -> Self {
        self.options.fixed.version_1 = on;
        self
    }

    /// TCP_NODELAY.
    #[must_use]
    pub fn nodelay(self, on: bool) -> Self {
        self.options.set_nodelay(on);
        self
    }

    /// See [`SdpStream::set_oob_inline`](crate::SdpStream::set_oob_inline).
    #[must_use]
    pub fn oob_inline(self, on: bool) -> Self {
        self.options.set_oob_inline(on);
        self
    }

    /// IPV6_V6ONLY, for listeners.
    #[must_use]
    pub fn only_v6(mut self, on: bool) -> Self {
        self.only_v6 = on;
        self
    }

    /// SO_REUSEPORT, for listeners.
    #[must_use]
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// SO_SNDBUF and SO_RCVBUF that streams made by this builder start with.
    #[must_use]
    pub fn buffer_sizes(&self) -> (usize, usize) {
        self.options.buffer_sizes()
    }

    /// Those that a local address is taken on, by provider.
    fn local_contexts(&self) -> io::Result<Vec<Contexts>> {
        match (&self.context, asked_for(self.provider)?) {
            (Some(context), _) => Ok(vec![smallvec![Arc::clone(context)]]),
            (None, Some(kind)) => Ok(vec![shared(kind)?]),
            (None, None) => everywhere(),
        }
    }

    fn context_to(&self, dst: SocketAddr) -> io::Result<Arc<Context>> {
        match (&self.context, asked_for(self.provider)?) {
            (Some(context), _) => Ok(Arc::clone(context)),
            (None, Some(kind)) => towards(kind, dst),
            (None, None) => by_route(dst),
        }
    }

    /// Connects to the first of the addresses that accepts.
    ///
    /// # Errors
    /// As `connect(2)`; the error of the last address tried. `Unsupported` for a provider that is
    /// not there.
    pub fn connect(&self, addr: impl ToSocketAddrs) -> io::Result<SdpStream> {
        each(addr, |addr| {
            self.connect_one(&self.context_to(addr)?, addr, None)
        })
    }

    /// Connects, for a limited time.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `TimedOut`; `InvalidInput` for a time of zero.
    pub fn connect_timeout(&self, addr: &SocketAddr, timeout: Duration) -> io::Result<SdpStream> {
        if timeout.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a time-out of zero",
            ));
        }
        self.connect_one(&self.context_to(*addr)?, *addr, Some(timeout))
    }

    fn connect_one(
        &self,
        context: &Arc<Context>,
        addr: SocketAddr,
        timeout: Option<Duration>,
    ) -> io::Result<SdpStream> {
        let options = self.options.inherited();
        connecting::connect(context, addr, options, timeout)
    }

    /// Listens on the first of the addresses that can be bound.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`.
    pub fn bind(&self, addr: impl ToSocketAddrs) -> io::Result<SdpListener> {
        let contexts = self.local_contexts()?;
        each(addr, |addr| {
            let bound = SdpBound::reserve(&contexts, self.bind_request(addr), None)?;
            SdpListener::open(bound, BACKLOG, self.options.inherited(), false)
        })
    }

    fn bind_request(&self, addr: SocketAddr) -> BindRequest {
        BindRequest {
            addr,
            only_v6: self.only_v6,
            reuse_port: self.reuse_port,
        }
    }

    /// Takes a local address without listening on it, as `bind(2)` does.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn reserve(&self, addr: SocketAddr) -> io::Result<SdpBound> {
        SdpBound::reserve(&self.local_contexts()?, self.bind_request(addr), None)
    }

    /// Opens what a local address would be taken on, which the first use takes a millisecond for, and
    /// no more: no thread is started, nobody is heard.
    ///
    /// # Errors
    /// `Unsupported` for a provider that is not there; out of descriptors or memory.
    pub fn open(&self) -> io::Result<()> {
        self.local_contexts().map(drop)
    }

    /// Takes the local address that a TCP socket is bound to. It holds the port for both, so it is
    /// to stay open for as long as the address is used. Whether it listens makes no difference.
    ///
    /// # Errors
    /// As `bind(2)`; `InvalidInput` for a socket that has no Internet address and port.
    pub fn adopt(&self, holder: BorrowedFd<'_>) -> io::Result<SdpBound> {
        let name = rustix::net::getsockname(holder)?;
        let addr = SocketAddr::try_from(name)?;
        if addr.port() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the socket is not bound",
            ));
        }
        SdpBound::reserve(
            &self.local_contexts()?,
            self.bind_request(addr),
            Some(holder),
        )
    }

    /// Listens on an address taken before; `backlog` connections may wait to be accepted.
    ///
    /// # Errors
    /// As `listen(2)`.
    pub fn listen(&self, bound: SdpBound, backlog: u32) -> io::Result<SdpListener> {
        SdpListener::open(bound, backlog, self.options.inherited(), false)
    }

    /// As [`listen`](Self::listen), but requests are answered only when somebody accepts: callers wait in
    /// their connect until then, and the listener is readable because of them. For a process that may
    /// leave accepting to others, which its callers reach by other means: it holds nobody who has been
    /// promised a connection. A caller that has given up before anybody ever accepted shuts the listener
    /// down, so that the next ones do not wait in vain.
    ///
    /// # Errors
    /// As `listen(2)`.
    pub fn listen_and_answer_late(&self, bound: SdpBound, backlog: u32) -> io::Result<SdpListener> {
        SdpListener::open(bound, backlog, self.options.inherited(), true)
    }

    /// Starts to connect and returns at once, as a non-blocking `connect(2)`; from `bound`, if
    /// given.
    ///
    /// # Errors
    /// What is known at once to be wrong.
    pub fn start_connect(
        &self,
        addr: SocketAddr,
        bound: Option<SdpBound>,
    ) -> io::Result<SdpConnecting> {
        let route = || self.context_to(addr);
        let (context, id) = match bound {
            Some(bound) => {
                let Hold { context, id, .. } = bound.into_hold(addr, route)?;
                (context, id)
            }
            None => {
                let context = route()?;
                context.start_progress()?;
                let id = context.create_id().map_err(error::verbs_error)?;
                (context, id)
            }
        };
        SdpConnecting::start(&context, id, addr, self.options.inherited(), None)
    }
}

/// Tries every address; the first success, else the last error.
fn each<T>(addr: impl ToSocketAddrs, f: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        match f(addr) {
            Ok(made) => return Ok(made),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no addresses given")))
}
