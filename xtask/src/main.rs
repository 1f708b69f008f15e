//! `cargo xtask`: the tasks of this workspace.
//!
//! It depends on no other package of the workspace: it builds them and runs what comes out, so it
//! still works, and still says what is wrong, when one of them does not compile.

#![forbid(unsafe_code)]

mod bench;
mod binaries;
mod bindings;
mod capture_check;
mod ci;
mod cli;
mod conformance;
mod demo;
mod diagrams;
mod fuzz;
mod header;
mod hw;
mod install;
mod keys;
mod libtest;
mod loom;
mod packages;
mod page;
mod paper;
mod program;
mod programs;
mod report;
mod run;
mod scribble;
mod sim;
mod step;
mod table;
mod test_run;
mod text;
mod tidy;
mod ui;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::ui::Ui;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let ui = Ui::new(cli.command.json());
    match run(&cli.command, &ui) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui.error(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; `Ok(true)` exactly when everything it checked holds.
fn run(command: &cli::Command, ui: &Ui) -> anyhow::Result<bool> {
    // On demand: hw-test works where there is no cargo.
    let workspace = workspace::Workspace::load;
    match command {
        cli::Command::Demo(options) => demo::run(&workspace()?, ui, options),
        cli::Command::Soak { options } => program::run(&workspace()?, ui, "soak", options),
        cli::Command::Kill { options } => program::run(&workspace()?, ui, "kill", options),
        cli::Command::Test { json } => test_run::run(&workspace()?, ui, json.as_ref()),
        cli::Command::Scribble { seconds, json } => {
            scribble::run(&workspace()?, ui, *seconds, json.as_ref())
        }
        cli::Command::Keys { json } => keys::run(&workspace()?, ui, json.as_ref()),
        cli::Command::Loom { json } => loom::run(&workspace()?, ui, json.as_ref()),
        cli::Command::Diagrams => diagrams::run(&workspace()?, ui),
        cli::Command::Fuzz(options) => fuzz::run(&workspace()?, ui, options),
        cli::Command::CaptureCheck { json } => capture_check::run(&workspace()?, ui, json.as_ref()),
        cli::Command::Sim(options) => sim::run(&workspace()?, options),
        cli::Command::Paper(options) => paper::run(&workspace()?, ui, options),
        cli::Command::Bench(options) => bench::run(&workspace()?, ui, options),
        cli::Command::Tidy => tidy::run(&workspace()?, ui),
        cli::Command::Header { check } => header::run(&workspace()?, ui, *check),
        cli::Command::Install(options) => install::run(&workspace()?, ui, options),
        cli::Command::Package(options) => install::package(&workspace()?, ui, options),
        cli::Command::VmTest(options) => vm::run(&workspace()?, ui, options),
        cli::Command::Conformance(options) => conformance::run(&workspace()?, ui, options),
        cli::Command::Programs(options) => programs::run(&workspace()?, ui, options),
        cli::Command::Bindings { check } => bindings::run(&workspace()?, ui, *check),
        cli::Command::HwTest(options) => hw::run(ui, options),
        cli::Command::Ci { json } => ci::run(&workspace()?, ui, json.as_ref()),
    }
}
