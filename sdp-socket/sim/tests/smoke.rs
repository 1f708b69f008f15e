//! A fixed number of seeds, and that a run repeats: small enough for every test run.

use std::process::{Command, Output};

/// Seeds; a release build does a hundred times as many in `cargo xtask sim`.
const SEEDS: &str = "100";

fn sim(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_sdp-sim"))
        .args(arguments)
        .output();
    output.expect("sdp-sim starts")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[test]
fn no_seed_breaks_a_rule() {
    let output = sim(&["--seeds", SEEDS]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("violations: 0"), "{}", text(&output));
}

#[test]
fn other_stacks_are_understood() {
    for peer in ["ofed15", "bcopy_only", "gen1", "any", "strict"] {
        let output = sim(&["--seeds", "12", "--peer", peer]);
        assert!(output.status.success(), "{peer}: {}", text(&output));
    }
}

#[test]
fn the_same_seeds_give_the_same_runs() {
    let hash = || {
        let output = sim(&["--seeds", "8", "--jobs", "1"]);
        let text = text(&output);
        let at = text.find("trace hash").expect("a trace hash");
        text[at..at + 27].to_owned()
    };
    assert_eq!(hash(), hash());
}
