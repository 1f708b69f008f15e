//! The promises: each is a ratio of two peers in one cell, and never a time.

use serde_json::Value;

use super::figure;
use super::matrix::{Cell, MANY, MIDDLE, Workload};
use super::peer::label;
use crate::demo::judge::{Bound, PROMISES};
use crate::report::{Check, Report, Skipped};

/// Something that this project says of itself.
#[derive(Debug, Clone)]
struct Promise {
    name: String,
    bound: Bound,
    cell: Cell,
    /// Field that is compared.
    field: &'static str,
    /// Labels; the best of them counts.
    ours: &'static [&'static str],
    /// Labels; the best of them, as a whole, is what `ours` is divided by.
    theirs: &'static [&'static str],
}

/// Judges what was measured: checks, and what could not be judged.
pub(super) fn judge(report: &mut Report, cells: &[Cell]) {
    let promises = cells.iter().flat_map(|cell| of_cell(*cell));
    for promise in promises.chain(of_demo()) {
        match promise.judged(&report.results) {
            Ok(check) => report.checks.push(check),
            Err(skipped) => report.skipped.push(skipped),
        }
    }
}

/// What the demo promises too, by the same names and bounds, and what one copy is worth.
fn of_demo() -> Vec<Promise> {
    let bulk = |conns| Cell {
        workload: Workload::Bw,
        size: MIDDLE,
        conns,
    };
    let ping = Cell {
        workload: Workload::Lat,
        size: 64,
        conns: 1,
    };
    const TCP: &[&str] = &["TCP"];
    const ALL_TCP: &[&str] = &["TCP", "TCP spin", "TCP polled"];
    const ALL: &[&str] = &["SDP bcopy", "SDP", "SDP zcopy", "SDP registered"];
    let promise = |name: &str, cell: Cell, ours, theirs| Promise {
        name: name.to_owned(),
        bound: bound(name),
        cell,
        field: field(cell),
        ours,
        theirs,
    };
    vec![
        promise("bw.1MiB.x8.sdp_best_vs_tcp", bulk(MANY), ALL, TCP),
        promise("lat.64B.sdp_vs_tcp", ping, &["SDP spin"], ALL_TCP),
        promise(
            "bw.1MiB.x1.bcopy_vs_ring_floor",
            bulk(1),
            &["SDP bcopy"],
            &["floor ring"],
        ),
        promise(
            "bw.1MiB.x8.bcopy_vs_ring_floor",
            bulk(MANY),
            &["SDP bcopy"],
            &["floor ring"],
        ),
        promise(REGISTERED.0, bulk(1), &["SDP registered"], TCP),
    ]
}

/// One connection, large messages, one copy in place of TCP's two.
const REGISTERED: (&str, Bound) = ("bw.1MiB.x1.registered_vs_tcp", Bound::AtLeast(2.5));

/// The demo's own bound of a promise.
fn bound(name: &str) -> Bound {
    let all = PROMISES.iter().chain([&REGISTERED]);
    let found = all.copied().find(|(known, _)| *known == name);
    // A name that is not there would be one that nothing keeps.
    found.map_or(Bound::AtLeast(f64::INFINITY), |(_, bound)| bound)
}

/// Never slower than kernel TCP, and never dearer, for programs that ask for nothing.
fn of_cell(cell: Cell) -> Vec<Promise> {
    let key = cell.key();
    let promise = |name: String, field, bound, ours, theirs| Promise {
        name,
        bound,
        cell,
        field,
        ours,
        theirs,
    };
    let (workload, field) = (cell.workload.name(), field(cell));
    let bound = match cell.workload {
        Workload::Bw => Bound::AtLeast(1.0),
        Workload::Lat => Bound::AtMost(1.0),
    };
    let mut promises = vec![
        promise(
            format!("{workload}.{key}.auto_vs_tcp"),
            field,
            bound,
            &["SDP"],
            &["TCP"],
        ),
        promise(
            format!("{workload}.{key}.polled_vs_tcp"),
            field,
            bound,
            &["SDP polled"],
            &["TCP polled"],
        ),
    ];
    if cell.workload == Workload::Bw {
        promises.push(promise(
            format!("cpu.{key}.auto_vs_tcp"),
            "cpu_s_per_gb",
            Bound::AtMost(1.0),
            &["SDP"],
            &["TCP"],
        ));
    }
    promises
}

/// What peers are compared by in a cell.
fn field(cell: Cell) -> &'static str {
    match cell.workload {
        Workload::Bw => "gb_per_s",
        Workload::Lat => "us_p50",
    }
}

impl Promise {
    fn judged(self, results: &[Value]) -> Result<Check, Skipped> {
        let found = |labels: &[&str]| -> Vec<&Value> {
            let here = results.iter().filter(|result| self.cell.has(result));
            here.filter(|result| labels.contains(&&*label(result)))
                .collect()
        };
        let (ours, theirs) = (found(self.ours), found(self.theirs));
        let missing = [(&ours, self.ours), (&theirs, self.theirs)]
            .into_iter()
            .find(|(found, _)| found.is_empty());
        if let Some((_, labels)) = missing {
            let reason = format!(
                "{} of {} was not measured",
                self.cell.title(),
                labels.join(", ")
            );
            return Err(Skipped {
                name: self.name,
                reason,
            });
        }
        let median =
            |result: &&&Value| figure::over(result, self.field).map_or(f64::NAN, |it| it.median);
        let base = theirs.iter().reduce(|a, b| {
            let nearer = match self.bound {
                Bound::AtLeast(_) => median(&a) >= median(&b),
                Bound::AtMost(_) => median(&a) <= median(&b),
            };
            if nearer { a } else { b }
        });
        let ratios = ours.iter().filter_map(|result| {
            let ratio = figure::ratio(result, base?, self.field)?;
            Some((ratio, label(result)))
        });
        let best = ratios.reduce(|a, b| {
            let better = match self.bound {
                Bound::AtLeast(_) => a.0.median >= b.0.median,
                Bound::AtMost(_) => a.0.median <= b.0.median,
            };
            if better { a } else { b }
        });
        let value = best.as_ref().map(|(ratio, _)| ratio.median);
        Ok(Check {
            ok: value.is_some_and(|value| self.bound.holds(value)),
            value,
            limit: Some(self.bound.limit()),
            unit: "ratio".to_owned(),
            detail: best.zip(base).map_or_else(
                || "no round of both was measured".to_owned(),
                |((ratio, name), base)| {
                    format!(
                        "{name} to {}: rounds from {:.2} to {:.2}",
                        label(base),
                        ratio.min,
                        ratio.max
                    )
                },
            ),
            name: self.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::report::Started;

    const BULK: Cell = Cell {
        workload: Workload::Bw,
        size: MIDDLE,
        conns: 8,
    };

    fn result(cell: Cell, (peer, mode, wait): (&str, &str, &str), values: &[f64]) -> Value {
        json!({ "workload": cell.workload.name(), "size": cell.size, "conns": cell.conns,
            "peer": peer, "mode": mode, "buffers": "heap", "wait": wait,
            "each": { "gb_per_s": values, "us_p50": values, "cpu_s_per_gb": values } })
    }

    const TCP: (&str, &str, &str) = ("tcp", "", "sleep");
    const SDP: (&str, &str, &str) = ("sdp", "auto", "adaptive");

    fn judged(results: Vec<Value>, cell: Cell) -> Report {
        let mut report = Started::now()
            .report("bench", Path::new("."), Some("host"))
            .unwrap();
        report.results = results;
        judge(&mut report, &[cell]);
        report
    }

    fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
        let found = report.checks.iter().find(|check| check.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {:?}", report.checks))
    }

    #[test]
    fn not_slower_and_not_dearer_than_tcp_is_judged_round_by_round() {
        let results = vec![
            result(BULK, TCP, &[1.0, 10.0, 100.0]),
            result(BULK, SDP, &[2.0, 9.0, 300.0]),
        ];
        let report = judged(results, BULK);
        let (speed, cost) = (
            check(&report, "bw.1MiB.x8.auto_vs_tcp"),
            check(&report, "cpu.1MiB.x8.auto_vs_tcp"),
        );
        assert_eq!((speed.value, speed.ok), (Some(2.0), true));
        assert_eq!((cost.value, cost.ok), (Some(2.0), false));
        assert!(speed.detail.contains("0.90 to 3.00"), "{}", speed.detail);
    }

    #[test]
    fn the_best_of_ours_is_held_against_the_best_of_theirs() {
        let cell = Cell {
            workload: Workload::Lat,
            size: 64,
            conns: 1,
        };
        let results = vec![
            result(cell, TCP, &[10.0, 10.0]),
            result(cell, ("tcp", "", "spin"), &[4.0, 4.0]),
            result(cell, ("sdp", "auto", "spin"), &[1.0, 2.0]),
        ];
        let report = judged(results, cell);
        let spin = check(&report, "lat.64B.sdp_vs_tcp");
        assert_eq!(
            (spin.value, spin.limit, spin.ok),
            (Some(0.375), Some(0.5), true)
        );
        let results = vec![
            result(BULK, TCP, &[1.0]),
            result(BULK, SDP, &[2.0]),
            result(BULK, ("sdp", "bcopy", "adaptive"), &[3.0]),
        ];
        let best = judged(results, BULK);
        let best = check(&best, "bw.1MiB.x8.sdp_best_vs_tcp");
        assert!(
            best.detail.starts_with("SDP bcopy to TCP"),
            "{}",
            best.detail
        );
        assert!(best.ok);
    }

    #[test]
    fn what_was_not_measured_is_skipped_by_name_and_what_gave_no_round_fails() {
        let report = judged(vec![result(BULK, TCP, &[1.0])], BULK);
        assert!(report.checks.is_empty(), "{:?}", report.checks);
        let skipped = |name: &str| report.skipped.iter().any(|item| item.name == name);
        assert!(skipped("bw.1MiB.x8.polled_vs_tcp") && skipped("lat.64B.sdp_vs_tcp"));
        let empty = vec![result(BULK, TCP, &[1.0]), result(BULK, SDP, &[])];
        let report = judged(empty, BULK);
        let check = check(&report, "bw.1MiB.x8.auto_vs_tcp");
        assert_eq!((check.ok, check.value), (false, None));
    }

    #[test]
    fn every_promise_of_the_demo_is_judged_with_its_bound() {
        for promise in of_demo() {
            assert!(promise.bound.limit().is_finite(), "{}", promise.name);
        }
        let names: Vec<_> = of_demo().into_iter().map(|promise| promise.name).collect();
        for (name, _) in PROMISES {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    }
}
