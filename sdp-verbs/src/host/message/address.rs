//! Addresses and listeners' names in messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use zerocopy::little_endian::{U16, U32};

use super::wire::{AddrWire, broken};
use crate::error::VerbsError;
use crate::host::names::{Name, SHARED_SLOTS, Scope};

pub(super) fn addr_wire(addr: SocketAddr) -> AddrWire {
    let (family, zone) = match addr {
        SocketAddr::V4(_) => (4, 0),
        SocketAddr::V6(a) => (6, a.scope_id()),
    };
    AddrWire {
        ip: ip_bytes(addr.ip()),
        zone: U32::new(zone),
        port: U16::new(addr.port()),
        family,
        extra: 0,
    }
}

pub(super) fn addr_of(wire: &AddrWire) -> Result<SocketAddr, VerbsError> {
    let port = wire.port.get();
    match ip_of(wire.family, wire.ip)? {
        IpAddr::V4(ip) => Ok(SocketAddr::new(IpAddr::V4(ip), port)),
        IpAddr::V6(ip) => Ok(SocketAddr::V6(SocketAddrV6::new(
            ip,
            port,
            0,
            wire.zone.get(),
        ))),
    }
}

pub(super) fn name_wire(name: &Name) -> AddrWire {
    let (ip, zone, family) = match name.scope {
        Scope::Exact(ip, zone) => (ip_bytes(ip), zone, if ip.is_ipv4() { 4 } else { 6 }),
        Scope::AnyV4 => ([0; 16], 0, 14),
        Scope::AnyV6 => ([0; 16], 0, 16),
        Scope::AnyDual => ([0; 16], 0, 46),
    };
    AddrWire {
        ip,
        zone: U32::new(zone),
        port: U16::new(name.port),
        family,
        extra: name.slot,
    }
}

pub(super) fn name_of(wire: &AddrWire) -> Result<Name, VerbsError> {
    let scope = match wire.family {
        14 => Scope::AnyV4,
        16 => Scope::AnyV6,
        46 => Scope::AnyDual,
        family => Scope::Exact(ip_of(family, wire.ip)?, wire.zone.get()),
    };
    if wire.extra > SHARED_SLOTS {
        return Err(broken(format!("listener slot {} is unknown", wire.extra)));
    }
    Ok(Name {
        scope,
        port: wire.port.get(),
        slot: wire.extra,
    })
}

fn ip_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn ip_of(family: u8, bytes: [u8; 16]) -> Result<IpAddr, VerbsError> {
    let [.., a, b, c, d] = bytes;
    match family {
        4 => Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        6 => Ok(IpAddr::V6(Ipv6Addr::from(bytes))),
        other => Err(broken(format!("address family {other} is unknown"))),
    }
}
