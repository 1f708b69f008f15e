//! The descriptors to wait on say what is true, miss nothing, and cost nothing while nothing
//! happens.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;
#[path = "readiness/torture.rs"]
mod torture;

use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sdp_socket::SdpStream;

use common::child::{Child, open_descriptors, play};
use common::net::{Listener, Net, Stream, would_block};
use common::sdp::Sdp;
use common::watch::{doing, watched, watched_for};

/// Rounds of the torture between two processes.
const APART_ROUNDS: u64 = 60;
const APART_ROUNDS_FULL: u64 = 400;

/// The other processes of these tests.
#[test]
fn child() {
    play(|role| match role {
        "idle" => torture::idle(Duration::from_secs(1)),
        "idle in full" => torture::idle(Duration::from_secs(10)),
        "servers" => torture::serve(APART_ROUNDS),
        "servers in full" => torture::serve(APART_ROUNDS_FULL),
        "no descriptor" => no_descriptor(),
        "polled talk" => polled_talk(),
        other => panic!("no role {other:?}"),
    });
}

/// Both ends of two hundred sockets, every way to wait, for a short time.
#[test]
fn torture() {
    watched(|| torture::run(&Sdp::over_host(), 1, Duration::from_secs(2)));
}

/// The same over a layer that does everything late.
#[test]
fn torture_late() {
    watched(|| torture::run(&Sdp::lazy(1), 2, Duration::from_secs(2)));
}

/// The same between two processes.
#[test]
fn torture_apart() {
    watched(|| torture::run_apart("servers", APART_ROUNDS));
}

#[test]
#[ignore = "20 s: asked for by name"]
fn torture_apart_in_full() {
    let limit = Duration::from_secs(60);
    watched_for(limit, || {
        torture::run_apart("servers in full", APART_ROUNDS_FULL)
    });
}

#[test]
#[ignore = "20 s: asked for by name"]
fn torture_in_full() {
    let limit = Duration::from_secs(60);
    watched_for(limit, || {
        torture::run(&Sdp::over_host(), 3, Duration::from_secs(20))
    });
}

#[test]
#[ignore = "20 s: asked for by name"]
fn torture_late_in_full() {
    let limit = Duration::from_secs(60);
    watched_for(limit, || {
        torture::run(&Sdp::lazy(2), 4, Duration::from_secs(20))
    });
}

/// With two hundred idle sockets that have descriptors, no thread of the process but the one that
/// looks on is ever scheduled.
#[test]
fn idle_costs_nothing() {
    watched(|| Child::run("idle"));
}

#[test]
#[ignore = "10 s: asked for by name"]
fn idle_costs_nothing_in_full() {
    watched(|| Child::run("idle in full"));
}

/// What poll says of a descriptor once it says all of `wanted`.
fn polled(what: &impl AsFd, wanted: PollFlags) -> PollFlags {
    doing(format!("waiting for {wanted:?}"));
    loop {
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
        let mut fds = [PollFd::new(what, all)];
        // A state on the way to the one that is wanted must not keep the loop from looking again.
        let brief = Timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000,
        };
        poll(&mut fds, Some(&brief)).expect("poll");
        let seen = fds[0].revents();
        if seen.contains(wanted) {
            return seen;
        }
    }
}

/// The end of one way, of both, and a reset: each has its mask.
#[test]
fn ends_have_their_masks() {
    watched(|| {
        let net = Sdp::over_host();
        let (client, server) = net.pair();
        assert_eq!(polled(&client, PollFlags::OUT), PollFlags::OUT);
        server.shutdown(Shutdown::Write).expect("shutdown");
        let half = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
        assert_eq!(polled(&client, PollFlags::RDHUP), half);
        client.at_end();
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(polled(&client, PollFlags::HUP), half | PollFlags::HUP);

        let (client, server) = net.pair();
        assert_eq!(polled(&client, PollFlags::OUT), PollFlags::OUT);
        server.set_linger(Some(Duration::ZERO)).expect("linger");
        drop(server);
        let seen = polled(&client, PollFlags::ERR);
        assert!(seen.contains(half | PollFlags::HUP), "{seen:?}");
        let error = client.read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    });
}

/// Bytes that came before the descriptor was asked for are told by it, and a listener's tells of
/// those who wait to be accepted.
#[test]
fn what_is_there_already_is_told() {
    watched(|| {
        let net = Sdp::over_host();
        let (listener, addr) = net.listen();
        assert_eq!(polled(&listener, PollFlags::empty()), PollFlags::empty());
        let client = net.connect(addr).expect("connect");
        assert_eq!(polled(&listener, PollFlags::IN), PollFlags::IN);
        let (server, _) = Listener::accept(&listener).expect("accept");
        assert_eq!(polled(&listener, PollFlags::empty()), PollFlags::empty());
        client.put(b"early");
        server.get(&mut [0; 1]);
        assert_eq!(server.as_raw_fd(), server.as_raw_fd());
        let twin = server.try_clone().expect("try_clone");
        assert_eq!(server.as_raw_fd(), twin.as_raw_fd());
        let seen = polled(&server, PollFlags::IN);
        assert_eq!(seen, PollFlags::IN | PollFlags::OUT);
        server.get(&mut [0; 4]);
        assert_eq!(polled(&server, PollFlags::OUT), PollFlags::OUT);
    });
}

/// The descriptor of a connect shows nothing until it is decided: then OUT, and the stream goes on
/// with it.
#[test]
fn a_connect_is_told_when_it_is_decided() {
    watched(|| {
        for net in [Sdp::over_host(), Sdp::lazy(3)] {
            let (listener, addr) = net.listen();
            for round in 0..100 {
                let connecting = net.client.start_connect(addr, None).expect("connect");
                let early = (round % 2 == 0).then(|| connecting.readiness().expect("readiness"));
                if round % 4 == 1 {
                    connecting.wait(None).expect("wait");
                }
                let ready = connecting.readiness().expect("readiness");
                if let Some(early) = early {
                    assert_eq!(early.as_raw_fd(), ready.as_raw_fd());
                }
                assert_eq!(polled(&ready, PollFlags::OUT), PollFlags::OUT);
                let stream = connecting.try_finish().expect("decided").expect("a stream");
                assert_eq!(stream.as_raw_fd(), ready.as_raw_fd());
                let (server, _) = Listener::accept(&listener).expect("accept");
                server.put(b"x");
                polled(&ready, PollFlags::IN);
                stream.get(&mut [0; 1]);
            }
        }
    });
}

/// One that comes to nothing shows what TCP shows, whether it was refused or given up.
#[test]
fn a_connect_that_fails_is_told() {
    watched(|| {
        let net = Sdp::over_host();
        let (listener, addr) = net.listen();
        drop(listener);
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP | PollFlags::HUP;
        let connecting = net.client.start_connect(addr, None).expect("connect");
        let ready = connecting.readiness().expect("readiness");
        assert_eq!(polled(&ready, PollFlags::ERR), all | PollFlags::ERR);
        let error = connecting
            .try_finish()
            .expect("decided")
            .expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        let connecting = net.client.start_connect(addr, None).expect("connect");
        connecting.wait(None).expect("wait");
        let late = connecting.readiness().expect("readiness");
        assert_eq!(polled(&late, PollFlags::ERR), all | PollFlags::ERR);

        let (_listener, addr) = net.listen();
        let connecting = net.client.start_connect(addr, None).expect("connect");
        let ready = connecting.readiness().expect("readiness");
        connecting.cancel();
        polled(&ready, PollFlags::HUP);
    });
}

/// SO_RCVLOWAT holds for the descriptor too.
#[test]
fn few_bytes_are_not_told() {
    watched(|| {
        let (client, server) = Sdp::over_host().pair();
        server.set_recv_low_water(100).expect("SO_RCVLOWAT");
        client.put(&[1; 99]);
        while server.recv_queue_len().expect("SIOCINQ") < 99 {
            std::thread::yield_now();
        }
        assert_eq!(polled(&server, PollFlags::OUT), PollFlags::OUT);
        client.put(&[1]);
        polled(&server, PollFlags::IN);
        server.get(&mut [0; 1]);
        assert_eq!(polled(&server, PollFlags::OUT), PollFlags::OUT);
        server.set_nonblocking(true).expect("set_nonblocking");
        assert_eq!(server.read(&mut [0; 200]).expect("read"), 99);
        assert!(would_block(&server.read(&mut [0; 1])));
    });
}

/// Streams whose descriptor nobody has asked for have none.
#[test]
fn no_descriptor_before_it_is_asked_for() {
    watched(|| Child::run("no descriptor"));
}

fn no_descriptor() {
    let net = Sdp::shared();
    let (listener, addr) = net.listen();
    let pair = || {
        let client = net.connect(addr).expect("connect");
        let (server, _) = Listener::accept(&listener).expect("accept");
        client.put(b"a");
        server.get(&mut [0; 1]);
        (client, server)
    };
    // With what the first connection of a process needs once.
    let first = pair();
    let before = open_descriptors();
    let pairs: Vec<(SdpStream, SdpStream)> = (0..20).map(|_| pair()).collect();
    assert_eq!(open_descriptors(), before);
    first.0.as_fd();
    assert_eq!(open_descriptors(), before + 2);
    first.0.set_nonblocking(true).expect("set_nonblocking");
    // A call, behind which it is left to those who poll.
    assert!(would_block(&first.0.read(&mut [0; 1])));
    doing("waiting for the peer to have its copy");
    // Two are this end's. The third is its peer's, which is in this process too.
    while open_descriptors() != before + 3 {
        std::thread::yield_now();
    }
    drop(first);
    doing("waiting for them to be closed");
    while open_descriptors() != before {
        std::thread::yield_now();
    }
    drop(pairs);
}

/// Who polls is woken by its peer: the progress thread does not stand between them.
#[test]
fn a_talk_of_polling_programs_leaves_the_progress_thread_asleep() {
    watched(|| Child::run("polled talk"));
}

fn polled_talk() {
    const ROUNDS: u32 = 1000;
    let (client, server) = Sdp::shared().pair();
    for stream in [&client, &server] {
        stream.set_nonblocking(true).expect("set_nonblocking");
    }
    let turn = |from: &SdpStream, to: &SdpStream| {
        from.put(b"x");
        polled(to, PollFlags::IN);
        assert_eq!(to.read(&mut [0; 2]).expect("a byte"), 1);
        assert!(would_block(&to.read(&mut [0; 1])));
        assert_eq!(polled(to, PollFlags::OUT), PollFlags::OUT, "IN of nothing");
    };
    let talk = || {
        for _ in 0..ROUNDS {
            turn(&client, &server);
            turn(&server, &client);
        }
    };
    let switches = || torture::switches().values().sum::<u64>();
    // Until both have lent each other what they need.
    talk();
    let before = switches();
    talk();
    let after = switches();
    // It has other duties too, and this machine's clock may run out a time-out.
    let woken = after - before;
    assert!(
        woken < u64::from(ROUNDS / 10),
        "woken {woken} times in {ROUNDS} rounds"
    );
}
