//! `sdp-sim`: whole stacks of the *Sockets* Direct Protocol on a simulated fabric.
//!
//! A seed stands for two machines, a connection between them, what programs on both sides do with
//! it, and what goes wrong. Everything runs on one thread in virtual time, so a seed repeats. The
//! oracle looks at what programs see (bytes, order, counts, ends, memory that is theirs again),
//! the fabric at what verbs are asked for, and a strict witness at every message.
//!
//! `sdp-sim figure` measures instead: streams between two machines, in virtual time.

mod actor;
mod campaign;
mod cli;
mod figure;
mod judge;
mod minimise;
mod mutants;
#[cfg(test)]
mod one_send;
mod oracle;
#[cfg(test)]
mod overlap;
mod peer;
mod plan;
mod program;
mod report;
mod run;
mod stage;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = cli::Options::parse();
    let result = match &options.command {
        Some(cli::Command::Figure(options)) => figure::run(options),
        None => campaign::run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
