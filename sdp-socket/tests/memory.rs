//! `SDP_MEM_MAX`: however much is written and not read, the process keeps to it, and every byte
//! comes when it is read.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use sdp_socket::{MemoryUse, SdpBuffer, SdpListener, SdpStream, memory_use};

use common::child::{Child, play, say};
use common::net::Stream;
use common::pattern::Pattern;
use common::watch::{actor, doing, on_threads, watched};

const MAX: usize = 4 << 20;
const CONNS: usize = 32;
/// Written to each connection, half of what it takes with no bound and no reader.
const LEN: usize = 2 << 20;
/// What one connection, both ends of it, has even where memory is scarce, when it is busy in one
/// direction: four receive buffers of 32 KiB and four of 4 KiB, 16 KiB that wait to be sent, as much
/// that is moved out of receive buffers, and what came with the peer's last credits.
const FLOOR: usize = 256 << 10;

#[test]
fn child() {
    play(|role| match role {
        "unread" => unread(),
        "nonblocking" => nonblocking(),
        "refused" => refused(),
        other => panic!("no role {other:?}"),
    });
}

/// What the process has in use.
fn account() -> MemoryUse {
    memory_use().expect("a bound that can be understood")
}

/// A number of KiB that /proc/self/status tells: bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect(name).parse::<usize>().expect("a number") << 10
}

/// Connected pairs.
fn pairs() -> Vec<(SdpStream, SdpStream)> {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    let pair = |_| {
        let client = SdpStream::connect(addr).expect("connect");
        (client, listener.accept().expect("accept").0)
    };
    (0..CONNS).map(pair).collect()
}

/// Waits until `done`, which an event makes true that nobody tells of.
fn until(what: &str, done: impl Fn() -> bool) {
    doing(what);
    while !done() {
        thread::yield_now();
    }
}

/// Everything that was taken is given back when the streams are gone.
fn all_is_given_back(pairs: Vec<(SdpStream, SdpStream)>) {
    drop(pairs);
    until("waiting for memory to be given back", || {
        account().used == 0
    });
}

fn judge(before: usize) {
    let account = account();
    assert_eq!(account.max, MAX);
    let allowed = MAX + CONNS * FLOOR;
    assert!(account.used_max <= allowed, "{account:?}, not {allowed}");
    let grown = status("VmHWM").saturating_sub(before);
    // The stacks and buffers of the test itself come on top.
    assert!(
        grown < CONNS * LEN / 2,
        "the process has grown by {grown}: {account:?}"
    );
}

/// Blocked writers, and a reader that comes late.
fn unread() {
    let before = status("VmRSS");
    let pairs = pairs();
    let write = |index: usize| {
        let mut piece = vec![0; 64 << 10];
        for at in (0..LEN).step_by(piece.len()) {
            Pattern(index as u64).fill(at as u64, &mut piece);
            pairs[index].0.put(&piece);
        }
    };
    let read = || {
        until("waiting for memory to become scarce", || {
            account().used >= MAX / 4 * 3
        });
        for (index, (_, server)) in pairs.iter().enumerate() {
            // Large and small receives, and some that look first.
            let piece = [LEN, 100_000, 1_000][index % 3];
            let mut buf = vec![0; piece];
            let seen = if index % 5 == 0 {
                server.peek(&mut buf).expect("peek")
            } else {
                0
            };
            Pattern(index as u64).check(0, &buf[..seen]);
            server.get_pattern(Pattern(index as u64), 0, LEN, piece);
        }
    };
    let write = &write;
    let mut actors = vec![actor("reader", read)];
    actors.extend((0..CONNS).map(|index| actor("writer", move || write(index))));
    on_threads(actors);
    let scarce: u64 = pairs
        .iter()
        .map(|(client, _)| client.stats().memory_scarce)
        .sum();
    assert!(scarce > 0, "no connection was ever short of memory");
    judge(before);
    all_is_given_back(pairs);
}

/// Calls that do not wait: what is refused is EAGAIN, what was taken comes.
fn nonblocking() {
    let before = status("VmRSS");
    let pairs = pairs();
    let mut written = [0; CONNS];
    let mut piece = vec![0; 64 << 10];
    for (client, _) in &pairs {
        client.set_nonblocking(true).expect("fcntl");
    }
    // Each takes all it can, twice, since what comes later may find room again.
    for _ in 0..2 {
        for (index, (client, _)) in pairs.iter().enumerate() {
            while written[index] < LEN {
                let len = piece.len().min(LEN - written[index]);
                Pattern(index as u64).fill(written[index] as u64, &mut piece[..len]);
                match client.write(&piece[..len]) {
                    Ok(n) => written[index] += n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => panic!("writing to {index}: {e}"),
                }
            }
        }
    }
    assert!(written.iter().sum::<usize>() < CONNS * LEN);
    judge(before);
    for (index, (_, server)) in pairs.iter().enumerate() {
        server.get_pattern(Pattern(index as u64), 0, written[index], 10_000);
    }
    // With memory again everything works as before.
    for (index, (client, server)) in pairs.iter().enumerate() {
        client.set_nonblocking(false).expect("fcntl");
        client.put(&Pattern(index as u64).bytes(0, 10_000));
        server.get_pattern(Pattern(index as u64), 0, 10_000, 10_000);
    }
    all_is_given_back(pairs);
}

/// A value that cannot be understood is an error of the first call.
fn refused() {
    let timeout = Duration::from_secs(5);
    let addr = "127.0.0.1:1".parse().expect("an address");
    let errors = [
        SdpListener::bind("127.0.0.1:0").map(drop),
        SdpStream::connect_timeout(&addr, timeout).map(drop),
        SdpBuffer::new(1).map(drop),
        memory_use().map(drop),
    ];
    for result in errors {
        let error = result.expect_err("a bad value");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        say(error);
    }
}

fn run(role: &str) {
    let max = MAX.to_string();
    let child = Child::start_in(role, &[("SDP_MEM_MAX", &max)]);
    child.finish();
}

#[test]
fn unread_bytes_keep_the_bound() {
    watched(|| run("unread"));
}

#[test]
fn calls_that_do_not_wait_keep_the_bound() {
    watched(|| run("nonblocking"));
}

#[test]
fn a_bad_value_is_refused_by_what_is_allowed() {
    watched(|| {
        for (value, allowed) in [
            (
                "lots",
                "a number of bytes is expected, such as 64, 64K or 1G",
            ),
            ("64K", "at least 1M is needed"),
        ] {
            let mut child = Child::start_in("refused", &[("SDP_MEM_MAX", value)]);
            for _ in 0..4 {
                let error = child.hear();
                let named = format!("SDP_MEM_MAX={value}: {allowed}");
                assert!(error.contains(&named), "{error}");
            }
            child.finish();
        }
    });
}
