//! A running process is asked what its streams do: it tells its user, and nobody else; whoever asks
//! does it no harm, and whoever answers in its place does the asker none.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io::{ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept, bind, connect, listen, sendmsg, socket_with,
};
use sdp_socket::{SdpBuffer, SdpListener, SdpProcess, SdpStream, ZcopyThreshold};
use serde_json::Value;

use common::child::{Child, play, say, told};
use common::net::Stream;
use common::watch::{doing, watched};

/// How long a process may take to answer here.
const WAIT: Duration = Duration::from_secs(20);
/// Connections of the process that has many.
const MANY: usize = 2_000;
/// Bytes of a send that is not copied.
const LARGE: usize = 1 << 20;

/// The other processes of these tests.
#[test]
fn child() {
    play(|role| match role {
        "talker" => talks(),
        "many" => has_many(),
        "off" => has_none_to_ask(),
        "forks" => forks(),
        "parent" => leaves_a_child(),
        "nobody" => asks_as_nobody(),
        other => panic!("no role {other:?}"),
    });
}

/// The process by the number that it has itself.
fn process(pid: u32) -> Option<SdpProcess> {
    let mut all = SdpProcess::all().expect("/proc").into_iter();
    all.find(|process| process.pid() == pid)
}

fn report(pid: u32) -> Value {
    doing("asking a process");
    let process = process(pid).expect("a process that can be asked");
    let told = process.ask(WAIT).expect("an answer");
    assert_eq!(
        (told.pid, told.uid),
        (pid, rustix::process::geteuid().as_raw())
    );
    serde_json::from_str(&told.json).expect("JSON")
}

fn sum(values: &Value, what: &str) -> u64 {
    let values = values.as_array().expect("a list").iter();
    values.map(|it| it[what].as_u64().unwrap_or(0)).sum()
}

/// A pair of streams within this process.
fn pair(listener: &SdpListener) -> (SdpStream, SdpStream) {
    let client = SdpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    (client, listener.accept().expect("accept").0)
}

/// Says its process id, then does what it is told.
fn talks() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let (client, server) = pair(&listener);
    say(std::process::id());
    while let Some(line) = told() {
        match &*line {
            "echo" => {
                for _ in 0..1_000 {
                    client.put(b"to and");
                    server.get(&mut [0; 6]);
                    server.put(b" fro");
                    client.get(&mut [0; 4]);
                }
            }
            "large" => {
                client
                    .set_zcopy_threshold(ZcopyThreshold::Bytes(1))
                    .expect("a threshold");
                std::thread::scope(|scope| {
                    scope.spawn(|| client.put(&SdpBuffer::new(LARGE).expect("memory")));
                    server.get(&mut vec![0; LARGE]);
                });
            }
            "close" => {
                let (client, server) = pair(&listener);
                client.put(b"seven b");
                drop(client);
                server.get(&mut [0; 7]);
                server.at_end();
            }
            other => panic!("told {other:?}"),
        }
        say("done");
    }
}

fn talker() -> (Child, u32) {
    let mut child = Child::start("talker");
    let pid = child.hear().parse().expect("a process id");
    (child, pid)
}

fn have(child: &mut Child, what: &str) {
    child.tell(what);
    assert_eq!(child.hear(), "done");
}

/// What a process does is in its report: sockets, bytes, and how they went.
#[test]
fn a_process_tells_what_its_streams_do() {
    watched(|| {
        let (mut child, pid) = talker();
        have(&mut child, "echo");
        let told = report(pid);
        assert_eq!(told["schema"], "sdp.process/1");
        assert_eq!(told["complete"], true);
        assert_eq!(told["pid"], pid);
        assert!(told["memory"]["used"].as_u64() > Some(0), "{told:#}");
        assert_eq!(told["contexts"][0]["provider"], "host");
        let listener = &told["listeners"][0];
        assert_eq!(listener["accepted"], 1);
        let connections = told["connections"].as_array().expect("a list");
        assert_eq!(connections.len(), 2, "{told:#}");
        for (one, other) in [(0, 1), (1, 0)] {
            let (one, other) = (&connections[one], &connections[other]);
            assert_eq!(one["state"], "open");
            assert_eq!(one["local"], other["peer"]);
            assert_eq!(one["tx_bytes_bcopy"], other["rx_bytes_bcopy"]);
            assert!(one["credits"].as_u64() > Some(0), "{one:#}");
            let why = &one["copy_reasons"]["below_threshold"];
            assert_eq!(why["bytes"], one["tx_bytes_bcopy"], "{one:#}");
        }
        assert_eq!(sum(&told["connections"], "tx_bytes_bcopy"), 10_000);
        have(&mut child, "large");
        let told = report(pid);
        let inline = sum(&told["connections"], "tx_bytes_inline");
        let zcopy = sum(&told["connections"], "tx_bytes_zcopy");
        assert_eq!(inline + zcopy, LARGE as u64, "{told:#}");
        child.finish();
    });
}

/// Connections that have ended go on to count: what a process has sent never gets less.
#[test]
fn what_has_ended_is_not_forgotten() {
    watched(|| {
        let (mut child, pid) = talker();
        for round in 1..4 {
            have(&mut child, "close");
            // Both ends leave by and by.
            let ended = loop {
                let told = report(pid);
                let context = &told["contexts"][0];
                let sent = context["ended"]["tx_bytes_bcopy"].as_u64().unwrap_or(0)
                    + sum(&told["connections"], "tx_bytes_bcopy");
                assert_eq!(sent, 7 * round, "{told:#}");
                if context["connections_ended"] == 2 * round {
                    break context["ended"].clone();
                }
            };
            assert_eq!(ended["rx_bytes_bcopy"], 7 * round);
        }
        child.finish();
    });
}

fn has_many() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let many = std::env::var("SDP_TEST_MANY").map_or(MANY, |many| many.parse().expect("a number"));
    let pairs: Vec<_> = (0..many / 2).map(|_| pair(&listener)).collect();
    say(std::process::id());
    while told().is_some() {
        for (client, server) in &pairs {
            client.put(b"x");
            server.get(&mut [0; 1]);
        }
        say("done");
    }
}

/// However many connections there are, each is told of, and they go on meanwhile.
#[test]
fn two_thousand_connections() {
    watched(|| {
        let mut child = Child::start("many");
        let pid: u32 = child.hear().parse().expect("a process id");
        for round in 1..3 {
            child.tell("go on");
            let told = report(pid);
            assert_eq!(child.hear(), "done");
            assert_eq!(told["connections"].as_array().map(Vec::len), Some(MANY));
            assert_eq!(told["left_out"], 0);
            let told = report(pid);
            let sent = sum(&told["connections"], "tx_bytes_bcopy");
            assert_eq!(sent, round * MANY as u64 / 2);
        }
        child.finish();
    });
}

/// What a report of many connections costs the progress thread.
#[test]
#[ignore = "measures: --release --nocapture"]
fn the_cost_of_ten_thousand_connections() {
    watched(|| {
        let mut child = Child::start_in("many", &[("SDP_TEST_MANY", "10000")]);
        let pid: u32 = child.hear().parse().expect("a process id");
        for _ in 0..10 {
            let begun = Instant::now();
            let told = report(pid);
            assert_eq!(told["connections"].as_array().map(Vec::len), Some(10_000));
            let (spent, longest) = (&told["spent_us"], &told["longest_us"]);
            println!(
                "{spent} µs, at most {longest} µs at a time; {:?} until read",
                begun.elapsed()
            );
        }
        child.finish();
    });
}

fn has_none_to_ask() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let _pair = pair(&listener);
    say(process(std::process::id()).is_none());
}

/// `SDP_STAT=off`: there is nothing to ask.
#[test]
fn a_process_may_keep_to_itself() {
    watched(|| {
        let mut child = Child::start_in("off", &[("SDP_STAT", "off")]);
        assert_eq!(child.hear(), "true");
        child.finish();
    });
}

fn forks() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let _pair = pair(&listener);
    let parent = std::process::id();
    // SAFETY: as in a_forked_child_has_inert_streams, which tests just this.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let told = std::panic::catch_unwind(|| {
            let own = std::process::id();
            assert!(process(own).is_none());
            assert_eq!(
                report(parent)["connections"].as_array().map(Vec::len),
                Some(2)
            );
            let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
            let told = report(own);
            assert_eq!(
                told["listeners"].as_array().map(Vec::len),
                Some(1),
                "{told:#}"
            );
            assert_eq!(
                told["connections"].as_array().map(Vec::len),
                Some(0),
                "{told:#}"
            );
            drop(listener);
        });
        std::process::exit(i32::from(told.is_err()));
    }
    let waited = rustix::process::waitpid(
        rustix::process::Pid::from_raw(pid),
        rustix::process::WaitOptions::empty(),
    );
    let (_, status) = waited.expect("waitpid").expect("a child");
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
}

/// A forked child is asked once it has sockets of its own, and tells of these; meanwhile its parent
/// goes on to answer.
#[test]
fn a_forked_child_tells_of_its_own() {
    watched(|| Child::run("forks"));
}

fn leaves_a_child() {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let _pair = pair(&listener);
    // SAFETY: the child only reads and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Until the test lets go of the other end.
        let input = std::fs::File::open("/proc/self/fd/0");
        let _ = input.and_then(|mut input| std::io::copy(&mut input, &mut std::io::sink()));
        // SAFETY: nothing of the parent's is to be run.
        unsafe { libc::_exit(0) };
    }
    say(std::process::id());
    while told().is_some() {}
}

/// A process that has ended is said to have, though a child of it holds what it was asked by.
#[test]
fn the_name_of_one_that_has_ended() {
    watched(|| {
        let mut child = Child::start("parent");
        let pid: u32 = child.hear().parse().expect("a process id");
        let it = process(pid).expect("it can be asked");
        it.ask(WAIT).expect("an answer");
        child.kill_alone();
        let error = it.ask(WAIT).expect_err("it has ended");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    });
}

/// One that stands still answers nobody, and nobody waits for it for long.
#[test]
fn a_process_that_is_stopped() {
    watched(|| {
        let (child, pid) = talker();
        child.stop();
        let it = process(pid).expect("it can be asked");
        let begun = Instant::now();
        let error = it
            .ask(Duration::from_millis(50))
            .expect_err("it is stopped");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(begun.elapsed() < WAIT, "{:?}", begun.elapsed());
    });
}

/// The name by which a process is asked.
fn name_of(pid: u32) -> SocketAddrUnix {
    let text = std::fs::read_to_string("/proc/self/net/unix").expect("/proc");
    let begin = format!("@sdp-stat/1/{pid}/");
    let mut lines = text.lines();
    let line = lines.find(|line| line.contains(&begin)).expect("a name");
    let name = line.split_once(" @").expect("a name").1;
    SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a name")
}

/// A socket that would rather not wait.
fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket")
}

/// Callers that connect and read nothing, and callers that leave at once, neither stop a process nor
/// keep others from being told.
#[test]
fn callers_that_mean_no_good() {
    watched(|| {
        let (mut child, pid) = talker();
        let name = name_of(pid);
        let call = || {
            let socket = socket();
            // Where many wait the kernel lets no more wait.
            let _ = connect(&socket, &name);
            socket
        };
        let silent: Vec<_> = (0..100).map(|_| call()).collect();
        for _ in 0..1_000 {
            drop(call());
        }
        have(&mut child, "echo");
        report(pid);
        drop(silent);
        report(pid);
        child.finish();
    });
}

/// What an impostor does with a caller.
type Deed = fn(&OwnedFd);

fn answer(caller: &OwnedFd, words: &[u8], file: Option<&OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    if !files.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
    }
    let iov = [IoSlice::new(words)];
    sendmsg(caller, &iov, &mut control, SendFlags::NOSIGNAL).expect("sendmsg");
}

const WORDS: &[u8] = b"sdp.process/1";

fn file(bytes: &[u8], len: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("impostor", flags).expect("memfd");
    rustix::io::write(&file, bytes).expect("write");
    ftruncate(&file, len).expect("ftruncate");
    fcntl_add_seals(&file, seals).expect("seals");
    file
}

const DEEDS: [(&str, Deed); 9] = [
    ("hangs up", |_| ()),
    ("other words", |caller| answer(caller, b"hello", None)),
    ("no words", |caller| answer(caller, b"", None)),
    ("no file", |caller| answer(caller, WORDS, None)),
    ("a pipe", |caller| {
        let (read, _write) = rustix::pipe::pipe().expect("a pipe");
        answer(caller, WORDS, Some(&read));
    }),
    ("a file that may change", |caller| {
        answer(caller, WORDS, Some(&file(b"{}", 2, SealFlags::empty())));
    }),
    ("a file that may shrink", |caller| {
        answer(
            caller,
            WORDS,
            Some(&file(b"{}", 2, SealFlags::WRITE | SealFlags::GROW)),
        );
    }),
    ("a huge file", |caller| {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        answer(caller, WORDS, Some(&file(b"", 1 << 40, seals)));
    }),
    ("no text", |caller| {
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        answer(caller, WORDS, Some(&file(b"\xff\xfe", 2, seals)));
    }),
];

/// The socket of a process that there is not, and the way to ask it.
fn impostor(number: u32, backlog: i32) -> (OwnedFd, SdpProcess) {
    // Beyond what the kernel gives to processes.
    let pid = (1 << 31) + number;
    let name = format!("sdp-stat/1/{pid}/{:08x}", std::process::id());
    let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).expect("a name");
    let kind = SocketType::SEQPACKET;
    let flags = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, kind, flags, None).expect("a socket");
    bind(&listener, &name).expect("bind");
    listen(&listener, backlog).expect("listen");
    (listener, process(pid).expect("its name"))
}

/// Who answers in the place of a process is found out, in bounded time and memory.
#[test]
fn answers_of_others() {
    watched(|| {
        for (number, (what, deed)) in (0..).zip(DEEDS) {
            let (listener, process) = impostor(number, 1);
            std::thread::scope(|scope| {
                scope.spawn(|| deed(&accept(&listener).expect("a caller")));
                let error = process.ask(WAIT).expect_err(what);
                assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}: {error}");
            });
        }
    });
}

/// A process that ends while somebody calls it is one that has ended.
#[test]
fn the_end_during_a_call() {
    watched(|| {
        let (listener, process) = impostor(101, 1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let flags = rustix::event::PollFlags::IN;
                let mut fds = [rustix::event::PollFd::new(&listener, flags)];
                rustix::event::poll(&mut fds, None).expect("poll");
                drop(listener);
            });
            let error = process.ask(WAIT).expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        });
    });
}

/// Who does not answer, or does not even take a call, is not waited for.
#[test]
fn no_answer() {
    watched(|| {
        let (listener, process) = impostor(100, 0);
        let short = Duration::from_millis(50);
        let error = process.ask(short).expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        // The caller before has left, and still is the one that there is room for.
        let error = process.ask(short).expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        drop(listener);
        let error = process.ask(short).expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    });
}

fn asks_as_nobody() {
    let pid = told().expect("a process id").parse().expect("a process id");
    let nobody = rustix::process::Uid::from_raw(65_534);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("setresuid");
    let error = process(pid)
        .expect("a name")
        .ask(WAIT)
        .expect_err("not told");
    say(format!("{:?}", error.kind()));
    // What another asker would not look at, the process does not tell either.
    let socket = socket();
    connect(&socket, &name_of(pid)).expect("connect");
    let mut fds = [rustix::event::PollFd::new(
        &socket,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None).expect("poll");
    let read = rustix::io::read(&socket, &mut [0; 64]);
    say(read.map_or_else(|error| error.to_string(), |len| len.to_string()));
}

/// A process tells nothing to another user.
#[test]
#[ignore = "needs root, to become another user"]
fn another_user_is_told_nothing() {
    watched(|| {
        let (_child, pid) = talker();
        let mut nobody = Child::start("nobody");
        nobody.tell(pid);
        assert_eq!(nobody.hear(), "PermissionDenied");
        assert_eq!(nobody.hear(), "0");
        nobody.finish();
    });
}
