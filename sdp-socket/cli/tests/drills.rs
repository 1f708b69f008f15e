//! Short forms of `sdp soak` and `sdp kill`: the same checks, fewer rounds.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Runs `sdp` with a report to standard output; every check of it must hold. One at a time: some
/// checks are of time.
fn report(args: &[&str]) -> Value {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_sdp"))
        .args(args)
        .args(["--json", "-"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["ok"] == true), "{report:#}");
    report
}

/// What a check found.
fn value(report: &Value, name: &str) -> f64 {
    let mut checks = report["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == name);
    check.unwrap()["value"].as_f64().unwrap()
}

#[test]
fn soak_over_host_and_over_a_layer_that_is_late() {
    let report = report(&["soak", "--seconds", "3", "--conns", "8"]);
    for prefix in ["soak", "soak.lazy"] {
        assert_eq!(value(&report, &format!("{prefix}.mismatches")), 0.0);
        assert!(value(&report, &format!("{prefix}.client.forks")) >= 100.0);
    }
}

#[test]
fn peers_killed_in_every_phase() {
    let report = report(&["kill", "--rounds", "30"]);
    for phase in [
        "handshake",
        "bcopy",
        "advert_open",
        "read_running",
        "closing",
    ] {
        assert!(
            value(&report, &format!("kill.phase.{phase}")) >= 3.0,
            "{phase}"
        );
    }
}

#[test]
fn peers_stopped_for_a_while() {
    let report = report(&["kill", "--stop", "--rounds", "5"]);
    assert!(value(&report, "stop.max_ms") > 0.0);
}
