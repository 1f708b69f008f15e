//! Local addresses taken without listening on them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sdp_verbs::{BindRequest, CmId};
use smallvec::{SmallVec, smallvec};

use crate::context::Context;
use crate::error;
use crate::park::Own;

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
}

/// Those of all providers; at least one.
pub(crate) type Holds = SmallVec<[Hold; 2]>;

impl Hold {
    fn take(context: &Arc<Context>, request: BindRequest) -> io::Result<Self> {
        context.start_progress()?;
        let id = context.create_id().map_err(error::verbs_error)?;
        id.bind(request).map_err(error::verbs_error)?;
        let context = Arc::clone(context);
        Ok(Self { context, id })
    }

    fn addr(&self) -> io::Result<SocketAddr> {
        let addr = self.id.local_addr();
        addr.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl SdpBound {
    /// Takes the address on the first of the providers, and on each of the others that it belongs to.
    pub(crate) fn reserve(contexts: &[Arc<Context>], request: BindRequest) -> io::Result<Self> {
        let mut tries = PORTS_TRIED_MAX;
        let holds = loop {
            tries -= 1;
            match take_all(contexts, request) {
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

    /// The hold of one provider; the first one's if that provider has none. The others let go.
    pub(crate) fn into_hold(self, context: &Arc<Context>) -> io::Result<Hold> {
        let mut holds = self.into_holds()?;
        let place = holds.iter().position(|h| Arc::ptr_eq(&h.context, context));
        Ok(holds.swap_remove(place.unwrap_or(0)))
    }
}

fn take_all(contexts: &[Arc<Context>], request: BindRequest) -> io::Result<Holds> {
    let (first, others) = contexts.split_first().expect("a provider");
    let mut holds: Holds = smallvec![Hold::take(first, request)?];
    if is_loopback(request.addr.ip()) {
        // An adapter would take it for an address of its own.
        return Ok(holds);
    }
    let addr = SocketAddr::new(request.addr.ip(), holds[0].addr()?.port());
    for context in others {
        match Hold::take(context, BindRequest { addr, ..request }) {
            Ok(hold) => holds.push(hold),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // No adapter's address: what most addresses of a machine are.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                let name = context.provider().name();
                tracing::debug!("{addr} is not taken on {name}: {error}");
            }
            Err(error) => {
                let name = context.provider().name();
                tracing::warn!("nobody will be heard on {addr} over {name}: {error}");
            }
        }
    }
    Ok(holds)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
