//! `cargo xtask demo`: build, prove, measure, one table.

pub(crate) mod judge;
mod measure;
mod verify;

use serde_json::Value;

use crate::cli::DemoOptions;
use crate::program;
use crate::report::{Check, Report, Started};
use crate::table;
use crate::ui::Ui;
use crate::workspace::Workspace;

/// Builds the program, runs the verified passes and the comparison, and reports; `Ok(true)`
/// exactly when every check holds.
///
/// # Errors
/// When the program cannot be built or run, or the report cannot be written.
pub(crate) fn run(workspace: &Workspace, ui: &Ui, options: &DemoOptions) -> anyhow::Result<bool> {
    let program = program::build(workspace, ui)?;
    let started = Started::now();
    let mut report = started.report("demo", &workspace.root, Some("host"))?;
    for buffers in verify::BUFFERS {
        let (result, check) = verify::pass(&program, ui, buffers)?;
        print_check(ui, &check)?;
        report.results.extend(result);
        report.checks.push(check);
    }
    match measure::compare(&program, ui, options.seconds)? {
        Ok(comparison) => {
            ui.line("")?;
            let results: Vec<_> = comparison.results.iter().collect();
            ui.line(&table::render(&results, peer))?;
            let first = report.checks.len();
            merge(&mut report, comparison);
            for check in &report.checks[first..] {
                print_check(ui, check)?;
            }
        }
        Err(failure) => {
            ui.error(&failure);
            report.checks.extend(judge::missing(&failure));
        }
    }
    for skipped in &report.skipped {
        ui.line(&format!("SKIPPED {}: {}", skipped.name, skipped.reason))?;
    }
    report.seconds = started.seconds();
    report.write(options.json.as_deref())?;
    ui.line(&report.summary())?;
    Ok(report.passed())
}

/// Takes over what the comparison found; the demo judges its own promises again.
fn merge(report: &mut Report, comparison: Report) {
    report.results.extend(comparison.results);
    report.checks.extend(judge::judged(comparison.checks));
    report.skipped.extend(comparison.skipped);
}

/// The column of a result: `TCP`, `Unix`, `SDP bcopy`, `SDP heap`, `SDP registered`, `floor …`.
fn peer(result: &Value) -> String {
    let text = |field: &str| result[field].as_str().unwrap_or("");
    match (text("peer"), text("mode")) {
        ("tcp", _) => "TCP".to_owned(),
        ("uds", _) => "Unix".to_owned(),
        ("sdp", "bcopy") => "SDP bcopy".to_owned(),
        ("sdp", _) => format!("SDP {}", text("buffers")),
        (other, mode) => format!("{other} {mode}").trim().replace('_', " "),
    }
}

fn print_check(ui: &Ui, check: &Check) -> anyhow::Result<()> {
    let word = if check.ok { "ok" } else { "FAIL" };
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
    let detail = if check.detail.is_empty() {
        String::new()
    } else {
        format!("   {}", check.detail)
    };
    ui.line(&format!(
        "{word:5} {:34} {:>8} {}   limit {}{detail}",
        check.name,
        number(check.value),
        check.unit,
        number(check.limit)
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn columns_are_named_by_how_bytes_go() {
        let report: Report = serde_json::from_str(table::SAMPLE).unwrap();
        let names: Vec<_> = report.results.iter().map(peer).collect();
        assert_eq!(names, ["TCP", "SDP registered", "TCP", "SDP bcopy"]);
    }

    #[test]
    fn results_checks_and_skips_of_the_comparison_are_taken_over() {
        let mut report = Started::now()
            .report("demo", Path::new("."), Some("host"))
            .unwrap();
        let comparison: Report = serde_json::from_str(table::SAMPLE).unwrap();
        let results = comparison.results.len();
        merge(&mut report, comparison);
        assert_eq!(report.results.len(), results);
        assert_eq!(report.skipped.len(), 1);
        assert_eq!(report.schema, "sdp.demo/1");
        // All promises are there; those the sample lacks are broken.
        for (name, ..) in judge::PROMISES {
            assert!(
                report.checks.iter().any(|check| check.name == *name),
                "{name}"
            );
        }
        assert!(!report.passed());
    }
}
