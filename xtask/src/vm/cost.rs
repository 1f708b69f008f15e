//! What a unit of work costs in instructions: read from two boots, compared with each other and with
//! what is checked in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::step::Tally;

/// What is checked in, from the root of the workspace.
const FILE: &str = "xtask/guest/cost.json";
/// What our own figures' names begin with.
const OURS: &str = "sdp.";
/// How far the programs' part may differ between two boots.
const PROGRAMS_DIFFER_MAX: f64 = 0.01;
/// The same of the kernel's part. It has more to do where the machine below keeps the guest waiting.
const KERNEL_DIFFER_MAX: f64 = 0.02;
/// How far our figures may rise above what is checked in.
const RISE_MAX: f64 = 0.05;

/// Instructions of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Cost {
    /// Of the programs at both ends.
    programs: f64,
    /// Of the kernel, which carries out what a device does.
    kernel: f64,
}

/// Figures by name.
type Costs = BTreeMap<String, Cost>;

/// The file that is checked in.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Release of the guest's kernel.
    kernel: String,
    /// Instructions for each MiB, or for each message there and back.
    costs: Costs,
}

/// Judges what two boots left in `folders`; with `write` it becomes what is checked in.
///
/// # Errors
/// When something was not measured, or a file cannot be read or written.
pub(super) fn judge(
    root: &Path,
    folders: &[PathBuf; 2],
    kernel: &str,
    write: bool,
) -> anyhow::Result<Tally> {
    let boots = [costs_in(&folders[0])?, costs_in(&folders[1])?];
    let path = root.join(FILE);
    let mut tally = Tally::default();
    differ(&boots, &mut tally);
    if write {
        ensure!(tally.failed == 0, "{}", tally.output);
        let kept = Kept {
            kernel: kernel.to_owned(),
            costs: rounded(&boots[0]),
        };
        let text = serde_json::to_string_pretty(&kept).context("cannot encode the figures")?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {FILE}"))?;
        return Ok(tally);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let kept: Kept = serde_json::from_str(&text).with_context(|| format!("in {FILE}"))?;
    rose(&boots[0], &kept, kernel, &mut tally);
    Ok(tally)
}

/// The figures that one boot left.
fn costs_in(folder: &Path) -> anyhow::Result<Costs> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    costs(&read("units.txt")?, &read("marks.txt")?)
}

/// `units` has a name and a number of units for each measurement, `marks` the counts before and
/// after each. The same name comes three times: to warm up, with few units, with many.
fn costs(units: &str, marks: &str) -> anyhow::Result<Costs> {
    let counts: Vec<[f64; 2]> = marks.lines().map(counts).collect::<Result<_, _>>()?;
    let mut runs: BTreeMap<&str, Vec<(f64, Cost)>> = BTreeMap::new();
    let mut counts = counts.chunks_exact(2);
    for line in units.lines() {
        let (name, units) = line.split_once(' ').context("a name and its units")?;
        let [before, after] = counts.next().context("a measurement without counts")? else {
            bail!("chunks have two elements");
        };
        let cost = Cost {
            programs: after[0] - before[0],
            kernel: after[1] - before[1],
        };
        runs.entry(name).or_default().push((units.parse()?, cost));
    }
    ensure!(counts.next().is_none(), "counts without a measurement");
    let each = runs.into_iter().map(|(name, runs)| {
        let [_, (few, small), (many, large)] = runs[..] else {
            bail!("{name} was measured {} times, not three", runs.len());
        };
        ensure!(many > few, "{name}: {few} units, then {many}");
        let per_unit = |large: f64, small: f64| (large - small) / (many - few);
        let cost = Cost {
            programs: per_unit(large.programs, small.programs),
            kernel: per_unit(large.kernel, small.kernel),
        };
        Ok((name.to_owned(), cost))
    });
    each.collect()
}

fn counts(line: &str) -> anyhow::Result<[f64; 2]> {
    let (programs, kernel) = line.split_once(' ').context("two counts")?;
    Ok([programs.parse()?, kernel.parse()?])
}

fn rounded(costs: &Costs) -> Costs {
    let round = |cost: &Cost| Cost {
        programs: cost.programs.round(),
        kernel: cost.kernel.round(),
    };
    costs
        .iter()
        .map(|(name, cost)| (name.clone(), round(cost)))
        .collect()
}

/// Both boots give the same.
fn differ(boots: &[Costs; 2], tally: &mut Tally) {
    for (name, first) in &boots[0] {
        // The other programs' figures are not ours to answer for.
        if !name.starts_with(OURS) {
            continue;
        }
        let Some(second) = boots[1].get(name) else {
            check(
                tally,
                false,
                &format!("{name} was measured in one boot only"),
            );
            continue;
        };
        let mut part = |part: &str, a: f64, b: f64, max: f64| {
            let what = format!("{name}, {part}: {a:.0} in one boot, {b:.0} in another");
            check(tally, (a - b).abs() <= a.min(b) * max, &what);
        };
        part(
            "programs",
            first.programs,
            second.programs,
            PROGRAMS_DIFFER_MAX,
        );
        part("kernel", first.kernel, second.kernel, KERNEL_DIFFER_MAX);
    }
}

/// Ours are no more than what is checked in.
fn rose(costs: &Costs, kept: &Kept, kernel: &str, tally: &mut Tally) {
    // Another kernel is another device.
    let same = kernel == kept.kernel;
    for (name, was) in kept.costs.iter().filter(|(name, _)| name.starts_with(OURS)) {
        let Some(is) = costs.get(name) else {
            check(
                tally,
                false,
                &format!("{name} is checked in and was not measured"),
            );
            continue;
        };
        let mut part = |part: &str, is: f64, was: f64| {
            let what = format!("{name}, {part}: {is:.0} instructions, checked in are {was:.0}");
            check(tally, is <= was * (1.0 + RISE_MAX), &what);
        };
        part("programs", is.programs, was.programs);
        if same {
            part("kernel", is.kernel, was.kernel);
        }
    }
    if !same {
        let reason = format!(
            "its figures are of kernel {}, this is {kernel}",
            kept.kernel
        );
        tally
            .skipped
            .extend(Tally::skipped("cost of the kernel", &reason).skipped);
    }
}

fn check(tally: &mut Tally, ok: bool, what: &str) {
    if ok {
        tally.passed += 1;
    } else {
        tally.failed += 1;
        tally.output.push_str(what);
        tally.output.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: &str = "sdp.a 0\nother 0\nsdp.a 2\nother 1\nsdp.a 4\nother 2\n";

    fn marks(per_unit: u64) -> String {
        // Each run costs 1,000 beside its units; nothing is lost between two marks.
        let mut now = [5, 7];
        let mut text = String::new();
        for units in [0, 0, 2, 1, 4, 2] {
            text += &format!("{} {}\n", now[0], now[1]);
            now[0] += 1_000 + units * per_unit;
            now[1] += 1_000 + units * 10 * per_unit;
            text += &format!("{} {}\n", now[0], now[1]);
        }
        text
    }

    fn figures(per_unit: u64) -> Costs {
        costs(UNITS, &marks(per_unit)).unwrap()
    }

    #[test]
    fn the_difference_of_two_runs_is_what_units_cost() {
        let cost = Cost {
            programs: 100.0,
            kernel: 1_000.0,
        };
        assert_eq!(figures(100)["sdp.a"], cost);
        assert!(costs(UNITS, "1 2\n").is_err());
        assert!(costs("sdp.a 2\n", &marks(100)).is_err());
    }

    #[test]
    fn boots_that_differ_fail_by_name() {
        let judged = |a, b| {
            let mut tally = Tally::default();
            differ(&[figures(a), figures(b)], &mut tally);
            tally
        };
        assert_eq!(judged(1_000, 1_009).failed, 0);
        let tally = judged(1_000, 1_011);
        // The kernel's part may differ by more.
        assert_eq!(tally.failed, 1);
        assert!(tally.output.contains("sdp.a, programs"));
        assert_eq!(judged(1_000, 1_021).failed, 2);
    }

    #[test]
    fn a_rise_fails_by_name_and_part() {
        let kept = Kept {
            kernel: "6.1".to_owned(),
            costs: figures(1_000),
        };
        let judged = |per_unit, kernel: &str| {
            let mut tally = Tally::default();
            rose(&figures(per_unit), &kept, kernel, &mut tally);
            tally
        };
        assert_eq!(
            (judged(1_050, "6.1").passed, judged(1_050, "6.1").failed),
            (2, 0)
        );
        let tally = judged(1_051, "6.1");
        assert_eq!(tally.failed, 2);
        assert!(tally.output.contains("sdp.a, kernel"));
        let tally = judged(1_051, "6.2");
        assert_eq!((tally.failed, tally.skipped.len()), (1, 1));
    }
}
