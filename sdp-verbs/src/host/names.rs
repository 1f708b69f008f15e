//! Names under which listeners are found: abstract socket names, which belong to a network
//! namespace as addresses and ports do.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use rustix::net::SocketAddrUnix;

use crate::error::VerbsError;

/// Listeners that share one port by `SO_REUSEPORT`; each has a slot of its own, 1 to this.
pub(crate) const SHARED_SLOTS: u8 = 64;

/// Which destinations a listener takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    /// One address. IPv4-mapped addresses are IPv4 here. The number is the IPv6 zone, or zero.
    Exact(IpAddr, u32),
    /// Every IPv4 address.
    AnyV4,
    /// Every IPv6 address, no IPv4.
    AnyV6,
    /// Every address of both families.
    AnyDual,
}

/// The name of one listener.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Name {
    /// Destinations.
    pub(crate) scope: Scope,
    /// Port.
    pub(crate) port: u16,
    /// Zero for a listener that has the port alone, else its place among those sharing it.
    pub(crate) slot: u8,
}

impl Scope {
    /// What a listener bound to `addr` takes.
    pub(crate) fn of_listener(addr: SocketAddr, only_v6: bool) -> Self {
        match addr {
            SocketAddr::V4(a) if a.ip().is_unspecified() => Self::AnyV4,
            SocketAddr::V6(a) if a.ip().is_unspecified() && only_v6 => Self::AnyV6,
            SocketAddr::V6(a) if a.ip().is_unspecified() => Self::AnyDual,
            other => Self::exact(other),
        }
    }

    /// The one address of `addr`.
    fn exact(addr: SocketAddr) -> Self {
        match canonical(addr) {
            SocketAddr::V4(a) => Self::Exact(IpAddr::V4(*a.ip()), 0),
            SocketAddr::V6(a) => Self::Exact(IpAddr::V6(*a.ip()), zone(&a)),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(ip @ IpAddr::V4(_), _) => write!(f, "4/{ip}"),
            Self::Exact(ip @ IpAddr::V6(_), 0) => write!(f, "6/{ip}"),
            Self::Exact(ip, zone) => write!(f, "6/{ip}%{zone}"),
            Self::AnyV4 => f.write_str("4/*"),
            Self::AnyV6 => f.write_str("6/*"),
            Self::AnyDual => f.write_str("46/*"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sdp-host/1/{}/{}/{}", self.scope, self.port, self.slot)
    }
}

impl Name {
    /// The abstract socket address.
    ///
    /// # Errors
    /// [`VerbsError::Os`], if the name did not fit one, which no address makes it do.
    pub(crate) fn socket_addr(&self) -> Result<SocketAddrUnix, VerbsError> {
        let mut text = String::with_capacity(96);
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{self}");
        SocketAddrUnix::new_abstract_name(text.as_bytes())
            .map_err(|e| VerbsError::os("naming a host listener", e))
    }

    /// The names a listener for `dst` may have, in the order they are to be tried: the exact
    /// address before wildcards; listeners that have the port alone before those that share it.
    /// `start` spreads connectors over the sharers.
    pub(crate) fn candidates(dst: SocketAddr, start: u8) -> impl Iterator<Item = Self> {
        let port = dst.port();
        let exact = Scope::exact(dst);
        let any = match exact {
            Scope::Exact(IpAddr::V4(_), _) => Scope::AnyV4,
            _ => Scope::AnyV6,
        };
        let scopes = [exact, any, Scope::AnyDual];
        let alone = scopes.into_iter().map(move |scope| Self {
            scope,
            port,
            slot: 0,
        });
        let shared = scopes
            .into_iter()
            .flat_map(move |scope| spread(start).map(move |slot| Self { scope, port, slot }));
        alone.chain(shared)
    }
}

/// Every shared slot once or more. Slots fill from the lowest, so halving the range until one is
/// found hits every occupied slot with about the same likelihood; the plain walk at the end finds
/// those above a gap.
fn spread(start: u8) -> impl Iterator<Item = u8> {
    let halving = (0..7).map(move |k| (start % SHARED_SLOTS) % (SHARED_SLOTS >> k) + 1);
    halving.chain(1..=SHARED_SLOTS)
}

/// `addr` with IPv4-mapped addresses turned into IPv4, an unspecified address into loopback, and
/// what does not name a destination cleared.
pub(crate) fn destination(addr: SocketAddr) -> SocketAddr {
    let mut addr = canonical(addr);
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    addr
}

/// `addr` as a socket of the family of `like` shows it: IPv4 on an IPv6 socket is mapped.
pub(crate) fn shown_on(like: SocketAddr, addr: SocketAddr) -> SocketAddr {
    match (like, addr) {
        (SocketAddr::V6(_), SocketAddr::V4(a)) => {
            SocketAddr::V6(SocketAddrV6::new(a.ip().to_ipv6_mapped(), a.port(), 0, 0))
        }
        _ => addr,
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(a) => match a.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), a.port()),
            None => SocketAddr::V6(SocketAddrV6::new(*a.ip(), a.port(), 0, zone(&a))),
        },
    }
}

/// The zone counts for link-local addresses only: a program may give one for others, idly.
fn zone(addr: &SocketAddrV6) -> u32 {
    if addr.ip().is_unicast_link_local() {
        addr.scope_id()
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_listener_is_among_the_candidates_of_what_it_takes() {
        let takes = [
            ("10.0.0.1:80", false, "10.0.0.1:80"),
            ("0.0.0.0:80", false, "10.0.0.1:80"),
            ("[::]:80", false, "10.0.0.1:80"),
            ("[::]:80", false, "[fd00::1]:80"),
            ("[::]:80", true, "[fd00::1]:80"),
            ("[fd00::1]:80", false, "[fd00::1]:80"),
            ("[::ffff:10.0.0.1]:80", false, "10.0.0.1:80"),
            ("10.0.0.1:80", false, "[::ffff:10.0.0.1]:80"),
            ("[fe80::1%3]:80", false, "[fe80::1%3]:80"),
        ];
        for (listener, only_v6, dst) in takes {
            let name = Name {
                scope: Scope::of_listener(addr(listener), only_v6),
                port: 80,
                slot: 0,
            };
            let found = Name::candidates(destination(addr(dst)), 0).any(|n| n == name);
            assert!(found, "{listener} must take {dst}");
        }
    }

    #[test]
    fn what_a_listener_does_not_take_does_not_find_it() {
        let refuses = [
            ("[::]:80", true, "10.0.0.1:80"),
            ("0.0.0.0:80", false, "[fd00::1]:80"),
            ("10.0.0.1:80", false, "10.0.0.2:80"),
            ("10.0.0.1:80", false, "10.0.0.1:81"),
            ("[fe80::1%3]:80", false, "[fe80::1%4]:80"),
        ];
        for (listener, only_v6, dst) in refuses {
            let name = Name {
                scope: Scope::of_listener(addr(listener), only_v6),
                port: addr(listener).port(),
                slot: 0,
            };
            let found = Name::candidates(destination(addr(dst)), 0).any(|n| n == name);
            assert!(!found, "{listener} must not take {dst}");
        }
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard() {
        let order: Vec<_> = Name::candidates(addr("127.0.0.1:9"), 0).take(3).collect();
        assert!(matches!(order[0].scope, Scope::Exact(..)));
        assert_eq!(order[1].scope, Scope::AnyV4);
        assert_eq!(order[2].scope, Scope::AnyDual);
    }

    #[test]
    fn spreading_reaches_every_slot_and_favours_none_of_few() {
        for start in 0..=u8::MAX {
            let slots: HashSet<_> = spread(start).collect();
            assert_eq!(slots.len(), usize::from(SHARED_SLOTS), "from {start}");
        }
        let mut hits = [0_u32; 2];
        for start in 0..SHARED_SLOTS {
            let first = spread(start).find(|slot| *slot <= 2).unwrap();
            hits[usize::from(first) - 1] += 1;
        }
        assert_eq!(hits, [32, 32]);
    }

    #[test]
    fn the_unspecified_address_is_loopback() {
        assert_eq!(destination(addr("0.0.0.0:5")), addr("127.0.0.1:5"));
        assert_eq!(destination(addr("[::]:5")), addr("[::1]:5"));
    }

    #[test]
    fn ipv4_shows_as_mapped_on_an_ipv6_socket_only() {
        let v4 = addr("127.0.0.1:5");
        assert_eq!(shown_on(addr("[::]:1"), v4), addr("[::ffff:127.0.0.1]:5"));
        assert_eq!(shown_on(addr("0.0.0.0:1"), v4), v4);
    }
}
