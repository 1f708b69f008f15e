//! `sdp capture`: the program runs as without it, and the file is there.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::path::Path;
use std::process::{Command, Output};

fn capture(output: &Path, args: &[&str]) -> Output {
    let sdp = env!("CARGO_BIN_EXE_sdp");
    let mut command = Command::new(sdp);
    command.arg("capture").arg("-o").arg(output).args(args);
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Two processes, a file for each, nothing said twice; payload beyond the bound stays out.
#[test]
fn a_file_for_each_process() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = folder.path().join("x-%p.pcapng");
    let sdp = env!("CARGO_BIN_EXE_sdp");
    let perf = [
        "--payload",
        "16",
        "--",
        sdp,
        "perf",
        "bw",
        "--size",
        "1M",
        "--bytes",
        "8M",
        "--verify",
    ];
    let output = capture(&pattern, &perf);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(errors(&output).contains("one file per process"));
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 2);
    for file in files {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert_eq!(bytes[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
        assert!((1_000..4 << 20).contains(&bytes.len()), "{}", bytes.len());
    }
}

/// Its exit status is the program's, and a program without streams leaves no file.
#[test]
fn the_status_is_the_programs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.pcapng");
    let output = capture(&file, &["--", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert!(errors(&output).contains("no SDP socket"));
    let output = capture(&file, &["--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137));
    std::fs::write(&file, "precious").unwrap();
    let output = capture(&file, &["--", "true"]);
    assert!(!output.status.success() && errors(&output).contains("exists"));
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
}
