//! The built program over SDP between two processes of this machine, every byte verified.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::process::Command;

use serde_json::Value;

/// Runs `sdp perf` with a report to standard output, and reads it.
fn report(args: &[&str]) -> Value {
    report_with(&[], args)
}

/// As [`report`], with variables of the environment set.
fn report_with(variables: &[(&str, &str)], args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_sdp"))
        .arg("perf")
        .args(args)
        .args(["--json", "-"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn count(report: &Value, path: &str) -> u64 {
    report["results"][0]
        .pointer(path)
        .unwrap()
        .as_u64()
        .unwrap()
}

#[test]
fn copied_bulk_is_right_and_counted_as_copied_at_both_ends() {
    for size in ["1000", "64K", "1M"] {
        let report = report(&[
            "bw", "--mode", "bcopy", "--verify", "--conns", "2", "--size", size, "--bytes", "4M",
        ]);
        let bytes = count(&report, "/bytes");
        assert_eq!(report["results"][0]["verified"], true, "{size}");
        assert_eq!(count(&report, "/bytes_zcopy"), 0, "{size}");
        // The trailer of each connection is counted too.
        let copied = count(&report, "/engine/client/tx_bytes_bcopy");
        assert!(
            (bytes..=bytes + 2).contains(&copied),
            "{size}: {copied} of {bytes}"
        );
        let sent = count(&report, "/verbs/client/send_bytes");
        assert!(sent >= bytes, "{size}: {sent} of {bytes}");
    }
}

#[test]
fn zero_copy_bulk_is_read_by_the_verbs_from_either_memory() {
    for buffers in ["heap", "registered"] {
        let report = report(&[
            "bw",
            "--mode",
            "zcopy",
            "--verify",
            "--buffers",
            buffers,
            "--bytes",
            "16M",
        ]);
        let names = [
            "bw.verified",
            "verbs.rdma_bytes",
            "verbs.send_bytes",
            "engine agrees",
        ];
        for name in names {
            let mut checks = report["checks"].as_array().unwrap().iter();
            let check = checks.find(|check| check["name"] == name).unwrap();
            assert_eq!(check["ok"], true, "{buffers}: {check}");
        }
    }
}

/// The provider that streams are opened on is not always the one that memory is registered with by
/// default.
#[test]
fn registered_memory_is_registered_with_the_provider_of_the_stream() {
    let report = report_with(
        &[("SDP_PROVIDER", "sim")],
        &[
            "bw",
            "--provider",
            "host",
            "--mode",
            "zcopy",
            "--buffers",
            "registered",
            "--bytes",
            "16M",
        ],
    );
    assert_eq!(report["results"][0]["buffers"], "registered");
    assert!(count(&report, "/bytes_zcopy") > 0);
}

#[test]
fn ping_pong_is_right_whatever_the_threads_wait_by() {
    for wait in ["adaptive", "spin", "sleep", "poll"] {
        let report = report(&["lat", "--wait", wait, "--verify", "--bytes", "6400"]);
        assert_eq!(report["results"][0]["verified"], true, "{wait}");
        assert_eq!(count(&report, "/bytes"), 12_800, "{wait}");
    }
}

/// Whole and in part: a message of a MiB is more than a non-blocking write takes at once.
#[test]
fn polled_bulk_is_right() {
    for size in ["1000", "1M"] {
        let report = report(&[
            "bw", "--wait", "poll", "--verify", "--conns", "3", "--size", size, "--bytes", "24M",
        ]);
        assert_eq!(report["results"][0]["verified"], true, "{size}");
    }
}

/// Ten times as many connections as descriptors; nothing is left of them, here and there.
#[test]
fn connections_need_no_descriptor_each_and_leave_nothing() {
    let report = report(&[
        "conn",
        "--open",
        "2000",
        "--cycles",
        "1000",
        "--descriptors",
        "200",
    ]);
    let (sdp, tcp) = (&report["results"][0], &report["results"][1]);
    assert_eq!((&sdp["peer"], &tcp["peer"]), (&"sdp".into(), &"tcp".into()));
    for result in [sdp, tcp] {
        assert!(
            result["us_p50"]["median"].as_f64().unwrap() > 0.0,
            "{result}"
        );
    }
    let names: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["name"])
        .collect();
    for name in [
        "conn.cycles",
        "conn.open",
        "conn.descriptors",
        "conn.leak.client",
        "conn.leak.server",
    ] {
        assert!(names.contains(&&Value::from(name)), "{name} in {names:?}");
    }
}
