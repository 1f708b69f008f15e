//! The guest's kernel, modules and initial file system, built once from packages and kept.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

use super::{initrd, siw, vmlinux};
use crate::packages;
use crate::ui::Ui;

/// The first program of the guest.
const INIT: &str = include_str!("../../guest/init.sh");
/// Changes whenever an image built by an older version of this program will not do.
const RECIPE: &str = "1";
/// What of the kernel's modules is kept; the rest is drivers of hardware that no guest has.
const KEPT: [&str; 9] = [
    "arch",
    "crypto",
    "drivers/char",
    "drivers/infiniband",
    "drivers/net",
    "drivers/virtio",
    "fs",
    "lib",
    "net",
];

/// A guest ready to boot.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Where everything is.
    folder: PathBuf,
    /// Release of its kernel.
    pub(super) kernel: String,
}

impl Image {
    /// The kept image, or a fresh one built from the packages that Debian offers now; with the
    /// module of software iWARP if `with_siw`.
    ///
    /// # Errors
    /// When a package, a tool or the cache folder fails.
    pub(crate) fn ready(ui: &Ui, with_siw: bool) -> anyhow::Result<Self> {
        let cache = cache_folder()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let lock = cache.join("lock");
        let lock =
            File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
        flock(&lock, FlockOperation::LockExclusive).context("cannot lock the cache folder")?;
        let folder = cache.join(format!("{RECIPE}-{:016x}", fingerprint(INIT)));
        if !folder.is_dir() {
            build(ui, &folder)?;
        }
        let image = Self {
            kernel: read_kernel(&folder)?,
            folder,
        };
        if with_siw && !image.modules().join(siw::MODULE).is_file() {
            packages::install(ui, packages::MODULE)?;
            siw::build(
                ui,
                &image.kernel,
                &image.folder.join("siw"),
                &image.modules(),
            )?;
            index(ui, &image.folder, &image.kernel)?;
        }
        Ok(image)
    }

    /// The kernel that the emulator starts.
    pub(super) fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The initial file system.
    pub(super) fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// The modules with their index, the same path here and in the guest.
    pub(super) fn modules(&self) -> PathBuf {
        modules(&self.folder, &self.kernel)
    }
}

fn modules(folder: &Path, kernel: &str) -> PathBuf {
    folder.join("lib/modules").join(kernel)
}

fn read_kernel(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("kernel");
    fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: remove {} to build it again",
            path.display(),
            folder.display()
        )
    })
}

/// Where images are kept.
fn cache_folder() -> anyhow::Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => {
            PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?)
                .join(".cache")
        }
    };
    Ok(base.join("sdp-vm"))
}

/// FNV-1a: tells two versions of a script apart.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Builds the image beside its place and moves it there when it is whole.
fn build(ui: &Ui, folder: &Path) -> anyhow::Result<()> {
    let kernel = packages::kernel_offered(ui)?;
    ui.line(&format!(
        "building a guest with kernel {kernel} in {}",
        folder.display()
    ))?;
    let part = folder.with_extension("part");
    remove(&part)?;
    let unpacked = part.join("unpacked");
    let wanted = [&format!("linux-image-{kernel}"), "busybox-static"];
    packages::unpack(ui, &wanted, &part.join("packages"), &unpacked)?;
    vmlinux::extract(
        &unpacked.join(format!("boot/vmlinuz-{kernel}")),
        &part.join("vmlinux"),
    )?;
    keep_modules(&modules(&unpacked, &kernel), &modules(&part, &kernel))?;
    index(ui, &part, &kernel)?;
    initrd::write(
        &part.join("initrd"),
        &modules(&part, &kernel),
        &unpacked.join("bin/busybox"),
        INIT,
    )?;
    fs::write(part.join("kernel"), &kernel).context("cannot write the kernel's name")?;
    remove(&unpacked)?;
    fs::rename(&part, folder).with_context(|| format!("cannot move to {}", folder.display()))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Moves the kept part of the modules, and the files that `depmod` reads.
fn keep_modules(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut moved: Vec<String> = KEPT.iter().map(|part| format!("kernel/{part}")).collect();
    moved.extend(
        [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ]
        .map(str::to_owned),
    );
    for path in moved {
        let (old, new) = (from.join(&path), to.join(&path));
        let parent = new
            .parent()
            .context("a path inside a folder has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::rename(&old, &new).with_context(|| format!("cannot keep {}", old.display()))?;
    }
    Ok(())
}

/// Writes the index by which modules find each other.
fn index(ui: &Ui, root: &Path, kernel: &str) -> anyhow::Result<()> {
    let depmod = ["/sbin/depmod", "/usr/sbin/depmod"];
    let Some(depmod) = depmod.into_iter().find(|path| Path::new(path).exists()) else {
        bail!("no depmod in /sbin: install the package kmod");
    };
    let mut command = Command::new(depmod);
    command.arg("--basedir").arg(root).arg(kernel);
    packages::tool(ui, "depmod", command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_modules_move_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        for part in KEPT.iter().chain(&["drivers/gpu"]) {
            fs::create_dir_all(from.join("kernel").join(part)).unwrap();
        }
        for name in [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ] {
            fs::write(from.join(name), "x").unwrap();
        }
        keep_modules(&from, &to).unwrap();
        assert!(to.join("kernel/drivers/infiniband").is_dir());
        assert!(to.join("modules.order").is_file());
        assert!(!to.join("kernel/drivers/gpu").exists());
    }

    #[test]
    fn a_changed_script_makes_another_image() {
        assert_ne!(fingerprint(INIT), fingerprint(&format!("{INIT} ")));
    }

    #[test]
    fn an_image_without_its_kernels_name_says_what_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_kernel(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("remove"));
    }
}
