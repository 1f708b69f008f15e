//! TCP ports, which iWARP shares with the system's own sockets.
//!
//! The connection manager counts the ports of its own ids only. One that it has chosen may be a TCP
//! socket's, and the connect or listen that needs it fails with EADDRINUSE (of 500 connects of
//! Soft-iWARP on a machine with a few TCP sockets, about one). A port mapper (iwpmd) would prevent
//! that; so does a TCP socket that is bound to the port until the device has bound its own.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::error::VerbsError;

/// A TCP port that no other socket gets.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _socket: OwnedFd,
}

impl Port {
    /// Any port that is free on an address, which may be a wildcard, and has port 0.
    ///
    /// # Errors
    /// [`VerbsError::Os`] as socket(2) and bind(2).
    pub(super) fn reserve(addr: SocketAddr) -> Result<Self, VerbsError> {
        let family = match addr {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| VerbsError::os("socket", e))?;
        // The device's own socket has it too, and so both may be bound.
        sockopt::set_socket_reuseaddr(&socket, true)
            .map_err(|e| VerbsError::os("setsockopt", e))?;
        net::bind(&socket, &addr).map_err(|e| VerbsError::os("bind", e))?;
        let bound = net::getsockname(&socket).map_err(|e| VerbsError::os("getsockname", e))?;
        let bound = SocketAddr::try_from(bound).map_err(|e| VerbsError::os("getsockname", e))?;
        Ok(Self {
            number: bound.port(),
            _socket: socket,
        })
    }

    /// The address with this port.
    pub(super) fn on(&self, mut addr: SocketAddr) -> SocketAddr {
        addr.set_port(self.number);
        addr
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// No TCP socket gets the port, until it is given back.
    #[test]
    fn a_reserved_port_is_nobody_elses() {
        for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let port = Port::reserve((ip, 0).into()).unwrap();
            let addr = port.on((Ipv4Addr::LOCALHOST, 0).into());
            assert_eq!(plain_bind(addr).unwrap_err().kind(), ErrorKind::AddrInUse);
            drop(port);
            plain_bind(addr).unwrap();
        }
        Port::reserve((Ipv6Addr::LOCALHOST, 0).into()).unwrap();
    }

    /// As a socket is bound by programs that ask for nothing else.
    fn plain_bind(addr: SocketAddr) -> std::io::Result<()> {
        let socket = net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(net::bind(&socket, &addr)?)
    }
}
