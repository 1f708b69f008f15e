//! The kernel proper out of the file a boot loader takes. The emulator starts it at once; unpacking
//! itself under emulation would take longer than all the rest of the boot.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Offsets in the header of a boot file (the kernel's documentation, x86/boot).
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LEN: usize = 0x24c;
const SECTOR_LEN: usize = 512;
/// How an xz stream begins. Debian 12 packs its kernels so.
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// Unpacks the kernel in `boot_file` into `target`.
///
/// # Errors
/// When the file is no kernel of the expected kind, or `xz` fails.
pub(super) fn extract(boot_file: &Path, target: &Path) -> anyhow::Result<()> {
    let bytes =
        std::fs::read(boot_file).with_context(|| format!("cannot read {}", boot_file.display()))?;
    let payload =
        payload(&bytes).with_context(|| format!("{} is no kernel", boot_file.display()))?;
    ensure!(
        payload.starts_with(XZ_MAGIC),
        "the kernel in {} is not packed by xz",
        boot_file.display()
    );
    let packed = target.with_extension("xz");
    std::fs::write(&packed, payload)
        .with_context(|| format!("cannot write {}", packed.display()))?;
    // The stream may be followed by a length that is not part of it: xz ends with 2, a warning.
    let status = Command::new("xz")
        .args(["--decompress", "--stdout", "--single-stream", "--quiet"])
        .arg(&packed)
        .stdin(Stdio::null())
        .stdout(File::create(target).with_context(|| format!("cannot make {}", target.display()))?)
        .status()
        .context("cannot run xz")?;
    ensure!(matches!(status.code(), Some(0 | 2)), "xz: {status}");
    let kernel =
        std::fs::read(target).with_context(|| format!("cannot read {}", target.display()))?;
    ensure!(
        kernel.starts_with(ELF_MAGIC),
        "what {} holds is no ELF file",
        boot_file.display()
    );
    std::fs::remove_file(&packed).with_context(|| format!("cannot remove {}", packed.display()))
}

/// The packed kernel in a boot file; none if the header leads nowhere.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let setup = usize::from(*bytes.get(SETUP_SECTORS)?);
    let start = (setup + 1) * SECTOR_LEN + word(PAYLOAD_OFFSET)?;
    bytes.get(start..start.checked_add(word(PAYLOAD_LEN)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_file(offset: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4 * SECTOR_LEN];
        bytes[SETUP_SECTORS] = 1;
        bytes[PAYLOAD_OFFSET..][..4].copy_from_slice(&offset.to_le_bytes());
        bytes[PAYLOAD_LEN..][..4].copy_from_slice(&len.to_le_bytes());
        bytes[2 * SECTOR_LEN + 16..][..3].copy_from_slice(b"abc");
        bytes
    }

    #[test]
    fn the_payload_is_where_the_header_says() {
        assert_eq!(payload(&boot_file(16, 3)), Some(&b"abc"[..]));
    }

    #[test]
    fn a_header_that_leads_out_of_the_file_is_refused() {
        for (offset, len) in [(16, 1 << 20), (u32::MAX, 1), (1024, 1)] {
            assert_eq!(payload(&boot_file(offset, len)), None, "{offset} {len}");
        }
        assert_eq!(payload(b"short"), None);
    }

    #[test]
    fn a_file_that_is_no_kernel_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz");
        std::fs::write(&path, "text").unwrap();
        let error = extract(&path, &folder.path().join("vmlinux")).unwrap_err();
        assert!(format!("{error:#}").contains("vmlinuz"));
    }
}
