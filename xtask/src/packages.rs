//! Debian packages: which system this is, what is missing, installing and unpacking.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::run::Run;
use crate::ui::Ui;

/// The one system whose packages the guest is built from.
const SYSTEM: (&str, &str) = ("debian", "12");
/// The one processor the guest is built for.
const ARCHITECTURE: &str = "x86_64";

/// A file of this machine and the package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// A program's name, or an absolute path.
    pub(crate) file: &'static str,
    /// The package.
    pub(crate) package: &'static str,
}

/// What booting a guest needs on this machine.
pub(crate) const BOOT: &[Need] = &[
    need("qemu-system-x86_64", "qemu-system-x86"),
    need("kmod", "kmod"),
    need("/sbin/modprobe", "kmod"),
    need("ip", "iproute2"),
    need("xz", "xz-utils"),
    need("stty", "coreutils"),
];
/// What jobs with devices need: the guest runs the programs and libraries of this machine.
pub(crate) const DEVICES: &[Need] = &[
    need("rdma", "iproute2"),
    need("tc", "iproute2"),
    need("/etc/libibverbs.d/rxe.driver", "ibverbs-providers"),
    need("ibv_devinfo", "ibverbs-utils"),
    need("rping", "rdmacm-utils"),
    need("ib_write_bw", "perftest"),
];
/// What reading a capture needs.
pub(crate) const CAPTURE: &[Need] = &[need("tshark", "tshark")];
/// What ssh from one guest to the other needs; none of these starts a server on this machine.
pub(crate) const SSH: &[Need] = &[
    need("ssh", "openssh-client"),
    need("strip", "binutils"),
    need("dropbear", "dropbear-bin"),
    need("/usr/lib/openssh/sftp-server", "openssh-sftp-server"),
];
/// What UCX is measured by.
pub(crate) const UCX: &[Need] = &[need("ucx_perftest", "ucx-utils")];
/// A program that knows only TCP.
pub(crate) const UNMODIFIED: &[Need] = &[need("socat", "socat")];
/// What building small C programs needs.
pub(crate) const PROBES: &[Need] = &[
    need("cc", "gcc"),
    need("/usr/include/rdma/rsocket.h", "librdmacm-dev"),
];
/// What building a kernel module needs.
pub(crate) const MODULE: &[Need] = &[need("gcc-12", "gcc-12"), need("make", "make")];

/// What is needed, and where it comes from.
pub(crate) const fn need(file: &'static str, package: &'static str) -> Need {
    Need { file, package }
}

/// Why no guest can be built here; none if one can.
///
/// # Errors
/// When the system does not say what it is.
pub(crate) fn unsupported() -> anyhow::Result<Option<String>> {
    let path = "/etc/os-release";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(mismatch(&text, std::env::consts::ARCH))
}

fn mismatch(release: &str, architecture: &str) -> Option<String> {
    let value = |name: &str| {
        let line = release
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.map_or("unknown", |value| value.trim_matches('"'))
    };
    let (id, version) = (value("ID"), value("VERSION_ID"));
    ((id, version) != SYSTEM || architecture != ARCHITECTURE).then(|| {
        format!(
            "the guest is built from packages of Debian 12 for x86-64; this is {id} {version} on \
             {architecture}"
        )
    })
}

/// Installs what is missing of `needs`, and says so.
///
/// # Errors
/// When a package cannot be installed, or does not bring the file it is wanted for.
pub(crate) fn install(ui: &Ui, needs: &[Need]) -> anyhow::Result<()> {
    let mut packages: Vec<&str> = missing(needs).iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    ui.line(&format!("installing by apt-get: {}", packages.join(" ")))?;
    let mut install = as_root("apt-get");
    install
        .args(["install", "-q", "-y", "--no-install-recommends"])
        .args(&packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    refresh(ui)?;
    tool(ui, "apt-get install", install)?;
    let still = missing(needs);
    if let Some(need) = still.first() {
        bail!(
            "package {} is installed but brought no {}",
            need.package,
            need.file
        );
    }
    Ok(())
}

/// Installs what can be installed of `needs`, without starting servers. What is still missing after
/// that: nothing, where all went well.
///
/// # Errors
/// When the output cannot be written.
pub(crate) fn install_what_can_be(ui: &Ui, needs: &[Need]) -> anyhow::Result<Vec<Need>> {
    let absent = missing(needs);
    if absent.is_empty() {
        return Ok(absent);
    }
    let _kept_back = KeptBack::new();
    // Together first: it is quicker, and mostly all are offered.
    if install(ui, &absent).is_err() {
        for need in missing(&absent) {
            if let Err(error) = install(ui, &[need]) {
                ui.line(&format!("{}: {error:#}", need.package))?;
            }
        }
    }
    Ok(missing(needs))
}

/// What Debian's packages ask whether they may start a server, while there is a file of ours that says no.
struct KeptBack(Option<&'static Path>);

impl KeptBack {
    fn new() -> Self {
        let path = Path::new("/usr/sbin/policy-rc.d");
        let words = "#!/bin/sh\n# Made by cargo xtask, which removes it again.\nexit 101\n";
        // One that is there is the administrator's; where none can be made, servers are started.
        if path.exists() || fs::write(path, words).is_err() {
            return Self(None);
        }
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        Self(Some(path))
    }
}

impl Drop for KeptBack {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            // Nothing else can be done about it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Those of `needs` that are not here.
pub(crate) fn missing(needs: &[Need]) -> Vec<Need> {
    needs
        .iter()
        .filter(|need| !is_here(need.file))
        .copied()
        .collect()
}

/// Whether a program is in the folders of programs, or a file exists.
fn is_here(file: &str) -> bool {
    if file.starts_with('/') {
        return Path::new(file).exists();
    }
    let own = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    std::env::split_paths(&own)
        .chain(usual.map(PathBuf::from))
        .any(|folder| folder.join(file).is_file())
}

/// Fetches the lists of packages: what is offered changes with every update of the kernel.
fn refresh(ui: &Ui) -> anyhow::Result<()> {
    let mut update = as_root("apt-get");
    update.args(["update", "-q"]);
    tool(ui, "apt-get update", update)
}

/// Downloads `packages` into `folder` and unpacks each into `target`, without installing.
///
/// # Errors
/// When a package is not offered or does not unpack.
pub(crate) fn unpack(
    ui: &Ui,
    packages: &[&str],
    folder: &Path,
    target: &Path,
) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut download = Command::new("apt-get");
    download
        .args(["download", "-q"])
        .args(packages)
        .current_dir(folder);
    tool(ui, &format!("download {}", packages.join(" ")), download)?;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            let mut command = Command::new("dpkg-deb");
            command.arg("-x").arg(&path).arg(target);
            tool(ui, &format!("unpack {}", path.display()), command)?;
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The kernel that Debian offers now, for example `6.1.0-40-amd64`.
///
/// # Errors
/// When apt does not know any.
pub(crate) fn kernel_offered(ui: &Ui) -> anyhow::Result<String> {
    refresh(ui)?;
    let mut command = Command::new("apt-cache");
    command.args(["depends", "linux-image-amd64"]);
    let outcome = Run::new(command).run(|_| ())?;
    let kernel = outcome
        .lines
        .iter()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    kernel
        .map(str::to_owned)
        .context("apt offers no linux-image-amd64: is the main section of Debian 12 configured?")
}

/// `program`, by way of sudo unless we are root.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND", program]);
    command
}

/// Runs a tool that must succeed; its output is shown when it does not.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn tool(ui: &Ui, name: &str, command: Command) -> anyhow::Result<()> {
    let progress = ui.progress(name)?;
    let outcome = Run::new(command).run(|line| progress.note(line))?;
    drop(progress);
    if let Some(why) = &outcome.failure {
        bail!("{name}: {why}\n{}", outcome.lines.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_12_on_x86_64_will_do() {
        let debian =
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(mismatch(debian, "x86_64"), None);
        assert!(mismatch(debian, "aarch64").unwrap().contains("aarch64"));
        let other = "ID=fedora\nVERSION_ID=42\n";
        assert!(mismatch(other, "x86_64").unwrap().contains("fedora 42"));
        assert!(mismatch("", "x86_64").is_some());
    }

    #[test]
    fn what_is_here_is_not_missing() {
        let needs = [
            need("sh", "dash"),
            need("/proc/self/stat", "none"),
            need("no-such-program-here", "some"),
            need("/no/such/file", "other"),
        ];
        assert_eq!(missing(&needs), needs[2..]);
    }
}
