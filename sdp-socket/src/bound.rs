//! Local addresses taken without listening on them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use sdp_verbs::{BindRequest, CmId};
use smallvec::{SmallVec, smallvec};

use crate::context::Context;
use crate::error;
use crate::park::Own;
use crate::provider::{Contexts, kind_by_route};

/// Ephemeral ports that are tried before one is found that every provider has free.
const PORTS_TRIED_MAX: usize = 32;

/// A local address that is taken: what `bind(2)` gives. Listen on it or connect from it, with
/// [`Builder::listen`](crate::Builder::listen) and
/// [`Builder::start_connect`](crate::Builder::start_connect); dropping it lets go of it.
#[derive(Debug)]
pub struct SdpBound {
    holds: Own<Holds>,
    only_v6: bool,
}

/// One provider's hold on the address.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) context: Arc<Context>,
    pub(crate) id: Arc<dyn CmId>,
    /// The provider's other contexts, if the address is all of theirs: peers are heard there too.
    others: Contexts,
}

/// Those of all providers; at least one.
pub(crate) type Holds = SmallVec<[Hold; 2]>;

impl Hold {
    fn take(
        context: &Arc<Context>,
        request: BindRequest,
        holder: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        context.start_progress()?;
        let id = context.create_id().map_err(error::verbs_error)?;
        let bound = match holder {
            Some(holder) => id.adopt(request, holder),
            None => id.bind(request),
        };
        bound.map_err(error::verbs_error)?;
        Ok(Self {
            context: Arc::clone(context),
            id,
            others: Contexts::new(),
        })
    }

    /// Takes the address on a provider: on all of its contexts, if it is every address.
    fn take_on(
        contexts: &Contexts,
        request: BindRequest,
        holder: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let (first, others) = contexts.split_first().expect("a context");
        let mut taken = Self::take(first, request, holder);
        if request.addr.ip().is_unspecified() {
            if let Ok(hold) = &mut taken {
                for other in others {
                    match other.start_progress() {
                        Ok(()) => hold.others.push(Arc::clone(other)),
                        Err(error) => tracing::warn!("nobody will be heard on {other:?}: {error}"),
                    }
                }
            }
            return taken;
        }
        for other in others {
            match &taken {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    taken = Self::take(other, request, holder);
                }
                _ => break,
            }
        }
        taken
    }

    /// All contexts where peers are heard.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &Arc<Context>> {
        std::iter::once(&self.context).chain(&self.others)
    }

    fn addr(&self) -> io::Result<SocketAddr> {
        let addr = self.id.local_addr();
        addr.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl SdpBound {
    /// Takes the address on the first of the providers, and on each of the others that it belongs to.
    ///
    /// `holder`: a TCP socket that is bound to it.
    pub(crate) fn reserve(
        providers: &[Contexts],
        request: BindRequest,
        holder: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let mut tries = PORTS_TRIED_MAX;
        let holds = loop {
            tries -= 1;
            match take_all(providers, request, holder) {
                // The port was free on the first provider only.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse
                        && request.addr.port() == 0
                        && tries > 0 => {}
                other => break other?,
            }
        };
        Ok(Self {
            holds: Own::new(holds)?,
            only_v6: request.only_v6,
        })
    }

    /// The address, with the port that was chosen if none was asked for.
    ///
    /// # Errors
    /// None on an address that was taken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.holds.get()?[0].addr()
    }

    pub(crate) fn only_v6(&self) -> bool {
        self.only_v6
    }

    pub(crate) fn into_holds(self) -> io::Result<Holds> {
        self.holds.into_inner()
    }

    /// The hold by which to connect to `dst`; the others let go. An address that was chosen decides
    /// among adapters; every address leaves that to the route.
    pub(crate) fn into_hold(
        self,
        dst: SocketAddr,
        route: impl FnOnce() -> io::Result<Arc<Context>>,
    ) -> io::Result<Hold> {
        let only_v6 = self.only_v6;
        let mut holds = self.into_holds()?;
        let place = if holds.len() > 1 {
            let kind = kind_by_route(dst).to_string();
            let mut all = holds.iter();
            all.position(|hold| hold.context.provider().name() == kind)
        } else {
            None
        };
        let hold = holds.swap_remove(place.unwrap_or(0));
        if hold.others.is_empty() {
            return Ok(hold);
        }
        let context = route()?;
        if Arc::ptr_eq(&hold.context, &context) {
            return Ok(hold);
        }
        // The id is another device's: the port changes hands.
        let request = BindRequest {
            addr: hold.addr()?,
            only_v6,
            reuse_port: false,
        };
        drop(hold);
        Hold::take(&context, request, None)
    }
}

fn take_all(
    providers: &[Contexts],
    request: BindRequest,
    holder: Option<BorrowedFd<'_>>,
) -> io::Result<Holds> {
    let (first, others) = providers.split_first().expect("a provider");
    let mut holds: Holds = smallvec![Hold::take_on(first, request, holder)?];
    if is_loopback(request.addr.ip()) {
        // An adapter would take it for an address of its own.
        return Ok(holds);
    }
    let addr = SocketAddr::new(request.addr.ip(), holds[0].addr()?.port());
    for contexts in others {
        let name = contexts[0].provider().name();
        match Hold::take_on(contexts, BindRequest { addr, ..request }, holder) {
            Ok(hold) => holds.push(hold),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // No adapter's address: what most addresses of a machine are.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                tracing::debug!("{addr} is not taken on {name}: {error}");
            }
            Err(error) => {
                tracing::warn!("nobody will be heard on {addr} over {name}: {error}");
            }
        }
    }
    Ok(holds)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
