//! `sdp doctor`: what it says of this machine, of what does not work, and of peers.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use sdp_socket::SdpListener;
use serde_json::Value;

fn doctor(variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdp"));
    for name in ["SDP_PROVIDER", "SDP_MEM_MAX", "SDP_CAPTURE"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command.arg("doctor").args(args).output().unwrap()
}

/// The findings, and whether all is well.
fn findings(variables: &[(&str, &str)], args: &[&str]) -> (Vec<Value>, bool) {
    let output = doctor(variables, &[args, &["--json", "-"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "sdp.doctor/1");
    let findings = report["findings"].as_array().unwrap().clone();
    for finding in &findings {
        let verdict = finding["verdict"].as_str().unwrap();
        assert!(
            ["ok", "warning", "unchecked", "fail"].contains(&verdict),
            "{finding}"
        );
        assert_eq!(finding["remedy"].is_null(), verdict == "ok", "{finding}");
    }
    let failed = findings.iter().any(|it| it["verdict"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(failed)));
    (findings, !failed)
}

fn find<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    let found = findings.iter().find(|it| it["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {findings:#?}"))
}

#[test]
fn this_machine_is_well() {
    let (findings, well) = findings(&[], &[]);
    assert!(well, "{findings:#?}");
    for name in [
        "kernel",
        "limit.nofile",
        "memory",
        "environment",
        "rdma.libraries",
        "rdma.device",
    ] {
        // A machine with adapters has a line for each port in place of the last.
        if name != "rdma.device" || !findings.iter().any(|it| it["name"] == "rdma.port") {
            find(&findings, name);
        }
    }
    for name in ["host.connect", "host.copy", "host.zero_copy"] {
        assert_eq!(find(&findings, name)["verdict"], "ok", "{findings:#?}");
    }
    // A sandbox may forbid it.
    find(&findings, "host.process_vm_readv");
}

#[test]
fn what_does_not_work_is_named_with_its_remedy() {
    let (findings, well) = findings(&[("SDP_MEM_MAX", "many"), ("SDP_PROVIDR", "host")], &[]);
    assert!(!well);
    assert!(
        find(&findings, "memory")["remedy"]
            .as_str()
            .unwrap()
            .contains("512M")
    );
    assert_eq!(find(&findings, "host.listen")["verdict"], "fail");
    let text = doctor(&[("SDP_PROVIDR", "host")], &[]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("warning   environment: SDP_PROVIDR=host"),
        "{text}"
    );
    assert!(text.contains("SDP works"), "{text}");
}

#[test]
fn what_is_tried_is_no_part_of_a_capture() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.pcapng");
    let (_, well) = findings(&[("SDP_CAPTURE", file.to_str().unwrap())], &[]);
    assert!(well && !file.exists());
}

#[test]
fn peers_are_reached_or_it_is_said_why_not() {
    let listener = SdpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (all, well) = findings(&[], &[&address.to_string()]);
    assert!(well, "{all:#?}");
    let route = find(&all, "peer.route")["detail"].as_str().unwrap();
    assert!(route.contains("provider host"), "{route}");
    assert_eq!(find(&all, "peer.connect")["verdict"], "ok");
    listener.accept_timeout(Duration::from_secs(20)).unwrap();

    let remedy = |args: &[&str]| {
        let (all, well) = findings(&[], args);
        assert!(!well, "{all:#?}");
        find(&all, "peer.connect")["remedy"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    assert!(remedy(&[&address]).contains("sdp run"));
    drop(other);
    assert!(remedy(&[&address]).contains("nobody listens"));

    let (all, _) = findings(&[], &["127.0.0.1"]);
    assert_eq!(find(&all, "peer.connect")["verdict"], "unchecked");
    let (all, well) = findings(&[], &["no.such.name.invalid:1"]);
    assert!(!well && find(&all, "peer.name")["verdict"] == "fail");
    let output = doctor(&[], &["127.0.0.1:port"]);
    assert_eq!(output.status.code(), Some(1));
}
