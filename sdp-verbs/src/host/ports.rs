//! Ports are the kernel's: a listener holds a TCP socket bound, not listening, to its address, so
//! that host listeners and TCP listeners share one port space.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::descriptor;
use crate::cm::BindRequest;
use crate::error::VerbsError;
use crate::hidden;

/// Binds a TCP socket to the address, which reserves it; the address really bound comes with it.
///
/// # Errors
/// [`VerbsError::Os`] as bind(2), [`VerbsError::Limit`] when out of descriptors.
pub(crate) fn reserve(request: BindRequest) -> Result<(OwnedFd, SocketAddr), VerbsError> {
    let socket = socket(request.addr, SocketType::STREAM)?;
    let os = |e| VerbsError::os("bind", e);
    if request.reuse_port {
        sockopt::set_socket_reuseport(&socket, true).map_err(os)?;
    }
    if request.addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, request.only_v6).map_err(os)?;
    }
    // First without SO_REUSEADDR. Older kernels (6.1 does) remember of a port that all its owners
    // were bound with it, and then let everybody in who sets it, whatever the owners say since.
    match net::bind(&socket, &request.addr) {
        Err(Errno::ADDRINUSE) => {
            // As every TCP server does it: connections in TIME_WAIT must not keep a port from its
            // listener. Taken back, or another program could bind the port while we hold it.
            sockopt::set_socket_reuseaddr(&socket, true).map_err(os)?;
            net::bind(&socket, &request.addr).map_err(os)?;
            sockopt::set_socket_reuseaddr(&socket, false).map_err(os)?;
        }
        other => other.map_err(os)?,
    }
    let bound = bound_addr(&socket)?;
    Ok((hidden::hide(socket), bound))
}

/// The address of a TCP socket that the program has bound, and which holds the port. Nothing is
/// opened: a duplicate would live on in a forked child, and with it the socket, which may listen.
///
/// # Errors
/// [`VerbsError::Os`] as getsockname(2).
pub(crate) fn adopt(holder: BorrowedFd<'_>) -> Result<SocketAddr, VerbsError> {
    bound_addr(holder)
}

/// The address a connection to `dst` comes from, with port 0.
///
/// # Errors
/// [`VerbsError::Os`] with EHOSTUNREACH if `dst` is not an address of this network namespace,
/// which is as far as the host provider reaches; other codes as connect(2).
pub(crate) fn source_for(dst: SocketAddr) -> Result<SocketAddr, VerbsError> {
    if dst.ip().is_multicast() {
        return Err(VerbsError::os(
            "host connect: a multicast address",
            Errno::NETUNREACH,
        ));
    }
    // A datagram socket connects without sending anything: it only asks for the route.
    let route = socket(dst, SocketType::DGRAM)?;
    net::connect(&route, &dst).map_err(|e| VerbsError::os("host connect: finding a route", e))?;
    let mut source = bound_addr(&route)?;
    source.set_port(0);
    if source.ip() != dst.ip() && !is_loopback(dst.ip()) {
        let probe = socket(dst, SocketType::DGRAM)?;
        let mut any_port = dst;
        any_port.set_port(0);
        net::bind(&probe, &any_port).map_err(|e| match e {
            Errno::ADDRNOTAVAIL => VerbsError::os(
                "host connect: not an address of this network namespace, and the host provider \
                 reaches no other",
                Errno::HOSTUNREACH,
            ),
            other => VerbsError::os("host connect: probing the address", other),
        })?;
    }
    Ok(source)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn socket(like: SocketAddr, kind: SocketType) -> Result<OwnedFd, VerbsError> {
    let family = match like {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
        .map_err(|e| descriptor::failed("opening an Internet socket", e))
}

fn bound_addr(socket: impl AsFd) -> Result<SocketAddr, VerbsError> {
    let os = |e| VerbsError::os("getsockname", e);
    let any = net::getsockname(socket).map_err(os)?;
    SocketAddr::try_from(any).map_err(|e| VerbsError::os("getsockname", e))
}

/// Ports of connectors. A kernel port would cost a descriptor per connection; these are counted
/// in the kernel's ephemeral range instead, and are unique among the connections of one provider
/// instance to one destination, which is all a connector's port is good for on this carrier.
#[derive(Debug)]
pub(crate) struct EphemeralPorts {
    first: u16,
    count: u16,
    next: u16,
    used: HashSet<(u16, SocketAddr)>,
}

impl EphemeralPorts {
    /// Starts somewhere in the range, `seed` says where, so that two processes rarely agree.
    pub(crate) fn new(seed: u64) -> Self {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        // Without /proc the kernel's own default range serves as well.
        let (first, last) = text
            .ok()
            .and_then(|t| parse_range(&t))
            .unwrap_or((32_768, 60_999));
        let count = (last - first).saturating_add(1);
        let next = u16::try_from(seed % u64::from(count)).unwrap_or(0);
        Self {
            first,
            count,
            next,
            used: HashSet::new(),
        }
    }

    /// A port for a connection to `dst`, other than its own: as with TCP, no connection comes from the
    /// address that it goes to.
    ///
    /// # Errors
    /// [`VerbsError::Os`] with EADDRNOTAVAIL when every port is in use towards `dst`.
    pub(crate) fn take(&mut self, dst: SocketAddr) -> Result<u16, VerbsError> {
        for _ in 0..self.count {
            let port = self.first + self.next;
            self.next = (self.next + 1) % self.count;
            if port != dst.port() && self.used.insert((port, dst)) {
                return Ok(port);
            }
        }
        Err(VerbsError::os(
            "host connect: every ephemeral port is in use towards this destination",
            Errno::ADDRNOTAVAIL,
        ))
    }

    /// Gives a port back.
    pub(crate) fn release(&mut self, port: u16, dst: SocketAddr) {
        self.used.remove(&(port, dst));
    }
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_whitespace();
    let first = words.next()?.parse().ok()?;
    let last = words.next()?.parse().ok()?;
    (first >= 1 && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn request(addr: &str) -> BindRequest {
        BindRequest {
            addr: addr.parse().unwrap(),
            only_v6: false,
            reuse_port: false,
        }
    }

    #[test]
    fn a_reserved_port_is_in_use_for_tcp_and_the_other_way_round() {
        let (_held, addr) = reserve(request("127.0.0.1:0")).unwrap();
        assert_ne!(addr.port(), 0);
        let error = TcpListener::bind(addr).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));

        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = tcp.local_addr().unwrap().to_string();
        assert_eq!(
            reserve(request(&text)).unwrap_err().errno(),
            libc::EADDRINUSE
        );
    }

    #[test]
    fn a_shared_port_is_shared_only_by_those_who_ask() {
        let mut shared = request("127.0.0.1:0");
        shared.reuse_port = true;
        let (_first, addr) = reserve(shared).unwrap();
        shared.addr = addr;
        let (_second, _) = reserve(shared).unwrap();
        shared.reuse_port = false;
        assert_eq!(reserve(shared).unwrap_err().errno(), libc::EADDRINUSE);
    }

    /// The port is free when the program's own descriptor is gone.
    #[test]
    fn an_adopted_port_is_the_programs_to_hold() {
        let (socket, addr) = reserve(request("127.0.0.1:0")).unwrap();
        assert_eq!(adopt(socket.as_fd()).unwrap(), addr);
        drop(socket);
        TcpListener::bind(addr).unwrap();
    }

    #[test]
    fn an_address_of_another_machine_cannot_be_bound() {
        let error = reserve(request("192.0.2.1:0")).unwrap_err();
        assert_eq!(error.errno(), libc::EADDRNOTAVAIL);
    }

    #[test]
    fn the_source_is_the_one_the_kernel_would_take() {
        for dst in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9"] {
            let dst: SocketAddr = dst.parse().unwrap();
            let Ok(udp) = UdpSocket::bind(match dst {
                SocketAddr::V4(_) => "0.0.0.0:0",
                SocketAddr::V6(_) => "[::]:0",
            }) else {
                eprintln!("skipped: no address family of {dst} on this machine");
                continue;
            };
            udp.connect(dst).unwrap();
            assert_eq!(
                source_for(dst).unwrap().ip(),
                udp.local_addr().unwrap().ip()
            );
        }
    }

    #[test]
    fn another_machine_is_refused_by_name() {
        // TEST-NET-1: no machine has it. Without any route the kernel says so itself.
        let error = source_for("192.0.2.1:9".parse().unwrap()).unwrap_err();
        assert!(
            matches!(error.errno(), libc::EHOSTUNREACH | libc::ENETUNREACH),
            "{error}"
        );
        let error = source_for("224.0.0.1:9".parse().unwrap()).unwrap_err();
        assert_eq!(error.errno(), libc::ENETUNREACH);
    }

    #[test]
    fn ephemeral_ports_are_unique_per_destination_and_run_out_by_name() {
        let mut ports = EphemeralPorts {
            first: 100,
            count: 3,
            next: 2,
            used: HashSet::new(),
        };
        let a: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let b: SocketAddr = "127.0.0.1:2".parse().unwrap();
        let mut taken: Vec<_> = (0..3).map(|_| ports.take(a).unwrap()).collect();
        assert_eq!(ports.take(a).unwrap_err().errno(), libc::EADDRNOTAVAIL);
        assert!(ports.take(b).is_ok());
        ports.release(101, a);
        assert_eq!(ports.take(a).unwrap(), 101);
        taken.sort_unstable();
        assert_eq!(taken, [100, 101, 102]);
    }

    #[test]
    fn a_strange_range_is_not_believed() {
        assert_eq!(parse_range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(parse_range("5 1"), None);
        assert_eq!(parse_range("0 10"), None);
        assert_eq!(parse_range("x"), None);
    }

    /// A client came from its own listener's port, once in so many connects as there are ports.
    #[test]
    fn no_connection_comes_from_the_port_that_it_goes_to() {
        let mut ports = EphemeralPorts {
            first: 100,
            count: 3,
            next: 0,
            used: HashSet::new(),
        };
        let dst = "127.0.0.1:101".parse().unwrap();
        let taken = [ports.take(dst).unwrap(), ports.take(dst).unwrap()];
        assert_eq!(taken, [100, 102]);
        assert_eq!(ports.take(dst).unwrap_err().errno(), libc::EADDRNOTAVAIL);
    }
}
