//! The `sdp` program: measures *Sockets* Direct Protocol streams beside TCP and Unix sockets.
//!
//! `sdp perf bw` and `sdp perf lat` measure one kind of socket between two processes, `sdp perf
//! compare` all of them in turns, `sdp perf server` is the far end. Every figure includes both
//! processes: the far end reports its processor time and its counters over a control connection,
//! which is always plain TCP, so that what is measured does not measure itself.
//!
//! `sdp capture` runs a program and writes what its sockets say into a file for Wireshark.
//!
//! `sdp run` becomes a program whose ordinary sockets speak SDP.
//!
//! `sdp stat` shows what the streams of running processes do, `sdp doctor` what SDP would use on this
//! machine and what stands in the way.
//!
//! Exit status: 0 when every check of the run holds, 1 when one fails or nothing could be
//! measured, 2 for a wrong command line;
//! `sdp capture` and `sdp run` have that of the program they ran.

mod capture;
mod cli;
mod doctor;
mod kill;
mod lab;
mod perf;
mod report;
mod run;
mod soak;
mod stat;
mod table;
mod transport;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    show_log();
    let outcome = match cli.command {
        cli::Command::Capture(args) => match capture::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        cli::Command::Run(args) => match run::run(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        cli::Command::Stat(args) => stat::run(&args),
        cli::Command::Doctor(args) => doctor::run(&args),
        cli::Command::DoctorProbe(args) => doctor::run_probe(&args),
        cli::Command::Perf { command } => perf::run(&command),
        cli::Command::Soak(args) => soak::run(&args),
        cli::Command::Kill(args) => kill::run(&args),
        cli::Command::KillVictim(args) => kill::run_victim(&args),
        cli::Command::SoakEnd(args) => soak::run_end(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell if standard error is gone.
            let _ = writeln!(std::io::stderr(), "sdp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the library logs goes to standard error: its errors, and what `SDP_LOG` asks for.
fn show_log() {
    let filter = EnvFilter::builder()
        .with_env_var("SDP_LOG")
        .with_default_directive(LevelFilter::ERROR.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}
