//! Where programs run with the library: what they are built from, and what they leave.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{is_there, skipped, succeeds};

/// The library that was built with this test.
pub(crate) fn library() -> PathBuf {
    let test = env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libsdp_preload.so");
    assert!(library.exists(), "{} is missing", library.display());
    library
}

/// A folder for programs, rules and reports.
pub(crate) struct Bench(tempfile::TempDir);

impl Bench {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Compiles `tests/c/<name>.c` with every warning an error, or says why it cannot.
    pub(crate) fn build(&self, name: &str) -> Option<PathBuf> {
        self.build_from("tests/c", name)
    }

    /// The same of a source in another folder, beside this package.
    pub(crate) fn build_from(&self, folder: &str, name: &str) -> Option<PathBuf> {
        if !is_there("cc") {
            skipped(name, "no cc in PATH");
            return None;
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let source = folder.join(format!("{name}.c"));
        let program = self.path(name);
        let mut command = Command::new("cc");
        command.args(["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-pthread"]);
        // Where one stands in for a function of the C library, it does so for the library, too.
        command.arg("-rdynamic");
        command.args(["-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2"]);
        succeeds(command.arg(source).arg("-o").arg(&program));
        Some(program)
    }

    /// The command with the library, whose report goes to the file of that name. Nothing on a busy
    /// machine is to be left to TCP for being late.
    pub(crate) fn preloaded(&self, mut command: Command, report: &str) -> Command {
        command.env("LD_PRELOAD", library());
        command.env("SDP_PRELOAD_REPORT", self.path(report));
        command.env("SDP_PRELOAD_WAIT", "20000");
        command.env("LIBSDP_CONFIG_FILE", self.rules(""));
        command
    }

    /// A file of rules.
    pub(crate) fn rules(&self, text: &str) -> PathBuf {
        let count = fs::read_dir(self.0.path()).unwrap().count();
        let path = self.path(&format!("rules{count}"));
        fs::write(&path, text).unwrap();
        path
    }

    /// The reports in a file, one for each process.
    pub(crate) fn report(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
