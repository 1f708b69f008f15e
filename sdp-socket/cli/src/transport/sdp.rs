//! SDP streams.

use std::io;
use std::net::IpAddr;

use super::{Conn, Counters, Endpoint, Listener, Transport};

/// SDP streams of one configuration.
#[derive(Debug)]
pub(super) struct Sdp;

impl Sdp {
    /// Streams as `endpoint` asks.
    pub(super) fn new(_endpoint: &Endpoint) -> Self {
        Self
    }
}

/// Switches the counting wrapper below the engine on; before the first socket.
pub(crate) fn set_trace() {}

/// What the wrapper has counted in this process; none if it is off.
pub(crate) fn verbs_counters() -> Option<Counters> {
    None
}

impl Transport for Sdp {
    fn listen(&self, _near: IpAddr) -> io::Result<Box<dyn Listener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect(&self, _address: &str) -> io::Result<Box<dyn Conn>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
