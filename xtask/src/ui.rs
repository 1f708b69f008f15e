//! Text for people: one place that decides between standard output and standard error.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Prints text and progress. Text goes to standard output, or to standard error while standard
/// output carries the JSON report.
#[derive(Debug)]
pub(crate) struct Ui {
    stdout_is_json: bool,
    /// Those of steps that run at the same time stand below each other.
    bars: MultiProgress,
}

impl Ui {
    /// `json` is the target of the report, if one was asked for.
    pub(crate) fn new(json: Option<&Path>) -> Self {
        Self {
            stdout_is_json: json.is_some_and(|path| path.as_os_str() == "-"),
            bars: MultiProgress::new(),
        }
    }

    /// Prints `text` and a line end.
    ///
    /// # Errors
    /// When the output cannot be written, for example a closed pipe.
    pub(crate) fn line(&self, text: &str) -> anyhow::Result<()> {
        self.bars.suspend(|| {
            if self.stdout_is_json {
                writeln!(io::stderr().lock(), "{text}").context("cannot write to standard error")
            } else {
                writeln!(io::stdout().lock(), "{text}").context("cannot write to standard output")
            }
        })
    }

    /// Prints an error to standard error.
    pub(crate) fn error(&self, text: &str) {
        // Nothing is left to tell if standard error itself is gone; the exit code still says it.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Shows that `name` is running: a line that moves on a terminal, one plain line elsewhere.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(crate) fn progress(&self, name: &str) -> anyhow::Result<Progress> {
        if !io::stderr().is_terminal() {
            self.line(&format!("      {name} ..."))?;
            return Ok(Progress { bar: None });
        }
        let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
            .context("progress template")?;
        let bar = self
            .bars
            .add(ProgressBar::new_spinner())
            .with_style(style)
            .with_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Ok(Progress { bar: Some(bar) })
    }
}

/// A running step on the terminal; vanishes when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows the latest line of a child's output.
    pub(crate) fn note(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.trim().to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
