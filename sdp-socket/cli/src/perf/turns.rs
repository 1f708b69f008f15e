//! Rounds in turns with another program, which measures something else in between.

use std::io::{self, BufRead, Write};

use anyhow::Context;

/// Waits until it asks for a round, by a line on standard input; false if it wants no more.
///
/// # Errors
/// When it cannot be read.
pub(super) fn asked() -> anyhow::Result<bool> {
    let mut line = String::new();
    let count = io::stdin().lock().read_line(&mut line);
    Ok(count.context("cannot read from standard input")? > 0)
}

/// Says how far we are, in a line of standard output.
///
/// # Errors
/// When it cannot be written.
pub(super) fn tell(what: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{what}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}
