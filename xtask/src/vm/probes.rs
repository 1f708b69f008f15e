//! Small C programs for guests: what counts instructions, and what asks other libraries.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::packages;
use crate::ui::Ui;

/// Where the sources are, from the root of the workspace.
const SOURCES: &str = "xtask/guest";

/// Programs that were built.
#[derive(Debug)]
pub(super) struct Probes {
    folder: PathBuf,
}

impl Probes {
    /// Builds all of them in `folder`.
    ///
    /// # Errors
    /// When a compiler or a header cannot be had, or a source does not compile.
    pub(super) fn build(ui: &Ui, root: &Path, folder: &Path) -> anyhow::Result<Self> {
        packages::install(ui, packages::PROBES)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let built = Self {
            folder: folder.to_owned(),
        };
        let sources = root.join(SOURCES);
        compile(
            ui,
            &sources.join("count.c"),
            &built.plugin(),
            ["-shared", "-fPIC"],
        )?;
        compile(ui, &sources.join("mark.c"), &built.mark(), ["-static"])?;
        compile(ui, &sources.join("rsetup.c"), &built.rsetup(), ["-lrdmacm"])?;
        Ok(built)
    }

    /// The emulator's plugin that counts.
    pub(super) fn plugin(&self) -> PathBuf {
        self.folder.join("count.so")
    }

    /// The program that has it write down its counts.
    pub(super) fn mark(&self) -> PathBuf {
        self.folder.join("mark")
    }

    /// The program that times connects of rsockets.
    pub(super) fn rsetup(&self) -> PathBuf {
        self.folder.join("rsetup")
    }
}

fn compile(
    ui: &Ui,
    source: &Path,
    target: &Path,
    options: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<()> {
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(target)
        .arg(source)
        .args(options);
    packages::tool(ui, &format!("compile {}", source.display()), cc)
}
