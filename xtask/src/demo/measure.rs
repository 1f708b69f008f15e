//! The comparison, done by `sdp perf compare`.

use std::process::Command;
use std::time::Duration;

use super::Program;
use crate::report::Report;
use crate::run::Run;
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
    let text = outcome.lines.join("\n");
    Ok(
        serde_json::from_str(&text).map_err(|error| match outcome.failure {
            Some(why) => format!("sdp perf compare: {why}, and no report ({error})"),
            None => format!("sdp perf compare gave no report: {error}"),
        }),
    )
}
