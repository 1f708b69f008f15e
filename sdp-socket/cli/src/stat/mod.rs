//! `sdp stat`: what the streams of running processes do.

mod find;
mod model;
mod prometheus;
mod rates;
mod table;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use self::find::{Found, Process, Silent, find};
use self::rates::Look;
use crate::cli::StatArgs;
use crate::report::{print, write_to};

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: &'static str,
    version: &'static str,
    time: String,
    processes: &'a [Process],
    silent: &'a [Silent],
}

/// Shows what there is, once or for ever; whether every process that was asked told.
///
/// # Errors
/// The kernel does not say which processes there are, or the report cannot be written.
pub(crate) fn run(args: &StatArgs) -> anyhow::Result<bool> {
    let Some(seconds) = args.watch else {
        let found = find(&args.pids).context("cannot look for processes")?;
        write(args, &found, None)?;
        return Ok(found.silent.is_empty());
    };
    let mut before: Option<Look> = None;
    loop {
        let found = find(&args.pids).context("cannot look for processes")?;
        let now = Look::at(&found.processes);
        write(args, &found, before.as_ref().map(|before| (before, &now)))?;
        before = Some(now);
        thread::sleep(Duration::from_secs_f64(seconds));
    }
}

fn write(args: &StatArgs, found: &Found, looks: Option<(&Look, &Look)>) -> anyhow::Result<()> {
    if let Some(target) = &args.json {
        write_to(target, &json(found, args.watch.is_some())?)?;
    } else if args.prometheus {
        print(&prometheus::render(found))?;
    } else {
        let mut text = table::render(found, looks, args.verbose);
        if found.processes.is_empty() && found.silent.is_empty() {
            text.push_str("no process of this user, in this network namespace, uses SDP\n");
        }
        if args.watch.is_some() && io::stdout().is_terminal() {
            // Up and left, and nothing below.
            text.insert_str(0, "\u{1b}[H\u{1b}[J");
        }
        print(&text)?;
    }
    io::stderr()
        .lock()
        .write_all(table::complaints(found).as_bytes())
        .context("cannot write to standard error")
}

/// The document; in one line, where others follow it.
fn json(found: &Found, in_line: bool) -> anyhow::Result<String> {
    let document = Document {
        schema: "sdp.stat/1",
        version: env!("CARGO_PKG_VERSION"),
        time: jiff::Timestamp::now().to_string(),
        processes: &found.processes,
        silent: &found.silent,
    };
    let text = if in_line {
        serde_json::to_string(&document)
    } else {
        serde_json::to_string_pretty(&document)
    };
    Ok(text.context("cannot encode the report")? + "\n")
}
