//! Addresses and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::cm::BindRequest;
use crate::conformance::report::{Verdict, ensure, ensure_eq};
use crate::conformance::rig::{Options, Rig, Side, refused};
use crate::error::VerbsError;

fn at(addr: SocketAddr) -> BindRequest {
    BindRequest {
        addr,
        only_v6: false,
        reuse_port: false,
    }
}

fn has_errno(error: &VerbsError, errno: i32) -> bool {
    matches!(error, VerbsError::Os { .. }) && error.errno() == errno
}

pub(in super::super) fn a_bound_id_has_an_ephemeral_port(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (_one, first) = lab.listen(1)?;
    let (_other, second) = lab.listen(1)?;
    ensure!(
        first.port() != 0 && second.port() != 0,
        "ports {first} and {second}"
    );
    ensure!(first != second, "two listeners at {first}");
    ensure_eq!(first.ip(), rig.address(), "local address");
    Ok(())
}

pub(in super::super) fn a_port_in_use_is_refused(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(1)?;
    let second = lab.station(Side::Passive).new_id()?;
    let in_use = |error: &VerbsError| has_errno(error, libc::EADDRINUSE);
    refused("a port in use", second.bind(at(addr)), in_use)?;
    drop(listener);
    // Free again, at once: a listener that never had a connection leaves nothing behind.
    second.bind(at(addr))?;
    Ok(())
}

pub(in super::super) fn a_foreign_address_is_refused(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let id = lab.station(Side::Passive).new_id()?;
    // TEST-NET-1: never the address of a machine.
    let foreign = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);
    refused(
        "an address of another machine",
        id.bind(at(foreign)),
        |error| has_errno(error, libc::EADDRNOTAVAIL),
    )
}

pub(in super::super) fn both_ends_know_the_addresses(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(1)?;
    let (active, passive) = lab.connect(Side::Active, &*listener, addr, &Options::default())?;
    ensure_eq!(active.id().peer_addr(), Some(addr), "peer of the connector");
    ensure_eq!(
        passive.id().local_addr(),
        Some(addr),
        "address of the accepted end"
    );
    let local = active.id().local_addr();
    ensure!(
        local.is_some_and(|addr| addr.port() != 0),
        "address of the connector: {local:?}"
    );
    ensure_eq!(passive.id().peer_addr(), local, "peer of the accepted end");
    Ok(())
}

pub(in super::super) fn a_wildcard_listener_is_found(rig: &Rig<'_>) -> Verdict {
    let wildcard = match rig.address() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    reach(rig, SocketAddr::new(wildcard, 0), rig.address())
}

pub(in super::super) fn ipv6_loopback(rig: &Rig<'_>) -> Verdict {
    let address = rig.address_v6()?;
    reach(rig, SocketAddr::new(address, 0), address)
}

/// Listens at one address and connects by another.
fn reach(rig: &Rig<'_>, listen: SocketAddr, connect: IpAddr) -> Verdict {
    let lab = rig.lab()?;
    let (listener, bound) = lab.listen_at(Side::Passive, listen, 1)?;
    let addr = SocketAddr::new(connect, bound.port());
    let (active, passive) = lab.connect(Side::Active, &*listener, addr, &Options::default())?;
    active.send(b"hello")?;
    ensure_eq!(passive.receive()?, b"hello", "message");
    ensure_eq!(active.id().peer_addr(), Some(addr), "peer of the connector");
    Ok(())
}
