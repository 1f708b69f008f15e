//! `sdp run`: the program runs, with the library in front.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must fail; helpers are not seen as tests"
)]

use std::process::{Command, Output};

/// A library must be there; whether it is the right one is tested where it is built.
fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sdp"));
    command.env_remove("LD_PRELOAD").arg("run").args(args);
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The environment is the library's, and the exit status the program's.
#[test]
fn it_becomes_the_program() {
    let folder = tempfile::tempdir().unwrap();
    // The loader says of a file that is no library that it ignores it.
    let library = folder.path().join("libsdp_preload.so");
    std::fs::write(&library, "").unwrap();
    let library = library.to_str().unwrap();
    let script = "echo $LD_PRELOAD $SIMPLE_LIBSDP $SDP_PRELOAD_REPORT; exit 7";
    let with = [
        "--library",
        library,
        "--only-sdp",
        "--report",
        "sh",
        "-c",
        script,
    ];
    let output = run(&with);
    assert_eq!(output.status.code(), Some(7), "{}", errors(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{library} 1 stderr\n"));
}

/// What is missing is named, and a program that is not there has a shell's status.
#[test]
fn what_is_missing_is_named() {
    let output = run(&["--library", "/nowhere/x.so", "true"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("/nowhere/x.so"),
        "{}",
        errors(&output)
    );
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("x.so");
    std::fs::write(&library, "").unwrap();
    let library = library.to_str().unwrap();
    let output = run(&["--library", library, "/nowhere/program"]);
    assert_eq!(output.status.code(), Some(127));
    assert!(
        errors(&output).contains("/nowhere/program"),
        "{}",
        errors(&output)
    );
    let output = run(&["--library", library, "--rules", "/nowhere/rules", "true"]);
    assert!(errors(&output).contains("the rules"), "{}", errors(&output));
}
