//! Programs that know nothing of the library, with it and without.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

#[path = "../../tests/common/mod.rs"]
#[expect(dead_code, reason = "what only the tests of libsdp use")]
mod common;

mod bench;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use bench::{Bench, library};
use common::differ::Library;
use common::{is_there, skipped, start, succeeds};

/// The number in front of a word of a report.
fn count(report: &str, word: &str) -> u64 {
    let (before, _) = report.split_once(&format!(" {word}")).unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Every call in every phase has the result and the errno that TCP gives it.
#[test]
fn calls_are_those_of_tcp() {
    let bench = Bench::new();
    let Some(program) = bench.build("conformance") else {
        return;
    };
    let plain = start(Command::new(&program)).finish();
    let ours = start(bench.preloaded(Command::new(&program), "report")).finish();
    let differences: Vec<_> = plain
        .lines()
        .zip(ours.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert_eq!(differences, []);
    assert_eq!(plain.lines().count(), ours.lines().count());
    let reports = bench.report("report");
    let [child, own] = &reports[..] else {
        panic!("{reports:?}");
    };
    assert_eq!(count(child, "connected"), 1, "{child}");
    assert!(count(own, "connected") >= 9, "{own}");
    assert_eq!(count(own, "accepted"), count(own, "connected") + 1, "{own}");
}

/// Odd orders of calls, on several numbers, in several sets and processes, have the results of TCP.
#[test]
fn odd_orders_are_those_of_tcp() {
    let bench = Bench::new();
    let Some(program) = bench.build("sequences") else {
        return;
    };
    let plain = start(Command::new(&program)).finish();
    let ours = start(bench.preloaded(Command::new(&program), "report")).finish();
    assert!(plain.lines().count() > 100, "{plain}");
    assert_eq!(plain, ours);
    let reports = bench.report("report");
    // The child has made none.
    let own = reports.last().unwrap();
    assert_eq!(count(own, "accepted"), 12, "{reports:?}");
}

/// Who asks a running program is told what was left to TCP, and why.
#[test]
fn a_program_tells_of_tcp_too() {
    if !is_there("python3") {
        return skipped("a_program_tells_of_tcp_too", "no python3 in PATH");
    }
    let script = "
import os, socket
listener = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(listener.getsockname())
server = listener.accept()[0]
other = socket.create_connection(listener.getsockname())
by_sdp = listener.accept()[0]
print(os.getpid(), listener.getsockname()[1], flush=True)
listener.accept()
";
    let bench = Bench::new();
    let mut command = bench.preloaded(Command::new("python3"), "report");
    command.args(["-c", script]);
    let mut program = start(command);
    let line = program.line();
    let (pid, port) = line.split_once(' ').unwrap();
    let all = sdp_socket::SdpProcess::all().unwrap();
    let process = all.iter().find(|it| it.pid().to_string() == pid).unwrap();
    let told = process.ask(std::time::Duration::from_secs(20)).unwrap();
    for part in [
        "\"preload\":{\"sdp_connected\":1,\"sdp_accepted\":1,\"tcp_accepted\":1,",
        "\"tcp_refused\":1,",
        "\"listeners\":[\n{",
    ] {
        assert!(told.json.contains(part), "{part}\n{}", told.json);
    }
    // Which ends it.
    let port: u16 = port.parse().unwrap();
    drop(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    program.finish();
}

/// The same with libsdp's own list of calls and arguments, tens of thousands of them, and what
/// descriptors have beside; but for what the rules list, which are the manual's.
#[test]
fn odd_calls_are_those_of_tcp() {
    let bench = Bench::new();
    let Some(program) = bench.build_from("../tests/c", "differ") else {
        return;
    };
    let command = || {
        let mut command = Command::new(&program);
        command.arg("descriptors");
        command
    };
    let plain = start(command()).finish();
    let mut preloaded = bench.preloaded(command(), "report");
    preloaded.env("LIBSDP_CONFIG_FILE", bench.rules("use sdp client * *:*"));
    let ours = start(preloaded).finish();
    common::same_as_tcp(Library::Preload, &plain, &ours);
    // The last process is the first, which made the others.
    let reports = bench.report("report");
    let own = reports.last().unwrap();
    assert!(count(own, "connected") > 100, "{reports:?}");
}

/// A rule keeps a socket with TCP, and one that wants SDP only gets nothing else.
#[test]
fn rules_decide() {
    let bench = Bench::new();
    let Some(program) = bench.build("one_connect") else {
        return;
    };
    let rows = [
        // rules, whether somebody has accepted before, how it ends, what the report names
        (
            "",
            true,
            "connected",
            "1 connected, 1 accepted; TCP: 0 accepted;",
        ),
        (
            "use tcp client * *:*",
            true,
            "connected",
            "0 connected, 0 accepted; TCP: 1 accepted, rule 1;",
        ),
        (
            "use tcp server one_connect *:*",
            true,
            "connected",
            "TCP: 0 accepted, rule 1, refused 1;",
        ),
        (
            "use tcp server nobody *:*",
            true,
            "connected",
            "1 connected, 1 accepted; TCP: 0 accepted;",
        ),
        (
            "use sdp connect * 127.0.0.0/8:*",
            true,
            "connected",
            "1 connected, 1 accepted; TCP: 0 accepted;",
        ),
        // A listener from which nobody has accepted yet is TCP's.
        (
            "use sdp client * *:*",
            false,
            "ECONNREFUSED",
            "TCP: 0 accepted;",
        ),
        ("", false, "connected", "TCP: 1 accepted, refused 1;"),
        (
            "use sdp server * *:*",
            false,
            "connected",
            "1 connected, 1 accepted; TCP: 0 accepted;",
        ),
    ];
    for (at, (rules, accepts, end, reported)) in rows.into_iter().enumerate() {
        let report = format!("report{at}");
        let mut command = bench.preloaded(Command::new(&program), &report);
        command.env("LIBSDP_CONFIG_FILE", bench.rules(rules));
        command.arg(if accepts { "accepts" } else { "not yet" });
        assert_eq!(start(command).finish(), format!("{end}\n"), "{rules}");
        let reports = bench.report(&report);
        assert!(reports[0].contains(reported), "{rules}: {reports:?}");
    }
}

/// A signal handler may come at any moment of a call and call again, and a thread that waits in a call can
/// be cancelled, as by TCP. One case a run.
#[test]
fn handlers_and_cancelled_threads() {
    let bench = Bench::new();
    let Some(program) = bench.build("handlers") else {
        return;
    };
    let rows = [
        "handlers_call",
        "handlers_close",
        "handlers_meet_malloc",
        "handlers_find_all",
        "handlers_jump",
        "handlers_meet_forks",
        "actions",
        "no_moment_between",
        "waits_are_interrupted",
        "cancelled_threads_end",
    ];
    for case in rows {
        let mut command = bench.preloaded(Command::new(&program), case);
        command.arg(case);
        let said = start(command).finish();
        assert_eq!(said, format!("{case} holds\n"));
        let reports = bench.report(case);
        let connected: u64 = reports.iter().map(|it| count(it, "connected")).sum();
        let speaks = !["actions", "no_moment_between"].contains(&case);
        assert!(connected > 0 || !speaks, "{case}: {reports:?}");
    }
}

/// What only a program with the library can see: children, waiting, both protocols at once.
#[test]
fn cases_hold() {
    let bench = Bench::new();
    let Some(program) = bench.build("cases") else {
        return;
    };
    let both = "";
    let sdp = "use sdp server * *:*\nuse sdp client * *:*";
    let rows = [
        ("nonblocking", sdp),
        ("families", both),
        ("in_the_place_of_tcp", both),
        ("fork_of_new_ones", both),
        ("fork_of_connected_ones", both),
        ("vfork_and_spawn", both),
        ("past_the_library", both),
        ("both_queues", both),
        ("waiting", both),
        ("options", both),
        ("registrations", both),
        ("set_with_an_old_number", both),
        ("one_event", both),
        ("bad_addresses", both),
        ("listener_that_waits", both),
        ("waits_at_the_limit", both),
        ("connects_at_the_limit", both),
    ];
    for (case, rules) in rows {
        let mut command = bench.preloaded(Command::new(&program), case);
        command.env("LIBSDP_CONFIG_FILE", bench.rules(rules));
        command.arg(case);
        let said = start(command).finish();
        assert!(said.ends_with(&format!("{case} holds\n")), "{said}");
        let reports = bench.report(case);
        let connected: u64 = reports
            .iter()
            .map(|report| count(report, "connected"))
            .sum();
        assert!(connected > 0, "{case}: {reports:?}");
    }
    // The parent accepted one, and the child by a listener that had not spoken SDP.
    let children = bench.report("fork_of_new_ones");
    for report in &children {
        assert!(
            report.contains("1 connected, 1 accepted; TCP: 0"),
            "{children:?}"
        );
    }
    let children = bench.report("fork_of_connected_ones");
    let child = "0 connected, 0 accepted; TCP: 1 accepted;";
    assert!(children[0].contains(child), "{children:?}");
}

/// Children go on with a connection that their parent has accepted, whatever becomes of either.
#[test]
fn children_go_on_with_connections() {
    let bench = Bench::new();
    let Some(program) = bench.build("forks") else {
        return;
    };
    let rows = [
        // case, how many connections children got, and how many they could not get
        ("child_echoes", 1, 0),
        ("child_is_cat", 1, 0),
        ("child_knows_names", 1, 0),
        ("parent_keeps_it", 0, 0),
        ("both_use_it", 0, 0),
        ("nobody_overtakes", 0, 0),
        ("nobody_waits_who_does_not", 0, 0),
        ("a_time_ends_the_wait", 0, 0),
        ("exit_is_not_kept", 0, 0),
        ("left_while_shared", 1, 0),
        ("child_is_killed", 1, 0),
        ("peer_is_killed", 1, 0),
        ("left_and_closed", 1, 0),
        ("left_and_open", 0, 0),
        ("no_descriptors", 0, 1),
        ("two_children", 1, 0),
        ("threads_go_on", 0, 0),
        ("many_children", 100, 0),
        // Who is killed reports nothing.
        ("parent_is_killed", 0, 0),
    ];
    for (case, passed_on, lost) in rows {
        let mut command = bench.preloaded(Command::new(&program), case);
        command.arg(case);
        let said = start(command).finish();
        assert!(said.ends_with(&format!("{case} holds\n")), "{said}");
        let reports = bench.report(case);
        let by_sdp = reports
            .iter()
            .map(|it| count(it, "connected") + count(it, "accepted"));
        assert!(by_sdp.sum::<u64>() > 0, "{case}: {reports:?}");
        let got = after(&reports, "; to children: ");
        // What a child that has ended left may have been sent before the parent closes, or not yet.
        let left = [
            "left_and_closed",
            "nobody_overtakes",
            "nobody_waits_who_does_not",
            "a_time_ends_the_wait",
        ];
        let either = left.contains(&case) && got <= 1;
        assert!(got == passed_on || either, "{case}: {reports:?}");
        assert_eq!(after(&reports, "; not to children: "), lost, "{reports:?}");
    }
}

/// A listener by SDP alone is no child's, and the log says so.
#[test]
fn a_listener_by_sdp_alone_stays_with_the_parent() {
    let bench = Bench::new();
    let Some(program) = bench.build("forks") else {
        return;
    };
    let log = bench.path("log");
    let rules = format!(
        "use sdp server * *:*\nlog min-level 9 destination file {}",
        log.display()
    );
    let mut command = bench.preloaded(Command::new(&program), "report");
    command.env("LIBSDP_CONFIG_FILE", bench.rules(&rules));
    command.arg("listener_of_sdp");
    assert_eq!(start(command).finish(), "listener_of_sdp holds\n");
    let said = fs::read_to_string(log).unwrap();
    assert!(
        said.contains("a child does not accept from a listener by SDP alone"),
        "{said}"
    );
}

/// Nothing of the library shows where a program by TCP would see nothing.
#[test]
fn nothing_shows() {
    let bench = Bench::new();
    let Some(program) = bench.build("hidden") else {
        return;
    };
    let rows = [
        ("port_after_fork", ""),
        ("end_after_fork", ""),
        ("bad_second_message", ""),
        ("address_without_port", ""),
        ("stream_read_ahead", ""),
        ("other_stderr", "log min-level 1 destination stderr"),
        ("thrown_away", ""),
        ("several_thrown_away", ""),
        ("numbers_of_all", ""),
        ("numbers_of_1024", ""),
        ("numbers_of_256", ""),
        ("numbers_of_64", ""),
        ("sets_of_old_programs", ""),
        ("added_again", ""),
        ("hidden_ones_stay", ""),
        ("hidden_ones_of_a_parent", ""),
        ("hidden_ones_and_vfork", ""),
        ("no_memory_for_libsdp", ""),
        (
            "signal_in_connect",
            "use sdp server * *:*\nuse sdp client * *:*",
        ),
    ];
    for (case, rules) in rows {
        let mut command = bench.preloaded(Command::new(&program), case);
        command.env("LIBSDP_CONFIG_FILE", bench.rules(rules));
        command.arg(case);
        let said = start(command).finish();
        assert!(said.ends_with(&format!("{case} holds\n")), "{said}");
        let reports = bench.report(case);
        let connected = reports.iter().map(|report| count(report, "connected"));
        assert!(connected.sum::<u64>() > 0, "{case}: {reports:?}");
    }
}

/// Whatever kind of server waits, and whoever accepts then, nobody who calls is left waiting.
#[test]
fn servers_of_every_kind() {
    let bench = Bench::new();
    let Some(program) = bench.build("servers") else {
        return;
    };
    // Case, and what the reports of its processes name once.
    let rows = [
        ("waits_and_accepts", ""),
        ("child_accepts", ""),
        ("program_accepts", ", refused 2, late 1"),
        ("workers_by_epoll", ""),
        ("busy_workers", ""),
        ("thread_waits", ""),
        (
            "calls_itself",
            "1 connected, 1 accepted; TCP: 1 accepted, refused 1",
        ),
        ("caller_is_killed", ""),
        ("listens_again", ""),
    ];
    for (case, reported) in rows {
        let mut command = bench.preloaded(Command::new(&program), case);
        command.arg(case);
        let said = start(command).finish();
        assert!(said.ends_with(&format!("{case} holds\n")), "{said}");
        let reports = bench.report(case);
        assert!(
            reports.iter().any(|it| it.contains(reported)),
            "{reports:?}"
        );
    }
}

/// Without memory to register a fork handler sockets are TCP's, and the log says so once; afterwards
/// everything is as usual.
#[test]
fn no_memory_for_a_fork_handler() {
    let bench = Bench::new();
    let Some(program) = bench.build("hidden") else {
        return;
    };
    let log = bench.path("log");
    let rules = format!("log min-level 9 destination file {}", log.display());
    let mut command = bench.preloaded(Command::new(&program), "report");
    command.env("LIBSDP_CONFIG_FILE", bench.rules(&rules));
    command.arg("no_memory_for_forks");
    assert_eq!(start(command).finish(), "no_memory_for_forks holds\n");
    let said = fs::read_to_string(log).unwrap();
    // The parent, and the child before it knew.
    assert_eq!(
        said.matches("no memory for a fork handler").count(),
        1,
        "{said}"
    );
    let reports = bench.report("report");
    assert!(
        reports[0].contains("1 connected, 1 accepted"),
        "{reports:?}"
    );
}

/// Connections that are passed to another process by a message go on there.
#[test]
fn messages_pass_connections_on() {
    let bench = Bench::new();
    let Some(program) = bench.build("passes") else {
        return;
    };
    let rows = [
        // case, how many connections others got, and how many they could not get
        ("to_a_worker", 20, 0),
        ("and_kept", 1, 0),
        ("several_at_once", 3, 0),
        ("nobody_takes_it", 0, 0),
        ("worker_is_killed", 1, 0),
        ("no_descriptors", 0, 1),
    ];
    for (case, passed_on, lost) in rows {
        let mut command = bench.preloaded(Command::new(&program), case);
        command.arg(case);
        assert_eq!(start(command).finish(), format!("{case} holds\n"));
        let reports = bench.report(case);
        let got = after(&reports, "; to children: ");
        // One whose end has been seen before it is closed here is not counted.
        let either = case == "nobody_takes_it" && got <= 1;
        assert!(got == passed_on || either, "{case}: {reports:?}");
        assert_eq!(after(&reports, "; not to children: "), lost, "{reports:?}");
    }
}

/// Who executes another program without a fork reports before, and what is lost by that is counted.
#[test]
fn exec_is_reported() {
    let bench = Bench::new();
    let Some(program) = bench.build("passes") else {
        return;
    };
    let log = bench.path("log");
    let rules = format!("log min-level 9 destination file {}", log.display());
    let mut command = bench.preloaded(Command::new(&program), "report");
    command.env("LIBSDP_CONFIG_FILE", bench.rules(&rules));
    command.arg("executes");
    assert_eq!(start(command).finish(), "executed holds\n");
    let reports = bench.report("report");
    // Before the exec that failed, and before the other one.
    assert_eq!(reports.len(), 2, "{reports:?}");
    for report in &reports {
        assert!(report.contains("1 connected, 1 accepted"), "{reports:?}");
        assert!(report.contains("; not to children: 1"), "{reports:?}");
    }
    let said = fs::read_to_string(log).unwrap();
    let words = "1 connections by SDP do not live through exec";
    assert_eq!(said.matches(words).count(), 2, "{said}");
}

/// Whoever has io_uring, which goes past the library, finds it in the report, once.
#[test]
fn io_uring_is_reported() {
    let bench = Bench::new();
    let Some(program) = bench.build("passes") else {
        return;
    };
    for case in ["ring_at_first", "ring_at_the_end"] {
        let mut command = bench.preloaded(Command::new(&program), case);
        command.arg(case);
        let said = start(command).finish();
        if said.contains("no io_uring") {
            return skipped("io_uring_is_reported", "the kernel has none for us");
        }
        assert_eq!(said, format!("{case} holds\n"));
        let reports = bench.report(case);
        let words = "; io_uring: goes past SDP";
        assert_eq!(reports[0].matches(words).count(), 1, "{reports:?}");
    }
}

/// The sum of the numbers behind some words of reports.
fn after(reports: &[String], words: &str) -> u64 {
    let rests = reports
        .iter()
        .filter_map(|report| report.split(words).nth(1));
    let digits = rests.map(|rest| rest.split(';').next().unwrap());
    digits.map(|digits| digits.parse::<u64>().unwrap()).sum()
}

/// Bytes that were fetched before anybody read them are in the report, too.
#[test]
fn nothing_received_is_left_out() {
    if !is_there("python3") {
        return skipped("nothing_received_is_left_out", "no python3 in PATH");
    }
    let script = format!(
        "
import select, socket, threading
listener = socket.create_server(('127.0.0.1', 0))
listener.setblocking(False)
try:
    listener.accept()
except BlockingIOError:
    pass
client = socket.create_connection(listener.getsockname())
listener.setblocking(True)
server = listener.accept()[0]
client.setsockopt(socket.IPPROTO_TCP, {}, 16384)
sender = threading.Thread(target=client.sendall, args=(bytes(8 << 20),))
sender.start()
server.setblocking(False)
left = 8 << 20
while left:
    select.select([server], [], [])
    try:
        left -= len(server.recv(4096))
    except BlockingIOError:
        pass
sender.join()
",
        sdp::SDP_ZCOPY_THRESH
    );
    let bench = Bench::new();
    let mut command = bench.preloaded(Command::new("python3"), "report");
    command.args(["-c", &script]);
    start(command).finish();
    let reports = bench.report("report");
    assert_eq!(received(&reports), 8 << 20, "{reports:?}");
}

/// All bytes that processes say they have received.
fn received(reports: &[String]) -> u64 {
    let rests = reports.iter().map(|it| it.split("; received: ").nth(1));
    let parts = rests.flat_map(|rest| rest.unwrap().split(", "));
    let numbers = parts.map(|part| part.split(' ').next().unwrap());
    numbers.map(|number| number.parse::<u64>().unwrap()).sum()
}

/// A server of Python's with a process for each connection.
#[test]
fn forking_server_of_python() {
    if !is_there("python3") {
        return skipped("forking_server_of_python", "no python3 in PATH");
    }
    let bench = Bench::new();
    let mut command = bench.preloaded(Command::new("python3"), "report");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forking.py"));
    assert_eq!(start(command).finish(), "served\n");
    let reports = bench.report("report");
    // 20 questions of 300,000 bytes and answers of five more. A child that is faster than its parent's close
    // is not counted as one that goes on.
    assert_eq!(received(&reports), 20 * (300_000 + 300_005), "{reports:?}");
    let to_children = after(&reports, "; to children: ");
    assert!((1..=20).contains(&to_children), "{reports:?}");
}

/// Python's servers, by select, poll, epoll and threads.
#[test]
fn servers_of_python() {
    if !is_there("python3") {
        return skipped("servers_of_python", "no python3 in PATH");
    }
    let bench = Bench::new();
    let mut command = bench.preloaded(Command::new("python3"), "report");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers.py"));
    assert_eq!(start(command).finish(), "served\n");
    let reports = bench.report("report");
    // asyncio's 21 at least, from whose listeners one was accepted before.
    assert!(count(&reports[0], "connected") >= 21, "{reports:?}");
    let sent: u64 = reports[0]
        .split("sent: ")
        .nth(1)
        .map_or(0, |rest| rest.split(' ').next().unwrap().parse().unwrap());
    assert!(sent >= 41 * 300_000, "{reports:?}");
}

/// The functions that the manual names in its table.
fn documented() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../man/libsdp-preload.7");
    let page = fs::read_to_string(page).unwrap();
    let table = page.split(".Sh FUNCTIONS").nth(1).unwrap();
    let table = table.split(".Sh ENVIRONMENT").next().unwrap();
    let words: Vec<&str> = table.split_whitespace().collect();
    let named = words
        .windows(2)
        .filter(|pair| matches!(pair[0], "Fn" | ".Fn"));
    named.map(|pair| pair[1].to_owned()).collect()
}

/// What the manual says is interposed is, and nothing else, the functions of libsdp least of all.
#[test]
fn only_what_the_manual_names_is_exported() {
    if !is_there("nm") {
        return skipped("only_what_the_manual_names_is_exported", "no nm in PATH");
    }
    let listed = succeeds(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(library()),
    );
    let exported: BTreeSet<String> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect();
    assert!(exported.len() > 40, "{exported:?}");
    assert_eq!(exported, documented());
}
