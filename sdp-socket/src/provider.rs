//! Which provider, and the contexts that a process shares: one of each, of adapters one for each device.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use sdp_verbs::Provider;
use sdp_verbs::hook::trace::{Trace, TraceCounters};
use sdp_verbs::hook::{Capture, CaptureFile, Lazy};
use sdp_verbs::host::HostProvider;
use smallvec::{SmallVec, smallvec};

use crate::budget::{Budget, MemoryUse};
use crate::capture;
use crate::context::Context;
use crate::error;
use crate::park::{GENERATIONS_MAX, ThreadRuntime, at_exit, generation, say_at_exit};
use crate::report;
use crate::sync::lock;

/// Environment variable that names the provider.
const VARIABLE: &str = "SDP_PROVIDER";

/// The implementations of verbs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ProviderKind {
    /// Two processes on one machine, on any Linux.
    Host,
    /// RDMA adapters, by libibverbs and librdmacm.
    Rdma,
    /// The deterministic simulator; it exists in tests only.
    Sim,
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Rdma => "rdma",
            Self::Sim => "sim",
        })
    }
}

impl FromStr for ProviderKind {
    type Err = io::Error;

    fn from_str(name: &str) -> Result<Self, io::Error> {
        match name {
            "host" => Ok(Self::Host),
            "rdma" => Ok(Self::Rdma),
            "sim" => Ok(Self::Sim),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("unknown provider {name:?}: the choices are host, rdma, sim"),
            )),
        }
    }
}

/// The contexts of one provider; at least one. A listener on every address is on all of them.
pub(crate) type Contexts = SmallVec<[Arc<Context>; 1]>;

static TRACE: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Opened {
    contexts: HashMap<ProviderKind, Contexts>,
    /// Those that tests of programs have of their own.
    own: Vec<Weak<Context>>,
    traces: Vec<Arc<Trace>>,
    /// Where everything of this process is written, if the environment asks for it.
    capture: Option<Arc<CaptureFile>>,
    /// Bounds the memory of all connections together.
    budget: Option<Arc<Budget>>,
}

impl Opened {
    /// Every context there is.
    fn all(&self) -> Vec<Arc<Context>> {
        let own = self.own.iter().filter_map(Weak::upgrade);
        self.contexts
            .values()
            .flatten()
            .cloned()
            .chain(own)
            .collect()
    }

    /// A context over a provider, with the layers that were asked for.
    fn open(&mut self, mut provider: Arc<dyn Provider>) -> io::Result<Arc<Context>> {
        let budget = self.budget()?;
        if self.capture.is_none() {
            self.capture = capture::from_environment()?;
        }
        if let Some(file) = &self.capture {
            provider = Arc::new(Capture::new(provider, file));
        }
        let mut trace = None;
        if TRACE.load(Ordering::Relaxed) {
            provider = Arc::clone(trace.insert(Arc::new(Trace::new(provider)))) as _;
        }
        let runtime = ThreadRuntime::new().map_err(error::verbs_error)?;
        let context =
            Context::within(provider, Arc::new(runtime), budget).map_err(error::verbs_error)?;
        self.traces.extend(trace);
        report::add_context(&context);
        Ok(context)
    }

    /// The one budget, made when it is first needed.
    fn budget(&mut self) -> io::Result<Arc<Budget>> {
        let budget = match self.budget.take() {
            Some(budget) => budget,
            None => Budget::from_environment()?,
        };
        Ok(Arc::clone(self.budget.insert(budget)))
    }
}

/// What this process has opened; a forked child starts anew.
static OPENED: [OnceLock<Mutex<Opened>>; GENERATIONS_MAX] =
    [const { OnceLock::new() }; GENERATIONS_MAX];

/// How long exit waits, in all, for what was written to be taken.
const EXIT_LINGER: Duration = Duration::from_secs(2);

fn opened() -> io::Result<&'static Mutex<Opened>> {
    Ok(OPENED[generation()?].get_or_init(Mutex::default))
}

/// The exit handler: closes every stream, and waits until what was written has left.
///
/// Logs nothing on this thread: see [`say_at_exit`].
extern "C" fn close_all() {
    let no_log = tracing::subscriber::NoSubscriber::default();
    let left = tracing::subscriber::with_default(no_log, close_opened);
    if left > 0 {
        say_at_exit(move || tracing::warn!("exit without delivering all of {left} connections"));
    }
}

/// Says how many connections had something left.
fn close_opened() -> usize {
    let Ok(opened) = opened() else { return 0 };
    // A thread that opens a provider just now has written nothing yet.
    let Ok(opened) = opened.try_lock() else {
        return 0;
    };
    let contexts = opened.all();
    drop(opened);
    let left = contexts.iter().map(|c| c.close_all(EXIT_LINGER));
    left.sum()
}

/// Switches on the wrapper that counts work requests below the engine, for contexts that are
/// opened after this call. Costs a few nanoseconds per request.
pub fn set_trace(on: bool) {
    TRACE.store(on, Ordering::Relaxed);
}

/// The state of everything that this process has open, in words: [`Context::diagnosis`] of each
/// provider, and of each [`Context::lazy_host`].
#[must_use]
pub fn diagnosis() -> String {
    let opened = match opened() {
        Ok(opened) => opened,
        Err(error) => return error.to_string(),
    };
    let Ok(opened) = opened.try_lock() else {
        return "a provider is being opened".to_owned();
    };
    let contexts = opened.all();
    drop(opened);
    contexts.iter().map(|context| context.diagnosis()).collect()
}

/// Private memory of all connections of this process, and its bound.
///
/// # Errors
/// A bad `SDP_MEM_MAX`; too many generations of forked processes.
pub fn memory_use() -> io::Result<MemoryUse> {
    Ok(lock(opened()?).budget()?.account())
}

/// What the counting wrappers of this process have counted, or `None` without [`set_trace`].
#[must_use]
pub fn verbs_counters() -> Option<TraceCounters> {
    let opened = lock(opened().ok()?);
    let mut all = opened.traces.iter().map(|t| t.counters());
    let first = all.next()?;
    Some(all.fold(first, |sum, next| sum + next))
}

/// The provider asked for: the caller's choice, else the environment's.
pub(crate) fn asked_for(chosen: Option<ProviderKind>) -> io::Result<Option<ProviderKind>> {
    if chosen.is_some() {
        return Ok(chosen);
    }
    match std::env::var(VARIABLE) {
        Ok(name) => name
            .parse()
            .map(Some)
            .map_err(|e: io::Error| io::Error::new(e.kind(), format!("{VARIABLE}: {e}"))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(name)) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{VARIABLE}={}: the choices are host, rdma, sim",
                name.to_string_lossy()
            ),
        )),
    }
}

/// The provider by which `dst` is reached, if nobody asked for one: `host` for addresses of this
/// machine, else an adapter.
pub(crate) fn kind_by_route(dst: SocketAddr) -> ProviderKind {
    if is_local(dst.ip()) {
        ProviderKind::Host
    } else {
        ProviderKind::Rdma
    }
}

/// The context of that provider.
pub(crate) fn by_route(dst: SocketAddr) -> io::Result<Arc<Context>> {
    match kind_by_route(dst) {
        ProviderKind::Host => towards(ProviderKind::Host, dst),
        kind => towards(kind, dst).map_err(|error| {
            let kind = io::ErrorKind::NetworkUnreachable;
            let text = "host: no address of this machine";
            io::Error::new(
                kind,
                format!("no provider reaches {dst}: {text}; rdma: {error}"),
            )
        }),
    }
}

/// The context of a provider by which `dst` is reached: of several adapters the one by which the
/// system's route leaves.
pub(crate) fn towards(kind: ProviderKind, dst: SocketAddr) -> io::Result<Arc<Context>> {
    let contexts = shared(kind)?;
    if let [only] = &contexts[..] {
        return Ok(Arc::clone(only));
    }
    let source = source(dst)?;
    if source.ip().is_loopback() {
        // No adapter's, and taken by each.
        return Ok(Arc::clone(&contexts[0]));
    }
    for context in &contexts {
        let provider = context.provider();
        if provider.has_address(source).map_err(error::verbs_error)? {
            return Ok(Arc::clone(context));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NetworkUnreachable,
        format!(
            "the way to {dst} leaves by {}, which is behind none of the adapters",
            source.ip()
        ),
    ))
}

/// How a connect would leave.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Route {
    /// The provider that `SDP_PROVIDER` or the address chooses.
    pub provider: ProviderKind,
    /// Its device, if it has one.
    pub device: Option<String>,
    /// The address by which the system's route leaves.
    pub source: IpAddr,
}

/// How a connect to `dst`, by a program that chooses nothing itself, would leave. Opens the provider,
/// as the connect would; nothing is sent.
///
/// # Errors
/// Why there is no way, with the remedy.
pub fn route_to(dst: SocketAddr) -> io::Result<Route> {
    let asked = asked_for(None)?;
    let context = match asked {
        Some(kind) => towards(kind, dst)?,
        None => by_route(dst)?,
    };
    Ok(Route {
        provider: asked.unwrap_or_else(|| kind_by_route(dst)),
        device: context.provider().device().map(str::to_owned),
        source: source(dst)?.ip(),
    })
}

/// The address by which the system would leave for `dst`. Nothing is sent.
fn source(dst: SocketAddr) -> io::Result<SocketAddr> {
    let dst = match dst.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, dst.port())),
        IpAddr::V6(_) => dst,
    };
    let any: IpAddr = match dst {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(dst)?;
    socket.local_addr()
}

/// Where a listener is that nobody has asked a provider for: on `host`, and on adapters if there are
/// any.
pub(crate) fn everywhere() -> io::Result<Vec<Contexts>> {
    let mut providers = vec![shared(ProviderKind::Host)?];
    match shared(ProviderKind::Rdma) {
        Ok(contexts) => providers.push(contexts),
        Err(error) => tracing::debug!("no adapters to listen on: {error}"),
    }
    Ok(providers)
}

/// Whether an address is one of this machine's.
fn is_local(ip: IpAddr) -> bool {
    // Nothing is sent: the system says whether it would take the address as its own.
    ip.is_unspecified() || ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// The process's contexts of a provider, opened at first use.
pub(crate) fn shared(kind: ProviderKind) -> io::Result<Contexts> {
    let mut opened = lock(opened()?);
    if let Some(contexts) = opened.contexts.get(&kind) {
        return Ok(contexts.clone());
    }
    let providers: SmallVec<[Arc<dyn Provider>; 1]> = match kind {
        ProviderKind::Host => {
            smallvec![Arc::new(HostProvider::open().map_err(error::verbs_error)?) as _]
        }
        ProviderKind::Rdma => open_rdma()?,
        ProviderKind::Sim => return Err(absent(kind, "the simulator exists in tests only")),
    };
    let mut contexts = Contexts::new();
    for provider in providers {
        match opened.open(provider) {
            Ok(context) => contexts.push(context),
            Err(error) if contexts.is_empty() => return Err(error),
            // As many as descriptors and memory are there for.
            Err(error) => tracing::warn!("another device of provider {kind} is left out: {error}"),
        }
    }
    opened.contexts.insert(kind, contexts.clone());
    at_exit(close_all);
    Ok(contexts)
}

impl Context {
    /// A context of its own over `host`, behind a layer that does everything as late as verbs
    /// allow, in a way that follows from `seed`. Slow: it is for tests of programs, to find what
    /// works only because this provider copies at once and an adapter does not.
    ///
    /// # Errors
    /// Out of descriptors or memory; a system on which `host` does not work.
    pub fn lazy_host(seed: u64) -> io::Result<Arc<Self>> {
        let host: Arc<dyn Provider> = Arc::new(HostProvider::open().map_err(error::verbs_error)?);
        let lazy = Arc::new(Lazy::new(host).seeded(seed));
        let runtime = Arc::new(ThreadRuntime::new().map_err(error::verbs_error)?);
        let mut opened = lock(opened()?);
        let budget = opened.budget()?;
        let context = Self::within(lazy, runtime, budget).map_err(error::verbs_error)?;
        opened.own.retain(|context| context.strong_count() > 0);
        opened.own.push(Arc::downgrade(&context));
        report::add_context(&context);
        at_exit(close_all);
        Ok(context)
    }
}

#[cfg(target_pointer_width = "64")]
fn open_rdma() -> io::Result<SmallVec<[Arc<dyn Provider>; 1]>> {
    let providers = sdp_verbs::rdma::RdmaProvider::open_all().map_err(error::verbs_error)?;
    Ok(providers
        .into_iter()
        .map(|one| Arc::new(one) as _)
        .collect())
}

#[cfg(not(target_pointer_width = "64"))]
fn open_rdma() -> io::Result<SmallVec<[Arc<dyn Provider>; 1]>> {
    Err(absent(
        ProviderKind::Rdma,
        "adapters are driven by 64-bit programs only",
    ))
}

fn absent(kind: ProviderKind, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("provider {kind}: {why}; use {VARIABLE}=host for peers on this machine"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An unknown name is refused with the choices; the known ones come back by name.
    #[test]
    fn names() {
        for kind in [ProviderKind::Host, ProviderKind::Rdma, ProviderKind::Sim] {
            assert_eq!(kind.to_string().parse::<ProviderKind>().unwrap(), kind);
        }
        let error = "infiniband"
            .parse::<ProviderKind>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("infiniband") && error.contains("host, rdma, sim"));
    }

    /// A provider that is not there is an error that names it and a way out.
    #[test]
    fn absent_providers_say_so() {
        let error = shared(ProviderKind::Sim).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("sim") && error.to_string().contains("host"));
    }

    /// Addresses of this machine go to `host`; others to an adapter, or to an error that says
    /// what was tried.
    #[test]
    fn the_route_decides() {
        let local = "127.0.0.1:1".parse().unwrap();
        let route = route_to(local).unwrap();
        assert_eq!((route.source, route.device), (local.ip(), None));
        for text in ["127.0.0.1:1", "0.0.0.0:1", "[::1]:1"] {
            let context = by_route(text.parse().unwrap()).unwrap();
            assert_eq!(context.provider().name(), "host", "{text}");
        }
        match by_route("192.0.2.1:1".parse().unwrap()) {
            Ok(context) => assert_eq!(context.provider().name(), "rdma"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
                let text = error.to_string();
                assert!(text.contains("host: no address of this machine"), "{text}");
                assert!(text.contains("provider rdma is not available"), "{text}");
            }
        }
    }
}
