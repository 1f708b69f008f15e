//! What a unit of work costs in instructions: read from two boots, compared with each other and with
//! what is checked in. What other programs cost is read from the first.

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
/// How far a figure may differ between two boots.
const DIFFER_MAX: f64 = 0.005;
/// How far the programs' counts of two runs of one pattern lie apart at most.
const ALIKE: f64 = 0.01;
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

/// Whether two boots give the same.
///
/// # Errors
/// When something was not measured, or a file cannot be read.
pub(super) fn agree(folders: &[PathBuf]) -> anyhow::Result<bool> {
    let mut tally = Tally::default();
    differ(&all_costs(folders)?, &mut tally);
    Ok(tally.failed == 0)
}

/// Judges what two or three boots left in `folders`; with `write` it becomes what is checked in.
///
/// # Errors
/// When something was not measured, or a file cannot be read or written.
pub(super) fn judge(
    root: &Path,
    folders: &[PathBuf],
    kernel: &str,
    write: bool,
) -> anyhow::Result<Tally> {
    let boots = all_costs(folders)?;
    let path = root.join(FILE);
    let mut tally = Tally::default();
    let costs = differ(&boots, &mut tally);
    tally.figures = costs.iter().map(figure).collect();
    if write {
        ensure!(tally.failed == 0, "{}", tally.output);
        let kept = Kept {
            kernel: kernel.to_owned(),
            costs: rounded(&costs),
        };
        let text = serde_json::to_string_pretty(&kept).context("cannot encode the figures")?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {FILE}"))?;
        return Ok(tally);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let kept: Kept = serde_json::from_str(&text).with_context(|| format!("in {FILE}"))?;
    rose(&costs, &kept, kernel, &mut tally);
    Ok(tally)
}

fn figure((name, cost): (&String, &Cost)) -> String {
    format!(
        "{name}: {:.0} instructions of programs, {:.0} of the kernel",
        cost.programs, cost.kernel
    )
}

fn all_costs(folders: &[PathBuf]) -> anyhow::Result<Vec<Costs>> {
    folders.iter().map(|folder| costs_in(folder)).collect()
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
/// after each. The same name comes three times or more: to warm up, then with few units and with many
/// in turns.
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
        let [_, (few, _), (many, _), ..] = runs[..] else {
            bail!("{name} was measured {} times, not three", runs.len());
        };
        ensure!(many > few, "{name}: {few} units, then {many}");
        let (small, large) = (typical(&runs[1..], few), typical(&runs[1..], many));
        let per_unit = |large: f64, small: f64| (large - small) / (many - few);
        let cost = Cost {
            programs: per_unit(large.programs, small.programs),
            kernel: per_unit(large.kernel, small.kernel),
        };
        Ok((name.to_owned(), cost))
    });
    each.collect()
}

/// What the runs of so many units cost. Two programs that share a processor fall into one of a few
/// patterns for a whole run, and only runs of one pattern can be compared: that in which programs do
/// most, which is the common one. Of those the median counts.
fn typical(runs: &[(f64, Cost)], units: f64) -> Cost {
    let of_units = || runs.iter().filter(|(count, _)| *count == units);
    let most = of_units()
        .map(|(_, cost)| cost.programs)
        .fold(0.0, f64::max);
    let alike = |cost: &&Cost| cost.programs >= most * (1.0 - ALIKE);
    let median = |part: fn(&Cost) -> f64| {
        let costs = of_units().map(|(_, cost)| cost);
        let mut costs: Vec<f64> = costs.filter(alike).map(part).collect();
        costs.sort_by(f64::total_cmp);
        let middle = costs.len() / 2;
        (costs[middle] + costs[costs.len() - 1 - middle]) / 2.0
    };
    Cost {
        programs: median(|cost| cost.programs),
        kernel: median(|cost| cost.kernel),
    }
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

/// Two boots give the same, or two of three: the kernel may do something of its own during one.
/// Gives the figures on which they agree, or those of the first boot.
fn differ(boots: &[Costs], tally: &mut Tally) -> Costs {
    let mut agreed = boots[0].clone();
    for (name, cost) in &mut agreed {
        // The other programs' figures are not ours to answer for: they are those of the first boot.
        if !name.starts_with(OURS) {
            continue;
        }
        let each: Option<Vec<Cost>> = boots.iter().map(|boot| boot.get(name).copied()).collect();
        let Some(each) = each else {
            check(
                tally,
                false,
                &format!("{name} was not measured in each boot"),
            );
            continue;
        };
        let mut part = |part: &str, of: fn(&Cost) -> f64| {
            let mut each: Vec<f64> = each.iter().map(of).collect();
            each.sort_by(f64::total_cmp);
            let pairs = each.windows(2).map(|pair| (pair[0], pair[1] - pair[0]));
            let (least, apart) = pairs
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .unwrap_or((each[0], 0.0));
            let what = format!("{name}, {part}, differs from boot to boot: {each:.0?}");
            check(tally, apart <= least * DIFFER_MAX, &what);
            least + apart / 2.0
        };
        *cost = Cost {
            programs: part("programs", |cost| cost.programs),
            kernel: part("kernel", |cost| cost.kernel),
        };
    }
    agreed
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
    fn runs_of_the_pattern_in_which_programs_do_most_are_compared() {
        let run = |programs, kernel| (2.0, Cost { programs, kernel });
        let of_four = (4.0, run(2_000.0, 1.0).1);
        let other = run(950.0, 9.0);
        let runs = [run(1_000.0, 7.0), other, run(998.0, 5.0), of_four];
        let expected = |programs, kernel| Cost { programs, kernel };
        assert_eq!(typical(&runs, 2.0), expected(999.0, 6.0));
        let runs = [&runs[..], &[run(996.0, 100.0)]].concat();
        assert_eq!(typical(&runs, 2.0), expected(998.0, 7.0));
        assert_eq!(typical(&runs[..2], 2.0).kernel, 7.0);
    }

    #[test]
    fn other_programs_are_counted_in_the_first_boot() {
        let first = figures(1_000);
        let mut second = first.clone();
        second.remove("other");
        let mut tally = Tally::default();
        let agreed = differ(&[first.clone(), second.clone()], &mut tally);
        assert_eq!((agreed.len(), tally.failed), (2, 0));
        second.remove("sdp.a");
        differ(&[first, second], &mut tally);
        assert!(tally.output.contains("sdp.a was not measured"));
    }

    #[test]
    fn boots_that_differ_fail_by_name() {
        let judged = |boots: &[u64]| {
            let mut tally = Tally::default();
            let boots: Vec<Costs> = boots.iter().map(|cost| figures(*cost)).collect();
            let agreed = differ(&boots, &mut tally);
            (tally, agreed["sdp.a"].programs)
        };
        assert_eq!(judged(&[1_000, 1_004]).0.failed, 0);
        let (tally, _) = judged(&[1_000, 1_006]);
        assert_eq!(tally.failed, 2);
        assert!(tally.output.contains("sdp.a, programs"));
        // The third one decides.
        let (tally, agreed) = judged(&[1_000, 1_020, 1_002]);
        assert_eq!((tally.failed, agreed), (0, 1_001.0));
        assert_eq!(judged(&[1_000, 1_010, 1_020]).0.failed, 2);
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
