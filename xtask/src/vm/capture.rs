//! What a dissector that is not ours sees on the wire between two guests.

use std::path::Path;
use std::process::Command;

use super::jobs::Device;
use crate::run::Run;
use crate::step::Tally;

impl Device {
    /// The dissector's names of the protocols that every transfer of this kind of device speaks:
    /// of its connection management and of its payload.
    fn protocols(self) -> [&'static str; 2] {
        match self {
            Self::Rxe => ["infiniband.mad", "infiniband.bth"],
            Self::Siw => ["iwarp_mpa", "iwarp_ddp"],
        }
    }
}

/// Passes when the capture has frames of each protocol and none that the dissector calls malformed.
///
/// # Errors
/// When the dissector cannot be run.
pub(super) fn check(capture: &Path, device: Device) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let found = |filter: &str| -> anyhow::Result<Result<usize, String>> {
        let mut tshark = Command::new("tshark");
        tshark
            .args([
                "-n",
                "-T",
                "fields",
                "-e",
                "frame.number",
                "-Y",
                filter,
                "-r",
            ])
            .arg(capture);
        // It warns on standard error that it runs as root.
        let outcome = Run::new(tshark).run(|_| ())?;
        let frames = outcome
            .lines
            .iter()
            .filter(|line| line.parse::<u64>().is_ok());
        Ok(match outcome.failure {
            None => Ok(frames.count()),
            Some(why) => Err(format!(
                "tshark -Y {filter}: {why}: {}",
                outcome.lines.join(" ")
            )),
        })
    };
    let mut note = |what: &str, found: Result<usize, String>, good: fn(usize) -> bool| match found {
        Ok(count) if good(count) => tally.passed += 1,
        Ok(count) => {
            tally.failed += 1;
            tally
                .output
                .push_str(&format!("{count} frames are {what}\n"));
        }
        Err(why) => {
            tally.failed += 1;
            tally.output.push_str(&format!("{why}\n"));
        }
    };
    for protocol in device.protocols() {
        note(protocol, found(protocol)?, |count| count > 0);
    }
    note("malformed", found("_ws.malformed")?, |count| count == 0);
    if tally.failed > 0 {
        tally
            .output
            .push_str(&format!("the capture is {}\n", capture.display()));
    }
    Ok(tally)
}
