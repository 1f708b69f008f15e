//! A peer process that overwrites at random whatever it can write of the link it shares with us:
//! we do not crash, read out of bounds, or spin, and our links with others are unharmed.
//!
//! For `SDP_SCRIBBLE_SECONDS`, 3 by default. `cargo xtask scribble` also runs it under
//! AddressSanitizer.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use sdp_socket::{Builder, SdpBuffer, SdpListener, SdpStream, ZcopyThreshold};

use common::child::{Child, play_for, say, told, told_address};
use common::net::Stream;
use common::pattern::Pattern;
use common::rng::Rng;
use common::watch::{doing, watched_for};

/// How long one scribbling process lives: a link that is broken is scribbled on no more.
const ROUND: Duration = Duration::from_millis(300);
/// Connections of one scribbling process.
const CONNECTIONS: usize = 4;
/// Calls on a connection with a scribbler may take no longer: it may have overwritten what wakes
/// us.
const CALL_MAX: Duration = Duration::from_millis(100);
/// Processors that an idle victim may keep busy: setting connections up is some work.
const IDLE_SHARE_MAX: f64 = 0.3;
/// Bytes of one message to a friend: some are copied, some read out of our memory.
const LEN: usize = 100_000;
const PATTERN: Pattern = Pattern(95);

/// The other processes of this test.
#[test]
fn child() {
    play_for(limit(), |role| match role.split_once(' ') {
        Some(("scribbler", seed)) => scribble(seed.parse().expect("a seed")),
        None if role == "victim" => suffer(),
        None if role == "friend" => echo(),
        _ => panic!("no role {role:?}"),
    });
}

fn seconds() -> u64 {
    let text = std::env::var("SDP_SCRIBBLE_SECONDS");
    text.map_or(3, |text| text.parse().expect("a number of seconds"))
}

/// How long everything may take.
fn limit() -> Duration {
    Duration::from_secs(seconds() + 60)
}

/// One after the other scribbles on its link with the victim, which also talks to a friend.
#[test]
fn a_scribbling_peer_harms_nobody() {
    let time = Duration::from_secs(seconds());
    watched_for(limit(), move || {
        let mut friend = Child::start("friend");
        let mut victim = Child::start("victim");
        victim.tell(friend.hear());
        let addr = victim.hear();
        let end = Instant::now() + time;
        let mut seed = 0;
        let mut one_more = || {
            seed += 1;
            let mut scribbler = Child::start(&format!("scribbler {seed}"));
            scribbler.tell(&addr);
            // What becomes of a process that overwrites its own memory is not judged.
            scribbler.end();
        };
        while Instant::now() < end {
            one_more();
        }
        // A victim that has nothing to do, but is scribbled on, does next to nothing.
        victim.tell("rest");
        assert_eq!(victim.hear(), "resting");
        let before = cpu(&mut victim);
        let begin = Instant::now();
        while begin.elapsed() < 3 * ROUND {
            one_more();
        }
        let used = cpu(&mut victim).saturating_sub(before);
        let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
        assert!(share < IDLE_SHARE_MAX, "{share:.2} processors while idle");
        victim.tell("enough");
        let said = victim.hear();
        println!("{said}, {seed} scribblers, {share:.2} processors while idle");
        victim.finish();
        friend.finish();
    });
}

/// Processor time the victim has used.
fn cpu(victim: &mut Child) -> Duration {
    victim.tell("cpu");
    Duration::from_millis(victim.hear().parse().expect("a number"))
}

/// A part of our memory that a peer sees, and we can write.
struct Shared {
    start: usize,
    words: usize,
}

/// All of them: the rings and slots of links.
fn shared() -> Vec<Shared> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    let writable = maps
        .lines()
        .filter(|line| line.contains(" rw-s ") && line.contains("/memfd:sdp-"));
    let range = |line: &str| {
        let (range, _) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        Some(Shared {
            start,
            words: (end - start) / 8,
        })
    };
    writable.map(|line| range(line).expect("a range")).collect()
}

fn scribble(seed: u64) {
    let addr = told_address();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = SdpStream::connect(addr).expect("connect");
        stream.put(b"hello");
        streams.push(stream);
    }
    let parts = shared();
    assert!(!parts.is_empty(), "nothing is shared");
    let end = Instant::now() + ROUND;
    let mut rng = Rng::new(seed);
    while Instant::now() < end {
        for _ in 0..64 {
            let part = &parts[rng.below(parts.len())];
            // The start of a mapping has what matters most; elsewhere are mostly payloads.
            let span = if rng.below(2) == 0 {
                part.words.min(1024)
            } else {
                part.words
            };
            let at = part.start + 8 * rng.below(span);
            let word: *mut AtomicU64 = std::ptr::with_exposed_provenance_mut(at);
            // SAFETY: the mapping stays while the streams live. That its owners in this process
            // see nonsense is what this process is for.
            let word = unsafe { &*word };
            let value = match rng.below(4) {
                0 => rng.next(),
                1 => rng.below(64) as u64,
                2 => word.load(Ordering::Relaxed).wrapping_add(1),
                _ => u64::MAX << rng.below(64),
            };
            word.store(value, Ordering::Relaxed);
        }
    }
    // Nothing is closed in order.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .expect("kill");
}

/// The friend: gives back what it gets.
fn echo() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    say(listener.local_addr().expect("an address"));
    let (stream, _) = listener.accept().expect("accept");
    let mut buf = vec![0; LEN];
    loop {
        doing("echoing");
        match Stream::read(&stream, &mut buf).expect("read") {
            0 => return,
            n => stream.put(&buf[..n]),
        }
    }
}

/// What the victim's threads are to do.
#[derive(Default)]
struct Orders {
    rest: AtomicBool,
    stop: AtomicBool,
    /// Threads that rest.
    resting: AtomicU64,
    messages: AtomicU64,
    met: AtomicU64,
}

impl Orders {
    /// Waits while told to. False: it is over.
    fn go_on(&self) -> bool {
        if self.rest.load(Ordering::SeqCst) && !self.stop.load(Ordering::SeqCst) {
            self.resting.fetch_add(1, Ordering::SeqCst);
            while self.rest.load(Ordering::SeqCst) && !self.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            self.resting.fetch_sub(1, Ordering::SeqCst);
        }
        !self.stop.load(Ordering::SeqCst)
    }
}

fn suffer() {
    let friend = SdpStream::connect(told_address()).expect("connect");
    let listener = Builder::new()
        .zcopy_threshold(ZcopyThreshold::Bytes(4_096))
        .cancel_wait(CALL_MAX)
        .bind("127.0.0.1:0")
        .expect("bind");
    say(listener.local_addr().expect("an address"));
    let orders = Orders::default();
    thread::scope(|scope| {
        let threads = [
            scope.spawn(|| talk(&friend, &orders)),
            scope.spawn(|| serve(&listener, &orders)),
        ];
        while let Some(order) = told() {
            match order.as_str() {
                "rest" => {
                    orders.rest.store(true, Ordering::SeqCst);
                    while orders.resting.load(Ordering::SeqCst) < 2 {
                        thread::yield_now();
                    }
                    say("resting");
                }
                "cpu" => {
                    let time = clock_gettime(ClockId::ProcessCPUTime);
                    say(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000);
                }
                "enough" => break,
                other => panic!("no order {other:?}"),
            }
        }
        orders.stop.store(true, Ordering::SeqCst);
        threads.iter().for_each(|thread| thread.thread().unpark());
    });
    say(format!(
        "{} messages to a friend, {} connections with scribblers",
        orders.messages.into_inner(),
        orders.met.into_inner()
    ));
}

/// Talks to the friend; every byte comes back.
fn talk(friend: &SdpStream, orders: &Orders) {
    let mut copied = vec![0; LEN];
    let mut shown = SdpBuffer::new(LEN).expect("memory");
    let mut at = 0;
    while orders.go_on() {
        for buf in [&mut copied[..], &mut shown[..]] {
            PATTERN.fill(at, buf);
            friend.put(buf);
            friend.get_pattern(PATTERN, at, LEN, LEN);
            at += LEN as u64;
            orders.messages.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Serves scribblers as any program would that does not know them.
fn serve(listener: &SdpListener, orders: &Orders) {
    thread::scope(|scope| {
        while orders.go_on() {
            if let Ok((stream, _)) = listener.accept_timeout(CALL_MAX) {
                orders.met.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move || meet(&stream));
            }
        }
    });
}

/// Reads and writes until something fails, or the scribbler must be gone.
fn meet(stream: &SdpStream) {
    let end = Instant::now() + 2 * ROUND;
    let mut buf = SdpBuffer::new(LEN).expect("memory");
    stream.set_read_timeout(Some(CALL_MAX)).expect("a time-out");
    stream
        .set_write_timeout(Some(CALL_MAX))
        .expect("a time-out");
    let late = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    while Instant::now() < end {
        for len in [100, LEN] {
            match Stream::write(stream, &buf[..len]) {
                Err(error) if !late(&error) => return,
                _ => {}
            }
            match Stream::read(stream, &mut buf) {
                Ok(0) => return,
                Err(error) if !late(&error) => return,
                _ => {}
            }
        }
    }
}
