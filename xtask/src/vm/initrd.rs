//! The initial memory file system: a shell, the modules that reach the host's files, one script.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

/// Modules that must be loaded before the host's files can be reached.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// Folders the script mounts things on.
const FOLDERS: [&str; 8] = [
    "bin", "proc", "sys", "dev", "modules", "host", "over", "root",
];
const FILE_MODE: u32 = 0o100_755;
const FOLDER_MODE: u32 = 0o040_755;

/// Writes it to `target`, from the modules in `modules` (with their index), the static shell
/// `shell` and the script `init`.
///
/// # Errors
/// When a file cannot be read or written, or a module is missing or packed.
pub(super) fn write(target: &Path, modules: &Path, shell: &Path, init: &str) -> anyhow::Result<()> {
    let index = modules.join("modules.dep");
    let index =
        fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
    let mut archive = Archive::default();
    for folder in FOLDERS {
        archive.add(folder, FOLDER_MODE, &[]);
    }
    archive.add("init", FILE_MODE, init.as_bytes());
    archive.add("bin/busybox", FILE_MODE, &read(shell)?);
    let mut order = String::new();
    for path in load_order(&index, &MODULES)? {
        let name = path.rsplit('/').next().unwrap_or(&path);
        archive.add(
            &format!("modules/{name}"),
            FILE_MODE,
            &read(&modules.join(&path))?,
        );
        order.push_str(name);
        order.push('\n');
    }
    archive.add("modules/order", FILE_MODE, order.as_bytes());
    fs::write(target, archive.finish())
        .with_context(|| format!("cannot write {}", target.display()))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The files of `wanted` and of all they depend on, each once, dependencies first. The index has a
/// line `path: dependency …` per module, the nearest dependency first.
fn load_order(index: &str, wanted: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let line = index.lines().find_map(|line| {
            let (path, dependencies) = line.split_once(':')?;
            let file = path.rsplit('/').next()?;
            let stem = file.strip_suffix(".ko")?;
            (stem.replace('-', "_") == *name).then_some((path, dependencies))
        });
        let Some((path, dependencies)) = line else {
            bail!("the kernel has no module {name}");
        };
        for path in dependencies.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

/// A cpio archive of the form the kernel reads ("newc").
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let number = self.count;
        self.entry(name, number, mode, content);
    }

    fn entry(&mut self, name: &str, inode: u32, mode: u32, content: &[u8]) {
        let links = 1;
        let header = [
            inode as usize,
            mode as usize,
            0,
            0,
            links,
            0,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Names and contents begin at multiples of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache/fscache.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio.ko
kernel/fs/overlayfs/overlay.ko:
kernel/a/with-dash.ko:
";

    #[test]
    fn dependencies_come_first_and_once() {
        let order = load_order(INDEX, &["9pnet_virtio", "9p", "with_dash"]).unwrap();
        let names: Vec<_> = order
            .iter()
            .map(|path| path.rsplit('/').next().unwrap())
            .collect();
        let expected = [
            "virtio.ko",
            "9pnet.ko",
            "9pnet_virtio.ko",
            "netfs.ko",
            "fscache.ko",
            "9p.ko",
            "with-dash.ko",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = load_order(INDEX, &["virtio_pci"]).unwrap_err();
        assert!(error.to_string().contains("virtio_pci"));
    }

    #[test]
    fn the_archive_has_the_layout_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.add("init", FILE_MODE, b"hello");
        let bytes = archive.finish();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000081ed");
        // Length of the content, then, four fields on, of the name with its zero byte.
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000005");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(11).any(|w| w == b"TRAILER!!!\0"));
    }
}
