//! `cargo xtask install`: the C library, its manual, the `sdp` program and the preload library, where
//! the system looks for them.

pub(crate) mod layout;
mod package;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use self::layout::{Tree, copy, link_shared};
pub(crate) use self::package::run as package;
use crate::cli::InstallOptions;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// The package of the C library, whose folder has the manual too.
const LIBRARY: &str = "sdp-ffi";
/// The program.
const PROGRAM: &str = "sdp-cli";
/// The library for programs that know nothing of this one. It goes where nobody loads it by accident.
const PRELOAD: (&str, &str, &str) = (
    "sdp-preload",
    "libsdp_preload.so",
    "lib/sdp/libsdp_preload.so",
);

/// How the parts are built: the folder of the build, and cargo's option.
type Profile = (&'static str, &'static [&'static str]);

/// Builds everything and installs it; `Ok(true)` when it is there.
///
/// # Errors
/// Something cannot be built, or written.
pub(crate) fn run(
    workspace: &Workspace,
    ui: &Ui,
    options: &InstallOptions,
) -> anyhow::Result<bool> {
    install(workspace, ui, options, ("release", &["--release"]))?;
    Ok(true)
}

fn install(
    workspace: &Workspace,
    ui: &Ui,
    options: &InstallOptions,
    (folder, profile): Profile,
) -> anyhow::Result<()> {
    let prefix = &options.prefix;
    if !prefix.is_absolute() {
        bail!("--prefix {}: an absolute path is needed", prefix.display());
    }
    let root = match &options.destdir {
        Some(staging) => staging.join(prefix.strip_prefix("/").unwrap_or(prefix)),
        None => prefix.clone(),
    };
    let library = workspace.package(LIBRARY).context("no package sdp-ffi")?;
    let package = library
        .manifest_path
        .parent()
        .context("a manifest has a folder")?;
    let preload = workspace.package(PRELOAD.0).is_some();
    build(workspace, ui, profile, preload)?;

    let built = workspace.target.join(folder);
    // Where no other installation writes, on the same file system.
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let shared = root.join("libsdp.so.linked");
    let archive = built.join("libsdp.a");
    succeed(link_shared(&archive, &package.join("libsdp.map"), &shared)?)?;
    let tree = Tree {
        root: &root,
        prefix,
        put: copy,
    };
    tree.library(package, &library.version, &shared, &archive)?;
    tree.manual(&package.join("man"))?;
    tree.file(&built.join("sdp"), "bin/sdp")?;
    if preload {
        tree.file(&built.join(PRELOAD.1), PRELOAD.2)?;
    }
    fs::remove_file(&shared).context("cannot remove what was linked")?;
    for line in told(&root, prefix, preload) {
        ui.line(&line)?;
    }
    Ok(())
}

fn build(workspace: &Workspace, ui: &Ui, profile: &[&str], preload: bool) -> anyhow::Result<()> {
    ui.line("building")?;
    let mut cargo = workspace.cargo(["build", "-p", LIBRARY, "-p", PROGRAM]);
    cargo.args(profile);
    if preload {
        cargo.args(["-p", PRELOAD.0]);
    }
    succeed(cargo)
}

fn succeed(mut command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

fn told(root: &Path, prefix: &Path, preload: bool) -> Vec<String> {
    let lib = prefix.join("lib");
    let mut lines = vec![
        format!("installed in {}", root.display()),
        format!(
            "  pkg-config: PKG_CONFIG_PATH={}",
            lib.join("pkgconfig").display()
        ),
        format!(
            "  programs that run: ldconfig, or LD_LIBRARY_PATH={}",
            lib.display()
        ),
        "  manual: man 7 sdp".to_owned(),
    ];
    if preload {
        let path: PathBuf = prefix.join(PRELOAD.2);
        lines.push(format!("  preload library: {}", path.display()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Output;

    use super::*;

    fn said(command: &mut Command) -> String {
        let output: Output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {text}{errors}");
        text
    }

    fn is_there(program: &str) -> bool {
        let mut probe = Command::new(program);
        probe.arg("--version").output().is_ok()
    }

    /// What is installed is found by pkg-config, compiles and runs, with the soname and the version;
    /// the manual is there by every name, and the program's page names every command it has.
    #[test]
    fn an_installation_works() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::load().unwrap();
        let ui = Ui::new(None);
        let options = InstallOptions {
            prefix: "/opt/sdp".into(),
            destdir: Some(folder.path().to_path_buf()),
        };
        // The second finds the first in its place.
        for _ in 0..2 {
            install(&workspace, &ui, &options, ("debug", &[])).unwrap();
        }
        let root = folder.path().join("opt/sdp");
        let links = |name: &str| fs::read_link(root.join("lib").join(name)).unwrap();
        assert_eq!(links("libsdp.so"), Path::new("libsdp.so.0"));
        let full = links("libsdp.so.0");
        let version = &workspace.package(LIBRARY).unwrap().version;
        assert_eq!(full, Path::new(&format!("libsdp.so.{version}")));
        assert!(root.join("lib/libsdp.a").is_file());
        let page = fs::read_to_string(root.join("share/man/man3/sdp_bind.3")).unwrap();
        assert_eq!(page, ".so man3/sdp_socket.3\n");
        let preload = root.join(PRELOAD.2).is_file();
        assert_eq!(preload, workspace.package(PRELOAD.0).is_some());

        let help = said(Command::new(root.join("bin/sdp")).arg("--help"));
        let manual = root.join("share/man/man1");
        let page = fs::read_to_string(manual.join("sdp.1")).unwrap();
        let commands = help.split("Commands:\n").nth(1).unwrap();
        let commands = commands.lines().take_while(|line| !line.is_empty());
        let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        for name in names.filter(|name| !name.is_empty() && *name != "help") {
            let own = manual.join(format!("sdp-{name}.1")).is_file();
            assert!(
                own || page.contains(&format!(".It Cm {name}")),
                "sdp {name}"
            );
        }

        if !is_there("pkg-config") {
            // Past the harness, which keeps what a test prints to itself.
            let line = b"\nskipped an_installation_is_found: no pkg-config in PATH\n";
            std::io::stdout().lock().write_all(line).unwrap();
            return;
        }
        let mut ask = Command::new("pkg-config");
        ask.env("PKG_CONFIG_PATH", root.join("lib/pkgconfig"));
        ask.env("PKG_CONFIG_SYSROOT_DIR", folder.path());
        let flags = said(ask.args(["--cflags", "--libs", "libsdp"]));
        let (source, program) = (folder.path().join("a.c"), folder.path().join("a"));
        let text = "#include <sdp.h>\n#include <stdio.h>\n\
                    int main(void) { return puts(sdp_version()) < 0; }\n";
        fs::write(&source, text).unwrap();
        let mut compile = Command::new("cc");
        compile.arg(&source).args(flags.split_whitespace());
        said(compile.arg("-o").arg(&program));
        let mut run = Command::new(&program);
        run.env("LD_LIBRARY_PATH", root.join("lib"));
        assert_eq!(said(&mut run).trim(), version);
    }
}
