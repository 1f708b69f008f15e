//! Building and running C programs against the libraries that cargo has just built.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// No program here takes as long, even on a loaded machine and under valgrind.
const TIME_MAX: Duration = Duration::from_secs(300);

#[path = "../../../xtask/src/install/layout.rs"]
pub(crate) mod layout;

#[path = "../../../xtask/src/conformance/differ.rs"]
pub(crate) mod differ;
#[path = "../../../xtask/src/conformance/rules.rs"]
mod rules;
#[path = "../../../xtask/src/conformance/table.rs"]
mod table;

use differ::Library;
use layout::{NATIVE_LIBS, Tree};
use rules::RULES;

/// A language and its compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    C11,
    Cpp17,
}

/// How a program gets the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Shared,
    Static,
}

/// The library as an installation has it, and programs built with it, in a folder of their own.
pub(crate) struct Prefix {
    folder: tempfile::TempDir,
}

impl Prefix {
    /// Installs header, libraries and pkg-config file.
    pub(crate) fn install() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tree = Tree {
            root,
            prefix: root,
            // The build's own files do, and are large.
            put: |from, to| symlink(from, to),
        };
        let version = env!("CARGO_PKG_VERSION");
        tree.library(package, version, &built("so"), &built("a"))
            .unwrap();
        fs::create_dir(root.join("bin")).unwrap();
        Self { folder }
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Compiles `tests/c/<name>.c` with every warning an error, or says why it cannot.
    pub(crate) fn build(&self, name: &str, language: Language, link: Link) -> Option<PathBuf> {
        self.build_as(name, name, language, link, &[])
    }

    /// The same, with options of its own, as the program `program`.
    pub(crate) fn build_as(
        &self,
        name: &str,
        program: &str,
        language: Language,
        link: Link,
        options: &[&str],
    ) -> Option<PathBuf> {
        let (compiler, standard): (_, &[&str]) = match language {
            Language::C11 => ("cc", &["-std=c11"]),
            Language::Cpp17 => ("c++", &["-x", "c++", "-std=c++17"]),
        };
        if !is_there(compiler) {
            skipped(name, &format!("no {compiler} in PATH"));
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/c/{name}.c"));
        let program = self
            .root()
            .join(format!("bin/{program}-{language:?}-{link:?}"));
        let mut command = Command::new(compiler);
        command.args(standard).args(options);
        command.args([
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-D_GNU_SOURCE",
            "-O1",
            "-g",
        ]);
        command.arg("-I").arg(self.root().join("include"));
        command.arg(source).args(["-x", "none", "-o"]).arg(&program);
        match link {
            Link::Shared => {
                let folder = self.root().join("lib");
                command.arg(format!("-Wl,-rpath,{}", folder.display()));
                command.arg("-L").arg(folder).arg("-lsdp");
            }
            Link::Static => {
                command
                    .arg(self.root().join("lib/libsdp.a"))
                    .args(NATIVE_LIBS);
            }
        }
        succeeds(&mut command);
        Some(program)
    }
}

/// The library of that kind that was built with this test.
pub(crate) fn built(ending: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let folder = test.parent().unwrap();
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let ours = stem == "libsdp" || stem.starts_with("libsdp-");
        ours && path.extension().is_some_and(|e| e == ending)
    };
    // Builds with other settings may have left others there.
    let newest = files
        .filter(is_ours)
        .max_by_key(|path| path.metadata().and_then(|m| m.modified()).unwrap());
    newest.unwrap_or_else(|| panic!("no libsdp.{ending} in {}", folder.display()))
}

/// What the program `differ` printed by TCP and by `library` is the same, but for what the rules list;
/// and the page of conformance says so.
pub(crate) fn same_as_tcp(library: Library, tcp: &str, ours: &str) {
    let found = differ::compare(library, tcp, ours, RULES).unwrap_or_else(|why| panic!("{why}"));
    assert!(found.lines > 35_000, "{} lines", found.lines);
    let unlisted = found.unlisted();
    assert!(unlisted.is_empty(), "{}", unlisted.join("\n"));
    assert_eq!(found.stale(library, RULES), [], "rules for nothing");
    if !found.has_v6 {
        return skipped("the page of conformance", "no IPv6 on this machine");
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = package.ancestors().map(|at| at.join("docs/conformance.md"));
    let page = fs::read_to_string(pages.find(|page| page.exists()).unwrap()).unwrap();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if !page.contains(&table::written_on(&kernel)) {
        return skipped(
            "the page of conformance",
            "it was written on another kernel",
        );
    }
    let stale = "docs/conformance.md is stale: cargo xtask conformance --write";
    assert!(page.contains(&table::part(library, &found)), "{stale}");
}

/// Tells of a test, or a part of one, that cannot run here, past the harness, which keeps what a
/// test prints to itself: `cargo xtask test` reads the line and counts no such test as passed.
pub(crate) fn skipped(what: &str, reason: &str) {
    let line = format!("\nskipped {what}: {reason}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Whether a program can be run by that name.
pub(crate) fn is_there(program: &str) -> bool {
    let mut probe = Command::new(program);
    probe
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    probe.status().is_ok()
}

/// Runs a tool to its end, which must be a success.
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_success(&output, &format!("{command:?}"));
    String::from_utf8(output.stdout).unwrap()
}

fn assert_success(output: &Output, what: &str) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A program that runs beside the test.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    /// What it complains of, read beside it so that it never waits for us.
    stderr: thread::JoinHandle<Vec<u8>>,
    what: String,
}

/// Starts a program.
pub(crate) fn start(mut command: Command) -> Running {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut complaints = child.stderr.take().unwrap();
    let stderr = thread::spawn(move || {
        let mut text = Vec::new();
        complaints.read_to_end(&mut text).unwrap();
        text
    });
    Running {
        child,
        stdout,
        stderr,
        what: format!("{command:?}"),
    }
}

impl Running {
    /// The next line it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The rest of what it prints, at its end, which must be a success and in time.
    pub(crate) fn finish(mut self) -> String {
        let (sender, ended) = mpsc::channel();
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        let waiter = thread::spawn(move || {
            let mut text = String::new();
            self.stdout.read_to_string(&mut text).unwrap();
            let output = Output {
                status: self.child.wait().unwrap(),
                stdout: text.into_bytes(),
                stderr: self.stderr.join().unwrap(),
            };
            // The receiver is gone if the time was over.
            let _ = sender.send(output);
        });
        let Ok(output) = ended.recv_timeout(TIME_MAX) else {
            // SAFETY: a signal to a child that nobody has waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            waiter.join().unwrap();
            panic!("{} hung", self.what);
        };
        waiter.join().unwrap();
        assert_success(&output, &self.what);
        String::from_utf8(output.stdout).unwrap()
    }
}
