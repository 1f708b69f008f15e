//! The measurements.

mod bw;
mod client;
mod compare;
mod conn;
mod control;
mod cpu;
mod flow;
mod lat;
mod lineup;
mod marker;
pub(crate) mod pattern;
mod peers;
mod server;
mod session;
mod single;
mod spawn;
mod turns;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cli::Perf;

/// What a test does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// The client sends, the server receives.
    Bw,
    /// The client sends a message and waits for the same message.
    Lat,
}

impl Workload {
    /// As reports spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bw => "bw",
            Self::Lat => "lat",
        }
    }
}

/// Runs a command; whether every check holds.
///
/// # Errors
/// When nothing could be measured or the report cannot be written.
pub(crate) fn run(command: &Perf) -> anyhow::Result<bool> {
    match command {
        Perf::Server(args) => server::run(args).map(|()| true),
        Perf::Bw(args) => single::run(Workload::Bw, args.size, &args.test),
        Perf::Lat(args) => single::run(Workload::Lat, args.size, &args.test),
        Perf::Compare(args) => compare::run(args),
        Perf::Conn(args) => conn::run(args),
        Perf::ConnEnd(args) => conn::run_end(args).map(|()| true),
    }
}
