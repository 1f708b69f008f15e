//! Addresses, ports, and connecting.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::common::net::{Listener, Net, Stream};
use crate::common::watch::doing;

/// Both ends agree on both addresses, and an ephemeral port is a port.
pub(crate) fn addresses(net: &impl Net) {
    agree(net, Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
}

/// A wildcard listener is reached by any local address.
pub(crate) fn wildcard_addresses(net: &impl Net) {
    agree(
        net,
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.into(),
    );
    agree(
        net,
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::new(127, 0, 0, 9).into(),
    );
}

/// The same for IPv6, and IPv4 connections to an IPv6 wildcard.
pub(crate) fn addresses_v6(net: &impl Net) {
    if let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        eprintln!("skipped: no IPv6 on this machine: {error}");
        return;
    }
    agree(net, Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    agree(
        net,
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::LOCALHOST.into(),
    );
    agree(
        net,
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.into(),
    );
}

fn agree(net: &impl Net, bound: IpAddr, dst: IpAddr) {
    let listener = net.bind((bound, 0).into()).expect("bind");
    let at = listener.local_addr().expect("local_addr");
    assert_ne!(at.port(), 0);
    assert_eq!(at.ip(), bound);
    let dst = SocketAddr::new(dst, at.port());
    doing(format!("connecting to {dst}"));
    let client = net.connect(dst).expect("connect");
    doing(format!("accepting at {at}"));
    let (server, from) = listener.accept().expect("accept");
    let here = client.local_addr().expect("local_addr");
    assert_eq!(client.peer_addr().expect("peer_addr"), dst);
    assert_ne!(here.port(), 0);
    assert_ne!(here.port(), at.port());
    assert_eq!(plain(from), here);
    assert_eq!(plain(server.peer_addr().expect("peer_addr")), here);
    assert_eq!(plain(server.local_addr().expect("local_addr")), dst);
    client.put(b"hello");
    let mut buf = [0; 5];
    server.get(&mut buf);
    assert_eq!(&buf, b"hello");
}

/// An IPv4 address that an IPv6 socket reports, as IPv4.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Where nobody listens, a connect is refused at once.
pub(crate) fn connect_refused(net: &impl Net) {
    let (listener, addr) = net.listen();
    drop(listener);
    doing("connecting to nobody");
    let error = net.connect(addr).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
}

/// A port in use cannot be bound; afterwards it can.
pub(crate) fn bind_in_use(net: &impl Net) {
    let (listener, addr) = net.listen();
    let error = net.bind(addr).expect_err("the port is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    drop(listener);
    net.bind(addr).expect("the port is free again");
}

/// An address of another machine cannot be bound.
pub(crate) fn bind_elsewhere(net: &impl Net) {
    // A documentation address: no machine has it.
    let error = net
        .bind((Ipv4Addr::new(192, 0, 2, 1), 0).into())
        .expect_err("not our address");
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
}

/// Connects succeed before any accept; the connections come in the order they were made.
pub(crate) fn connect_before_accept(net: &impl Net) {
    connect_then_accept(net, 50);
}

/// As above, few enough to be done many times.
pub(crate) fn connect_before_accept_briefly(net: &impl Net) {
    connect_then_accept(net, 5);
}

fn connect_then_accept(net: &impl Net, count: u8) {
    let (listener, addr) = net.listen();
    let clients: Vec<_> = (0..count)
        .map(|n| {
            doing(format!("connect number {n}"));
            let client = net.connect(addr).expect("connect");
            client.put(&[n]);
            client
        })
        .collect();
    for (n, client) in (0..count).zip(&clients) {
        doing(format!("accept number {n}"));
        let (server, from) = listener.accept().expect("accept");
        assert_eq!(from, client.local_addr().expect("local_addr"));
        let mut buf = [0; 1];
        server.get(&mut buf);
        assert_eq!(buf, [n]);
    }
}

/// Connections that were never accepted are reset when the listener goes.
pub(crate) fn listener_dropped_before_accept(net: &impl Net) {
    let (listener, addr) = net.listen();
    let client = net.connect(addr).expect("connect");
    drop(listener);
    doing("reading the reset");
    let error = client.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}
