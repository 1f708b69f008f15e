//! Between processes: many connections with few descriptors, and peers that are killed.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use sdp_socket::{Builder, Context, SdpBuffer, SdpListener, SdpStream, ZcopyThreshold};

use common::child::{Child, open_descriptors, play, say, shared_mappings, told, told_address};
use common::net::Stream;
use common::pattern::Pattern;
use common::watch::{actor, doing, on_threads, watched};

const CONNECTIONS: u64 = 1_000;
const DESCRIPTORS: u64 = 256;
/// Bytes of the send that is in progress when its sender is killed.
const ADVERTISED: usize = 1 << 20;
const PATTERN: Pattern = Pattern(70);
/// Bytes of the write after which a process exits.
const WRITTEN: usize = 1 << 20;

/// The other processes of these tests.
#[test]
fn child() {
    play(|role| match role {
        "many: server" => many_server(),
        "many: client" => many_client(),
        "survivor: sending" => survive("sending", peer_dies_sending),
        "survivor: buffered" => survive("buffered", peer_dies_with_bytes_under_way),
        "survivor: advert" => survive("advert", peer_dies_with_an_advert_open),
        "survivor: heap advert" => survive("heap advert", peer_dies_with_an_advert_open),
        "survivor: idle" => survive("idle", peer_dies_idle),
        "survivor: sink" => survive("sink", peer_dies_not_reading),
        "survivor: graceful" => survive("graceful", peer_exits),
        "victim: sending" => victim_sends(),
        "victim: buffered" => victim_sends_twice(),
        "victim: advert" => victim_advertises(&mut SdpBuffer::new(ADVERTISED).expect("memory")),
        "victim: heap advert" => victim_advertises(&mut vec![0; ADVERTISED]),
        "victim: idle" | "victim: sink" => victim_idles(),
        "victim: graceful" => victim_exits(),
        "survivor: exit" => survive("exit", peer_exits_with_bytes_unsent),
        "survivor: exit shown" => survive("exit shown", peer_exits_with_bytes_unsent),
        "victim: exit" => victim_exits_at_once(&copying(), &mut vec![0; WRITTEN]),
        "victim: exit shown" => victim_exits_at_once(
            &advertising_for_a_while(),
            &mut SdpBuffer::new(WRITTEN).expect("memory"),
        ),
        "survivor: exit late" => survive("exit late", peer_exits_with_bytes_unsent),
        "victim: exit late" => {
            let late = Context::lazy_host(1).expect("a context");
            let builder = Builder::new().context(&late);
            victim_exits_at_once(&builder, &mut vec![0; WRITTEN]);
        }
        "fork" => forks(),
        "no more descriptors" => opens_no_more(),
        other => panic!("no role {other:?}"),
    });
}

fn limit_descriptors() {
    let limit = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(DESCRIPTORS),
    };
    setrlimit(Resource::Nofile, limit).expect("setrlimit");
}

/// A program that forbids itself new descriptors, as sandboxes do, keeps its sockets: also what
/// the progress thread does for them.
#[test]
fn no_more_descriptors() {
    watched(|| Child::start("no more descriptors").finish());
}

fn opens_no_more() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    let first = SdpStream::connect(addr).expect("connect");
    listener.accept().expect("accept");
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Nofile, none).expect("setrlimit");
    // Often: the progress thread may be in the middle of things.
    for _ in 0..100 {
        let client = SdpStream::connect_timeout(&addr, Duration::from_secs(20)).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        client.put(b"still here");
        drop(client);
        server.get(&mut [0; 10]);
        server.at_end();
    }
    drop(first);
}

/// A thousand connections between two processes that may have 256 descriptors each: every one
/// works while all are open.
#[test]
fn a_thousand_connections_with_few_descriptors() {
    watched(|| {
        let mut server = Child::start("many: server");
        let mut client = Child::start("many: client");
        client.tell(server.hear());
        assert_eq!(client.hear(), "all echoed");
        client.finish();
        server.finish();
    });
}

fn many_server() {
    limit_descriptors();
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let before = open_descriptors();
    say(listener.local_addr().expect("local_addr"));
    let echo = |stream: &SdpStream| {
        let mut buf = [0; 8];
        stream.get(&mut buf);
        stream.put(&buf);
    };
    let mut streams = Vec::new();
    for n in 0..CONNECTIONS {
        doing(format!("accept number {n}"));
        let (stream, _) = listener.accept().expect("accept");
        echo(&stream);
        streams.push(stream);
    }
    let used = open_descriptors() - before;
    assert!(
        used < 50,
        "{used} descriptors for {CONNECTIONS} connections"
    );
    streams.iter().for_each(echo);
    for stream in streams {
        stream.at_end();
    }
}

fn many_client() {
    limit_descriptors();
    let addr = told_address();
    let mut streams = Vec::new();
    let echoed = |stream: &SdpStream, n: u64| {
        let mut buf = [0; 8];
        stream.get(&mut buf);
        assert_eq!(u64::from_le_bytes(buf), n);
    };
    for n in 0..CONNECTIONS {
        doing(format!("connect number {n}"));
        let stream = SdpStream::connect(addr).expect("connect");
        stream.put(&n.to_le_bytes());
        echoed(&stream, n);
        streams.push(stream);
    }
    for (n, stream) in (CONNECTIONS..).zip(&streams) {
        stream.put(&n.to_le_bytes());
    }
    for (n, stream) in (CONNECTIONS..).zip(&streams) {
        echoed(stream, n);
    }
    say("all echoed");
}

/// More callers than the backlog has room for wait until there is some, as TCP's do; none is
/// refused.
#[test]
fn callers_wait_for_room_in_the_backlog() {
    watched(|| {
        let builder = Builder::new();
        let bound = builder.reserve(([127, 0, 0, 1], 0).into()).expect("bind");
        let addr = bound.local_addr().expect("an address");
        let listener = builder.listen(bound, 2).expect("listen");
        let called = |n: u64| {
            let stream = SdpStream::connect(addr).expect("connect");
            stream.put(&n.to_le_bytes());
            stream.at_end();
        };
        let mut callers: Vec<_> = (0..12)
            .map(|n| actor("caller", move || called(n)))
            .collect();
        callers.push(actor("listener", || {
            let mut seen = [false; 12];
            for _ in 0..12 {
                let (stream, _) = listener.accept().expect("accept");
                let mut number = [0; 8];
                stream.get(&mut number);
                let n = usize::try_from(u64::from_le_bytes(number)).expect("small");
                assert!(!std::mem::replace(&mut seen[n], true), "caller {n} twice");
            }
        }));
        on_threads(callers);
    });
}

/// The peer is killed while it sends as fast as it can.
#[test]
fn killed_while_sending() {
    watched(|| Child::run("survivor: sending"));
}

/// The peer is killed after its bytes have reached us and before we read them.
#[test]
fn killed_with_bytes_under_way() {
    watched(|| Child::run("survivor: buffered"));
}

/// The peer is killed while it shows us its memory.
#[test]
fn killed_with_an_advert_open() {
    watched(|| Child::run("survivor: advert"));
}

/// The same with memory that goes with the peer.
#[test]
fn killed_with_an_advert_of_heap_open() {
    watched(|| Child::run("survivor: heap advert"));
}

/// The peer is killed while nothing goes on; a thread of ours is in a read.
#[test]
fn killed_while_idle() {
    watched(|| Child::run("survivor: idle"));
}

/// The peer is killed while we write to it and it does not read.
#[test]
fn killed_while_sent_to() {
    watched(|| Child::run("survivor: sink"));
}

/// The peer closes and exits at once: everything it has written arrives, and its end.
#[test]
fn exit_after_close() {
    watched(|| Child::run("survivor: graceful"));
}

/// A peer of this process that will be killed, and the connection with it.
struct Victim {
    process: Child,
    stream: SdpStream,
}

/// Plays the survivor: connects with a victim, lets `fate` take its course, and checks that
/// nothing of the peer stays open or mapped.
fn survive(name: &str, fate: impl FnOnce(Victim)) {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let before = (open_descriptors(), shared_mappings());
    let mut process = Child::start(&format!("victim: {name}"));
    process.tell(listener.local_addr().expect("local_addr"));
    doing("accepting the victim");
    let (stream, _) = listener.accept().expect("accept");
    fate(Victim { process, stream });
    let gone = Instant::now();
    loop {
        let now = (open_descriptors(), shared_mappings());
        doing(format!(
            "descriptors and mappings back from {now:?} to {before:?}"
        ));
        if now.0 <= before.0 && now.1 <= before.1 {
            break;
        }
        assert!(
            gone.elapsed() < Duration::from_secs(10),
            "{now:?}, before it was {before:?}"
        );
        std::thread::yield_now();
    }
    // The listener is none the worse for it.
    let client = SdpStream::connect(listener.local_addr().expect("local_addr")).expect("connect");
    client.put(b"on");
    let (server, _) = listener.accept().expect("accept");
    server.get(&mut [0; 2]);
}

/// Reads what is left of the pattern from `at` on, then the reset, once, then the end. Returns
/// where the pattern ended.
fn read_to_the_reset(stream: &SdpStream, mut at: u64, killed: Instant) -> u64 {
    let mut buf = vec![0; 50_000];
    loop {
        doing(format!("reading after the kill, at {at}"));
        match stream.read(&mut buf) {
            Ok(0) => panic!("an orderly end at {at}, of a peer that was killed"),
            Ok(n) => {
                PATTERN.check(at, &buf[..n]);
                at += n as u64;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                break;
            }
        }
    }
    let took = killed.elapsed();
    assert!(
        took < Duration::from_secs(1),
        "the reset came after {took:?}"
    );
    stream.at_end();
    let error = stream.write(b"late").expect_err("a write after the reset");
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    at
}

fn victim_connects(builder: &Builder) -> SdpStream {
    builder.connect(told_address()).expect("connect")
}

fn copying() -> Builder {
    Builder::new().zcopy_threshold(ZcopyThreshold::Off)
}

fn victim_sends() {
    let stream = victim_connects(&copying());
    let mut at = 0;
    loop {
        stream.put(&PATTERN.bytes(at, 10_000));
        at += 10_000;
    }
}

fn peer_dies_sending(Victim { process, stream }: Victim) {
    let read = 3_000_000;
    stream.get_pattern(PATTERN, 0, read, 70_000);
    process.kill();
    read_to_the_reset(&stream, read as u64, Instant::now());
}

fn victim_sends_twice() {
    let stream = victim_connects(&copying());
    stream.put(&PATTERN.bytes(0, 30_000));
    stream.put(&PATTERN.bytes(30_000, 30_000));
    doing("sending what was written");
    let queued =
        || stream.send_queue_len().expect("SIOCOUTQ") > 0 || stream.stats().tx_bytes_queued > 0;
    while queued() {
        std::thread::yield_now();
    }
    say("sent");
    doing("to be killed");
    told();
}

fn peer_dies_with_bytes_under_way(
    Victim {
        mut process,
        stream,
    }: Victim,
) {
    assert_eq!(process.hear(), "sent");
    process.kill();
    // All of it was here, and nobody had read it.
    let end = read_to_the_reset(&stream, 0, Instant::now());
    assert_eq!(end, 60_000);
}

fn advertising() -> Builder {
    Builder::new()
        .zcopy_threshold(ZcopyThreshold::Bytes(4 << 10))
        .rendezvous_wait(Duration::MAX)
}

fn victim_advertises(buf: &mut [u8]) {
    let stream = victim_connects(&advertising());
    PATTERN.fill(0, buf);
    doing("sending until killed");
    stream.put(buf);
    told();
}

fn peer_dies_with_an_advert_open(Victim { process, stream }: Victim) {
    doing("the peer's advert");
    let adverts = || {
        let stats = stream.stats();
        let adverts = stats.messages.iter().find(|(name, ..)| *name == "SrcAvail");
        adverts.map_or(0, |(_, _, received)| *received)
    };
    while adverts() == 0 {
        std::thread::yield_now();
    }
    process.kill();
    // Registered memory outlives its owner as long as we map it, and is as it was when the owner
    // died: what is read of it, if any, is what was sent.
    let end = read_to_the_reset(&stream, 0, Instant::now());
    assert!(end <= ADVERTISED as u64, "more than was sent");
}

fn victim_idles() {
    let _stream = victim_connects(&Builder::new());
    say("idle");
    doing("to be killed");
    told();
}

fn peer_dies_idle(
    Victim {
        mut process,
        stream,
    }: Victim,
) {
    assert_eq!(process.hear(), "idle");
    on_threads(vec![
        actor("reader", || {
            doing("reading");
            let error = stream.read(&mut [0; 10]).expect_err("a reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }),
        actor("killer", || {
            common::threads::until_others_sleep();
            process.kill();
        }),
    ]);
    stream.at_end();
}

fn peer_dies_not_reading(
    Victim {
        mut process,
        stream,
    }: Victim,
) {
    assert_eq!(process.hear(), "idle");
    let bytes = vec![0; 1 << 20];
    let killed = std::sync::OnceLock::new();
    on_threads(vec![
        actor("writer", || {
            doing("writing until the peer is killed");
            let error = loop {
                if let Err(error) = stream.write(&bytes) {
                    break error;
                }
            };
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(kinds.contains(&error.kind()), "{error}");
            let took = killed.get().map_or(Duration::ZERO, Instant::elapsed);
            assert!(
                took < Duration::from_secs(1),
                "the error came after {took:?}"
            );
        }),
        actor("killer", || {
            common::threads::until_others_sleep();
            process.kill();
            killed.set(Instant::now()).expect("once");
        }),
    ]);
}

fn victim_exits() {
    let stream = victim_connects(&copying());
    stream.put(&PATTERN.bytes(0, 30_000));
}

fn peer_exits(Victim { process, stream }: Victim) {
    process.finish();
    stream.get_pattern(PATTERN, 0, 30_000, 30_000);
    stream.at_end();
}

/// The peer writes 1 MiB and exits without closing, and nobody has read: all of it arrives, and
/// its end.
#[test]
fn exit_right_after_a_write() {
    watched(|| Child::run("survivor: exit"));
}

/// The same with memory that is shown to the peer.
#[test]
fn exit_right_after_a_write_of_registered_memory() {
    watched(|| Child::run("survivor: exit shown"));
}

/// The same of a process that does everything late.
#[test]
fn exit_right_after_a_write_that_goes_out_late() {
    watched(|| Child::run("survivor: exit late"));
}

fn advertising_for_a_while() -> Builder {
    Builder::new().zcopy_threshold(ZcopyThreshold::Bytes(4 << 10))
}

fn victim_exits_at_once(builder: &Builder, buf: &mut [u8]) {
    let stream = victim_connects(builder);
    PATTERN.fill(0, buf);
    let mut writer = &stream;
    let wrote = std::io::Write::write(&mut writer, buf).expect("write");
    assert_eq!(wrote, WRITTEN);
    // What is logged at exit, such as the end of these, must not need what the thread that exits does
    // not have any more.
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("its address");
    let pair = || {
        let called = SdpStream::connect(address).expect("connect");
        (called, listener.accept().expect("accept"))
    };
    let pairs: Vec<_> = std::iter::repeat_with(pair).take(10).collect();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::sink)
        .init();
    tracing::info!("{} pairs", pairs.len());
    // The stream is neither dropped nor shut down.
    std::process::exit(0);
}

fn peer_exits_with_bytes_unsent(Victim { process, stream }: Victim) {
    process.finish();
    stream.get_pattern(PATTERN, 0, WRITTEN, 50_000);
    stream.at_end();
}

/// What a forked child inherits is inert, it can open sockets of its own, and its parent's go on.
#[test]
fn a_forked_child_has_inert_streams() {
    watched(|| Child::run("fork"));
}

fn forks() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let addr = listener.local_addr().expect("local_addr");
    let client = SdpStream::connect(addr).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    client.put(b"before");
    let buffer = SdpBuffer::new(1 << 16).expect("memory");
    // SAFETY: the child uses no lock that another thread of this process may hold: those of this
    // library's sockets are what is tested, and the allocator's are released by fork.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Whatever goes wrong must not run the rest of the parent's test.
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            in_the_child(&listener, &client, &server);
        }));
        drop(buffer);
        let status = i32::from(told.is_err());
        drop((client, server, listener));
        std::process::exit(status);
    }
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    doing("waiting for the forked child");
    let pid = rustix::process::Pid::from_raw(pid);
    let waited = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    let (_, status) = waited.expect("waitpid").expect("a child");
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
    client.put(b"after");
    let mut all = [0; 11];
    server.get(&mut all);
    assert_eq!(&all, b"beforeafter");
    drop(client);
    server.at_end();
    let again = SdpStream::connect(addr).expect("connect");
    listener.accept().expect("accept");
    drop((again, buffer));
}

fn in_the_child(listener: &SdpListener, client: &SdpStream, server: &SdpStream) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    let inert = |error: std::io::Error| {
        assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
        assert!(error.to_string().contains("parent"), "{error}");
    };
    inert(client.write(b"x").expect_err("a write"));
    inert(server.read(&mut [0; 1]).expect_err("a read"));
    inert(
        server
            .shutdown(std::net::Shutdown::Both)
            .expect_err("a shutdown"),
    );
    inert(listener.accept().expect_err("an accept"));
    inert(client.readiness().expect_err("a descriptor"));
    drop(client.try_clone());
    let own = SdpListener::bind("127.0.0.1:0").expect("bind");
    let mine = SdpStream::connect(own.local_addr().expect("local_addr")).expect("connect");
    let (other, _) = own.accept().expect("accept");
    mine.put(b"mine");
    other.get(&mut [0; 4]);
}
