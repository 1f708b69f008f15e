//! What is measured: workloads, sizes, connections, rounds, and for how long.

use std::time::Duration;

use serde_json::Value;

use super::ucx;
use crate::cli::BenchOptions;
use crate::table;

/// What streams do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// One side sends, the other receives.
    Bw,
    /// One side sends a message and waits for its answer.
    Lat,
}

impl Workload {
    /// As reports spell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bw => "bw",
            Self::Lat => "lat",
        }
    }
}

/// What peers are compared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) workload: Workload,
    /// Bytes of a message.
    pub(super) size: u64,
    /// Connections.
    pub(super) conns: u32,
}

impl Cell {
    /// `bw 1 MiB x8`.
    pub(super) fn title(self) -> String {
        let size = table::size(self.size);
        format!("{} {size} x{}", self.workload.name(), self.conns)
    }

    /// In names of checks: `1MiB.x8`, of a ping-pong `64B`.
    pub(super) fn key(self) -> String {
        let size = table::size(self.size).replace(' ', "");
        match self.workload {
            Workload::Bw => format!("{size}.x{}", self.conns),
            Workload::Lat => size,
        }
    }

    /// Whether a result belongs here.
    pub(super) fn has(self, result: &Value) -> bool {
        result["workload"] == self.workload.name()
            && result["size"] == self.size
            && result["conns"] == self.conns
    }
}

/// Bytes of messages.
const SIZES: [u64; 8] = [
    64,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
];
const QUICK_SIZES: [u64; 3] = [64, 64 << 10, 1 << 20];
/// Numbers of connections.
const CONNS: [u32; 5] = [1, 2, 4, 8, 16];
const QUICK_CONNS: [u32; 2] = [1, 8];
/// Bytes of the messages with which every number of connections is measured.
pub(super) const MIDDLE: u64 = 1 << 20;
/// Connections with which messages of every size are measured, beside one.
pub(super) const MANY: u32 = 8;
/// How often, and for how many seconds in all.
const ROUNDS: (u32, f64) = (5, 270.0);
const QUICK_ROUNDS: (u32, f64) = (3, 36.0);
/// Seconds for what is no run of a peer of `sdp perf compare`: opening a cell, and starting
/// ucx_perftest.
const OPENING: f64 = 0.5;
const FOREIGN: f64 = 0.4;
/// Nothing shorter is worth measuring.
const RUN_MIN: f64 = 0.02;

/// The whole of a run of this command.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) cells: Vec<Cell>,
    pub(super) rounds: u32,
    /// Seconds that may be spent.
    budget: f64,
}

impl Plan {
    /// What these options ask for.
    pub(super) fn of(options: &BenchOptions) -> Self {
        let (sizes, conns, (rounds, usual)) = if options.quick {
            (&QUICK_SIZES[..], &QUICK_CONNS[..], QUICK_ROUNDS)
        } else {
            (&SIZES[..], &CONNS[..], ROUNDS)
        };
        Self {
            cells: cells(
                options.sizes.as_deref().unwrap_or(sizes),
                options.conns.as_deref().unwrap_or(conns),
            ),
            rounds,
            budget: options.seconds.map_or(usual, f64::from),
        }
    }

    /// How long one run takes, with so many of each kind in a round.
    pub(super) fn run_time(&self, ours: usize, foreign: usize) -> Duration {
        let rounds = f64::from(self.rounds);
        let [ours, foreign, cells] = [ours, foreign, self.cells.len()].map(|count| count as f64);
        let fixed = cells * OPENING + foreign * (rounds + f64::from(ucx::TRIALS)) * FOREIGN;
        let seconds = (self.budget - fixed) / ((ours + foreign).max(1.0) * rounds);
        Duration::from_secs_f64(seconds.max(RUN_MIN))
    }
}

/// Bulk: each size with one connection and with many, each number of connections with one size.
/// Ping-pong: each size with one connection.
fn cells(sizes: &[u64], conns: &[u32]) -> Vec<Cell> {
    let most = conns.iter().copied().max().unwrap_or(1);
    let many = if conns.contains(&MANY) { MANY } else { most };
    let largest = sizes.iter().copied().max().unwrap_or(MIDDLE);
    let middle = if sizes.contains(&MIDDLE) {
        MIDDLE
    } else {
        largest
    };
    let mut cells = Vec::new();
    for size in sizes {
        let taken = |count: &&u32| **count == 1 || **count == many || *size == middle;
        cells.extend(conns.iter().filter(taken).map(|conns| Cell {
            workload: Workload::Bw,
            size: *size,
            conns: *conns,
        }));
    }
    cells.extend(sizes.iter().map(|size| Cell {
        workload: Workload::Lat,
        size: *size,
        conns: 1,
    }));
    cells
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};

    fn plan(options: &[&str]) -> Plan {
        let words = [&["xtask", "bench"], options].concat();
        match Cli::parse_from(words).command {
            Command::Bench(options) => Plan::of(&options),
            other => panic!("{other:?}"),
        }
    }

    fn bulk(plan: &Plan) -> Vec<(u64, u32)> {
        let bulk = plan.cells.iter().filter(|c| c.workload == Workload::Bw);
        bulk.map(|cell| (cell.size, cell.conns)).collect()
    }

    #[test]
    fn every_size_and_every_number_of_connections_is_there() {
        let plan = plan(&[]);
        let bulk = bulk(&plan);
        assert_eq!(bulk.len(), 2 * SIZES.len() + CONNS.len() - 2);
        for (size, conns) in [(64, 1), (4 << 20, 8), (MIDDLE, 2), (MIDDLE, 16)] {
            assert!(bulk.contains(&(size, conns)), "{size} x{conns}");
        }
        assert_eq!(plan.cells.len() - bulk.len(), SIZES.len());
    }

    #[test]
    fn options_narrow_it() {
        let plan = plan(&["--sizes=4096,8192", "--conns=2,3"]);
        assert_eq!(bulk(&plan), [(4096, 3), (8192, 2), (8192, 3)]);
    }

    /// Half a second each for 9 cells, 0.4 s for the three rounds and two trials of each of 3 foreign
    /// series, and the rest for 23 runs in each round.
    #[test]
    fn runs_share_the_time_that_is_left() {
        let plan = plan(&["--quick"]);
        assert_eq!((plan.cells.len(), plan.rounds), (9, 3));
        let expected = (36.0 - 4.5 - 6.0) / 69.0;
        let run = plan.run_time(20, 3).as_secs_f64();
        assert!((run - expected).abs() < 1e-6, "{run}");
        assert_eq!(plan.run_time(1_000_000, 3).as_secs_f64(), RUN_MIN);
    }

    #[test]
    fn a_cell_knows_its_results_and_names_its_checks() {
        let cell = Cell {
            workload: Workload::Bw,
            size: MIDDLE,
            conns: 8,
        };
        assert!(cell.has(&json!({ "workload": "bw", "size": MIDDLE, "conns": 8 })));
        assert!(!cell.has(&json!({ "workload": "bw", "size": MIDDLE, "conns": 1 })));
        assert_eq!((&*cell.key(), &*cell.title()), ("1MiB.x8", "bw 1 MiB x8"));
        let ping = Cell {
            workload: Workload::Lat,
            size: 64,
            conns: 1,
        };
        assert_eq!(ping.key(), "64B");
    }
}
