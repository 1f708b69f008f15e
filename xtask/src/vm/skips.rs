//! What tests leave out on a device, held against what the device says that it can do.

use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::report::Skipped;
use crate::step::Tally;

/// What a job leaves of `ibv_devinfo -v`.
const DEVINFO: &str = "devinfo.txt";
/// Bits of `device_cap_flags` (verbs.h): windows of both kinds of type 2, and invalidating keys.
const WINDOWS: u64 = 1 << 23 | 1 << 24;
const INVALIDATES: u64 = 1 << 21;
/// How a reason ends that no bit shows: what the driver of a software device does wrong.
const DEFECT: &str = "(seen in Linux 6.1)";
const NO_IPV6: &str = "no IPv6 address behind the device";

/// A device in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    flags: u64,
    is_iwarp: bool,
    has_ipv6: bool,
}

/// `tally`, with a failure for each thing left out that the device could have done.
pub(super) fn judge(mut tally: Tally, folder: &Path) -> anyhow::Result<Tally> {
    let path = folder.join(DEVINFO);
    let said =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let device = Device::of(&said).context("ibv_devinfo does not tell what the device can do")?;
    for skipped in tally
        .skipped
        .iter()
        .filter(|skipped| !device.explains(skipped))
    {
        tally.failed += 1;
        let Skipped { name, reason } = skipped;
        let what = format!("{name} was left out, \"{reason}\", but the device says {device:?}\n");
        tally.output.push_str(&what);
    }
    Ok(tally)
}

impl Device {
    fn of(said: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = said
                .lines()
                .find_map(|line| line.trim().strip_prefix(name))?;
            line.split_whitespace().next()
        };
        let flags = value("device_cap_flags:")?.strip_prefix("0x")?;
        Some(Self {
            flags: u64::from_str_radix(flags, 16).ok()?,
            is_iwarp: value("transport:")? == "iWARP",
            // Beside link-local addresses and those of IPv4.
            has_ipv6: said
                .lines()
                .filter_map(|line| line.trim().strip_prefix("GID["))
                .filter_map(|line| line.split_once("]:"))
                .any(|(_, gid)| !gid.contains("fe80:") && !gid.contains("::ffff:")),
        })
    }

    /// Whether the device cannot do what a test needs.
    fn explains(&self, skipped: &Skipped) -> bool {
        let Some(absent) = skipped.reason.strip_prefix("absent: ") else {
            let reason = &skipped.reason;
            return reason.contains(DEFECT) || reason == NO_IPV6 && !self.has_ipv6;
        };
        let windows = self.flags & WINDOWS != 0;
        let invalidates = windows && self.flags & INVALIDATES != 0;
        let names = absent.trim_start_matches("Caps(").trim_end_matches(')');
        // A test needs all of them: one that is absent is enough, but none is named for nothing.
        names.split(" | ").all(|name| match name {
            "MEMORY_WINDOW" | "HEAP_WINDOW" => !windows,
            "LOCAL_INV" | "SEND_WITH_INV" => !invalidates,
            "RNR_RETRY" | "SOLICITED" | "REMOTE_STATUS" => self.is_iwarp,
            // An adapter reaches what was registered for it, through ports.
            "SAME_HOST" => true,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RXE: &str = "hca_id:\trxe0\n\ttransport:\t\t\tInfiniBand (0)\n\
        \tdevice_cap_flags:\t\t0x01a01c36\n\t\t\tGID[  0]:\t\tfe80::1, RoCE v2\n\
        \t\t\tGID[  1]:\t\t::ffff:10.0.0.1, RoCE v2\n\t\t\tGID[  2]:\t\tfd00::1, RoCE v2\n";
    const SIW: &str = "hca_id:\tsiw0\n\ttransport:\t\t\tiWARP (1)\n\
        \tdevice_cap_flags:\t\t0x00200000\n";

    fn skipped(reason: &str) -> Skipped {
        Skipped {
            name: "bind::of_nothing".to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// What a device cannot do may be left out, and nothing else.
    #[test]
    fn reasons_agree_with_bits() {
        let [rxe, siw] = [RXE, SIW].map(|said| Device::of(said).unwrap());
        assert!(rxe.has_ipv6 && !rxe.is_iwarp && siw.is_iwarp && !siw.has_ipv6);
        for (reason, on_rxe, on_siw) in [
            ("absent: Caps(MEMORY_WINDOW)", false, true),
            ("absent: Caps(MEMORY_WINDOW | SEND_WITH_INV)", false, true),
            ("absent: Caps(SOLICITED)", false, true),
            ("absent: Caps(RDMA_READ)", false, false),
            ("no IPv6 address behind the device", false, true),
            ("rxe (seen in Linux 6.1) panics", true, true),
            ("did not feel like it", false, false),
        ] {
            let skipped = skipped(reason);
            let explained = (rxe.explains(&skipped), siw.explains(&skipped));
            assert_eq!(explained, (on_rxe, on_siw), "{reason}");
        }
    }

    /// Who leaves out what the device can do has failed.
    #[test]
    fn a_false_reason_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(DEVINFO), RXE).unwrap();
        let tally = Tally {
            passed: 3,
            skipped: vec![
                skipped("absent: Caps(LOCAL_INV)"),
                skipped("rxe (seen in Linux 6.1) x"),
            ],
            ..Tally::default()
        };
        let judged = judge(tally, folder.path()).unwrap();
        assert_eq!(
            (judged.passed, judged.failed, judged.skipped.len()),
            (3, 1, 2)
        );
        assert!(judged.output.contains("LOCAL_INV"), "{}", judged.output);
    }
}
