//! `sdp stat`: the built program shows what another process does.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::io::{BufRead, BufReader, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept, bind, listen, sendmsg, socket_with,
};
use serde_json::Value;

fn stat(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdp"));
    command.arg("stat").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server and a client that moves bytes for as long as this is there.
struct Traffic {
    server: Child,
    client: Child,
}

impl Traffic {
    fn start() -> Self {
        let perf = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_sdp"));
            command.arg("perf").args(args).stdin(Stdio::piped());
            command.stdout(Stdio::piped()).spawn().unwrap()
        };
        let listen = ["server", "--listen", "127.0.0.1:0", "--until-eof"];
        let mut server = perf(&listen);
        let mut line = String::new();
        let mut said = BufReader::new(server.stdout.as_mut().unwrap());
        said.read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        let client = perf(&[
            "bw",
            "--connect",
            &address,
            "--seconds",
            "600",
            "--conns",
            "2",
        ]);
        Self { server, client }
    }

    fn pids(&self) -> [String; 2] {
        [self.server.id().to_string(), self.client.id().to_string()]
    }

    /// Waits until both have moved something, and gives what is told then.
    fn report(&self) -> Value {
        let [server, client] = self.pids();
        loop {
            let output = stat(&["--json", "-", &server, &client]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let moved = report["processes"].as_array().unwrap().iter().filter(|it| {
                let all = it["report"]["connections"].as_array().unwrap();
                let sum = |what: &str| all.iter().filter_map(|it| it[what].as_u64()).sum::<u64>();
                all.len() == 2 && sum("tx_bytes_bcopy") + sum("rx_bytes_bcopy") > 0
            });
            if moved.count() == 2 {
                return report;
            }
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn two_processes_as_table_json_and_prometheus() {
    let traffic = Traffic::start();
    let [server, client] = traffic.pids();
    let report = traffic.report();
    assert_eq!(report["schema"], "sdp.stat/1");
    for (process, pid) in report["processes"]
        .as_array()
        .unwrap()
        .iter()
        .zip([&server, &client])
    {
        assert_eq!(process["pid"].to_string(), *pid);
        assert_eq!(process["command"], "sdp");
    }
    let output = stat(&["-v", &server, &client]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for part in [
        "Local",
        "listen",
        "copied because: ",
        &format!("sdp pid {server} "),
    ] {
        assert!(table.contains(part), "{part}\n{table}");
    }
    let output = stat(&["--prometheus", &server]);
    let scrape = text(&output.stdout);
    assert!(
        scrape.contains("# TYPE sdp_received_bytes_total counter"),
        "{scrape}"
    );
    assert!(scrape.contains(&format!("pid=\"{server}\"")), "{scrape}");
    assert!(!scrape.contains(&format!("pid=\"{client}\"")), "{scrape}");
}

#[test]
fn looks_that_follow_each_other_show_rates() {
    let traffic = Traffic::start();
    traffic.report();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdp"));
    command
        .args(["stat", "--watch", "0.05"])
        .args(traffic.pids());
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(watch.stdout.as_mut().unwrap());
    let with_rates = said.lines().map(|line| line.unwrap());
    let found = with_rates.skip_while(|line| !line.contains("In/s")).nth(1);
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(found.unwrap().contains("127.0.0.1"));
}

#[test]
fn a_process_that_cannot_be_asked_is_named() {
    let parent = std::os::unix::process::parent_id().to_string();
    let output = stat(&[&parent]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains(&parent) && said.contains("no SDP socket"),
        "{said}"
    );
    let output = stat(&["4194999"]);
    assert!(text(&output.stderr).contains("no such process"));
    let mut rest = String::new();
    output.stdout.as_slice().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// Asks this process, which answers with `report`.
fn asked_of_an_impostor(report: &[u8]) -> Output {
    let pid = std::process::id();
    let name = format!("sdp-stat/1/{pid}/0");
    let kind = SocketType::SEQPACKET;
    let flags = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
    let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    bind(&listener, &name).unwrap();
    listen(&listener, 1).unwrap();
    let file = memfd_create("impostor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert_eq!(rustix::io::write(&file, report).unwrap(), report.len());
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    fcntl_add_seals(&file, seals).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let caller = accept(&listener).unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let files = [file.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
            let words = [IoSlice::new(b"sdp.process/1")];
            sendmsg(&caller, &words, &mut control, SendFlags::NOSIGNAL).unwrap();
        });
        stat(&[&pid.to_string()])
    })
}

/// Whoever answers in the place of a process is refused in printable words, or shown in them.
#[test]
fn what_others_answer_does_no_harm() {
    let evil = "\u{1b}]0;evil\u{7}\u{1b}[2J";
    let mut report = serde_json::json!({
        "schema": "sdp.process/1", "version": evil, "program": evil, "pid": 1, "memory": null,
        "counters": {evil: {evil: 1}}, "contexts": [], "left_out": u64::MAX, "listeners": [],
        "connections": [{"provider": evil, "state": evil, "credits": u64::MAX,
            "tx_bytes_bcopy": u64::MAX, "tx_bytes_zcopy": u64::MAX, "rx_bytes_bcopy": u64::MAX}],
        "complete": true,
    });
    let shown = asked_of_an_impostor(report.to_string().as_bytes());
    assert!(text(&shown.stdout).contains("]0;evil"), "{shown:?}");
    report["connections"][0]["local"] = evil.into();
    let refused = [
        asked_of_an_impostor(report.to_string().as_bytes()),
        asked_of_an_impostor(evil.as_bytes()),
        asked_of_an_impostor(&[b'['; 1 << 20]),
        asked_of_an_impostor(b""),
    ];
    for output in &refused {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("not a report"), "{output:?}");
    }
    for output in refused.iter().chain([&shown]) {
        for said in [&output.stdout, &output.stderr] {
            assert!(
                !text(said).contains(|c: char| c.is_control() && c != '\n'),
                "{output:?}"
            );
        }
    }
}
