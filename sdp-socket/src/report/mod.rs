//! What a process does with its streams, as JSON, for whoever asks it while it runs: `sdp stat`.
//! docs/stat.md has its form.
//!
//! A report is made in steps, each of which takes a bounded time whatever the process has open: the
//! progress thread, on which every connection of the process waits, makes it between its rounds.

mod connection;
mod json;
mod registry;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use registry::{Claim, add_context, claim};
pub use registry::{Counters, set_counters};

use crate::connecting::Connecting;
use crate::context::{Account, Context, Ended};
use crate::driver::Conn;
use crate::listener::Listening;
use json::{Members, object};

/// Names of the sockets by which processes are asked begin so; the process id follows.
pub(crate) const SOCKET_NAME: &str = "sdp-stat/1/";
/// What an answer says, beside which comes the report.
pub(crate) const ANSWER: &[u8] = b"sdp.process/1";
/// Bytes of a report at most: who gets more is not to believe it.
pub(crate) const REPORT_MAX: usize = 64 << 20;

/// Connections, or listeners, written in one step.
const STEP_MAX: usize = 32;
/// How often connections are looked at again whose locks others held: a thread that holds one may
/// have lost its processor.
const LOOKS_MAX: u32 = 30;
/// Connections, or listeners, in one report.
const ENTRIES_MAX: usize = 1 << 15;

/// One end of a connection that there is, or is to be.
#[derive(Debug)]
enum End {
    Resolving(Arc<Connecting>),
    Made(Arc<Conn>),
}

/// What a step has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// There is more to write.
    More,
    /// What is left is about connections that other threads work on: look again in a moment.
    Wait,
    /// That was all.
    Done,
}

/// What a report has cost the thread that makes it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// All steps together.
    pub(crate) spent: Duration,
    /// The longest step.
    pub(crate) longest: Duration,
}

impl Cost {
    /// Adds a step.
    pub(crate) fn add(&mut self, step: Duration) {
        self.spent += step;
        self.longest = self.longest.max(step);
    }
}

/// How far a report has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Head,
    Listeners,
    Connections,
    Done,
}

/// A report that is being made. It holds what it is about, so nothing goes uncounted or is counted
/// twice if it ends meanwhile.
#[derive(Debug)]
pub(crate) struct Report {
    stage: Stage,
    contexts: Vec<(Arc<Context>, Ended)>,
    listeners: VecDeque<Arc<Listening>>,
    ends: VecDeque<End>,
    /// Whose locks others held: they are looked at again at the end.
    busy: VecDeque<End>,
    /// How often yet.
    looks: u32,
    left_out: usize,
    /// Something stands in the list that is being written.
    any: bool,
}

impl Report {
    /// Begins a report of this process.
    pub(crate) fn begin() -> Self {
        let mut report = Self {
            stage: Stage::Head,
            contexts: Vec::new(),
            listeners: VecDeque::new(),
            ends: VecDeque::new(),
            busy: VecDeque::new(),
            looks: LOOKS_MAX,
            left_out: 0,
            any: false,
        };
        for context in registry::contexts() {
            let Account {
                ended,
                listening,
                connecting,
                conns,
            } = context.account();
            report.listeners.extend(listening);
            report
                .ends
                .extend(connecting.into_iter().map(End::Resolving));
            report.ends.extend(conns.into_iter().map(End::Made));
            report.contexts.push((context, ended));
        }
        for (list, max) in [
            (report.listeners.len(), ENTRIES_MAX),
            (report.ends.len(), ENTRIES_MAX),
        ] {
            report.left_out += list.saturating_sub(max);
        }
        report.listeners.truncate(ENTRIES_MAX);
        report.ends.truncate(ENTRIES_MAX);
        report
    }

    /// Appends what comes next. `cost` is that of all steps before.
    pub(crate) fn step(&mut self, text: &mut String, cost: Cost) -> Step {
        match self.stage {
            Stage::Head => {
                text.push('{');
                self.head(&mut Members::inside(text));
                self.stage = Stage::Listeners;
            }
            Stage::Listeners => self.write_listeners(text),
            Stage::Connections if self.ends.is_empty() && !self.busy.is_empty() => {
                self.looks = self.looks.saturating_sub(1);
                std::mem::swap(&mut self.ends, &mut self.busy);
                return Step::Wait;
            }
            Stage::Connections => self.write_connections(text, cost),
            Stage::Done => {}
        }
        match self.stage {
            Stage::Done => Step::Done,
            _ => Step::More,
        }
    }

    fn head(&self, members: &mut Members<'_>) {
        members.string("schema", Some("sdp.process/1"));
        members.string("version", Some(env!("CARGO_PKG_VERSION")));
        members.number("pid", u64::from(std::process::id()));
        members.string("program", program());
        if let Some((context, _)) = self.contexts.first() {
            let memory = context.budget.account();
            members.object("memory", |members| {
                members.count("used", memory.used);
                members.count("used_max", memory.used_max);
                members.count("max", memory.max);
                members.number("refused", memory.refused);
            });
        }
        members.object("counters", |members| {
            if let Some((name, counters)) = registry::counters() {
                members.object(name, |members| {
                    for (name, count) in counters {
                        members.number(name, count);
                    }
                });
            }
        });
        members.list("contexts", &self.contexts, |members, (context, ended)| {
            connection::write_context(members, context, ended);
        });
        members.count("left_out", self.left_out);
        members.begin_list("listeners");
    }

    /// Appends an object to the list that is being written.
    fn item(&mut self, text: &mut String, fill: impl FnOnce(&mut Members<'_>)) {
        if std::mem::replace(&mut self.any, true) {
            text.push(',');
        }
        text.push('\n');
        object(text, fill);
    }

    fn write_listeners(&mut self, text: &mut String) {
        for _ in 0..STEP_MAX {
            let Some(listening) = self.listeners.pop_front() else {
                text.push_str("],\"connections\":[");
                self.any = false;
                self.stage = Stage::Connections;
                return;
            };
            self.item(text, |members| {
                connection::write_listener(members, &listening)
            });
        }
    }

    fn write_connections(&mut self, text: &mut String, cost: Cost) {
        for _ in 0..STEP_MAX {
            let Some(end) = self.ends.pop_front() else {
                if self.busy.is_empty() {
                    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(0);
                    text.push_str("],");
                    let mut members = Members::inside(text);
                    members.number("spent_us", micros(cost.spent));
                    members.number("longest_us", micros(cost.longest));
                    members.flag("complete", true);
                    text.push_str("}\n");
                    self.stage = Stage::Done;
                }
                return;
            };
            match &end {
                End::Resolving(connecting) => {
                    // One that has got on since is among the others, or is over.
                    if let Some(peer) = connecting.resolving() {
                        let context = connecting.context();
                        self.item(text, |it| connection::write_resolving(it, context, peer));
                    }
                }
                End::Made(conn) => match conn.snapshot() {
                    None if self.looks > 0 => self.busy.push_back(end),
                    found => self.item(text, |it| connection::write(it, conn, found)),
                },
            }
        }
    }
}

/// The last part of the name by which the program was started.
fn program() -> Option<String> {
    let path = std::env::args_os().next()?;
    let name = std::path::Path::new(&path).file_name()?;
    Some(name.to_string_lossy().into_owned())
}

#[cfg(all(test, not(loom)))]
mod tests;
