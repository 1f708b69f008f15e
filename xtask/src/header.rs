//! `cargo xtask header`: the C header of libsdp, from its Rust sources.
//!
//! The generator is a library whose version the lock file pins, so everybody gets the same bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::step::Tally;
use crate::ui::Ui;
use crate::workspace::{Package, Workspace};

/// The package whose header it is.
const PACKAGE: &str = "sdp-ffi";
/// Settings of the generator, and the header, from the package's folder.
const SETTINGS: &str = "cbindgen.toml";
const HEADER: &str = "include/sdp.h";
/// The files with C functions, in the order of the header. One that is missing here is missed by
/// the test that compares the header with the symbols of the library.
const SOURCES: [&str; 12] = [
    "socket", "io", "message", "sendfile", "names", "options", "stats", "poll", "control", "ioctl",
    "memory", "version",
];
/// Structures that the system's headers show to those only who ask for their functions.
const FORWARD: &str = "\n\nstruct mmsghdr;\nstruct timespec;";
/// What follows the functions: fcntl(2) is called with two arguments or three, and a function of Rust's
/// has as many as it has.
const MACROS: &str = "
/* fcntl(2) is called with two arguments or three. */
#define SDP_FCNTL(socket, command, argument, ...) (sdp_fcntl)(socket, command, argument)
#define sdp_fcntl(socket, ...) SDP_FCNTL(socket, __VA_ARGS__, 0, 0)
";
/// Where that is.
const END: &str = "\n#ifdef __cplusplus\n}  // extern \"C\"\n";
/// A heading for Rust people, and the same for C people.
const SAFETY: (&str, &str) = ("// # Safety\n", "// The caller sees to it:\n");

/// Writes the header, or with `check` compares it; `Ok(true)` exactly when the file is now as it
/// should be.
///
/// # Errors
/// When the sources cannot be read or parsed, or the file cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, check: bool) -> anyhow::Result<bool> {
    let (path, fresh) = generate(workspace)?;
    if check {
        let difference = difference(&path, &fresh)?;
        match &difference {
            Some(what) => ui.line(what)?,
            None => ui.line(&format!("{}: as generated", path.display()))?,
        }
        return Ok(difference.is_none());
    }
    let folder = path.parent().context("the header has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&path, fresh).with_context(|| format!("cannot write {}", path.display()))?;
    ui.line(&format!("wrote {}", path.display()))?;
    Ok(true)
}

/// The comparison as a step of a longer list.
///
/// # Errors
/// As [`run`].
pub(crate) fn tally(workspace: &Workspace) -> anyhow::Result<Tally> {
    let (path, fresh) = generate(workspace)?;
    Ok(match difference(&path, &fresh)? {
        Some(what) => Tally::failed(what),
        None => Tally {
            passed: 1,
            ..Tally::default()
        },
    })
}

/// Where the header is, and what should be in it.
fn generate(workspace: &Workspace) -> anyhow::Result<(PathBuf, String)> {
    let package = workspace
        .package(PACKAGE)
        .with_context(|| format!("no package {PACKAGE}"))?;
    let folder = package
        .manifest_path
        .parent()
        .context("a manifest has a folder")?;
    let settings = folder.join(SETTINGS);
    let mut config = cbindgen::Config::from_file(&settings)
        .map_err(|why| anyhow::anyhow!("{}: {why}", settings.display()))?;
    config.after_includes = Some(format!("{}{FORWARD}", version_macros(package)?));
    let builder = cbindgen::Builder::new().with_config(config);
    let bindings = SOURCES
        .iter()
        .fold(builder, |builder, name| {
            builder.with_src(folder.join(format!("src/{name}.rs")))
        })
        .generate()
        .context("cannot generate the header")?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    let text = String::from_utf8(text).context("the header is not UTF-8")?;
    let (functions, end) = text
        .split_once(END)
        .context("the generator ends a header in another way now")?;
    let text = format!("{functions}{MACROS}{END}{end}");
    Ok((folder.join(HEADER), text.replace(SAFETY.0, SAFETY.1)))
}

/// The version as macros, computed so that no two of them can disagree.
fn version_macros(package: &Package) -> anyhow::Result<String> {
    let version = &package.version;
    let parts: Vec<u8> = version
        .split('.')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{PACKAGE} {version}: three numbers below 256 are expected"))?;
    let [major, minor, patch] = parts[..] else {
        bail!("{PACKAGE} {version}: three numbers are expected");
    };
    Ok(format!(
        "\n/* The version of this header; sdp_version() is that of the library in use. */\n\
         #define SDP_VERSION_MAJOR {major}\n\
         #define SDP_VERSION_MINOR {minor}\n\
         #define SDP_VERSION_PATCH {patch}\n\
         #define SDP_VERSION_STRING \"{version}\"\n\
         #define SDP_VERSION_NUMBER \\\n    \
         ((SDP_VERSION_MAJOR << 16) | (SDP_VERSION_MINOR << 8) | SDP_VERSION_PATCH)"
    ))
}

/// How the file differs from what it should be, if it does.
fn difference(path: &Path, fresh: &str) -> anyhow::Result<Option<String>> {
    let there = match fs::read_to_string(path) {
        Ok(there) => there,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("no {}", path.display())),
    };
    if there == fresh {
        return Ok(None);
    }
    let same = there
        .lines()
        .zip(fresh.lines())
        .take_while(|(a, b)| a == b)
        .count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").to_owned();
    Ok(Some(format!(
        "{}:{}: not as generated: run `cargo xtask header`\n  is:     {}\n  should: {}",
        path.display(),
        same + 1,
        line(&there),
        line(fresh)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header in the tree is the one its sources give.
    #[test]
    fn the_header_is_as_generated() {
        let (path, fresh) = generate(&Workspace::load().unwrap()).unwrap();
        assert_eq!(difference(&path, &fresh).unwrap(), None);
    }

    /// A header that differs, or is missing, is found, with the first line that does.
    #[test]
    fn a_changed_header_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.h");
        assert!(
            difference(&path, "a\nb\n")
                .unwrap()
                .unwrap()
                .contains(":1:")
        );
        fs::write(&path, "a\nc\n").unwrap();
        let found = difference(&path, "a\nb\n").unwrap().unwrap();
        assert!(
            found.contains(":2:") && found.contains("is:     c"),
            "{found}"
        );
        fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(difference(&path, "a\nb\n").unwrap(), None);
    }

    /// The macros are computed from the one version there is; one that would not fit its bits is
    /// refused.
    #[test]
    fn version_macros_agree() {
        let mut package = Package {
            name: PACKAGE.to_owned(),
            version: "1.2.30".to_owned(),
            manifest_path: PathBuf::new(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        };
        let text = version_macros(&package).unwrap();
        for part in [
            "MAJOR 1\n",
            "MINOR 2\n",
            "PATCH 30\n",
            "STRING \"1.2.30\"\n",
        ] {
            assert!(
                text.contains(&format!("#define SDP_VERSION_{part}")),
                "{text}"
            );
        }
        for bad in ["1.2", "1.2.3.4", "1.2.256", "1.2.3-rc1"] {
            bad.clone_into(&mut package.version);
            assert!(version_macros(&package).is_err(), "{bad}");
        }
    }
}
