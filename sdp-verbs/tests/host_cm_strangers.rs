//! Whoever calls a listener's control socket and is not one of us: the listener lives on, and
//! keeps nothing of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host_support;

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use host_support::stranger::{call, hello, is_readable, receive, send};
use host_support::{BOUND, Side, connect, wait_readable, work_until};

/// A listener, and somebody honest who proves that it still works.
struct Scene {
    server: Side,
    client: Side,
    listener: std::sync::Arc<dyn sdp_verbs::CmId>,
}

impl Scene {
    fn new() -> Self {
        let server = Side::new();
        let listener = server.listen("127.0.0.1:0", 8);
        Self {
            server,
            client: Side::new(),
            listener,
        }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Lets the listener work until it has hung up on the stranger; what it said first.
    fn sent_away(&self, stranger: &OwnedFd) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        loop {
            work_until(&[&self.server.channel], || is_readable(stranger));
            let bytes = receive(stranger);
            if bytes.is_empty() {
                return heard;
            }
            heard.push(bytes);
        }
    }

    fn lives_on(&self) {
        let _ends = connect(&self.client, &self.server, &self.listener, self.addr());
    }
}

#[test]
fn garbage_is_sent_away() {
    let scene = Scene::new();
    let long = vec![0x41; 100_000];
    let mut truncated = hello(1);
    truncated.truncate(40);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0", &long, &truncated] {
        let stranger = call(scene.addr());
        send(&stranger, bytes, &[]);
        assert!(scene.sent_away(&stranger).is_empty());
    }
    scene.lives_on();
}

#[test]
fn another_version_is_told_ours() {
    let scene = Scene::new();
    let stranger = call(scene.addr());
    send(&stranger, &hello(7), &[]);
    let heard = scene.sent_away(&stranger);
    assert_eq!(heard.len(), 1);
    // A refusal: kind 2, reason 1 (incompatible), and the version spoken here.
    assert_eq!(heard[0][..2], 2_u16.to_le_bytes());
    assert_eq!(heard[0][8..10], 1_u16.to_le_bytes());
    assert_eq!(heard[0][10..12], 1_u16.to_le_bytes());
    scene.lives_on();
}

#[test]
fn descriptors_of_strangers_are_closed() {
    let scene = Scene::new();
    for count in [1, 9, 100, 253] {
        let stranger = call(scene.addr());
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&stranger, &hello(1), &vec![writer.as_fd(); count]);
        assert!(scene.sent_away(&stranger).is_empty());
        drop(writer);
        // Every copy is closed, so the pipe is at its end.
        assert_eq!(rustix::io::read(&reader, &mut [0_u8; 1]), Ok(0));
    }
    scene.lives_on();
}

#[test]
fn a_handshake_out_of_order_is_sent_away() {
    let scene = Scene::new();
    // A second hello where the set-up is due; whatever is a link's business and not a stranger's.
    let stranger = call(scene.addr());
    send(&stranger, &hello(1), &[]);
    send(&stranger, &hello(1), &[]);
    let heard = scene.sent_away(&stranger);
    assert!(heard.len() <= 2, "a hello and a set-up at most");
    let idle = [11, 0, 0, 0, 8, 0, 0, 0];
    let stranger = call(scene.addr());
    send(&stranger, &idle, &[]);
    assert!(scene.sent_away(&stranger).is_empty());
    scene.lives_on();
}

#[test]
fn silence_is_sent_away_in_time() {
    let scene = Scene::new();
    let begin = Instant::now();
    let silent = call(scene.addr());
    let half = call(scene.addr());
    send(&half, &hello(1), &[]);
    scene.lives_on();
    scene.sent_away(&silent);
    scene.sent_away(&half);
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(4), "{took:?}");
    assert!(took < BOUND, "{took:?}");
    scene.lives_on();
}

#[test]
fn a_crowd_of_one_user_is_bounded() {
    let scene = Scene::new();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = limit.current.unwrap_or(u64::MAX);
    let allowed = (limit / 8).clamp(8, 1024);
    let mut crowd = Vec::new();
    // More than are let in, if this process can hold as many itself.
    if limit < allowed * 3 + 100 {
        eprintln!("skipped: RLIMIT_NOFILE is {limit}");
        return;
    }
    let begin = Instant::now();
    let mut sent_away = 0;
    for _ in 0..allowed + 20 {
        crowd.push(call(scene.addr()));
        while scene.server.channel.poll().is_some() {}
    }
    while sent_away == 0 {
        wait_readable(&[&scene.server.channel], Duration::from_millis(100));
        while scene.server.channel.poll().is_some() {}
        sent_away = crowd
            .iter()
            .filter(|stranger| is_readable(stranger))
            .count();
        assert!(begin.elapsed() < BOUND);
    }
    // Once they leave there is room again.
    drop(crowd);
    scene.lives_on();
}

#[test]
fn a_link_that_breaks_its_rules_ends_and_the_listener_lives_on() {
    let scene = Scene::new();
    // A hello, then no set-up but the end: nothing is left behind.
    for _ in 0..50 {
        let stranger = call(scene.addr());
        send(&stranger, &hello(1), &[]);
        drop(stranger);
        while scene.server.channel.poll().is_some() {}
    }
    scene.lives_on();
}
