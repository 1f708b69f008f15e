//! C and C++ programs with libsdp: built with every warning an error, linked both ways, run.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::differ::Library;
use common::layout;
use common::{Language, Link, Prefix, Running, is_there, skipped, start, succeeds};

const WAYS: [(Language, Link); 4] = [
    (Language::C11, Link::Shared),
    (Language::C11, Link::Static),
    (Language::Cpp17, Link::Shared),
    (Language::Cpp17, Link::Static),
];

/// The program, or the same under valgrind, where errors and lost memory are failures.
fn command(program: &Path, valgrind: bool) -> Command {
    if !valgrind {
        return Command::new(program);
    }
    let mut command = Command::new("valgrind");
    command.args([
        "--quiet",
        "--error-exitcode=99",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite",
        "--show-leak-kinds=definite",
        "--fair-sched=yes",
    ]);
    command.arg(program);
    command
}

/// What the echo client and server did.
struct Echo<'a> {
    memory: &'a str,
    chunk: u64,
    bytes: u64,
    valgrind: bool,
}

impl Echo<'_> {
    /// Runs both; the counters of client and server: bytes sent and received without a copy.
    fn run(&self, server: &Path, client: &Path) -> [(u64, u64); 2] {
        let chunk = self.chunk.to_string();
        let mut serve = command(server, self.valgrind);
        serve.args([self.memory, &chunk]);
        let mut server = start(serve);
        let first = server.line();
        let Some(port) = first.strip_prefix("port ") else {
            server.finish();
            panic!("the server said {first:?}");
        };
        let mut connect = command(client, self.valgrind);
        connect.args([port, self.memory, &chunk, &self.bytes.to_string()]);
        let client = start(connect);
        [counters(client), counters(server)]
    }
}

fn counters(program: Running) -> (u64, u64) {
    let text = program.finish();
    let words: Vec<&str> = text.split_whitespace().collect();
    let ["tx_zcopy", sent, "rx_zcopy", received] = words[..] else {
        panic!("counters are {text:?}");
    };
    (sent.parse().unwrap(), received.parse().unwrap())
}

/// Builds a program in every way there is and runs it; what it has to say at its end.
fn in_every_way(name: &str, says: &str) {
    let prefix = Prefix::install();
    for (language, link) in WAYS {
        let Some(program) = prefix.build(name, language, link) else {
            continue;
        };
        let said = start(command(&program, false)).finish();
        assert_eq!(said, says, "{name} {language:?} {link:?}");
    }
}

/// Runs a program under valgrind: no bad access, nothing lost.
fn under_valgrind(name: &str, says: &str) {
    if !is_there("valgrind") {
        return skipped(&format!("{name}_under_valgrind"), "no valgrind in PATH");
    }
    let prefix = Prefix::install();
    if let Some(program) = prefix.build(name, Language::C11, Link::Shared) {
        assert_eq!(start(command(&program, true)).finish(), says);
    }
}

/// The promises of the header hold for C and for C++, with the shared and the static library.
#[test]
fn contract_in_both_languages_linked_both_ways() {
    in_every_way("contract", "contract holds\n");
}

/// So do those of the calls beyond send and recv.
#[test]
fn calls_in_both_languages_linked_both_ways() {
    in_every_way("calls", "calls hold\n");
}

/// Sixty-four threads in every call on a socket that is closed under them; the number of rounds makes
/// it a second, or half a minute under valgrind.
#[test]
fn a_crowd_on_a_socket_that_is_closed() {
    let prefix = Prefix::install();
    for (valgrind, rounds) in [(false, "40"), (true, "3")] {
        if valgrind && !is_there("valgrind") {
            skipped("a crowd under valgrind", "no valgrind in PATH");
            continue;
        }
        let Some(program) = prefix.build("crowd", Language::C11, Link::Shared) else {
            return;
        };
        let mut run = command(&program, valgrind);
        run.arg(rounds);
        assert_eq!(start(run).finish(), "the crowd is gone\n");
    }
}

/// The same program over libc's sockets and over the library's prints the same, but for what the rules
/// list, which are the manual's.
#[test]
fn results_are_those_of_tcp() {
    let prefix = Prefix::install();
    let build =
        |name, over: &[&str]| prefix.build_as("differ", name, Language::C11, Link::Shared, over);
    let (Some(tcp), Some(sdp)) = (build("tcp", &[]), build("sdp", &["-DOVER_SDP"])) else {
        return;
    };
    if is_there("valgrind") {
        let mut checked = command(&sdp, true);
        checked.arg("sparse");
        start(checked).finish();
    } else {
        skipped(
            "the comparison with TCP under valgrind",
            "no valgrind in PATH",
        );
    }
    let [tcp, sdp] = [tcp, sdp].map(|program| start(command(&program, false)).finish());
    common::same_as_tcp(Library::Libsdp, &tcp, &sdp);
}

/// A cancelled thread ends between calls, and loses nothing.
#[test]
fn cancellation_in_both_languages() {
    in_every_way("cancel", "cancellation holds\n");
}

#[test]
fn contract_under_valgrind() {
    under_valgrind("contract", "contract holds\n");
}

#[test]
fn calls_under_valgrind() {
    under_valgrind("calls", "calls hold\n");
}

/// Two processes, every byte checked, in every combination of language and memory; from
/// `sdp_alloc` memory the bytes of large sends are copied once, which both ends count.
#[test]
fn echo_between_processes() {
    let prefix = Prefix::install();
    let build = |name, (language, link)| prefix.build(name, language, link);
    for (server, client) in [(WAYS[0], WAYS[3]), (WAYS[2], WAYS[1])] {
        let (Some(server), Some(client)) =
            (build("echo_server", server), build("echo_client", client))
        else {
            continue;
        };
        for (memory, chunk) in [
            ("alloc", 1 << 20),
            ("heap", 1 << 20),
            ("heap", 8),
            ("alloc", 8),
        ] {
            let echo = Echo {
                memory,
                chunk,
                bytes: chunk * 16,
                valgrind: false,
            };
            let [client, server] = echo.run(&server, &client);
            if memory == "alloc" && chunk > 8 {
                // A chunk whose reader was late is copied instead: most are not.
                let least = echo.bytes / 2;
                for count in [client.0, client.1, server.0, server.1] {
                    assert!(count >= least, "{count} of {} without a copy", echo.bytes);
                }
            }
        }
    }
}

/// The same under valgrind, from both kinds of memory.
#[test]
fn echo_under_valgrind() {
    if !is_there("valgrind") {
        return skipped("echo_under_valgrind", "no valgrind in PATH");
    }
    let prefix = Prefix::install();
    let build = |name| prefix.build(name, Language::C11, Link::Shared);
    let (Some(server), Some(client)) = (build("echo_server"), build("echo_client")) else {
        return;
    };
    for memory in ["alloc", "heap"] {
        let echo = Echo {
            memory,
            chunk: 256 << 10,
            bytes: 1 << 20,
            valgrind: true,
        };
        echo.run(&server, &client);
    }
}

/// 1 GiB there and back from `sdp_alloc` memory.
#[test]
#[ignore = "moves 2 GiB: cargo test --release -p sdp-ffi --test programs -- --ignored"]
fn echo_of_a_gibibyte() {
    let prefix = Prefix::install();
    let build = |name| prefix.build(name, Language::C11, Link::Shared).unwrap();
    let echo = Echo {
        memory: "alloc",
        chunk: 1 << 20,
        bytes: 1 << 30,
        valgrind: false,
    };
    let [client, server] = echo.run(&build("echo_server"), &build("echo_client"));
    println!("without a copy, sent and received: client {client:?}, server {server:?}");
    let least = echo.bytes / 10 * 9;
    for count in [client.0, client.1, server.0, server.1] {
        assert!(count >= least, "{count} of {} without a copy", echo.bytes);
    }
}

/// The functions a text names: `sdp_x(` in the header, `sdp_x;` in the map.
fn names(text: &str, end: char) -> BTreeSet<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.filter_map(|line| {
        let (name, _) = line[line.find("sdp_")?..].split_once(end)?;
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then(|| name.to_owned())
    })
    .collect()
}

/// The symbols a shared library defines for others, without versions.
fn exported(library: &Path) -> BTreeSet<String> {
    let listed = succeeds(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(library),
    );
    let mut symbols = BTreeSet::new();
    for line in listed.lines() {
        let [_, kind, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("nm said {line:?}");
        };
        // The name of a version is listed as an absolute symbol.
        if kind != "A" {
            symbols.insert(name.to_owned());
        }
    }
    symbols
}

/// Header, map and library agree on the functions, and nothing else is exported.
#[test]
fn only_the_header_is_exported() {
    if !is_there("nm") {
        return skipped("only_the_header_is_exported", "no nm in PATH");
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name| std::fs::read_to_string(package.join(name)).unwrap();
    let (header, map) = (read("include/sdp.h"), read("libsdp.map"));
    let functions: Vec<&str> = header.split("extern \"C\" {").collect();
    let functions = names(functions[1], '(');
    assert!(functions.len() > 20, "{functions:?}");
    assert_eq!(names(&map, ';'), functions);
    assert_eq!(exported(&common::built("so")), functions);
}

/// The static library and the map make a shared library with versioned symbols, and no others.
#[test]
fn the_map_versions_a_release() {
    if !is_there("nm") {
        return skipped("the_map_versions_a_release", "no nm in PATH");
    }
    let prefix = Prefix::install();
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("libsdp.map");
    let library = prefix.root().join("lib/release.so");
    let archive = prefix.root().join("lib/libsdp.a");
    succeeds(&mut layout::link_shared(&archive, &map, &library).unwrap());
    let functions = layout::functions(&std::fs::read_to_string(&map).unwrap());
    let versioned = functions
        .iter()
        .map(|name| format!("{name}@@SDP_0.1"))
        .collect();
    assert_eq!(exported(&library), versioned);
}

/// A program finds the library through pkg-config, and runs with it.
#[test]
fn pkg_config_finds_the_library() {
    if !is_there("pkg-config") {
        return skipped("pkg_config_finds_the_library", "no pkg-config in PATH");
    }
    let prefix = Prefix::install();
    let mut ask = Command::new("pkg-config");
    ask.env("PKG_CONFIG_PATH", prefix.root().join("lib/pkgconfig"));
    let flags = succeeds(ask.args(["--cflags", "--libs", "libsdp"]));
    let program = prefix.root().join("bin/found");
    let source = prefix.root().join("found.c");
    std::fs::write(
        &source,
        "#include <sdp.h>\nint main(void) { return sdp_version_number() != SDP_VERSION_NUMBER; }\n",
    )
    .unwrap();
    let mut compile = Command::new("cc");
    compile
        .args(["-std=c11", "-pedantic", "-Wall", "-Werror"])
        .arg(&source);
    succeeds(
        compile
            .args(flags.split_whitespace())
            .arg("-o")
            .arg(&program),
    );
    let mut run = command(&program, false);
    run.env("LD_LIBRARY_PATH", prefix.root().join("lib"));
    start(run).finish();
}
