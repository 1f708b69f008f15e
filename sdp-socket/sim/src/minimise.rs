//! Making a failing run smaller: fewer operations, fewer faults.
//!
//! Each attempt is a process of its own, since a failing run may end its process.

use std::process::{Command, Stdio};

use anyhow::Context;

use crate::campaign::{plan, replay};
use crate::cli::{Numbers, Options};
use crate::run;

/// Attempts for each kind of thing that is left out.
const ATTEMPTS_MAX: usize = 150;

/// The command that repeats the smallest failing run found.
///
/// # Errors
/// When this program cannot be started again.
pub(crate) fn smallest(options: &Options, seed: u64) -> anyhow::Result<String> {
    let whole = plan(options, seed);
    let ops = (0..whole.op_count() as u64).collect::<Vec<_>>();
    let fails = |skip: &Numbers, spare: &Numbers| attempt(options, seed, skip, spare);
    let none = Numbers::default();
    let skipped = reduce(&ops, |skip| fails(skip, &none))?;
    let skip = Numbers::of(&skipped);
    // A run that panicked cannot be asked for the number of its faults: there are rarely more.
    let number = fault_number(options, seed, &skip);
    let faults = (0..number).collect::<Vec<_>>();
    let spared = reduce(&faults, |spare| fails(&skip, spare))?;
    Ok(replay(seed, options.peer, &skip, &Numbers::of(&spared)))
}

fn fault_number(options: &Options, seed: u64, skip: &Numbers) -> u64 {
    const GUESS: u64 = 2_000;
    let smaller = Options {
        skip: skip.clone(),
        ..options.clone()
    };
    let plan = plan(&smaller, seed);
    let run = std::panic::catch_unwind(|| run::run(&plan, 0));
    run.map_or(GUESS, |outcome| outcome.fault_number)
}

/// Leaves out as many of `all` as possible, in ever smaller pieces, as long as the run fails.
fn reduce(
    all: &[u64],
    mut fails: impl FnMut(&Numbers) -> anyhow::Result<bool>,
) -> anyhow::Result<Vec<u64>> {
    let mut out: Vec<u64> = Vec::new();
    let mut attempts = 0;
    let mut size = all.len();
    while size > 0 {
        let kept: Vec<u64> = all.iter().copied().filter(|n| !out.contains(n)).collect();
        for piece in kept.chunks(size) {
            if attempts == ATTEMPTS_MAX {
                return Ok(out);
            }
            attempts += 1;
            let mut more = out.clone();
            more.extend(piece);
            more.sort_unstable();
            if fails(&Numbers::of(&more))? {
                out = more;
            }
        }
        size /= 2;
    }
    Ok(out)
}

/// Whether a run fails.
fn attempt(options: &Options, seed: u64, skip: &Numbers, spare: &Numbers) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("finding this program")?;
    let status = Command::new(program)
        .args(["--seeds", "1", "--jobs", "1", "--no-minimise", "--start"])
        .arg(seed.to_string())
        .arg(format!("--skip={skip}"))
        .arg(format!("--spare={spare}"))
        .args(options.peer.map(|peer| format!("--peer={peer}")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("starting a smaller run")?;
    Ok(!status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let all: Vec<u64> = (0..40).collect();
        // It fails as long as 7 and 23 are there.
        let needs = |out: &Numbers| Ok(!out.contains(7) && !out.contains(23));
        let out = reduce(&all, needs).expect("no process is started");
        let left: Vec<u64> = all.into_iter().filter(|n| !out.contains(n)).collect();
        assert_eq!(left, [7, 23]);
    }
}
