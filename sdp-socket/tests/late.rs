//! Listeners that answer only when somebody accepts.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sdp_socket::{Builder, SdpListener, SdpStream};

const LONG: Duration = Duration::from_secs(20);

fn late() -> (SdpListener, SocketAddr) {
    let builder = Builder::new();
    let bound = builder.reserve("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = builder.listen_and_answer_late(bound, 16).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn is_readable(listener: &SdpListener, within: Duration) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let within = Timespec::try_from(within).unwrap();
    poll(&mut fds, Some(&within)).unwrap() > 0
}

/// A caller makes the listener readable and waits in its connect until somebody accepts, which may
/// block or not; each accept answers one.
#[test]
fn callers_wait_for_an_accept() {
    let (listener, addr) = late();
    let builder = Builder::new();
    for nonblocking in [false, true, false] {
        listener.set_nonblocking(nonblocking).unwrap();
        let first = builder.start_connect(addr, None).unwrap();
        assert!(is_readable(&listener, LONG) && listener.has_pending().unwrap());
        let second = builder.start_connect(addr, None).unwrap();
        assert!(first.try_finish().is_none() && second.try_finish().is_none());
        for caller in [&first, &second] {
            let (mut server, _) = loop {
                assert!(is_readable(&listener, LONG));
                match listener.accept() {
                    // It has been answered, and the caller has to confirm that.
                    Err(error) if error.kind() == ErrorKind::WouldBlock && nonblocking => {}
                    other => break other.unwrap(),
                }
            };
            assert!(caller.wait(Some(LONG)).unwrap());
            let mut client = caller.try_finish().unwrap().unwrap();
            client.write_all(b"here").unwrap();
            let mut four = [0; 4];
            server.read_exact(&mut four).unwrap();
        }
        assert!(!listener.has_pending().unwrap() && !is_readable(&listener, Duration::ZERO));
    }
}

/// Threads that wait in an accept are enough for as many callers.
#[test]
fn waiting_threads_answer() {
    let (listener, addr) = late();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..8 {
                    listener.accept_timeout(LONG).unwrap();
                }
            });
            scope.spawn(|| {
                for _ in 0..8 {
                    SdpStream::connect(addr).unwrap();
                }
            });
        }
    });
}

/// From the first accept on a listener may answer at once, as every other: a connect is complete then
/// without an accept.
#[test]
fn it_may_answer_at_once_afterwards() {
    let (listener, addr) = late();
    let early = Builder::new().start_connect(addr, None).unwrap();
    assert!(is_readable(&listener, LONG));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.begin_to_accept(true).unwrap());
    assert!(early.wait(Some(LONG)).unwrap());
    drop(SdpStream::connect(addr).unwrap());
    assert!(is_readable(&listener, LONG));
    listener.accept().unwrap();
    assert!(is_readable(&listener, LONG));
    listener.accept().unwrap();
}

/// A caller that has given up is not shown any more; if nobody had accepted by then, the others are
/// turned down, those that wait and those that come.
#[test]
fn a_caller_that_gives_up_ends_it() {
    let (listener, addr) = late();
    let first = Builder::new().start_connect(addr, None).unwrap();
    assert!(is_readable(&listener, LONG));
    let second = Builder::new().start_connect(addr, None).unwrap();
    first.cancel();
    assert!(second.wait(Some(LONG)).unwrap());
    let refused = second.try_finish().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let refused = SdpStream::connect(addr).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    while is_readable(&listener, Duration::ZERO) {
        thread::yield_now();
    }
    assert!(!listener.begin_to_accept(true).unwrap());
    // Whoever accepts in time goes on, whoever gives up.
    let (listener, addr) = late();
    assert!(listener.begin_to_accept(false).unwrap());
    let first = Builder::new().start_connect(addr, None).unwrap();
    assert!(is_readable(&listener, LONG));
    first.cancel();
    while is_readable(&listener, Duration::ZERO) {
        thread::yield_now();
    }
    let second = Builder::new().start_connect(addr, None).unwrap();
    assert!(is_readable(&listener, LONG));
    listener.accept().unwrap();
    assert!(second.wait(Some(LONG)).unwrap());
}
