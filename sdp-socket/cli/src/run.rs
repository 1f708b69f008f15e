//! `sdp run`: runs a program with the preload library, so that its ordinary sockets speak SDP.

mod elf;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::cli::RunArgs;
use elf::Kind;

const LIBRARY: &str = "libsdp_preload.so";

/// As shells have it: not to be run, and not there.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Becomes the program; returns only if it cannot.
///
/// # Errors
/// The library or the rules are missing.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let library = match &args.library {
        Some(path) => readable(path, "the library")?,
        None => find_library(&env::current_exe().context("where this program is")?)?,
    };
    let [program, arguments @ ..] = args.command.as_slice() else {
        bail!("which program?");
    };
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("LD_PRELOAD", preload(env::var_os("LD_PRELOAD"), &library)?);
    if args.only_sdp {
        command.env("SIMPLE_LIBSDP", "1");
    }
    if let Some(rules) = &args.rules {
        command.env_remove("SIMPLE_LIBSDP");
        command.env("LIBSDP_CONFIG_FILE", readable(rules, "the rules")?);
    }
    if args.report {
        command.env("SDP_PRELOAD_REPORT", "stderr");
    }
    if let Some(why) =
        find_program(program, env::var_os("PATH").as_deref()).and_then(|p| why_not(&p))
    {
        say(&format!("{}: {why}: it runs with TCP", program.display()));
    }
    let error = command.exec();
    say(&format!("cannot run {}: {error}", program.display()));
    Ok(ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }))
}

fn say(words: &str) {
    // Whoever has closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "sdp run: {words}");
}

/// The absolute path of a file that can be read.
fn readable(path: &Path, what: &str) -> anyhow::Result<PathBuf> {
    let failed = || format!("{what}: {}", path.display());
    fs::File::open(path).with_context(failed)?;
    std::path::absolute(path).with_context(failed)
}

/// Where the library may be, with this program at `exe`: beside it, where an installation has it, or
/// in the other profile's folder of a build.
fn places(exe: &Path) -> Vec<PathBuf> {
    let Some(folder) = exe.parent() else {
        return Vec::new();
    };
    let mut places = vec![folder.join(LIBRARY)];
    if let Some(above) = folder.parent() {
        places.push(above.join("lib/sdp").join(LIBRARY));
        if above.join("CACHEDIR.TAG").exists() {
            places.extend(["release", "debug"].map(|profile| above.join(profile).join(LIBRARY)));
        }
    }
    places
}

pub(crate) fn find_library(exe: &Path) -> anyhow::Result<PathBuf> {
    let places = places(exe);
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = places
        .iter()
        .map(|p| format!("  {}", p.display()))
        .collect();
    bail!(
        "{LIBRARY} is not there; looked for\n{}\nbuild it with `cargo build --release -p \
         sdp-preload`, or say where it is with --library",
        looked.join("\n")
    )
}

/// LD_PRELOAD with the library behind what is there.
fn preload(before: Option<OsString>, library: &Path) -> anyhow::Result<OsString> {
    let name = library.as_os_str();
    if name.as_bytes().iter().any(|byte| b": ".contains(byte)) {
        bail!(
            "{}: LD_PRELOAD has no way to name a path with a colon or a space",
            library.display()
        );
    }
    let Some(mut all) = before.filter(|before| !before.is_empty()) else {
        return Ok(name.to_owned());
    };
    let is_there = all
        .as_bytes()
        .split(|byte| b": ".contains(byte))
        .any(|one| one == name.as_bytes());
    if !is_there {
        all.push(":");
        all.push(name);
    }
    Ok(all)
}

/// The file of a program, as exec finds it.
fn find_program(name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(name.into());
    }
    env::split_paths(path?)
        .map(|folder| folder.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
}

/// Why the loader will not put the library before the program's others.
fn why_not(program: &Path) -> Option<&'static str> {
    const SET_IDS: u32 = 0o6000;
    let mode = fs::metadata(program).ok()?.permissions().mode();
    if mode & SET_IDS != 0 {
        return Some(
            "it has the set-user-ID or set-group-ID bit, so the loader takes no LD_PRELOAD",
        );
    }
    match elf::kind(&mut fs::File::open(program).ok()?)? {
        Kind::Static => {
            Some("it is linked statically, so there is nothing to put a library before")
        }
        Kind::OtherWidth => Some("its word length is not that of the library"),
        Kind::Dynamic => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library of the user's own stays in front, and ours is named once.
    #[test]
    fn preloads_are_kept() {
        let library = Path::new("/opt/lib/x.so");
        let with = |before: &str| preload(Some(before.into()), library).unwrap();
        assert_eq!(preload(None, library).unwrap(), "/opt/lib/x.so");
        assert_eq!(with(""), "/opt/lib/x.so");
        assert_eq!(with("/a.so"), "/a.so:/opt/lib/x.so");
        assert_eq!(with("/opt/lib/x.so /a.so"), "/opt/lib/x.so /a.so");
        let error = preload(None, Path::new("/a b.so")).unwrap_err().to_string();
        assert!(error.contains("/a b.so"), "{error}");
    }

    /// A missing library is an error that says where it was looked for, and what to do.
    #[test]
    fn a_missing_library_is_explained() {
        let error = find_library(Path::new("/nowhere/bin/sdp"))
            .unwrap_err()
            .to_string();
        for words in [
            "/nowhere/bin/libsdp_preload.so",
            "/nowhere/lib/sdp/libsdp_preload.so",
            "cargo build --release -p sdp-preload",
            "--library",
        ] {
            assert!(error.contains(words), "{error}");
        }
    }

    /// An installation's library is found, and one beside the program before it.
    #[test]
    fn libraries_are_found_in_order() {
        let root = tempfile::tempdir().unwrap();
        let exe = root.path().join("bin/sdp");
        for folder in ["bin", "lib/sdp"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let installed = root.path().join("lib/sdp").join(LIBRARY);
        fs::write(&installed, "").unwrap();
        assert_eq!(find_library(&exe).unwrap(), installed);
        let beside = root.path().join("bin").join(LIBRARY);
        fs::write(&beside, "").unwrap();
        assert_eq!(find_library(&exe).unwrap(), beside);
    }

    /// Programs that the loader leaves alone are told by name.
    #[test]
    fn programs_that_cannot_be_helped() {
        let sh = find_program(OsStr::new("sh"), Some(OsStr::new("/nowhere:/bin"))).unwrap();
        assert_eq!(sh, Path::new("/bin/sh"));
        assert_eq!(why_not(&sh), None);
        assert_eq!(
            find_program(OsStr::new("sh"), Some(OsStr::new("/nowhere"))),
            None
        );
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("sh");
        fs::copy(&sh, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(why_not(&copy).unwrap().contains("set-user-ID"));
    }
}
