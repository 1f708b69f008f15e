//! Two adapters in one machine, with a wire between them: the route decides by which a connection
//! leaves, and a listener on every address is on both. Nobody names a device.
#![cfg(target_pointer_width = "64")]

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use sdp_socket::ProviderKind::Rdma;
use sdp_socket::{Builder, SdpListener, SdpStream};

use common::sdp::{rdma, rdma_address};
use common::watch::{doing, watched};

const LEN: usize = 1 << 20;

fn builder() -> Builder {
    Builder::new().provider(Rdma)
}

/// An address of each device.
fn addresses() -> [IpAddr; 2] {
    let addresses = [0, 1].map(|side| rdma_address(&rdma(side)));
    assert_ne!(addresses[0], addresses[1], "two devices");
    addresses
}

fn listen(ip: IpAddr) -> (SdpListener, u16) {
    let listener = builder().bind((ip, 0)).expect("bind");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Moves so many bytes there and back.
fn exchange(mut near: SdpStream, listener: &SdpListener) -> io::Result<SocketAddr> {
    let (mut far, peer) = listener.accept()?;
    std::thread::scope(|threads| {
        let there = threads.spawn(move || {
            let mut bytes = vec![0; LEN];
            far.read_exact(&mut bytes)?;
            far.write_all(&bytes)
        });
        let sent: Vec<u8> = (0..=250).cycle().take(LEN).collect();
        near.write_all(&sent)?;
        let mut back = vec![0; LEN];
        near.read_exact(&mut back)?;
        assert!(back == sent, "bytes changed on the way");
        there.join().expect("no panic")
    })?;
    Ok(peer)
}

/// Each is reached although the system does not know its neighbour yet: the job takes that knowledge away.
/// An answer that the system misses, for which it is asked again, cannot be brought about.
#[test]
#[ignore = "needs two RDMA devices"]
fn an_unknown_neighbour_is_found() {
    watched(|| {
        for to in addresses() {
            let (listener, port) = listen(to);
            doing("a connect to a neighbour that is not known");
            let soon = Duration::from_secs(10);
            let near = builder().connect_timeout(&SocketAddr::new(to, port), soon);
            exchange(near.expect("connect"), &listener).expect("bytes there and back");
        }
    });
}

/// Each address is reached by its device.
#[test]
#[ignore = "needs two RDMA devices"]
fn a_listener_on_every_address_is_on_both() {
    watched(|| {
        let addresses = addresses();
        let (listener, port) = listen(Ipv4Addr::UNSPECIFIED.into());
        for to in addresses.into_iter().cycle().take(4) {
            doing("a connect to one of the two");
            let near = builder().connect((to, port)).expect("connect");
            assert_eq!(near.peer_addr().expect("peer").ip(), to);
            let from = near.local_addr().expect("local");
            let peer = exchange(near, &listener).expect("bytes there and back");
            assert_eq!(peer, from);
        }
    });
}

/// The address chosen decides: the port is free on the other one's.
#[test]
#[ignore = "needs two RDMA devices"]
fn a_listener_on_one_address_is_on_its_device() {
    watched(|| {
        for (here, elsewhere) in [(0, 1), (1, 0)] {
            let addresses = addresses();
            let (listener, port) = listen(addresses[here]);
            doing("a connect to the one that listens");
            let near = builder().connect((addresses[here], port)).expect("connect");
            exchange(near, &listener).expect("bytes there and back");
            doing("a connect to the other one");
            let refused = builder().connect((addresses[elsewhere], port));
            assert_eq!(
                refused.expect_err("nobody listens").kind(),
                ErrorKind::ConnectionRefused
            );
        }
    });
}

/// A port taken before it was known where to: it goes with the connection.
#[test]
#[ignore = "needs two RDMA devices"]
fn a_bound_port_serves_either_device() {
    watched(|| {
        let (listener, port) = listen(Ipv4Addr::UNSPECIFIED.into());
        for to in addresses() {
            doing("a connect from a bound port");
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let bound = builder().reserve(any).expect("a port");
            let from = bound.local_addr().expect("an address").port();
            let connecting = builder().start_connect((to, port).into(), Some(bound));
            let connecting = connecting.expect("a start");
            assert!(
                connecting
                    .wait(Some(Duration::from_secs(60)))
                    .expect("wait")
            );
            let near = connecting.try_finish().expect("over").expect("connect");
            assert_eq!(near.local_addr().expect("local").port(), from);
            exchange(near, &listener).expect("bytes there and back");
        }
    });
}

/// As many requests as a backlog has, of both devices, and what is turned down.
#[test]
#[ignore = "needs two RDMA devices"]
fn requests_by_both_share_a_backlog() {
    watched(|| {
        let (listener, port) = listen(Ipv4Addr::UNSPECIFIED.into());
        let all = addresses().into_iter().cycle().take(20);
        let streams = all.map(|to| builder().connect((to, port)).expect("connect"));
        let streams: Vec<_> = streams.collect();
        let mut seen = Vec::new();
        for _ in &streams {
            seen.push(listener.accept().expect("accept").1);
        }
        let mut own: Vec<_> = streams
            .iter()
            .map(|stream| stream.local_addr().expect("local"))
            .collect();
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, own);
        listener.shutdown();
        doing("a connect to a listener that was shut down");
        for to in addresses() {
            assert!(builder().connect((to, port)).is_err());
        }
    });
}
