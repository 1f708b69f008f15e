//! Connection management of the host provider between processes: identity, death, descriptors.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host_support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_support::child::{Peer, ROLE, say, told};
use host_support::{BOUND, End, Side, event_is, event_within, next_event, work_until};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use sdp_verbs::host::HostOptions;
use sdp_verbs::{CmEventKind, CmId, CmToken, Provider};

/// Descriptors both processes may have in the tests of descriptors.
const FEW: u64 = 256;

/// Not a test: the role a child process plays.
#[test]
fn child() {
    match std::env::var(ROLE).as_deref() {
        Err(_) => {}
        Ok("server") => serve(&Side::new()),
        Ok("open server") => serve(&Side::with(HostOptions::default().other_users(true))),
        Ok("frugal server") => {
            limit_descriptors();
            serve(&Side::new());
        }
        Ok("client") => call(&Side::new()),
        Ok("open client") => call(&Side::with(HostOptions::default().other_users(true))),
        Ok("squatter") => squat(),
        Ok("crowd") => crowd(),
        Ok("forker") => fork_and_go_on(),
        Ok("descriptors") => descriptors_come_back(),
        Ok(other) => panic!("unknown role {other}"),
    }
}

/// Leaves this process the descriptors it has and few more.
fn limit_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(FEW),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, few).unwrap();
}

/// Descriptors and mappings of this process.
fn held() -> (usize, usize) {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let shared = maps.lines().filter(|line| line.contains("memfd:"));
    (fds, shared.count())
}

/// Accepts everything until told to stop.
fn serve(side: &Side) {
    let listener = side.listen("127.0.0.1:0", 4096);
    say(&listener.local_addr().unwrap().to_string());
    let stdin = std::io::stdin();
    let mut ends = HashMap::new();
    loop {
        while let Some(event) = side.channel.poll() {
            match event.kind {
                CmEventKind::ConnectRequest { id, .. } => {
                    let qp = id.create_qp(&side.attr()).unwrap();
                    id.accept(&[]).unwrap();
                    ends.insert(id.token(), (id, qp));
                }
                CmEventKind::Established => {}
                CmEventKind::Disconnected => drop(ends.remove(&event.id)),
                other => panic!("unexpected {other:?}"),
            }
        }
        let wait = side
            .channel
            .next_timeout()
            .map(|wait| wait.try_into().unwrap());
        let channel = side.channel.fd();
        let mut fds = [
            rustix::event::PollFd::new(&channel, rustix::event::PollFlags::IN),
            rustix::event::PollFd::new(&stdin, rustix::event::PollFlags::IN),
        ];
        rustix::event::poll(&mut fds, wait.as_ref()).unwrap();
        if fds[1].revents().is_empty() {
            continue;
        }
        match told().as_deref() {
            Some("count") => {
                let (fds, maps) = held();
                say(&format!("{} {fds} {maps}", ends.len()));
            }
            None => return,
            Some(other) => panic!("unknown order {other}"),
        }
    }
}

/// Calls whom it is told to, and says what came of it.
fn call(side: &Side) {
    while let Some(line) = told() {
        let id = side.resolve(line.parse().unwrap());
        let (_, event) = next_event(&[&side.channel]);
        match event.kind {
            CmEventKind::Resolved => say("resolved"),
            CmEventKind::Failed(error) => say(&format!("{} {error}", error.errno())),
            other => panic!("unexpected {other:?}"),
        }
        drop(id);
    }
}

/// Starts a server; its address comes with it.
fn server(role: &str) -> (Peer, SocketAddr) {
    let mut peer = Peer::start(role, |_| {});
    let addr = peer.hear().parse().unwrap();
    (peer, addr)
}

/// Connects to a server in another process.
fn connect_to(side: &Side, dst: SocketAddr) -> End {
    connect_many(side, dst, 1).remove(0)
}

/// Connects many times, all at once.
fn connect_many(side: &Side, dst: SocketAddr, count: usize) -> Vec<End> {
    let mut ids: HashMap<CmToken, Arc<dyn CmId>> = HashMap::new();
    for _ in 0..count {
        let id = side.resolve(dst);
        ids.insert(id.token(), id);
    }
    let mut qps = HashMap::new();
    let mut ends = Vec::new();
    while ends.len() < count {
        let (_, event) = next_event(&[&side.channel]);
        let id = &ids[&event.id];
        match event.kind {
            CmEventKind::Resolved => {
                qps.insert(event.id, id.create_qp(&side.attr()).unwrap());
                id.connect(b"hello").unwrap();
            }
            CmEventKind::ConnectResponse { .. } => {
                id.establish().unwrap();
                ends.push(End {
                    id: Arc::clone(id),
                    qp: qps.remove(&event.id).unwrap(),
                });
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    ends
}

#[test]
fn two_processes_connect_and_disconnect() {
    let (mut peer, dst) = server("server");
    let side = Side::new();
    let end = connect_to(&side, dst);
    assert_eq!(end.id.peer_addr(), Some(dst));
    end.id.disconnect();
    let (_, event) = next_event(&[&side.channel]);
    event_is!(event, end.id.token(), CmEventKind::Disconnected => ());
    peer.tell("count");
    assert!(peer.hear().starts_with("0 "));
    peer.finish();
}

#[test]
fn a_killed_peer_is_noticed_on_every_connection() {
    let (peer, dst) = server("server");
    let side = Side::new();
    let ends = connect_many(&side, dst, 10);
    let begin = Instant::now();
    peer.signal(Signal::KILL);
    let mut gone = 0;
    while gone < ends.len() {
        let (_, event) = next_event(&[&side.channel]);
        assert!(matches!(event.kind, CmEventKind::Disconnected), "{event:?}");
        gone += 1;
    }
    // Normally microseconds; a second is promised.
    assert!(begin.elapsed() < Duration::from_secs(1));
    let id = side.resolve(dst);
    let (_, event) = next_event(&[&side.channel]);
    let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
    assert_eq!(error.errno(), libc::ECONNREFUSED, "{error}");
}

#[test]
fn a_stopped_listener_times_out_and_answers_again_when_continued() {
    let (peer, dst) = server("server");
    let side = Side::new();
    peer.stop();
    let id = side.id();
    id.resolve(dst, Duration::from_millis(50)).unwrap();
    let (_, event) = next_event(&[&side.channel]);
    let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    assert!(error.to_string().contains("stopped"), "{error}");
    // An id that waits long enough gets through.
    let id = side.resolve(dst);
    peer.signal(Signal::CONT);
    let (_, event) = next_event(&[&side.channel]);
    event_is!(event, id.token(), CmEventKind::Resolved => ());
    drop(id);
    let _end = connect_to(&side, dst);
    peer.finish();
}

#[test]
fn a_peer_that_dies_between_request_and_answer_is_noticed() {
    let (peer, dst) = server("server");
    let side = Side::new();
    let _first = connect_to(&side, dst);
    let id = side.resolve(dst);
    next_event(&[&side.channel]);
    let _qp = id.create_qp(&side.attr()).unwrap();
    peer.stop();
    id.connect(&[]).unwrap();
    assert!(event_within(&[&side.channel], Duration::ZERO).is_none());
    peer.signal(Signal::KILL);
    let mut failed = false;
    for _ in 0..2 {
        let (_, event) = next_event(&[&side.channel]);
        if event.id == id.token() {
            let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
            assert_eq!(error.errno(), libc::ECONNRESET, "{error}");
            failed = true;
        }
    }
    assert!(failed);
}

#[test]
fn a_peer_that_does_not_read_is_not_overrun() {
    const MANY: usize = 2000;
    let (peer, dst) = server("server");
    let side = Side::new();
    let _first = connect_to(&side, dst);
    peer.stop();
    let mut kept = HashMap::new();
    let mut put_off = 0;
    for _ in 0..MANY {
        let id = side.resolve(dst);
        let (_, event) = next_event(&[&side.channel]);
        event_is!(event, id.token(), CmEventKind::Resolved => ());
        let qp = id.create_qp(&side.attr()).unwrap();
        match id.connect(&[7; 512]) {
            Ok(()) => drop(kept.insert(id.token(), (id, qp))),
            Err(error) => {
                assert_eq!(error.errno(), libc::EAGAIN, "{error}");
                put_off += 1;
            }
        }
    }
    assert!(put_off > 0, "{MANY} requests to a stopped process");
    assert!(
        kept.len() > 100,
        "{} requests to a stopped process",
        kept.len()
    );
    // What was taken arrives once the peer reads again, in order.
    peer.signal(Signal::CONT);
    for _ in 0..kept.len() {
        let (_, event) = next_event(&[&side.channel]);
        let (id, _) = &kept[&event.id];
        assert!(
            matches!(event.kind, CmEventKind::ConnectResponse { .. }),
            "{event:?}"
        );
        id.establish().unwrap();
    }
    peer.finish();
}

#[test]
fn a_thousand_connections_need_no_descriptor_each() {
    // In a process of its own: the limit would hit the other tests.
    let mut peer = Peer::start("descriptors", |_| {});
    assert_eq!(peer.hear(), "done");
    peer.finish();
}

/// The connecting half of the test above.
fn descriptors_come_back() {
    const COUNT: usize = 1000;
    limit_descriptors();
    let (mut peer, dst) = server("frugal server");
    let side = Side::new();
    peer.tell("count");
    let before_there = peer.hear();
    let before = held();

    let one = connect_many(&side, dst, 1);
    let with_one = held().0;
    let many = connect_many(&side, dst, COUNT - 1);
    let with_many = held().0;
    // Memory for many queue pairs may need a chunk more, never a descriptor each.
    assert!(
        with_many < with_one + 24,
        "{with_one} descriptors with one connection, {with_many} with {COUNT}"
    );
    peer.tell("count");
    assert!(peer.hear().starts_with(&format!("{COUNT} ")));

    // Everything comes back once the link has been idle for its time.
    drop((one, many));
    work_until(&[&side.channel], || held() == before);
    // The other side may hear of it a little later.
    let asked = Instant::now();
    loop {
        peer.tell("count");
        let there = peer.hear();
        if there == before_there {
            break;
        }
        assert!(asked.elapsed() < BOUND, "{there}, {before_there} before");
    }
    // And a new link can be made.
    let _again = connect_many(&side, dst, 1);
    peer.finish();
    say("done");
}

#[test]
fn connections_one_after_another_share_one_link() {
    let (mut peer, dst) = server("server");
    let side = Side::new();
    let _kept = connect_to(&side, dst);
    peer.tell("count");
    let first = peer.hear();
    for _ in 0..50 {
        drop(connect_to(&side, dst));
    }
    // The last end has been seen there once a further connection exists.
    drop(connect_to(&side, dst));
    let fds = |line: &str| line.split(' ').nth(1).unwrap().parse::<u32>().unwrap();
    peer.tell("count");
    let last = peer.hear();
    assert_eq!(fds(&first), fds(&last), "{first} then {last}");
    peer.finish();
}

/// The user nobody is, whom every system has. Its number is also the overflow uid, so it stands
/// for a user of another namespace as well.
const NOBODY: u32 = 65_534;
/// Some other user; the kernel does not care whether it has a name.
const SOMEBODY: u32 = 54_321;

#[test]
fn another_user_counts_as_no_listener_unless_both_sides_allow_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let (closed, closed_addr) = server("server");
    let (open, open_addr) = server("open server");
    let as_user = |role: &str, uid: u32| {
        Peer::start(role, |c| {
            c.uid(uid).gid(uid);
        })
    };
    for (role, uid, addr, expected) in [
        ("client", SOMEBODY, closed_addr, "another user"),
        ("client", NOBODY, closed_addr, "another user"),
        ("client", SOMEBODY, open_addr, "another user"),
        ("open client", SOMEBODY, closed_addr, "another user"),
        ("open client", SOMEBODY, open_addr, "resolved"),
        ("open client", NOBODY, open_addr, "resolved"),
    ] {
        let mut peer = as_user(role, uid);
        peer.tell(&addr.to_string());
        let answer = peer.hear();
        assert!(answer.contains(expected), "{role} {uid} {addr}: {answer}");
        if expected != "resolved" {
            assert!(answer.starts_with(&libc::ECONNREFUSED.to_string()));
        }
        peer.finish();
    }
    // The listeners live on.
    let side = Side::new();
    let _ends = (connect_to(&side, closed_addr), connect_to(&side, open_addr));
    closed.finish();
    open.finish();
}

#[test]
fn another_users_claim_on_a_name_does_not_hide_the_listener_behind_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let (client, server) = (Side::new(), Side::new());
    let listener = server.listen("0.0.0.0:0", 8);
    let port = listener.local_addr().unwrap().port();
    // The exact address comes before the wildcard, and its port is not free: but abstract names
    // have no owner.
    let mut squatter = Peer::start("squatter", |c| {
        c.uid(SOMEBODY).gid(SOMEBODY);
    });
    squatter.tell(&format!("sdp-host/1/4/127.0.0.1/{port}/0"));
    assert_eq!(squatter.hear(), "listening");
    let dst = format!("127.0.0.1:{port}").parse().unwrap();
    let _ends = host_support::connect(&client, &server, &listener, dst);
    assert_eq!(squatter.hear(), "called");
    squatter.finish();
}

/// Holds a name and answers as a listener would.
fn squat() {
    let name = told().unwrap();
    let socket = host_support::stranger::listen(name.as_bytes());
    say("listening");
    let caller = rustix::net::accept(&socket).unwrap();
    host_support::stranger::send(&caller, &host_support::stranger::hello(1), &[]);
    say("called");
    assert_eq!(told(), None);
}

/// Handshakes that one process begins: more than a frugal server has descriptors.
const CROWD: usize = 300;
/// Of one user a server takes as many at once as are an eighth of its descriptors.
const CROWD_TAKEN_MAX: usize = 256 / 8;

/// A process of one user that begins handshakes and ends none is bounded by its user's share:
/// others are served while it is there.
#[test]
fn a_crowd_of_half_done_handshakes_shuts_nobody_else_out() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let (server, dst) = server("frugal server");
    let mut crowd = Peer::start("crowd", |c| {
        c.uid(SOMEBODY).gid(SOMEBODY);
    });
    crowd.tell(&dst.to_string());
    assert_eq!(crowd.hear(), "begun");
    let side = Side::new();
    let ends = (connect_to(&side, dst), connect_to(&side, dst));
    // Nobody had to leave for them.
    crowd.tell("how many are left");
    let left: usize = crowd.hear().parse().unwrap();
    assert!((1..=CROWD_TAKEN_MAX).contains(&left), "{left}");
    crowd.finish();
    drop(ends);
    server.finish();
}

/// Calls a listener again and again and says nothing to it.
fn crowd() {
    use host_support::stranger;
    let dst = told().unwrap().parse().unwrap();
    let mut callers: Vec<_> = (0..CROWD).map(|_| stranger::call(dst)).collect();
    let end = Instant::now() + BOUND;
    while callers.len() > CROWD_TAKEN_MAX {
        assert!(Instant::now() < end, "{} are taken", callers.len());
        // What is readable has been hung up on: a listener speaks second.
        callers.retain(|caller| !stranger::is_readable(caller));
    }
    say("begun");
    assert_eq!(told().as_deref(), Some("how many are left"));
    callers.retain(|caller| !stranger::is_readable(caller));
    say(&callers.len().to_string());
    assert_eq!(told(), None);
}

#[test]
fn a_forked_child_leaves_its_parents_connections_alone() {
    let mut peer = Peer::start("forker", |_| {});
    assert_eq!(peer.hear(), "done");
    peer.finish();
}

/// Connects, forks, lets the child do its worst, and connects again over the same link.
fn fork_and_go_on() {
    let (mut peer, dst) = server("server");
    let side = Side::new();
    let end = connect_to(&side, dst);
    peer.tell("count");
    let before = peer.hear();
    // SAFETY: the child calls only what is under test and `_exit`; the harness's other thread
    // waits for this one and holds no lock.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let refused = side.provider.create_id(&side.channel).is_err()
            && end.id.create_qp(&side.attr()).is_err()
            && side.channel.poll().is_none()
            && side.channel.next_timeout().is_none();
        end.id.disconnect();
        let End { id, qp } = end;
        // What the data plane does in a child is not asked here.
        std::mem::forget(qp);
        drop(id);
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child; `status` is alive.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
    peer.tell("count");
    assert_eq!(peer.hear(), before);
    let _second = connect_to(&side, dst);
    end.id.disconnect();
    let (_, event) = next_event(&[&side.channel]);
    event_is!(event, end.id.token(), CmEventKind::Disconnected => ());
    peer.finish();
    say("done");
}
