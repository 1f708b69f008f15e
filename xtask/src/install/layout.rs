//! What an installation of the C library is made of, and where each part goes.
//!
//! The tests of sdp-ffi include this file, so that their programs find what an installation has. It
//! uses the standard library only.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `rustc --print native-static-libs` says the static library wants.
pub(crate) const NATIVE_LIBS: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];
/// What programs are linked with, and look for: the build script of sdp-ffi says it too.
pub(crate) const SONAME: &str = "libsdp.so.0";

/// A way to bring a file to its place: a copy, or a link where it stays in the folder of a build.
pub(crate) type Put = fn(&Path, &Path) -> io::Result<()>;

/// Where an installation goes.
pub(crate) struct Tree<'a> {
    /// The folder with `include`, `lib` and so on: the prefix, below the staging folder if there is one.
    pub(crate) root: &'a Path,
    /// The prefix as programs will see it.
    pub(crate) prefix: &'a Path,
    pub(crate) put: Put,
}

impl Tree<'_> {
    /// Header, libraries and pkg-config file of the package in `package`.
    ///
    /// # Errors
    /// A file is missing, or cannot be written.
    pub(crate) fn library(
        &self,
        package: &Path,
        version: &str,
        shared: &Path,
        archive: &Path,
    ) -> io::Result<()> {
        let full = format!("libsdp.so.{version}");
        self.file(&package.join("include/sdp.h"), "include/sdp.h")?;
        self.file(shared, &format!("lib/{full}"))?;
        self.link(&full, &format!("lib/{SONAME}"))?;
        self.link(SONAME, "lib/libsdp.so")?;
        self.file(archive, "lib/libsdp.a")?;
        let filled = fs::read_to_string(package.join("libsdp.pc.in"))?
            .replace("@prefix@", &self.prefix.to_string_lossy())
            .replace("@version@", version);
        self.text(&filled, "lib/pkgconfig/libsdp.pc")
    }

    /// The manual pages in `folder`, and for each further name that a page has a page that leads to it.
    ///
    /// # Errors
    /// As [`library`](Self::library).
    pub(crate) fn manual(&self, folder: &Path) -> io::Result<()> {
        for page in pages(folder)? {
            let text = fs::read_to_string(&page)?;
            let file = page.file_name().unwrap_or_default().to_string_lossy();
            let Some((_, section)) = file.rsplit_once('.') else {
                continue;
            };
            self.file(&page, &format!("share/man/man{section}/{file}"))?;
            for other in names(&text) {
                let leading = format!("{other}.{section}");
                // A page of its own, this one among them, needs none that leads to it.
                if !folder.join(&leading).exists() {
                    let leads = format!(".so man{section}/{file}\n");
                    self.text(&leads, &format!("share/man/man{section}/{leading}"))?;
                }
            }
        }
        Ok(())
    }

    /// One file.
    ///
    /// # Errors
    /// As [`library`](Self::library).
    pub(crate) fn file(&self, from: &Path, to: &str) -> io::Result<()> {
        let to = self.place(to)?;
        (self.put)(from, &to).map_err(|error| about(&error, from))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        symlink(from, self.place(to)?)
    }

    fn text(&self, text: &str, to: &str) -> io::Result<()> {
        fs::write(self.place(to)?, text)
    }

    /// Where a file goes: the folder is there, and what was installed before is not.
    fn place(&self, to: &str) -> io::Result<PathBuf> {
        let to = self.root.join(to);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|error| about(&error, folder))?;
        }
        match fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(about(&error, &to)),
            _ => Ok(to),
        }
    }
}

fn about(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Copies, as [`Put`].
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to).map(|_| ())
}

/// The manual pages in a folder: what ends in a section's number.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn pages(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| about(&error, folder))? {
        let path = entry?.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        if ending.len() == 1 && ending.bytes().all(|byte| byte.is_ascii_digit()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The names of a page: what its section NAME says by `.Nm`.
pub(crate) fn names(page: &str) -> Vec<String> {
    let lines = page.lines().skip_while(|line| *line != ".Sh NAME").skip(1);
    let section = lines.take_while(|line| !line.starts_with(".Sh"));
    section
        .filter_map(|line| line.strip_prefix(".Nm "))
        .filter_map(|rest| rest.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The link that makes the shared library of the static one: the symbols of the map, with versions,
/// and no others.
///
/// # Errors
/// The map cannot be read.
pub(crate) fn link_shared(archive: &Path, map: &Path, to: &Path) -> io::Result<Command> {
    let mut link = Command::new("cc");
    link.args(["-shared", "-Wl,-z,nodelete", "-Wl,--gc-sections"]);
    link.arg(format!("-Wl,-soname,{SONAME}"));
    link.arg(format!("-Wl,--version-script={}", map.display()));
    // What the version script names is not searched for in an archive.
    let functions = functions(&fs::read_to_string(map).map_err(|error| about(&error, map))?);
    link.args(functions.iter().map(|name| format!("-Wl,-u,{name}")));
    link.arg(archive).args(NATIVE_LIBS).arg("-o").arg(to);
    Ok(link)
}

/// The functions of a version script.
pub(crate) fn functions(map: &str) -> Vec<String> {
    let lines = map.lines().map(str::trim);
    lines
        .filter(|line| line.starts_with("sdp_"))
        .filter_map(|line| line.strip_suffix(';'))
        .map(str::to_owned)
        .collect()
}
