//! `cargo xtask demo`: build, prove, measure, one table.

mod judge;
mod measure;
mod table;
mod verify;

use crate::cli::DemoOptions;
use crate::program;
use crate::report::{Check, Report, Started};
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
            ui.line(&table::render(&comparison.results))?;
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
