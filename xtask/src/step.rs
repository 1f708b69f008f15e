//! A list of steps: each timed, counted, printed, and turned into a check of the report.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use anyhow::{Context, anyhow};

use serde_json::json;

use crate::report::{Check, Skipped, Started};
use crate::run::Run;
use crate::ui::{Progress, Ui};
use crate::workspace::Workspace;

/// What one step found.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Tests or tools that passed.
    pub(crate) passed: usize,
    /// Those that failed.
    pub(crate) failed: usize,
    /// Those not run, with reasons.
    pub(crate) skipped: Vec<Skipped>,
    /// What to show if something failed.
    pub(crate) output: String,
    /// What was measured: shown always.
    pub(crate) figures: Vec<String>,
}

impl Tally {
    /// A step that did not run at all.
    pub(crate) fn skipped(name: &str, reason: &str) -> Self {
        let skipped = vec![Skipped {
            name: name.to_owned(),
            reason: reason.to_owned(),
        }];
        Self {
            skipped,
            ..Self::default()
        }
    }

    /// A step that failed as one.
    pub(crate) fn failed(output: String) -> Self {
        Self {
            failed: 1,
            output,
            ..Self::default()
        }
    }
}

/// The steps of one command.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    ui: &'a Ui,
    started: Started,
    done: Vec<Done>,
}

/// What runs beside others, and reports each of its steps.
type Body<'a> = Box<dyn FnOnce(&Series<'_>) -> anyhow::Result<()> + Send + 'a>;

/// Steps that come one after the other and may run beside others.
pub(crate) struct Beside<'a> {
    /// How many lanes they take; all of them, if it is more.
    pub(crate) lanes: usize,
    /// What they do.
    pub(crate) body: Body<'a>,
}

/// Where steps that run beside others are reported.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    ui: &'a Ui,
    tell: Sender<Told>,
}

/// What a lane tells.
#[derive(Debug)]
enum Told {
    /// A step is done.
    Step(Done),
    /// So many lanes are free again; the error is that of an output that cannot be written.
    Over(usize, anyhow::Result<()>),
}

/// One finished step.
#[derive(Debug)]
struct Done {
    name: String,
    seconds: f64,
    tally: Tally,
}

impl<'a> Steps<'a> {
    /// No step yet; the clock of the report starts.
    pub(crate) fn new(ui: &'a Ui) -> Self {
        Self {
            ui,
            started: Started::now(),
            done: Vec::new(),
        }
    }

    /// Runs one step. A step that cannot run is a failed step: the ones after it still run.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(crate) fn step(
        &mut self,
        name: &str,
        body: impl FnOnce(&Progress) -> anyhow::Result<Tally>,
    ) -> anyhow::Result<()> {
        let progress = self.ui.progress(name)?;
        self.record(Done::of(name.to_owned(), progress, body))
    }

    /// Runs steps beside each other, in as many lanes as there are. They begin in their order, but those
    /// for which there is room go before those for which there is none.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(crate) fn side_by_side(
        &mut self,
        lanes: usize,
        steps: Vec<Beside<'_>>,
    ) -> anyhow::Result<()> {
        let mut waiting = VecDeque::from(steps);
        let (tell, told) = mpsc::channel();
        let (mut free, mut running) = (lanes, 0);
        thread::scope(|scope| {
            loop {
                let fits = |step: &Beside<'_>| step.lanes.min(lanes) <= free;
                let next = waiting.iter().position(fits);
                if let Some(Beside { lanes: taken, body }) = next.and_then(|at| waiting.remove(at))
                {
                    let taken = taken.min(lanes);
                    free -= taken;
                    running += 1;
                    let (ui, tell) = (self.ui, tell.clone());
                    scope.spawn(move || {
                        let series = Series { ui, tell };
                        let result = unpanicked(|| body(&series));
                        // Nobody is told any more when the output cannot be written.
                        let _ = series.tell.send(Told::Over(taken, result));
                    });
                } else if running > 0 {
                    match told.recv().context("a step has vanished")? {
                        Told::Step(done) => self.record(done)?,
                        Told::Over(taken, result) => {
                            result?;
                            free += taken;
                            running -= 1;
                        }
                    }
                } else {
                    return Ok(());
                }
            }
        })
    }

    fn record(&mut self, done: Done) -> anyhow::Result<()> {
        if done.tally.failed > 0 {
            self.ui.line(&done.tally.output)?;
        }
        self.ui.line(&done.summary())?;
        for figure in &done.tally.figures {
            self.ui.line(&format!("        {figure}"))?;
        }
        for skipped in &done.tally.skipped {
            self.ui.line(&format!(
                "        skipped {}: {}",
                skipped.name, skipped.reason
            ))?;
        }
        self.done.push(done);
        Ok(())
    }

    /// Runs a tool as a step: it passes exactly when it exits with 0.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(crate) fn tool(&mut self, name: &str, command: Command) -> anyhow::Result<()> {
        self.step(name, |progress| {
            let outcome = Run::new(command).run(|line| progress.note(line))?;
            Ok(match outcome.failure {
                None => Tally {
                    passed: 1,
                    ..Tally::default()
                },
                Some(why) => Tally::failed(format!("{}\n{why}", outcome.lines.join("\n"))),
            })
        })
    }

    /// Writes the report, prints the closing line, and says whether everything passed.
    ///
    /// # Errors
    /// When the report or the output cannot be written.
    pub(crate) fn finish(
        self,
        command: &str,
        workspace: &Workspace,
        json: Option<&PathBuf>,
    ) -> anyhow::Result<bool> {
        let mut report = self.started.report(command, &workspace.root, None)?;
        let mut totals = [0; 3];
        let not_run: Vec<_> = self.done.iter().filter_map(Done::not_run).collect();
        for Done {
            name,
            seconds,
            tally,
        } in self.done
        {
            let Tally {
                passed,
                failed,
                skipped,
                ..
            } = tally;
            totals = [
                totals[0] + passed,
                totals[1] + failed,
                totals[2] + skipped.len(),
            ];
            report
                .results
                .push(json!({ "name": name, "seconds": seconds, "passed": passed,
                "failed": failed, "skipped": skipped.len() }));
            if passed + failed > 0 {
                report
                    .checks
                    .push(failures_check(format!("{command}.{name}"), failed));
            }
            report.skipped.extend(skipped);
        }
        report.write(json.map(PathBuf::as_path))?;
        for line in not_run {
            self.ui.line(&line)?;
        }
        self.ui.line(&format!(
            "{} passed, {} failed, {} skipped",
            totals[0], totals[1], totals[2]
        ))?;
        Ok(report.passed())
    }
}

impl Series<'_> {
    /// Runs the next step. One that cannot run, or that panics, is a failed step.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(crate) fn step(
        &self,
        name: String,
        body: impl FnOnce(&Progress) -> anyhow::Result<Tally>,
    ) -> anyhow::Result<()> {
        let progress = self.ui.progress(&name)?;
        let done = Done::of(name, progress, |progress| unpanicked(|| body(progress)));
        // As above.
        let _ = self.tell.send(Told::Step(done));
        Ok(())
    }
}

/// A panic as an error.
fn unpanicked<T>(body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    panic::catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(anyhow!("the step panicked")))
}

/// The promise that nothing failed.
fn failures_check(name: String, failed: usize) -> Check {
    // Exact: no run has 2^53 failures.
    let value = u32::try_from(failed).map_or(f64::INFINITY, f64::from);
    Check {
        name,
        ok: failed == 0,
        value: Some(value),
        limit: Some(0.0),
        unit: "failures".to_owned(),
        detail: String::new(),
    }
}

impl Done {
    /// Runs a step. One that cannot run has failed.
    fn of(
        name: String,
        progress: Progress,
        body: impl FnOnce(&Progress) -> anyhow::Result<Tally>,
    ) -> Self {
        let began = Instant::now();
        let tally = body(&progress).unwrap_or_else(|error| Tally::failed(format!("{error:#}")));
        Self {
            name,
            seconds: began.elapsed().as_secs_f64(),
            tally,
        }
    }

    /// What the summary says of a step of which nothing was run, so that nobody overlooks it.
    fn not_run(&self) -> Option<String> {
        let nothing = self.tally.passed + self.tally.failed == 0;
        let first = self.tally.skipped.first().filter(|_| nothing)?;
        Some(format!("NOT RUN {}: {}", self.name, first.reason))
    }

    /// `ok    tidy   0.4 s   1 passed, 0 failed, 0 skipped`.
    fn summary(&self) -> String {
        let Tally {
            passed,
            failed,
            skipped,
            ..
        } = &self.tally;
        let word = match (passed, failed) {
            (0, 0) if !skipped.is_empty() => "SKIP",
            (_, 0) => "ok",
            _ => "FAIL",
        };
        format!(
            "{word:5} {:28} {:7.1} s   {passed} passed, {failed} failed, {} skipped",
            self.name,
            self.seconds,
            skipped.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(body: impl FnOnce(&mut Steps<'_>)) -> (bool, serde_json::Value) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let ui = Ui::new(Some(&PathBuf::from("-")));
        let mut steps = Steps::new(&ui);
        body(&mut steps);
        let ok = steps
            .finish("test", &Workspace::load().unwrap(), Some(&path))
            .unwrap();
        (
            ok,
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
        )
    }

    #[test]
    fn one_failed_step_fails_the_run_and_the_later_steps_still_run() {
        let (ok, report) = finish(|steps| {
            steps.step("a", |_| anyhow::bail!("broken")).unwrap();
            steps
                .step("b", |_| {
                    Ok(Tally {
                        passed: 2,
                        ..Tally::default()
                    })
                })
                .unwrap();
        });
        assert!(!ok);
        assert_eq!(report["checks"][0]["ok"], false);
        assert_eq!(report["checks"][1]["ok"], true);
        assert_eq!(report["results"][1]["passed"], 2);
    }

    #[test]
    fn a_skipped_step_is_no_check_and_keeps_its_reason() {
        let (ok, report) = finish(|steps| {
            steps
                .step("deny", |_| Ok(Tally::skipped("deny", "not installed")))
                .unwrap();
            steps.tool("true", Command::new("true")).unwrap();
        });
        assert!(ok);
        assert_eq!(report["checks"].as_array().unwrap().len(), 1);
        assert_eq!(report["skipped"][0]["reason"], "not installed");
    }

    #[test]
    fn the_summary_names_steps_that_did_not_run_at_all() {
        let done = |passed| Done {
            name: "vm".to_owned(),
            seconds: 0.0,
            tally: Tally {
                passed,
                ..Tally::skipped("vm-test", "switched off")
            },
        };
        assert_eq!(done(0).not_run().unwrap(), "NOT RUN vm: switched off");
        assert_eq!(done(1).not_run(), None);
    }

    #[test]
    fn a_tool_passes_exactly_when_it_exits_with_0() {
        assert!(finish(|steps| steps.tool("true", Command::new("true")).unwrap()).0);
        assert!(!finish(|steps| steps.tool("false", Command::new("false")).unwrap()).0);
    }

    /// Steps share the lanes: two that take one each run at the same time, one that takes more than
    /// there are runs alone, and one that panics has failed, but not the one after it.
    #[test]
    fn steps_run_side_by_side() {
        use std::sync::Barrier;
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

        let (meet, running) = (&Barrier::new(2), &AtomicUsize::new(0));
        let passed = || Tally {
            passed: 1,
            ..Tally::default()
        };
        let (ok, report) = finish(|steps| {
            let pair = |name: &'static str| Beside {
                lanes: 1,
                body: Box::new(move |series: &Series<'_>| {
                    series.step(name.to_owned(), |_| {
                        running.fetch_add(1, SeqCst);
                        meet.wait();
                        running.fetch_sub(1, SeqCst);
                        Ok(passed())
                    })
                }),
            };
            let alone = Beside {
                lanes: 7,
                body: Box::new(move |series: &Series<'_>| {
                    series.step("alone".to_owned(), |_| {
                        assert_eq!(running.load(SeqCst), 0);
                        panic!("on purpose");
                    })?;
                    series.step("after".to_owned(), |_| Ok(passed()))
                }),
            };
            steps
                .side_by_side(2, vec![pair("a"), alone, pair("b")])
                .unwrap();
        });
        assert!(!ok);
        let results = report["results"].as_array().unwrap();
        assert_eq!(results.len(), 4);
        let failures: Vec<_> = results.iter().map(|r| (&r["name"], &r["failed"])).collect();
        assert_eq!(failures[2], (&"alone".into(), &1.into()));
        assert_eq!(failures[3], (&"after".into(), &0.into()));
    }
}
