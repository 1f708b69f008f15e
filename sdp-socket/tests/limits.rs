//! Out of descriptors, file size, address space or threads: an error that names the limit, and the process
//! goes on.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, Uid, getrlimit, getuid, setrlimit};
use rustix::thread::set_thread_uid;
use sdp_socket::{SdpBuffer, SdpListener, SdpStream};

use common::child::{Child, open_descriptors, play, say};
use common::log::{keep_log, logged_about};
use common::net::Stream;
use common::pattern::Pattern;
use common::watch::{doing, watched};

/// Names of the limits.
const NOFILE: [&str; 2] = ["RLIMIT_NOFILE", "ulimit -n"];
const FSIZE: [&str; 2] = ["RLIMIT_FSIZE", "ulimit -f"];
const AS: [&str; 2] = ["RLIMIT_AS", "ulimit -v"];
const NPROC: [&str; 2] = ["RLIMIT_NPROC", "ulimit -u"];

/// The processes whose limits are lowered.
#[test]
fn child() {
    play(|role| {
        let (limit, rest) = role.split_once(' ').expect("a limit and a number");
        let number: u64 = rest.parse().expect("a number");
        match limit {
            "nofile" => few_descriptors(number),
            "nofile-later" => few_descriptors_later(number),
            "nofile-polled" => few_descriptors_polled(number),
            "nofile-lent" => sockets_lent(number),
            "nofile-left" => none_left(number),
            "fsize" => small_files(number),
            "as" => small_address_space(number),
            "nproc" => few_threads(number),
            other => panic!("no role {other:?}"),
        }
    });
}

fn lower(resource: Resource, to: u64) {
    keep_log();
    let limit = Rlimit {
        current: Some(to),
        maximum: getrlimit(resource).maximum,
    };
    setrlimit(resource, limit).expect("setrlimit");
}

/// Everything a program does first: listen, connect, write, accept, read; registered memory too.
fn a_small_life() -> io::Result<()> {
    let pattern = Pattern(80);
    doing("listening");
    let listener = SdpListener::bind("127.0.0.1:0")?;
    doing("connecting");
    let brief = Duration::from_secs(2);
    let client = SdpStream::connect_timeout(&listener.local_addr()?, brief)?;
    client.put(&pattern.bytes(0, 1_000));
    doing("accepting");
    let (server, _) = listener.accept()?;
    server.get_pattern(pattern, 0, 1_000, 1_000);
    doing("registered memory");
    let mut buf = SdpBuffer::new(100_000)?;
    pattern.fill(1_000, &mut buf);
    std::thread::scope(|scope| {
        scope.spawn(|| client.put(&buf));
        server.get_pattern(pattern, 1_000, 100_000, 100_000);
    });
    Ok(())
}

/// Checks that an error says which limit was met, by its name or by that of the command that
/// raises it. A listener that meets a limit keeps its callers waiting, as TCP's does, and says
/// why in its log.
fn names(error: &io::Error, limit: [&str; 2]) {
    let mut text = error.to_string();
    if error.kind() == io::ErrorKind::TimedOut {
        text.push_str(&logged_about("host "));
    }
    let named = limit.iter().any(|name| text.contains(name));
    assert!(
        named,
        "{text:?} ({:?}) names none of {limit:?}",
        error.kind()
    );
}

/// A small life either succeeds or fails by an error that names the limit; with the limit gone it
/// succeeds.
fn survive(resource: Resource, limit: [&str; 2]) {
    match a_small_life() {
        Ok(()) => say("ok"),
        Err(error) => {
            names(&error, limit);
            say(format!("refused: {error}"));
        }
    }
    let maximum = getrlimit(resource).maximum;
    setrlimit(
        resource,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .expect("setrlimit");
    a_small_life().expect("without the limit");
    say("ok");
}

fn few_descriptors(spare: u64) {
    let open = open_descriptors() as u64;
    lower(Resource::Nofile, open + spare);
    survive(Resource::Nofile, NOFILE);
}

/// The limit is met by a process that has connections already.
fn few_descriptors_later(spare: u64) {
    a_small_life().expect("without a limit");
    few_descriptors(spare);
}

/// The peer lends a socket to put tokens into when there is no room for it: it is told of what comes
/// all the same, and the link lives on.
fn few_descriptors_polled(spare: u64) {
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let connect = || {
        let client = SdpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (client, listener.accept().expect("accept").0)
    };
    let (client, server) = connect();
    client.readiness().expect("with descriptors");
    client.set_nonblocking(true).expect("set_nonblocking");
    let lowest_free = rustix::io::dup(io::stdin()).expect("a descriptor");
    let first = u64::from(lowest_free.as_raw_fd().unsigned_abs());
    drop(lowest_free);
    let before = getrlimit(Resource::Nofile);
    lower(Resource::Nofile, first + spare);
    // Behind this call it is lent.
    client.read(&mut [0]).expect_err("nothing to read");
    doing("polling without room for the socket");
    for round in 0..100_u8 {
        server.put(&[round]);
        let ready = client.readiness().expect("made before");
        let mut fds = [PollFd::new(&ready, PollFlags::IN)];
        poll(&mut fds, None).expect("poll");
        let mut byte = [0];
        assert_eq!(client.read(&mut byte).expect("a byte"), 1);
        assert_eq!(byte, [round]);
    }
    setrlimit(Resource::Nofile, before).expect("setrlimit");
    // On the same link, behind the socket that was lent in vain.
    let (other, _server) = connect();
    other.put(b"x");
    client.put(b"y");
    server.get(&mut [0]);
    say("ok");
    say("ok");
}

/// How many descriptors there are after many a small life without enough of them, and one with.
fn none_left(spare: u64) {
    let before = getrlimit(Resource::Nofile);
    let known = open_descriptors() as u64;
    for _ in 0..5 {
        lower(Resource::Nofile, known + spare);
        if let Err(error) = a_small_life() {
            names(&error, NOFILE);
        }
        setrlimit(Resource::Nofile, before).expect("setrlimit");
    }
    a_small_life().expect("without a limit");
    say(format!("{}", open_descriptors()));
    say("ok");
}

/// Peers lend a small table more sockets than fit a part of it: most of it stays the program's, and
/// each is told of what comes.
fn sockets_lent(limit: u64) {
    lower(Resource::Nofile, limit);
    let listener = SdpListener::bind("127.0.0.1:0").expect("bind");
    let connect = || {
        let client = SdpStream::connect(listener.local_addr().expect("address")).expect("connect");
        (client, listener.accept().expect("accept").0)
    };
    let pairs: Vec<_> = (0..limit / 4).map(|_| connect()).collect();
    for (client, _) in &pairs {
        client.readiness().expect("with descriptors");
    }
    let before = open_descriptors() as u64;
    for (client, _) in &pairs {
        client.set_nonblocking(true).expect("set_nonblocking");
        // Behind this call it is lent.
        client.read(&mut [0]).expect_err("nothing to read");
    }
    for round in 0..10_u8 {
        for (client, server) in &pairs {
            server.put(&[round]);
            let ready = client.readiness().expect("made before");
            poll(&mut [PollFd::new(&ready, PollFlags::IN)], None).expect("poll");
            // Its peer may have been interrupted while it showed the byte before.
            while client.read(&mut [0]).is_err() {
                poll(&mut [PollFd::new(&ready, PollFlags::IN)], None).expect("poll");
            }
        }
    }
    let lent = open_descriptors() as u64 - before;
    assert!(lent <= limit / 8, "{lent} descriptors of {limit}");
    say("ok");
    say("ok");
}

fn small_files(len: u64) {
    // The default action of SIGXFSZ is to end the process: it is left as it is.
    lower(Resource::Fsize, len);
    survive(Resource::Fsize, FSIZE);
    lower(Resource::Fsize, len);
    doing("registered memory larger than a file may be");
    let large = usize::try_from(len).expect("fits") + 1;
    let error = SdpBuffer::new(large).expect_err("larger than a file may be");
    names(&error, FSIZE);
}

fn small_address_space(spare: u64) {
    a_small_life().expect("without a limit");
    let status = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages = status.split(' ').next().expect("a number");
    let pages: u64 = pages.parse().expect("a number");
    let used = pages * rustix::param::page_size() as u64;
    lower(Resource::As, used + spare);
    doing("registered memory larger than the address space");
    let large = usize::try_from(spare).expect("fits") * 2;
    let error = SdpBuffer::new(large).expect_err("larger than the address space");
    names(&error, AS);
    survive(Resource::As, AS);
}

/// There is no thread for the progress of connections: an error each time, of which nothing is left.
fn few_threads(count: u64) {
    if getuid().is_root() {
        // Root has no such limit.
        set_thread_uid(Uid::from_raw(54_321)).expect("setuid");
    }
    lower(Resource::Nproc, count);
    let bind = || SdpListener::bind("127.0.0.1:0").map(drop);
    names(&bind().expect_err("without a thread"), NPROC);
    let open = open_descriptors();
    for _ in 0..10 {
        names(&bind().expect_err("without a thread"), NPROC);
    }
    assert_eq!(open_descriptors(), open);
    survive(Resource::Nproc, NPROC);
}

fn run(role: &'static str, number: u64) -> String {
    let mut child = Child::start(&format!("{role} {number}"));
    let first = child.hear();
    assert_eq!(child.hear(), "ok", "after {first}");
    child.finish();
    first
}

/// With ever more descriptors to spare: refused by name, then served.
#[test]
fn descriptors() {
    watched(|| {
        let said: Vec<_> = (0..=24).map(|spare| run("nofile", spare)).collect();
        assert!(
            said[0].starts_with("refused"),
            "with none to spare: {said:?}"
        );
        assert_eq!(run("nofile", 64), "ok");
    });
}

/// As above in a process that has had connections.
#[test]
fn descriptors_later() {
    watched(|| {
        for spare in [0, 1, 2, 4, 8] {
            run("nofile-later", spare);
        }
    });
}

/// What fails for want of descriptors leaves none open, whichever is the first that is lacking.
#[test]
fn descriptors_left() {
    watched(|| {
        let left = |spare| -> usize { run("nofile-left", spare).parse().expect("a number") };
        let usual = left(1_000);
        for spare in 0..=10 {
            let found = left(spare);
            assert!(
                found <= usual,
                "{found}, not {usual}, with {spare} to spare"
            );
        }
    });
}

/// Without room for what a polled stream's peer lends.
#[test]
fn descriptors_polled() {
    watched(|| {
        run("nofile-polled", 0);
    });
}

/// With more of what polled streams' peers lend than a table should be filled with.
#[test]
fn descriptors_lent() {
    watched(|| {
        run("nofile-lent", 400);
    });
}

/// Files may have a few bytes only: no signal, an error that says so.
#[test]
fn file_size() {
    watched(|| {
        for len in [0, 4_096, 65_536, 1 << 20] {
            run("fsize", len);
        }
    });
}

/// Little address space is left.
#[test]
fn address_space() {
    watched(|| {
        run("as", 64 << 20);
    });
}

/// No thread can be started.
#[test]
fn threads() {
    watched(|| {
        assert!(run("nproc", 0).starts_with("refused"));
    });
}
