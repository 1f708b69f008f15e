//! Socket addresses as the bytes of C's structures.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use libc::c_int;
use smallvec::SmallVec;

use crate::errno::Failure;
use crate::socket::{AF_INET_SDP, AF_INET6_SDP};

/// Length of `struct sockaddr_in`.
const V4_LEN: usize = size_of::<libc::sockaddr_in>();
/// Length of `struct sockaddr_in6`.
pub(crate) const V6_LEN: usize = size_of::<libc::sockaddr_in6>();
/// `struct sockaddr_in6` without its scope: Linux takes that too.
const V6_LEN_MIN: usize = 24;

/// The address family of a socket, whatever the program called it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6, and IPv4 as mapped addresses.
    V6,
}

impl Family {
    /// From a domain: TCP's numbers and those of the SDP of old.
    #[must_use]
    pub fn of(domain: c_int) -> Option<Self> {
        match domain {
            libc::AF_INET | AF_INET_SDP => Some(Self::V4),
            libc::AF_INET6 | AF_INET6_SDP => Some(Self::V6),
            _ => None,
        }
    }

    /// Any address, any port.
    #[must_use]
    pub fn unspecified(self) -> SocketAddr {
        match self {
            Self::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
            Self::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }

    /// An address as a socket of this family shows it: IPv4 addresses are mapped on IPv6 sockets.
    #[must_use]
    pub fn shown(self, addr: SocketAddr) -> SocketAddr {
        match (self, addr) {
            (Self::V6, SocketAddr::V4(v4)) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            (Self::V4, SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
                Some(v4) => (v4, v6.port()).into(),
                None => addr,
            },
            _ => addr,
        }
    }

    /// Reads the bytes of a `struct sockaddr`.
    ///
    /// # Errors
    /// `EINVAL` if they are too few, `EAFNOSUPPORT` if they are of another family.
    pub fn parse(self, bytes: &[u8]) -> Result<SocketAddr, Failure> {
        let need = match self {
            Self::V4 => V4_LEN,
            Self::V6 => V6_LEN_MIN,
        };
        if bytes.len() < need {
            let words = format!("an address of {} bytes: {need} are needed", bytes.len());
            return Err(Failure::new(libc::EINVAL, words));
        }
        let family = u16::from_ne_bytes(array(bytes, 0));
        if Self::of(c_int::from(family)) != Some(self) {
            let words = format!("address family {family} on a socket of {self:?}");
            return Err(Failure::new(libc::EAFNOSUPPORT, words));
        }
        let port = u16::from_be_bytes(array(bytes, 2));
        Ok(match self {
            Self::V4 => (Ipv4Addr::from(array::<4>(bytes, 4)), port).into(),
            Self::V6 => {
                let flow = u32::from_be_bytes(array(bytes, 4));
                let ip = Ipv6Addr::from(array::<16>(bytes, 8));
                let scope = match bytes.len() {
                    V6_LEN.. => u32::from_ne_bytes(array(bytes, 24)),
                    _ => 0,
                };
                SocketAddrV6::new(ip, port, flow, scope).into()
            }
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// The bytes of the structure that says `addr`.
#[must_use]
pub fn bytes_of(addr: SocketAddr) -> SmallVec<[u8; V6_LEN]> {
    let mut bytes = SmallVec::new();
    let mut head = |family: c_int| {
        let family = libc::sa_family_t::try_from(family).expect("both families fit their type");
        bytes.extend_from_slice(&family.to_ne_bytes());
        bytes.extend_from_slice(&addr.port().to_be_bytes());
    };
    match addr {
        SocketAddr::V4(addr) => {
            head(libc::AF_INET);
            bytes.extend_from_slice(&addr.ip().octets());
            bytes.resize(V4_LEN, 0);
        }
        SocketAddr::V6(addr) => {
            head(libc::AF_INET6);
            bytes.extend_from_slice(&addr.flowinfo().to_be_bytes());
            bytes.extend_from_slice(&addr.ip().octets());
            bytes.extend_from_slice(&addr.scope_id().to_ne_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses of both families survive the way to C and back; TCP's and SDP's family numbers
    /// mean the same.
    #[test]
    fn round_trips() {
        let v6 = SocketAddrV6::new("fe80::1:2".parse().unwrap(), 7, 0x0102_0304, 9);
        let rows = [
            (Family::V4, "10.1.2.3:513".parse().unwrap(), 27_u16),
            (Family::V6, v6.into(), 28),
        ];
        for (family, addr, sdp) in rows {
            let mut bytes = bytes_of(addr);
            assert_eq!(family.parse(&bytes), Ok(addr));
            bytes[..2].copy_from_slice(&sdp.to_ne_bytes());
            assert_eq!(family.parse(&bytes), Ok(addr));
        }
    }

    /// The layout is that of the C structures.
    #[test]
    fn layout_is_that_of_c() {
        use std::mem::offset_of;
        assert_eq!(bytes_of(Family::V4.unspecified()).len(), V4_LEN);
        assert_eq!(bytes_of(Family::V6.unspecified()).len(), V6_LEN);
        assert_eq!(offset_of!(libc::sockaddr_in, sin_port), 2);
        assert_eq!(offset_of!(libc::sockaddr_in, sin_addr), 4);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_addr), 8);
        assert_eq!(offset_of!(libc::sockaddr_in6, sin6_scope_id), V6_LEN_MIN);
    }

    /// Too short is EINVAL, another family EAFNOSUPPORT; an address without scope is taken.
    #[test]
    fn bad_addresses_are_refused_by_name() {
        let v4 = bytes_of("1.2.3.4:5".parse().unwrap());
        let v6 = bytes_of("[::1]:5".parse().unwrap());
        let errno = |result: Result<SocketAddr, Failure>| result.unwrap_err().errno;
        for len in 0..V4_LEN {
            assert_eq!(errno(Family::V4.parse(&v4[..len])), libc::EINVAL, "{len}");
        }
        assert_eq!(errno(Family::V6.parse(&v4)), libc::EINVAL);
        assert_eq!(errno(Family::V4.parse(&v6)), libc::EAFNOSUPPORT);
        assert_eq!(
            Family::V6.parse(&v6[..V6_LEN_MIN]),
            Ok("[::1]:5".parse().unwrap())
        );
    }

    /// An IPv6 socket shows IPv4 peers as mapped addresses, and the other way round.
    #[test]
    fn mapped_addresses() {
        let v4 = "1.2.3.4:5".parse().unwrap();
        let mapped = "[::ffff:1.2.3.4]:5".parse().unwrap();
        assert_eq!(Family::V6.shown(v4), mapped);
        assert_eq!(Family::V4.shown(mapped), v4);
        assert_eq!(Family::V4.shown(v4), v4);
    }
}
