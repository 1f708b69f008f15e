//! The comparison, done by `sdp perf compare`.

use std::process::Command;
use std::time::Duration;

use crate::program::Program;
use crate::report::Report;
use crate::run::{Outcome, Run};
use crate::ui::Ui;

/// A comparison that takes longer hangs. It is meant to take under 80 seconds.
const COMPARE_MAX: Duration = Duration::from_secs(180);

/// Runs the comparison. The inner error says why there is no report; a report whose checks fail is
/// a report.
///
/// # Errors
/// When the program cannot be started or the output cannot be written.
pub(super) fn compare(
    program: &Program,
    ui: &Ui,
    seconds: Option<u32>,
) -> anyhow::Result<Result<Report, String>> {
    let mut command = Command::new(&program.path);
    command.args(["perf", "compare", "--json", "-"]);
    if let Some(seconds) = seconds {
        command.args(["--seconds", &seconds.to_string()]);
    }
    let limit = COMPARE_MAX + Duration::from_secs(seconds.unwrap_or(0).into());
    ui.line("comparing TCP, Unix sockets and SDP, round by round ...")?;
    // Progress comes on standard error, straight to the terminal.
    let outcome = Run::new(command)
        .show_stderr()
        .total_max(limit)
        .run(|_| ())?;
    Ok(judged(&outcome))
}

/// The report, unless the exit status says something that no check of it says.
fn judged(outcome: &Outcome) -> Result<Report, String> {
    let report: Result<Report, _> = serde_json::from_str(&outcome.lines.join("\n"));
    match (report, &outcome.failure) {
        (Ok(report), Some(why)) if report.passed() => {
            let started = report.started;
            Err(format!(
                "sdp perf compare: {why}, though all checks of its report of {started} hold"
            ))
        }
        (Ok(report), _) => Ok(report),
        (Err(error), Some(why)) => Err(format!("sdp perf compare: {why}, and no report ({error})")),
        (Err(error), None) => Err(format!("sdp perf compare gave no report: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::SAMPLE;

    fn outcome(text: &str, failure: Option<&str>) -> Outcome {
        let lines = text.lines().map(str::to_owned).collect();
        Outcome {
            lines,
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn a_report_with_broken_checks_is_a_report_whatever_the_status() {
        let broken = SAMPLE.replace("\"ok\": true", "\"ok\": false");
        assert_eq!(
            judged(&outcome(&broken, Some("exit status: 1")))
                .unwrap()
                .checks
                .len(),
            1
        );
    }

    #[test]
    fn a_failure_that_no_check_explains_and_a_missing_report_are_told() {
        assert!(judged(&outcome(SAMPLE, None)).is_ok());
        let unexplained = judged(&outcome(SAMPLE, Some("signal: 11"))).unwrap_err();
        assert!(unexplained.contains("signal: 11"));
        assert!(
            judged(&outcome("", Some("exit status: 2")))
                .unwrap_err()
                .contains("no report")
        );
        assert!(judged(&outcome("", None)).is_err());
    }
}
