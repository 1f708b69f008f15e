//! `cargo xtask package`: what is installed, as a Debian package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{LIBRARY, PRELOAD, Profile, install};
use crate::cli::{InstallOptions, PackageOptions};
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Its name.
const NAME: &str = "sdp-socket";
/// Where packages have their files.
const PREFIX: &str = "/usr";
/// What is opened at run time, where there is an adapter.
const RECOMMENDS: &str = "libibverbs1, librdmacm1, ibverbs-providers";
/// What apt shows. The lines after the first are the long description.
const DESCRIPTION: &str = "Stream sockets over RDMA with zero copy
 The Sockets Direct Protocol in user space: the C library libsdp with its header and manual, the
 program sdp (run, stat, doctor, perf), and a preload library by which unmodified programs speak it.
 Machines without an RDMA adapter have it between their own processes.
";
/// Tells dpkg that the loader's cache is to be renewed.
const TRIGGERS: &str = "activate-noawait ldconfig\n";

/// Builds everything and packs it; `Ok(true)` when the package is there.
///
/// # Errors
/// Something cannot be built or written, or the programs of Debian that pack are missing.
pub(crate) fn run(
    workspace: &Workspace,
    ui: &Ui,
    options: &PackageOptions,
) -> anyhow::Result<bool> {
    let out = match &options.out {
        Some(out) => out.clone(),
        None => workspace.target.join("package"),
    };
    let package = pack(workspace, ui, &out, ("release", &["--release"]))?;
    ui.line(&format!("{}", package.display()))?;
    ui.line(&format!("  apt-get install {}", package.display()))?;
    Ok(true)
}

/// The package, which lies in `out` then.
fn pack(workspace: &Workspace, ui: &Ui, out: &Path, profile: Profile) -> anyhow::Result<PathBuf> {
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let library = workspace.package(LIBRARY).context("no package sdp-ffi")?;
    let version = &library.version;
    let staging = out.join("staging");
    if staging.exists() {
        fs::remove_dir_all(&staging)
            .with_context(|| format!("cannot empty {}", staging.display()))?;
    }
    let prefix = PathBuf::from(PREFIX);
    let options = InstallOptions {
        prefix,
        destdir: Some(staging.clone()),
    };
    install(workspace, ui, &options, profile)?;
    let root = staging.join("usr");
    let doc = root.join("share/doc").join(NAME);
    fs::create_dir_all(&doc).with_context(|| format!("cannot make {}", doc.display()))?;
    let mut copyright = String::new();
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copyright += &read(&workspace.root.join(licence))?;
    }
    write(&doc.join("copyright"), &copyright)?;
    let changes = read(&workspace.root.join("CHANGELOG.md"))?;
    write(&doc.join("changelog"), &changes)?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-9nfr"]).arg(doc.join("changelog"));
    said(gzip.arg(root.join("share/man")))?;

    let shared = [
        root.join("bin/sdp"),
        root.join(format!("lib/libsdp.so.{version}")),
        root.join(PRELOAD.2),
    ];
    let archive = root.join("lib/libsdp.a");
    said(Command::new("strip").arg("--strip-unneeded").args(&shared))?;
    said(Command::new("strip").arg("--strip-debug").arg(archive))?;
    let control = staging.join("DEBIAN");
    fs::create_dir_all(&control).with_context(|| format!("cannot make {}", control.display()))?;
    let depends = depends(out, &shared)?;
    let fields = format!(
        "Package: {NAME}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {}\n\
         Section: net\nPriority: optional\nDepends: {depends}\nRecommends: {RECOMMENDS}\n\
         Description: {DESCRIPTION}",
        env!("CARGO_PKG_AUTHORS"),
    );
    write(&control.join("control"), &fields)?;
    write(&control.join("triggers"), TRIGGERS)?;
    let package = out.join(format!("{NAME}_{version}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    build.args(["--build", "--root-owner-group"]);
    said(build.arg(&staging).arg(&package))?;
    fs::remove_dir_all(&staging).with_context(|| format!("cannot remove {}", staging.display()))?;
    Ok(package)
}

/// The packages that have the libraries which `files` are linked with, and since which version.
fn depends(out: &Path, files: &[PathBuf]) -> anyhow::Result<String> {
    // The program runs in a source package only.
    let source = out.join("staging/source");
    fs::create_dir_all(source.join("debian"))
        .with_context(|| format!("cannot make {}", source.display()))?;
    write(
        &source.join("debian/control"),
        &format!("Source: {NAME}\n\nPackage: {NAME}\nArchitecture: any\n"),
    )?;
    let mut ask = Command::new("dpkg-shlibdeps");
    ask.current_dir(&source).arg("-O");
    // What is linked with libsdp.so is in this package too.
    for file in files {
        ask.arg(format!("-e{}", file.display()));
    }
    let answer = said(&mut ask)?;
    fs::remove_dir_all(&source).with_context(|| format!("cannot remove {}", source.display()))?;
    let depends = answer.trim().strip_prefix("shlibs:Depends=");
    depends
        .map(str::to_owned)
        .with_context(|| format!("dpkg-shlibdeps said {answer:?}"))
}

/// What a program prints.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| {
        format!("cannot run {name}: packages are made on Debian, with its package dpkg-dev")
    })?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A package has every part, belongs to root, and names what it needs.
    #[test]
    fn a_package_has_all() {
        let missing = ["dpkg-deb", "dpkg-shlibdeps"].into_iter().find(|program| {
            let mut probe = Command::new(program);
            probe.arg("--version").output().is_err()
        });
        if let Some(program) = missing {
            // Past the harness, which keeps what a test prints to itself.
            let line = format!("\nskipped a_package_has_all: no {program} in PATH\n");
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::load().unwrap();
        let package = pack(&workspace, &Ui::new(None), folder.path(), ("debug", &[])).unwrap();
        let list = said(Command::new("dpkg-deb").arg("--contents").arg(&package)).unwrap();
        assert!(
            list.lines().all(|line| line.contains(" root/root ")),
            "{list}"
        );
        for file in [
            "bin/sdp",
            "include/sdp.h",
            "lib/libsdp.so.0",
            "lib/pkgconfig/libsdp.pc",
            PRELOAD.2,
            "share/man/man7/sdp.7.gz",
            "share/man/man3/sdp_bind.3.gz",
            "share/doc/sdp-socket/copyright",
            "share/doc/sdp-socket/changelog.gz",
        ] {
            assert!(list.contains(&format!(" ./usr/{file}")), "{file}: {list}");
        }
        assert!(!list.contains("DEBIAN") && !list.contains("debian/control"));
        let fields = said(Command::new("dpkg-deb").arg("--info").arg(&package)).unwrap();
        assert!(fields.contains(" Depends: libc6 (>= "), "{fields}");
        assert!(fields.contains(" triggers"), "{fields}");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the package stays");
    }
}
