//! The built program, end to end, without RDMA: TCP, Unix sockets and the floors.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn sdp(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sdp"))
        .args(args)
        .output()
        .unwrap()
}

/// Runs `sdp perf` with a report to standard output, and reads it.
fn report(args: &[&str]) -> Value {
    let output = sdp(&[&["perf"], args, &["--json", "-"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn median(result: &Value, field: &str) -> f64 {
    result[field]["median"].as_f64().unwrap()
}

#[test]
fn bulk_delivers_every_byte_over_every_transport_of_the_kernel_and_the_floors() {
    for (transport, peer) in [
        ("tcp", "tcp"),
        ("uds", "uds"),
        ("floor-ring", "floor"),
        ("floor-single", "floor"),
    ] {
        for size in ["1000", "100000"] {
            let report = report(&[
                "bw",
                "--transport",
                transport,
                "--verify",
                "--conns",
                "3",
                "--size",
                size,
                "--bytes",
                "3000000",
            ]);
            let result = &report["results"][0];
            assert_eq!(report["schema"], "sdp.perf/1", "{transport}");
            assert_eq!(result["peer"], peer);
            assert_eq!(result["verified"], true, "{transport}");
            assert_eq!(result["bytes"], 3_000_000, "{transport}");
            assert!(median(result, "gb_per_s") > 0.0, "{transport}");
            assert!(median(result, "cpu_s_per_gb") > 0.0, "{transport}");
            assert_eq!(report["checks"][0]["name"], "bw.verified");
        }
    }
}

#[test]
fn ping_pong_gives_half_the_round_trip_however_one_waits() {
    for (transport, wait) in [
        ("tcp", "sleep"),
        ("tcp", "spin"),
        ("tcp", "poll"),
        ("uds", "adaptive"),
        ("uds", "poll"),
        ("floor-ring", "adaptive"),
        ("floor-single", "adaptive"),
    ] {
        let report = report(&[
            "lat",
            "--transport",
            transport,
            "--wait",
            wait,
            "--verify",
            "--bytes",
            "6400",
        ]);
        let result = &report["results"][0];
        assert_eq!(result["workload"], "lat", "{transport}");
        assert_eq!(result["verified"], true, "{transport}");
        // 100 round trips of 64 bytes each way.
        assert_eq!(result["bytes"], 12_800, "{transport}");
        let percentiles = ["us_p50", "us_p99", "us_p999"].map(|field| median(result, field));
        assert!(
            percentiles[0] > 0.0 && percentiles.is_sorted(),
            "{transport}: {percentiles:?}"
        );
    }
}

#[test]
fn a_run_ends_after_its_time_and_says_how_long_it_took() {
    let report = report(&[
        "bw",
        "--transport",
        "tcp",
        "--seconds",
        "0.1",
        "--size",
        "64K",
    ]);
    let result = &report["results"][0];
    let moved = result["bytes"].as_f64().unwrap() / 1e9;
    let took = moved / median(result, "gb_per_s");
    assert!((0.1..20.0).contains(&took), "{took}");
    assert_eq!(result["verified"], false);
}

#[test]
fn without_json_the_report_is_a_table() {
    let output = sdp(&[
        "perf",
        "bw",
        "--transport",
        "tcp",
        "--bytes",
        "1M",
        "--verify",
    ]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["bw 1 MiB x1", "tcp", "GB/s", "ok     bw.verified"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn the_comparison_interleaves_peers_and_names_what_it_leaves_out() {
    let report = report(&[
        "compare",
        "--peers",
        "tcp,tcp-spin,floor-ring",
        "--rounds",
        "2",
        "--round-ms",
        "5",
    ]);
    let results = report["results"].as_array().unwrap();
    // Two peers in four bulk workloads, and two TCP variants in the ping-pong.
    assert_eq!(results.len(), 10);
    for result in results {
        assert_eq!(result["per_s"]["rounds"], 2);
    }
    let single = results
        .iter()
        .find(|result| result["peer"] == "tcp")
        .unwrap();
    assert_eq!(median(single, "ratio_to_tcp"), 1.0);
    let skipped = report["skipped"].as_array().unwrap();
    for name in ["bw.1MiB.x8.sdp_best_vs_tcp", "lat.64B.sdp_vs_tcp", "bw uds"] {
        assert!(skipped.iter().any(|item| item["name"] == name), "{name}");
    }
}

/// Rounds come when they are asked for, and the report keeps each one's figures; whoever asks for no
/// more gets the report of what there was.
#[test]
fn a_comparison_in_turns_waits_for_the_other_program() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sdp"))
        .args(["perf", "compare", "--turns", "--json", "-", "--workload"])
        .args([
            "bw",
            "--peers",
            "uds,tcp-poll",
            "--sizes",
            "1K",
            "--conns",
            "2",
        ])
        .args(["--rounds", "9", "--round-ms", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "open\n");
    for round in 1..=2 {
        input.write_all(b"\n").unwrap();
        assert_eq!(line(), format!("round {round}\n"));
    }
    drop(input);
    let report: Value = serde_json::from_reader(output).unwrap();
    assert!(child.wait().unwrap().success());
    let results = report["results"].as_array().unwrap();
    let waits: Vec<_> = results.iter().map(|result| &result["wait"]).collect();
    assert_eq!(waits, ["sleep", "poll"]);
    for result in results {
        assert_eq!(result["size"], 1024);
        assert_eq!(result["conns"], 2);
        let each = result["each"]["gb_per_s"].as_array().unwrap();
        let mean = each.iter().filter_map(Value::as_f64).sum::<f64>() / 2.0;
        assert!((median(result, "gb_per_s") - mean).abs() < 1e-9);
    }
    // The row that the promises are about is not there.
    let skipped = report["skipped"].as_array().unwrap();
    let promise = skipped
        .iter()
        .find(|item| item["name"] == "bw.1MiB.x8.sdp_best_vs_tcp")
        .unwrap();
    assert_eq!(promise["reason"], "1 MiB x8 was not measured");
}

#[test]
fn wrong_command_lines_are_refused_by_name() {
    for (args, message) in [
        (
            &["compare", "--peers", "nobody"][..],
            "no peer is called nobody",
        ),
        (
            &["compare", "--workload", "lat", "--peers", "floor-ring"],
            "none of these peers runs this workload",
        ),
        (
            &["bw", "--transport", "tcp", "--mode", "zcopy"],
            "--transport sdp",
        ),
        (
            &["bw", "--mode", "zcopy", "--size", "64"],
            "at least 4096 bytes",
        ),
        (&["bw", "--size", "1.5M"], "not a number of bytes"),
        (
            &["bw", "--transport", "tcp", "--connect", "127.0.0.1:1"],
            "cannot reach a perf server",
        ),
    ] {
        let output = sdp(&[&["perf"], args].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert!(errors.contains(message), "{args:?}: {errors}");
    }
}

/// A server started by hand, killed at the end.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sdp"))
            .args(["perf", "server", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        Self { child, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_server_serves_one_test_after_another_and_refuses_other_transports() {
    let server = Server::start(&["--transport", "tcp"]);
    let args = ["--connect", &server.address, "--bytes", "100K"];
    for workload in ["bw", "lat"] {
        report(&[&[workload, "--transport", "tcp"], &args[..]].concat());
    }
    let output = sdp(&[&["perf", "bw", "--transport", "uds"], &args[..]].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("--transport tcp, not uds"), "{errors}");
}

#[test]
fn a_server_ends_after_one_test_if_asked_to() {
    let mut server = Server::start(&["--once"]);
    report(&[
        "bw",
        "--transport",
        "tcp",
        "--connect",
        &server.address,
        "--bytes",
        "100K",
    ]);
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn a_server_survives_peers_that_speak_something_else() {
    use std::io::Read;
    use std::net::TcpStream;
    let server = Server::start(&[]);
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\"Start\"\n",
        b"\xff\xfe\n",
        b"{}\n",
    ] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(nonsense).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("Refused"), "{answer}");
    }
    report(&[
        "bw",
        "--transport",
        "tcp",
        "--connect",
        &server.address,
        "--bytes",
        "100K",
    ]);
}
