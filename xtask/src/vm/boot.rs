//! One guest, or two with a wire between them, that run cases one after the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use super::guest::Guest;
use crate::run::Outcome;
use crate::text::quoted;

/// What ends the output of a case: see `cases.sh`.
const END: char = '\u{1e}';
/// What the kernel never writes into its log unless it is broken. The guest, which is told, gives up then.
const COMPLAINTS: [&str; 5] = [
    "BUG:",
    "Oops:",
    "WARNING: CPU",
    "general protection fault",
    "detected stalls on",
];
/// How a line begins that tells of a program of perftest that crashed: they do when a connection of
/// theirs fails (seen with 4.5), which hw-test reports, and which says nothing of the kernel.
const PERFTEST_CRASHED: &str = "traps: ib_";
/// How much of a log is shown with a failure.
const LOG_LINES: usize = 30;

/// What bash in a guest is told of its kernel's complaints.
pub(super) fn complaints() -> String {
    let all = quoted(&COMPLAINTS.join("\n"));
    format!(
        "GUEST_COMPLAINTS={all} GUEST_HARMLESS={}\n",
        quoted(PERFTEST_CRASHED)
    )
}

/// Guests that have been started.
#[derive(Debug)]
pub(super) struct Boot {
    events: Receiver<(usize, Event)>,
    guests: Vec<Started>,
    /// Whether a guest has given up or ended.
    is_over: bool,
    /// Names of the cases that it has run.
    ran: Vec<String>,
}

#[derive(Debug)]
struct Started {
    thread: JoinHandle<()>,
    console: PathBuf,
    /// Why it ended, once it has.
    over: Option<String>,
}

/// What a guest tells.
#[derive(Debug)]
enum Event {
    Line(String),
    /// It has ended, and why.
    Over(String),
}

impl Boot {
    /// Starts guests, each of which will run the same cases.
    pub(super) fn start(guests: Vec<Guest>) -> Self {
        let (tell, events) = mpsc::channel();
        let started = guests.into_iter().enumerate().map(|(node, guest)| {
            let console = guest.console();
            let tell = tell.clone();
            let thread = thread::spawn(move || {
                // Nobody listens any more once the last case has ended.
                let on_line = |line: &str| _ = tell.send((node, Event::Line(line.to_owned())));
                let why = match guest.run(on_line) {
                    Ok(Outcome { failure, .. }) => {
                        failure.unwrap_or_else(|| "the guest ended before its job did".to_owned())
                    }
                    Err(error) => format!("{error:#}"),
                };
                _ = tell.send((node, Event::Over(why)));
            });
            Started {
                thread,
                console,
                over: None,
            }
        });
        Self {
            guests: started.collect(),
            events,
            is_over: false,
            ran: Vec::new(),
        }
    }

    /// Waits for the end of the case that is next and gives its outcome on each guest, which has left
    /// its files in one of `folders`. Lines of the first guest go to `on_line`.
    pub(super) fn next(
        &mut self,
        name: &str,
        folders: &[PathBuf],
        mut on_line: impl FnMut(&str),
    ) -> Vec<Outcome> {
        let mut lines = vec![Vec::new(); self.guests.len()];
        let mut ended: Vec<_> = self
            .guests
            .iter()
            .map(|guest| guest.over.is_some())
            .collect();
        while ended.contains(&false) {
            // All are gone if nobody tells any more.
            let Ok((node, event)) = self.events.recv() else {
                break;
            };
            match event {
                Event::Line(line) => match line.split_once(END) {
                    Some((rest, _)) => {
                        lines[node].extend((!rest.is_empty()).then(|| rest.to_owned()));
                        ended[node] = true;
                    }
                    None => {
                        if node == 0 {
                            on_line(&line);
                        }
                        lines[node].push(line);
                    }
                },
                Event::Over(why) => {
                    self.guests[node].over = Some(why);
                    ended[node] = true;
                    // The other guest, if there is one, need not wait for it.
                    let over = format!("../link/over.{node}");
                    _ = fs::write(folders[node].join(over), "gone\n");
                }
            }
        }
        let each = self.guests.iter().zip(folders).zip(lines);
        let outcomes = each.map(|((guest, folder), mut lines)| {
            let status = fs::read_to_string(folder.join("status"));
            self.is_over |= guest.over.is_some() || !status.as_ref().is_ok_and(|s| s.trim() == "0");
            let log = fs::read_to_string(folder.join("dmesg.txt")).unwrap_or_default();
            let failure = verdict(status.ok().as_deref(), &log, guest.over.as_deref());
            if failure.is_some() {
                let kept = folder.join("console.txt");
                // A guest that never started has none.
                _ = fs::copy(&guest.console, &kept);
                lines.extend(logs(folder, &log));
                lines.push(format!("before it in this boot: {}", self.ran.join(" ")));
            }
            Outcome { lines, failure }
        });
        let outcomes = outcomes.collect();
        self.ran.push(name.to_owned());
        outcomes
    }

    /// Whether it runs no case any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Waits until its guests have ended.
    pub(super) fn join(self) {
        for guest in self.guests {
            // What panicked has told nobody how a case ended, which has failed it.
            _ = guest.thread.join();
        }
    }
}

/// Why a case has not succeeded on a guest; none if it has.
fn verdict(status: Option<&str>, log: &str, over: Option<&str>) -> Option<String> {
    let complaint = log.lines().find_map(|line| {
        let bad = COMPLAINTS.iter().any(|complaint| line.contains(complaint))
            && !line.contains(PERFTEST_CRASHED);
        bad.then(|| format!("the guest's kernel complained: {line}"))
    });
    match status.map(str::trim) {
        Some("0") => complaint,
        Some(status) => complaint.or_else(|| Some(format!("the job ended with status {status}"))),
        None => Some(over.unwrap_or("the guest has vanished").to_owned()),
    }
}

/// The end of what the guest's console and kernel said.
fn logs(folder: &Path, kernel_log: &str) -> Vec<String> {
    let mut lines = vec![format!("the guest's files are in {}", folder.display())];
    let console = fs::read(folder.join("console.txt")).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    for (name, text) in [("console", &*console), ("kernel log", kernel_log)] {
        let all: Vec<_> = text.lines().collect();
        let tail = all.len().saturating_sub(LOG_LINES);
        lines.extend(all[tail..].iter().map(|line| format!("{name}: {line}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot of one guest that has said `lines`, then ended.
    fn said(lines: &[&str]) -> Boot {
        let (tell, events) = mpsc::channel();
        for line in lines {
            tell.send((0, Event::Line((*line).to_owned()))).unwrap();
        }
        tell.send((0, Event::Over("gone".to_owned()))).unwrap();
        let guest = Started {
            thread: thread::spawn(|| ()),
            console: PathBuf::from("/nonexistent"),
            over: None,
        };
        Boot {
            events,
            guests: vec![guest],
            is_over: false,
            ran: Vec::new(),
        }
    }

    /// Each case has its own lines, also when the last one has no end; the one during which the guest
    /// ends has failed, and names those before it.
    #[test]
    fn a_guest_that_ends_fails_the_case_that_runs() {
        let all = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| [all.path().join(name)]);
        for [folder] in &folders {
            fs::create_dir(folder).unwrap();
        }
        fs::write(folders[0][0].join("status"), "0\n").unwrap();
        let mut boot = said(&["one", "two\u{1e}", "three"]);
        let first = boot.next("a", &folders[0], |_| ()).remove(0);
        assert_eq!(
            (first.lines, first.failure),
            (vec!["one".into(), "two".into()], None)
        );
        assert!(!boot.is_over());
        let second = boot.next("b", &folders[1], |_| ()).remove(0);
        assert_eq!(second.failure.as_deref(), Some("gone"));
        assert_eq!(second.lines[0], "three");
        assert!(
            second
                .lines
                .last()
                .is_some_and(|line| line.ends_with("boot: a"))
        );
        assert!(boot.is_over());
        boot.join();
    }

    /// A job that fails ends its boot: the guest has given up.
    #[test]
    fn a_job_that_fails_ends_its_boot() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("status"), "1\n").unwrap();
        let mut boot = said(&["bad", "\u{1e}"]);
        let outcome = boot
            .next("a", &[folder.path().to_owned()], |_| ())
            .remove(0);
        assert!(outcome.failure.is_some_and(|why| why.contains("status 1")));
        assert!(boot.is_over());
    }

    /// A complaint of the kernel fails a case whose job has succeeded; a case without a status has
    /// lost its guest.
    #[test]
    fn status_and_kernel_decide() {
        let of = |status, log, over| verdict(status, log, over);
        assert_eq!(of(Some("0\n"), "[ 1.0] fine", None), None);
        assert!(of(Some("0\n"), "[ 1.0] BUG: bad", None).is_some_and(|why| why.contains("BUG")));
        let [theirs, ours] = ["ib_send_lat", "sdp"]
            .map(|program| format!("[ 1.0] traps: {program}[7] general protection fault ip:1"));
        assert_eq!(of(Some("0\n"), &theirs, None), None);
        assert!(of(Some("0\n"), &ours, None).is_some());
        assert!(of(Some("3\n"), "", None).is_some_and(|why| why.contains("status 3")));
        assert!(of(Some("1\n"), "[ 1.0] BUG: bad", None).is_some_and(|why| why.contains("BUG")));
        assert_eq!(of(None, "", Some("gone")), Some("gone".to_owned()));
    }
}
