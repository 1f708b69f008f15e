//! The way to a peer.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use sdp_socket::{Builder, ProviderKind, route_to};

use super::finding::Finding;
use super::probe::{Running, Said};

/// How long a connect may take.
const WAIT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Stands for a port that nobody named; nothing is connected to it.
const NO_PORT: u16 = 9;

/// A peer as the user named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    host: String,
    port: Option<u16>,
}

impl Peer {
    /// `host`, `host:port`, `[v6]:port` or `v6`.
    ///
    /// # Errors
    /// It is none of these.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Self {
                host: text.to_owned(),
                port: None,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
                (host, Some(port))
            }
            None => (text, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port == Some(0) {
            return Err(format!("`{text}` is no host, and no host:port"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Its addresses.
    ///
    /// # Errors
    /// What to say of a name that has none.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, Finding> {
        let port = self.port.unwrap_or(NO_PORT);
        let found = (self.host.as_str(), port).to_socket_addrs();
        let found: Vec<_> = match found {
            Ok(found) => found.take(ADDRESSES_MAX).collect(),
            Err(error) => {
                let remedy = "name an address, or see to the resolver (getent ahosts NAME)";
                return Err(Finding::fail(
                    "peer.name",
                    format!("{}: {error}", self.host),
                    remedy,
                ));
            }
        };
        Ok(found)
    }
}

/// Whether any of the addresses is another machine's.
pub(super) fn is_elsewhere(addresses: &[SocketAddr]) -> bool {
    // Nothing is sent: the system says whether it would take the address as its own.
    let is_local = |ip: IpAddr| ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok();
    !addresses.iter().all(|address| is_local(address.ip()))
}

/// Tries the way to each of the addresses.
pub(super) fn look(peer: &Peer, addresses: &[SocketAddr]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in addresses {
        let mut args = vec![address.to_string()];
        if peer.port.is_none() {
            args.push("--route-only".to_owned());
        }
        match Running::start("reach", &args) {
            Ok(running) => findings.extend(running.findings()),
            Err(error) => findings.push(Finding::fail("peer", format!("{error:#}"), "try again")),
        }
    }
    if peer.port.is_none() && !addresses.is_empty() {
        let detail = "no port was named, so nothing was connected to";
        let remedy = format!(
            "sdp doctor {}:PORT, where a program listens by SDP",
            peer.host
        );
        findings.push(Finding::unchecked("peer.connect", detail, remedy));
    }
    findings
}

/// In the probe.
pub(super) fn reach(address: SocketAddr, route_only: bool) -> anyhow::Result<()> {
    let route = match route_to(address) {
        Ok(route) => route,
        Err(error) => {
            let remedy = "the words say what is missing; the lines on rdma say more";
            // The port is nobody's, if nobody named one.
            let why = error.to_string();
            let why = why.replace(&address.to_string(), &address.ip().to_string());
            let detail = format!("{}: {why}", address.ip());
            return Said::Finding(Finding::fail("peer.route", detail, remedy)).say();
        }
    };
    let why = match (std::env::var_os("SDP_PROVIDER"), route.provider) {
        (Some(_), _) => "SDP_PROVIDER asks for it",
        (None, ProviderKind::Host) => "an address of this machine",
        (None, _) => "an address of another machine",
    };
    let device = route
        .device
        .map_or_else(String::new, |device| format!(", device {device}"));
    let detail = format!(
        "{} by provider {} ({why}){device}, from {}",
        address.ip(),
        route.provider,
        route.source
    );
    Said::Finding(Finding::ok("peer.route", detail)).say()?;
    if route_only {
        return Ok(());
    }
    let begun = Instant::now();
    let finding = match Builder::new().connect_timeout(&address, WAIT) {
        Ok(_) => Finding::ok(
            "peer.connect",
            format!("{address}: connected in {:.1?}", begun.elapsed()),
        ),
        Err(error) => Finding::fail(
            "peer.connect",
            format!("{address} by {}: {error}", route.provider),
            remedy(&error, route.provider, address),
        ),
    };
    Said::Finding(finding).say()
}

fn remedy(error: &io::Error, provider: ProviderKind, address: SocketAddr) -> String {
    let tcp = || match TcpStream::connect_timeout(&address, WAIT) {
        Ok(_) => "a TCP socket listens there: start its program with sdp run, or with this library",
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "nobody listens there by TCP either: is the program running, on that address and port?"
        }
        Err(_) => "TCP does not get there either: address, route, firewall",
    };
    match (error.kind(), provider) {
        (io::ErrorKind::ConnectionRefused, ProviderKind::Host) => format!(
            "{}; both programs must be of one user and in one network namespace",
            tcp()
        ),
        (io::ErrorKind::ConnectionRefused, _) => format!(
            "{}; for iWARP the listener is started with SDP_PROVIDER=rdma",
            tcp()
        ),
        (
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable,
            _,
        ) => {
            format!(
                "{}; RoCE needs UDP port 4791 open both ways, and an adapter at the peer",
                tcp()
            )
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "the peer belongs to another user, or this user may not use the device".to_owned()
        }
        _ => tcp().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read() {
        for (text, host, port) in [
            ("db1", "db1", None),
            ("db1:7000", "db1", Some(7000)),
            ("192.0.2.7", "192.0.2.7", None),
            ("192.0.2.7:80", "192.0.2.7", Some(80)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]:80", "fd00::1", Some(80)),
        ] {
            let peer = Peer::parse(text).unwrap();
            assert_eq!((peer.host.as_str(), peer.port), (host, port), "{text}");
        }
        for text in ["", ":80", "db1:", "db1:x", "db1:0", "db1:70000"] {
            assert!(Peer::parse(text).is_err(), "{text}");
        }
    }
}
