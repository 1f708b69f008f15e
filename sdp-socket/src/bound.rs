//! Local addresses taken without listening on them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use sdp_verbs::{BindRequest, CmId};

use crate::context::Context;
use crate::error;
use crate::park::Own;

/// A local address that is taken: what `bind(2)` gives. Listen on it or connect from it, with
/// [`Builder::listen`](crate::Builder::listen) and
/// [`Builder::start_connect`](crate::Builder::start_connect); dropping it lets go of it.
#[derive(Debug)]
pub struct SdpBound {
    parts: Own<(Arc<Context>, Arc<dyn CmId>)>,
    only_v6: bool,
}

impl SdpBound {
    pub(crate) fn reserve(context: &Arc<Context>, request: BindRequest) -> io::Result<Self> {
        context.start_progress()?;
        let id = context.create_id().map_err(error::verbs_error)?;
        id.bind(request).map_err(error::verbs_error)?;
        Ok(Self {
            parts: Own::new((Arc::clone(context), id))?,
            only_v6: request.only_v6,
        })
    }

    /// The address, with the port that was chosen if none was asked for.
    ///
    /// # Errors
    /// None on an address that was taken.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let (_, id) = self.parts.get()?;
        id.local_addr()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(crate) fn only_v6(&self) -> bool {
        self.only_v6
    }

    pub(crate) fn into_parts(self) -> io::Result<(Arc<Context>, Arc<dyn CmId>)> {
        self.parts.into_inner()
    }
}
