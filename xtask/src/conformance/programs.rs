//! The program `differ`: built for TCP, for libsdp, and run under the preload library.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::differ::{Comparison, Library, compare};
use super::rules::RULES;
use crate::binaries::{self, Libraries};
use crate::install::layout::Tree;
use crate::programs::Reported;
use crate::run::Run;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// A run takes seconds.
const TIME_MAX: Duration = Duration::from_secs(120);
/// Where its rules have every connection go by SDP.
const RULES_OF_PRELOAD: &str = "use sdp client * *:*\n";

/// The program, ready to be run in each way.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
    libraries: Libraries,
}

/// Whether C programs can be built here.
pub(super) fn has_compiler() -> bool {
    let mut probe = Command::new("cc");
    probe.arg("--version").stdout(Stdio::null());
    probe.stderr(Stdio::null()).status().is_ok()
}

impl Programs {
    /// Builds the libraries and the programs, in the folder of what is built.
    ///
    /// # Errors
    /// When something does not build; what the compiler said is printed or in the error.
    pub(super) fn build(workspace: &Workspace, ui: &Ui) -> anyhow::Result<Self> {
        let libraries = binaries::libraries(workspace, ui)?;
        let folder = workspace.target.join("conformance");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
        }
        let package = workspace.root.join("sdp-ffi");
        let tree = Tree {
            root: &folder,
            prefix: &folder,
            put: |from, to| symlink(from, to),
        };
        let version = env!("CARGO_PKG_VERSION");
        tree.library(&package, version, &libraries.shared, &libraries.archive)
            .context("lay out libsdp")?;
        let source = package.join("tests/c/differ.c");
        let lib = folder.join("lib");
        let rpath = format!("-Wl,-rpath,{}", lib.display());
        compile(&source, &folder.join("tcp"), &[])?;
        let include = folder.join("include");
        let words = [include.as_path(), lib.as_path()].map(|it| it.display().to_string());
        let over = [
            "-DOVER_SDP",
            "-I",
            &words[0],
            "-L",
            &words[1],
            &rpath,
            "-lsdp",
        ];
        compile(&source, &folder.join("sdp"), &over)?;
        fs::write(folder.join("rules"), RULES_OF_PRELOAD).context("write rules")?;
        Ok(Self { folder, libraries })
    }

    /// What the program printed by TCP and by `library`, compared.
    ///
    /// # Errors
    /// When a run fails, or the two do not answer the same questions.
    pub(super) fn compare(&self, ui: &Ui, library: Library) -> anyhow::Result<Comparison> {
        let [mut tcp, mut ours] = ["tcp", "sdp"].map(|name| Command::new(self.folder.join(name)));
        if library == Library::Preload {
            tcp.arg("descriptors");
            ours = Command::new(self.folder.join("tcp"));
            ours.arg("descriptors")
                .env("LD_PRELOAD", &self.libraries.preload)
                .env("SDP_PRELOAD_REPORT", self.report())
                // Nothing on a busy machine is to be left to TCP for being late.
                .env("SDP_PRELOAD_WAIT", "20000")
                .env("LIBSDP_CONFIG_FILE", self.folder.join("rules"));
        }
        let tcp = printed(ui, "differ by TCP", tcp)?;
        let ours = printed(
            ui,
            &format!("differ by {}", super::table::short(library)),
            ours,
        )?;
        match compare(library, &tcp, &ours, RULES) {
            Ok(found) => Ok(found),
            Err(why) => bail!("{why}"),
        }
    }

    /// How many connections the program made by SDP, behind the preload library.
    ///
    /// # Errors
    /// When it told nothing, or what nobody understands.
    pub(super) fn connections_by_sdp(&self) -> anyhow::Result<u64> {
        let told = fs::read_to_string(self.report()).context("no report of the preload library")?;
        Ok(Reported::sum(&told)?.connections)
    }

    fn report(&self) -> PathBuf {
        self.folder.join("report")
    }
}

fn compile(source: &Path, program: &Path, options: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-D_GNU_SOURCE", "-O1", "-g"]);
    command.arg(source).arg("-o").arg(program).args(options);
    let output = command.output().context("cannot run cc")?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn printed(ui: &Ui, name: &str, command: Command) -> anyhow::Result<String> {
    let progress = ui.progress(name)?;
    let run = Run::new(command).show_stderr().total_max(TIME_MAX);
    let outcome = run.run(|_| ())?;
    drop(progress);
    if let Some(why) = outcome.failure {
        let last = outcome.lines.last().map_or("nothing", String::as_str);
        bail!("{name}: {why}, behind: {last}");
    }
    let mut text = outcome.lines.join("\n");
    text.push('\n');
    Ok(text)
}
