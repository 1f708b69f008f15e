//! Changed bytes: proof that the comparison can fail.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::compare::compare_captures;
use super::log::Log;
use super::{Captures, INFINIBAND, ROCE, tshark};

/// One changed byte.
#[derive(Debug)]
pub(super) struct Flip {
    /// Which.
    pub(super) what: String,
    /// Whether the comparison then found a difference.
    pub(super) noticed: bool,
}

/// Changes one byte of a copy of a capture at a time.
///
/// # Errors
/// When a file cannot be read or written, or tshark fails.
pub(super) fn run(log: &Log, folder: &Path, captures: Captures<'_>) -> anyhow::Result<Vec<Flip>> {
    let longest = log.messages.iter().max_by_key(|message| message.len());
    let longest = longest.context("the log is empty")?;
    let (hello, answer) = (&log.hello.message, &log.hello_ack);
    let mut flips = Vec::new();
    for (what, file, message, at) in [
        ("flags", ROCE, longest, 1),
        ("MSeq", ROCE, longest, 11),
        ("payload", ROCE, longest, longest.len() - 1),
        ("HelloAck's size", ROCE, answer, 20),
        ("Hello's port", INFINIBAND, hello, 28),
    ] {
        let path = folder.join(file);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let found = find(&bytes, &message.hex()).with_context(|| format!("{what} of {file}"))?;
        let mut changed = bytes;
        changed[found + at] ^= 0x10;
        let copy = folder.join("flipped.pcapng");
        fs::write(&copy, &changed).with_context(|| format!("write {}", copy.display()))?;
        let frames = tshark::read(&copy)?;
        let captures = match file {
            ROCE => (&*frames, captures.1),
            _ => (captures.0, &*frames),
        };
        let verdict = compare_captures(log, captures);
        flips.push(Flip {
            what: what.to_owned(),
            noticed: !verdict.mismatches.is_empty(),
        });
    }
    Ok(flips)
}

/// Where a message lies in a file.
fn find(bytes: &[u8], hex: &str) -> Option<usize> {
    let digits: Vec<u8> = hex.bytes().collect();
    let wanted: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let wanted = wanted?;
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_by_their_digits() {
        assert_eq!(find(&[1, 2, 0xfe, 3], "fe03"), Some(2));
        assert_eq!(find(&[1, 2, 0xfe, 3], "fe04"), None);
        assert_eq!(find(&[1, 2], "0x"), None);
    }
}
