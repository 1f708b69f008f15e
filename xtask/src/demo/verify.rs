//! The verified pass: every byte that arrives is compared with what was sent.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::program::Program;
use crate::report::{Check, Report};
use crate::run::{Outcome, Run};
use crate::ui::Ui;

/// Memory the payload lives in: of the ordinary allocator, and registered by the library.
pub(super) const BUFFERS: [&str; 2] = ["heap", "registered"];

/// A pass that takes longer hangs. It is meant to take two seconds.
const PASS_MAX: Duration = Duration::from_secs(60);

/// Runs one verified pass and gives its results and the check `verify.<buffers>`.
///
/// # Errors
/// When the program cannot be started or the output cannot be written.
pub(super) fn pass(
    program: &Program,
    ui: &Ui,
    buffers: &str,
) -> anyhow::Result<(Vec<Value>, Check)> {
    let mut command = Command::new(&program.path);
    command
        .args([
            "perf",
            "bw",
            "--verify",
            "--conns",
            "8",
            "--buffers",
            buffers,
        ])
        .args(["--seconds", "1", "--json", "-"]);
    ui.line(&format!("verifying every byte, {buffers} memory ..."))?;
    // Progress comes on standard error, straight to the terminal.
    let outcome = Run::new(command)
        .show_stderr()
        .total_max(PASS_MAX)
        .run(|_| ())?;
    Ok(judged(&outcome, buffers))
}

/// Holds when the program succeeded and its report says that bytes were verified.
fn judged(outcome: &Outcome, buffers: &str) -> (Vec<Value>, Check) {
    let report: Result<Report, _> = serde_json::from_str(&outcome.lines.join("\n"));
    let (results, problem) = match report {
        Err(error) => (Vec::new(), Some(format!("no report: {error}"))),
        Ok(report) => {
            let broken = report.checks.iter().find(|check| !check.ok);
            let unverified = report
                .results
                .iter()
                .any(|result| result["verified"] != true);
            let problem = if let Some(check) = broken {
                Some(format!("{}: {}", check.name, check.detail))
            } else if report.results.is_empty() || unverified {
                Some("the report does not say that the bytes were verified".to_owned())
            } else {
                None
            };
            (report.results, problem)
        }
    };
    let problem = outcome.failure.clone().or(problem);
    let check = Check {
        name: format!("verify.{buffers}"),
        ok: problem.is_none(),
        value: None,
        limit: None,
        unit: String::new(),
        detail: problem.unwrap_or_else(|| "every byte arrived as it was sent".to_owned()),
    };
    (results, check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(verified: &str, ok: bool, failure: Option<&str>) -> Check {
        let text = format!(
            r#"{{ "schema": "sdp.perf/1", "version": "0", "started": "", "seconds": 1.0,
            "machine": {{ "cpus": 2, "kernel": "6" }}, "results": [{{ "verified": {verified} }}],
            "checks": [{{ "name": "bw.verified", "ok": {ok}, "detail": "byte 7 differs" }}] }}"#
        );
        let lines = text.lines().map(str::to_owned).collect();
        judged(
            &Outcome {
                lines,
                failure: failure.map(str::to_owned),
            },
            "heap",
        )
        .1
    }

    #[test]
    fn holds_only_with_status_checks_and_verified_results() {
        assert!(verdict("true", true, None).ok);
        assert!(!verdict("false", true, None).ok);
        assert!(!verdict("null", true, None).ok);
        assert!(
            verdict("true", false, None)
                .detail
                .contains("byte 7 differs")
        );
        assert!(!verdict("true", true, Some("exit status: 1")).ok);
    }

    #[test]
    fn no_report_is_a_broken_promise() {
        let outcome = Outcome {
            lines: Vec::new(),
            failure: None,
        };
        assert!(!judged(&outcome, "heap").1.ok);
    }
}
