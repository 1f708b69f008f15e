//! Which providers a listener is on, where there is an adapter: both ends on its one device.
//! `SDP_PROVIDER`, if it is set, decides for a program that does not.
#![cfg(target_pointer_width = "64")]

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use sdp_socket::ProviderKind::{self, Host, Rdma};
use sdp_socket::{Builder, SdpListener};
use sdp_verbs::{Caps, Provider};

use common::sdp::{rdma, rdma_address};
use common::watch::{doing, watched};

fn chosen() -> Option<String> {
    std::env::var("SDP_PROVIDER").ok()
}

fn bind(builder: &Builder) -> (SdpListener, SocketAddr) {
    let ip = rdma_address(&rdma(0));
    let listener = builder.bind((ip, 0)).expect("bind");
    let addr = listener.local_addr().expect("an address");
    (listener, addr)
}

/// A byte by way of a provider, from a connect to an accept.
fn reach(listener: &SdpListener, addr: SocketAddr, by: ProviderKind) -> io::Result<()> {
    doing("a byte by way of one provider");
    let mut near = Builder::new().provider(by).connect(addr)?;
    let (mut far, _) = listener.accept()?;
    near.write_all(b"!")?;
    let mut byte = [0];
    far.read_exact(&mut byte)?;
    assert_eq!(byte, *b"!");
    Ok(())
}

fn assert_reached(listener: &SdpListener, addr: SocketAddr, by: ProviderKind, wanted: bool) {
    match (reach(listener, addr, by), wanted) {
        (Ok(()), true) => {}
        (Err(error), false) if error.kind() == ErrorKind::ConnectionRefused => {}
        (other, _) => panic!("by {by}: {other:?}, wanted: {wanted}"),
    }
}

/// One accept queue for all of them. The ports of iWARP are TCP's, of which `host` has taken one: there
/// a listener is on the adapter when it is asked for.
#[test]
#[ignore = "needs an RDMA device"]
fn a_listener_is_on_each() {
    watched(|| {
        let (listener, addr) = bind(&Builder::new());
        let chosen = chosen();
        let both = !rdma(0).caps().contains(Caps::EXPOSED_SINK);
        let by_host = chosen.as_deref() != Some("rdma");
        let by_rdma = chosen.as_deref().map_or(both, |name| name == "rdma");
        for _ in 0..3 {
            assert_reached(&listener, addr, Host, by_host);
            assert_reached(&listener, addr, Rdma, by_rdma);
        }
    });
}

/// The program's own choice goes before the environment's.
#[test]
#[ignore = "needs an RDMA device"]
fn a_listener_is_where_its_program_wants_it() {
    watched(|| {
        for kind in [Host, Rdma] {
            let (listener, addr) = bind(&Builder::new().provider(kind));
            assert_reached(&listener, addr, Host, kind == Host);
            assert_reached(&listener, addr, Rdma, kind == Rdma);
        }
    });
}

/// A port that one of the providers has given away is no port.
#[test]
#[ignore = "needs an RDMA device"]
fn a_port_is_taken_on_each() {
    watched(|| {
        if chosen().is_some() || rdma(0).caps().contains(Caps::EXPOSED_SINK) {
            return;
        }
        let (_listener, addr) = bind(&Builder::new().provider(Rdma));
        let again = Builder::new().bind(addr);
        assert_eq!(again.expect_err("taken").kind(), ErrorKind::AddrInUse);
        // A port of its own choice is one that is free on both.
        for _ in 0..20 {
            bind(&Builder::new());
        }
    });
}

/// A machine with a device says so, and that a way leads by it.
#[test]
#[ignore = "needs an RDMA device"]
fn the_device_is_surveyed() {
    watched(|| {
        let survey = sdp_socket::survey::survey();
        assert_eq!((&survey.libraries, &survey.kernel), (&Ok(()), &Ok(())));
        let provider = rdma(0);
        let wanted = provider.device().expect("a device");
        let mut devices = survey.devices.iter();
        let device = devices.find(|device| device.name == wanted);
        let device = device.expect("the device among those surveyed");
        assert!(
            device.ports.iter().any(|port| port.is_active()),
            "{device:?}"
        );
        let traits = device.traits.expect("it can be opened");
        let windows = provider.caps().contains(Caps::MEMORY_WINDOW);
        assert_eq!(traits.windows, windows, "{device:?}");
        assert_eq!(traits.iwarp, provider.caps().contains(Caps::EXPOSED_SINK));
    });
}
