//! How fast connections are set up: `sdp perf conn`, which takes turns with TCP by itself.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::report::{Check, Report};
use crate::run::Run;

/// Connections of each kind that are set up, in ten rounds.
const CYCLES: &str = "1000";
/// Threads that set up at once.
const PARALLEL: &str = "8";
/// Connections that are open at once.
const OPEN: &str = "500";
/// It is meant to take a few seconds.
const CONN_MAX: Duration = Duration::from_secs(120);

/// Measures and adds what was found; that there is no report is a failed check.
///
/// # Errors
/// When the program cannot be started.
pub(super) fn measure(program: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(["perf", "conn", "--json", "-"]).args([
        "--cycles",
        CYCLES,
        "--parallel",
        PARALLEL,
        "--open",
        OPEN,
    ]);
    let outcome = Run::new(command)
        .show_stderr()
        .total_max(CONN_MAX)
        .run(|_| ())?;
    match serde_json::from_str::<Report>(&outcome.lines.join("\n")) {
        Ok(found) => {
            report.results.extend(found.results);
            report.checks.extend(found.checks);
        }
        Err(error) => report.checks.push(Check {
            name: "conn.measured".to_owned(),
            ok: false,
            value: None,
            limit: None,
            unit: String::new(),
            detail: format!("{}: {error}", outcome.failure.unwrap_or_default()),
        }),
    }
    Ok(())
}
