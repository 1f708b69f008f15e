//! The project's own programs and tests, built to run elsewhere than under cargo.

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::run::Run;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Packages whose tests are built.
const PACKAGES: [&str; 2] = ["sdp-verbs", "sdp-socket"];

/// What was built.
#[derive(Debug, Default)]
pub(crate) struct Binaries {
    tests: Vec<Test>,
    sdp: Option<PathBuf>,
    xtask: Option<PathBuf>,
}

/// One test program.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    path: PathBuf,
}

impl Binaries {
    /// Builds this program, the tests called `names`, and the `sdp` program if it is wanted, with the
    /// preload library beside it if that is; optimised, since a guest is emulated.
    ///
    /// # Errors
    /// When something does not build; the whole output is printed first.
    pub(crate) fn build(
        workspace: &Workspace,
        ui: &Ui,
        names: &[&str],
        with_sdp: bool,
        with_preload: bool,
    ) -> anyhow::Result<Self> {
        let mut built = Self::default();
        if !names.is_empty() {
            let mut tests = workspace.cargo(["test", "--release", "--no-run"]);
            for package in PACKAGES {
                tests.args(["-p", package]);
            }
            for name in names {
                tests.args(["--test", name]);
            }
            let messages = messages(ui, "build tests", tests)?;
            built
                .tests
                .extend(messages.iter().filter_map(integration_test));
        }
        if with_sdp {
            built.sdp = Some(program(workspace, ui, "sdp-cli", "sdp")?);
        }
        if with_preload {
            preload(workspace, ui)?;
        }
        // Not the file of the process that runs: another may have been built in its place.
        built.xtask = Some(program(workspace, ui, "xtask", "xtask")?);
        Ok(built)
    }

    /// The test program called `name`: a file under `tests/`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn test(&self, name: &str) -> anyhow::Result<&PathBuf> {
        let found = self.tests.iter().find(|test| test.name == name);
        Ok(&found
            .with_context(|| format!("no test is called {name}"))?
            .path)
    }

    /// The `sdp` program.
    ///
    /// # Errors
    /// When it was not built.
    pub(crate) fn sdp(&self) -> anyhow::Result<&PathBuf> {
        self.sdp.as_ref().context("the sdp program was not built")
    }

    /// This program.
    ///
    /// # Errors
    /// When it was not built.
    pub(crate) fn xtask(&self) -> anyhow::Result<&PathBuf> {
        self.xtask.as_ref().context("xtask was not built")
    }
}

/// Builds the program `name` of `package`, optimised, and says where it is.
///
/// # Errors
/// When it does not build; the whole output is printed first.
pub(crate) fn program(
    workspace: &Workspace,
    ui: &Ui,
    package: &str,
    name: &str,
) -> anyhow::Result<PathBuf> {
    let build = workspace.cargo(["build", "--release", "-p", package, "--bin", name]);
    messages(ui, &format!("build {name}"), build)?
        .iter()
        .filter(|message| message["target"]["name"] == name)
        .find_map(executable)
        .with_context(|| format!("cargo did not say where it put the program {name}"))
}

/// Builds the preload library, optimised, beside the `sdp` program.
///
/// # Errors
/// When it does not build; the whole output is printed first.
pub(crate) fn preload(workspace: &Workspace, ui: &Ui) -> anyhow::Result<()> {
    let library = workspace.cargo(["build", "--release", "-p", "sdp-preload"]);
    messages(ui, "build the preload library", library)?;
    Ok(())
}

/// The libraries for C, as a build for tests has them.
#[derive(Debug)]
pub(crate) struct Libraries {
    /// libsdp.so.
    pub(crate) shared: PathBuf,
    /// libsdp.a.
    pub(crate) archive: PathBuf,
    /// libsdp_preload.so.
    pub(crate) preload: PathBuf,
}

/// Builds libsdp and the preload library, with the checks of a build for tests.
///
/// # Errors
/// When one does not build; the whole output is printed first.
pub(crate) fn libraries(workspace: &Workspace, ui: &Ui) -> anyhow::Result<Libraries> {
    let build = workspace.cargo(["build", "-p", "sdp-ffi", "-p", "sdp-preload"]);
    let messages = messages(ui, "build libsdp and the preload library", build)?;
    let made = |name: &str| {
        let mut files = messages.iter().filter_map(|it| it["filenames"].as_array());
        let path = files.find_map(|files| {
            let mut paths = files.iter().filter_map(|it| it.as_str()).map(PathBuf::from);
            paths.find(|path| path.file_name().is_some_and(|file| file == name))
        });
        path.with_context(|| format!("cargo did not say where it put {name}"))
    };
    Ok(Libraries {
        shared: made("libsdp.so")?,
        archive: made("libsdp.a")?,
        preload: made("libsdp_preload.so")?,
    })
}

/// Runs cargo and gives its messages about what it built.
fn messages(ui: &Ui, name: &str, mut command: std::process::Command) -> anyhow::Result<Vec<Value>> {
    command.arg("--message-format=json-render-diagnostics");
    let progress = ui.progress(name)?;
    let outcome = Run::new(command).run(|line| {
        if !line.starts_with('{') {
            progress.note(line);
        }
    })?;
    drop(progress);
    if let Some(why) = outcome.failure {
        for line in outcome.lines.iter().filter(|line| !line.starts_with('{')) {
            ui.line(line)?;
        }
        bail!("{name}: {why}");
    }
    let messages = outcome
        .lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages.collect())
}

/// The integration test that `message` says was built, if it does.
fn integration_test(message: &Value) -> Option<Test> {
    let kinds = message["target"]["kind"].as_array()?;
    (message["profile"]["test"] == true && kinds.iter().any(|kind| kind == "test")).then_some(())?;
    Some(Test {
        name: message["target"]["name"].as_str()?.to_owned(),
        path: executable(message)?,
    })
}

/// The program that `message` says was built, if it does.
fn executable(message: &Value) -> Option<PathBuf> {
    (message["reason"] == "compiler-artifact").then_some(())?;
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_integration_tests_with_a_program_count() {
        let message = |kind: &str, test: bool| {
            json!({ "reason": "compiler-artifact", "executable": "/t/conformance-1",
                "target": { "name": "conformance", "kind": [kind] }, "profile": { "test": test } })
        };
        let found = integration_test(&message("test", true)).unwrap();
        assert_eq!(found.name, "conformance");
        assert_eq!(found.path, PathBuf::from("/t/conformance-1"));
        assert_eq!(integration_test(&message("lib", true)), None);
        assert_eq!(integration_test(&message("test", false)), None);
        assert_eq!(
            integration_test(&json!({ "reason": "build-finished" })),
            None
        );
    }

    #[test]
    fn the_path_comes_from_the_message_of_the_program_only() {
        let program = json!({ "reason": "compiler-artifact", "executable": "/t/sdp" });
        assert_eq!(executable(&program), Some(PathBuf::from("/t/sdp")));
        let library = json!({ "reason": "compiler-artifact", "executable": null });
        assert_eq!(executable(&library), None);
        assert_eq!(executable(&json!({ "reason": "build-finished" })), None);
    }

    #[test]
    fn a_test_that_was_not_built_is_named() {
        let error = Binaries::default().test("conformance_rdma").unwrap_err();
        assert!(error.to_string().contains("conformance_rdma"));
    }
}
