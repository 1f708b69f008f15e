//! A machine dies while calls wait for it: they are told, and soon. Two nodes with RDMA devices, at
//! the addresses `SDP_TEST_ADDR` (this one's) and `SDP_TEST_PEER_ADDR`: `dies` runs on the one that
//! is killed when `survives`, on the other, has made the file that `SDP_TEST_BLOCKED` names.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use sdp_socket::{Builder, ProviderKind, SdpStream};

use common::net::Stream;
use common::threads::until_others_sleep;
use common::watch::{actor, doing, on_threads, watched_for};

/// Calls of each kind that wait.
const CALLS: usize = 4;
const PORT: u16 = 7_480;
/// From the death to the end of the last call, at most: what is promised with the times below.
const TOLD_MAX: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(90);

fn address(variable: &str) -> SocketAddr {
    let ip = std::env::var(variable).expect("the address of a node");
    let ip: IpAddr = ip.parse().expect("an address");
    (ip, PORT).into()
}

/// The one that is killed: takes connections, and never reads nor writes.
#[test]
#[ignore = "needs two nodes with RDMA devices"]
fn dies() {
    let builder = Builder::new().provider(ProviderKind::Rdma);
    let listener = builder.bind(address("SDP_TEST_ADDR")).expect("bind");
    let accept = |_| listener.accept().expect("accept");
    let _held: Vec<_> = (0..2 * CALLS).map(accept).collect();
    loop {
        std::thread::park();
    }
}

fn connect() -> SdpStream {
    let builder = Builder::new().provider(ProviderKind::Rdma);
    let stream = builder
        .connect(address("SDP_TEST_PEER_ADDR"))
        .expect("connect");
    let second = Duration::from_secs(1);
    stream.set_keepalive_time(2 * second).expect("TCP_KEEPIDLE");
    stream
        .set_keepalive_interval(second)
        .expect("TCP_KEEPINTVL");
    stream.set_keepalive_retries(3).expect("TCP_KEEPCNT");
    stream.set_keepalive(true).expect("SO_KEEPALIVE");
    stream
        .set_user_timeout(Some(5 * second))
        .expect("TCP_USER_TIMEOUT");
    stream
}

/// How a call ended, and when.
type Ends = Sender<(&'static str, ErrorKind, Instant)>;

fn send_until_told(stream: &SdpStream, ends: &Mutex<Ends>) {
    let bytes = vec![1; 1 << 20];
    doing("sending to a peer that does not read");
    let error = loop {
        if let Err(error) = Stream::write(stream, &bytes) {
            break error.kind();
        }
    };
    tell(ends, "send", error);
}

fn receive_until_told(stream: &SdpStream, ends: &Mutex<Ends>) {
    doing("receiving from a peer that does not send");
    let error = Stream::read(stream, &mut [0; 1000]).expect_err("an error");
    tell(ends, "recv", error.kind());
}

fn tell(ends: &Mutex<Ends>, call: &'static str, error: ErrorKind) {
    let ends = ends.lock().expect("nobody panics with it");
    ends.send((call, error, Instant::now())).expect("heard");
}

/// Every send and every receive that waits ends as timed out or reset.
#[test]
#[ignore = "needs two nodes with RDMA devices"]
fn survives() {
    watched_for(LIMIT, || {
        let streams: Vec<_> = (0..2 * CALLS).map(|_| connect()).collect();
        let (sender, ends) = channel();
        let sender = Mutex::new(sender);
        let mut blocked = None;
        let mut actors = Vec::new();
        for (number, stream) in streams.iter().enumerate() {
            let sender = &sender;
            actors.push(if number < CALLS {
                actor("a sender", move || send_until_told(stream, sender))
            } else {
                actor("a receiver", move || receive_until_told(stream, sender))
            });
        }
        actors.push(actor("the killer", || {
            doing("waiting for the others to wait");
            until_others_sleep();
            let file = std::env::var("SDP_TEST_BLOCKED").expect("the name of a file");
            std::fs::write(file, "").expect("a file");
            blocked = Some(Instant::now());
        }));
        on_threads(actors);
        let blocked = blocked.expect("the calls have waited");
        drop(sender);
        let mut count = 0;
        for (call, error, at) in ends {
            let took = at.saturating_duration_since(blocked);
            println!("{call}: {error:?} after {took:.1?}");
            assert!(
                matches!(error, ErrorKind::TimedOut | ErrorKind::ConnectionReset),
                "{call} ended with {error:?}"
            );
            assert!(took <= TOLD_MAX, "{call} ended after {took:?}");
            count += 1;
        }
        assert_eq!(count, 2 * CALLS);
    });
}
