//! The short form of the founding paper's figure: what it says of copies and zero copy still holds.

use std::process::Command;

#[test]
fn zero_copy_is_worth_what_the_paper_says() {
    let output = Command::new(env!("CARGO_BIN_EXE_sdp-sim"))
        .args(["figure", "--short"])
        .output()
        .expect("sdp-sim starts");
    let (out, err) = (&output.stdout, &output.stderr);
    let text = String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err);
    assert!(output.status.success(), "{text}");
    for check in [
        "read_vs_bcopy.x8",
        "cpu_use.bcopy_vs_read.x8",
        "read_by_rdma_read.ddr2005",
    ] {
        assert!(text.contains(check), "{check} is not checked: {text}");
    }
}
