//! Addresses between Rust and C, and which of this machine's belong to a device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr::{self, NonNull};

use super::raw::{RawChannel, RawId};
use crate::error::VerbsError;
use crate::rdma::device::Device;
use crate::rdma::sys;

/// A C address with room for every family.
#[derive(Clone, Copy)]
pub(super) struct RawAddr(libc::sockaddr_storage);

impl From<SocketAddr> for RawAddr {
    fn from(addr: SocketAddr) -> Self {
        // SAFETY: plain numbers, for which zeros are valid.
        let mut raw: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        match addr {
            SocketAddr::V4(v4) => {
                let sin = libc::sockaddr_in {
                    sin_family: family(libc::AF_INET),
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage has room and alignment for every family.
                unsafe {
                    ptr::from_mut(&mut raw)
                        .cast::<libc::sockaddr_in>()
                        .write(sin)
                };
            }
            SocketAddr::V6(v6) => {
                let sin6 = libc::sockaddr_in6 {
                    sin6_family: family(libc::AF_INET6),
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe {
                    ptr::from_mut(&mut raw)
                        .cast::<libc::sockaddr_in6>()
                        .write(sin6)
                };
            }
        }
        Self(raw)
    }
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("families are small")
}

impl RawAddr {
    /// As the library wants it.
    pub(super) fn as_mut_ptr(&mut self) -> *mut sys::sockaddr {
        ptr::from_mut(&mut self.0).cast()
    }

    /// Reads an address that the library or the system has written.
    ///
    /// # Safety
    /// `addr` is valid for reading the struct of the family that it begins with.
    pub(super) unsafe fn read(addr: *const libc::sockaddr) -> Option<SocketAddr> {
        // SAFETY: by this function's contract.
        let family = unsafe { (*addr).sa_family };
        match libc::c_int::from(family) {
            libc::AF_INET => {
                // SAFETY: by this function's contract.
                let sin = unsafe { addr.cast::<libc::sockaddr_in>().read_unaligned() };
                let ip = Ipv4Addr::from(sin.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddrV4::new(ip, u16::from_be(sin.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: by this function's contract.
                let sin6 = unsafe { addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                let ip = Ipv6Addr::from(sin6.sin6_addr.s6_addr);
                let port = u16::from_be(sin6.sin6_port);
                Some(SocketAddrV6::new(ip, port, sin6.sin6_flowinfo, sin6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// The addresses of this machine's interfaces.
fn interface_addresses() -> Result<Vec<SocketAddr>, VerbsError> {
    let mut list = ptr::null_mut();
    // SAFETY: `list` is valid for the write.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(VerbsError::os(
            "getifaddrs",
            std::io::Error::last_os_error(),
        ));
    }
    let mut found = Vec::new();
    let mut next = NonNull::new(list);
    while let Some(entry) = next {
        // SAFETY: an entry of a list that has not been freed.
        let entry = unsafe { entry.read() };
        if !entry.ifa_addr.is_null() {
            // SAFETY: as above; the address is of the family that it says.
            found.extend(unsafe { RawAddr::read(entry.ifa_addr) });
        }
        next = NonNull::new(entry.ifa_next);
    }
    // SAFETY: made by getifaddrs, freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// Whether an address is one that peers elsewhere could use too.
fn is_general(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// Whether an address of this machine is behind a device: one that is not is refused, with ENODEV or
/// another reason, or goes to another device.
fn is_behind(device: &Device, channel: &RawChannel, addr: SocketAddr) -> Result<bool, VerbsError> {
    let id = RawId::new(device.lib, channel, 0, device.transport)?;
    Ok(id.bind(addr).is_ok() && id.context() == device.context())
}

/// Whether an address of this machine is behind a device.
pub(in crate::rdma) fn has_address(
    device: &Device,
    mut addr: SocketAddr,
) -> Result<bool, VerbsError> {
    addr.set_port(0);
    let channel = RawChannel::new(device.lib)?;
    is_behind(device, &channel, addr)
}

/// The addresses of this machine that are behind a device, found by binding to each of them.
pub(in crate::rdma) fn addresses(device: &Device) -> Result<Vec<SocketAddr>, VerbsError> {
    let channel = RawChannel::new(device.lib)?;
    let mut found = Vec::new();
    for addr in interface_addresses()? {
        if is_general(addr.ip()) && is_behind(device, &channel, addr)? {
            found.push(addr);
        }
    }
    Ok(found)
}

/// The address behind a device that a connection to `dst` comes from, if the device has one that
/// could: of those it is the one that has most in common with `dst`.
pub(super) fn source(device: &Device, dst: SocketAddr) -> Result<Option<SocketAddr>, VerbsError> {
    let channel = RawChannel::new(device.lib)?;
    let mut all = interface_addresses()?;
    all.retain(|addr| reaches(*addr, dst));
    all.sort_by_key(|addr| std::cmp::Reverse(bits_in_common(addr.ip(), dst.ip())));
    for addr in all {
        if is_behind(device, &channel, addr)? {
            return Ok(Some(addr));
        }
    }
    Ok(None)
}

/// The wildcard of the kind of `dst`.
pub(super) fn any(dst: SocketAddr) -> SocketAddr {
    match dst {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether what comes from `addr` could go to `dst`, by what kinds of addresses they are.
fn reaches(addr: SocketAddr, dst: SocketAddr) -> bool {
    match (addr, dst) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => is_general(addr.ip()) && is_general(dst.ip()),
        (SocketAddr::V6(a), SocketAddr::V6(d)) if d.ip().is_unicast_link_local() => {
            a.ip().is_unicast_link_local() && a.scope_id() == d.scope_id()
        }
        (SocketAddr::V6(_), SocketAddr::V6(_)) => is_general(addr.ip()) && is_general(dst.ip()),
        _ => false,
    }
}

/// How many leading bits two addresses of one family share.
fn bits_in_common(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes to C comes back the same.
    #[test]
    fn round_trip() {
        let all = [
            "192.0.2.1:80",
            "0.0.0.0:0",
            "[2001:db8::7]:65535",
            "[fe80::1%3]:9",
        ];
        for text in all {
            let addr: SocketAddr = text.parse().unwrap();
            let mut raw = RawAddr::from(addr);
            // SAFETY: an address of its own family.
            let back = unsafe { RawAddr::read(raw.as_mut_ptr().cast()) };
            assert_eq!(back, Some(addr));
        }
    }

    /// A connection comes from an address of its destination's kind, the nearest first.
    #[test]
    fn sources() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let reaches = |a, b| reaches(addr(a), addr(b));
        assert!(reaches("10.1.0.1:0", "192.0.2.1:9"));
        assert!(!reaches("10.1.0.1:0", "127.0.0.1:9"));
        assert!(!reaches("10.1.0.1:0", "[2001:db8::7]:9"));
        assert!(reaches("[2001:db8::1]:0", "[2001:db8::7]:9"));
        assert!(!reaches("[fe80::1%3]:0", "[2001:db8::7]:9"));
        assert!(reaches("[fe80::1%3]:0", "[fe80::2%3]:9"));
        assert!(!reaches("[fe80::1%2]:0", "[fe80::2%3]:9"));
        let common = |a: &str, b: &str| bits_in_common(a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(common("10.1.0.1", "10.1.1.2"), 23);
        assert_eq!(common("10.1.0.1", "10.1.0.1"), 32);
        assert_eq!(common("2001:db8::", "2001:db9::"), 31);
    }

    /// This machine has a loopback interface, which no device is behind.
    #[test]
    fn interfaces_are_found() {
        let found = interface_addresses().unwrap();
        assert!(found.iter().any(|addr| addr.ip().is_loopback()));
        assert!(!is_general(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
