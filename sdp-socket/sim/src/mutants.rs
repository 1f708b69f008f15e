//! Planted bugs: each must be found, by what every run is held to.
//!
//! A mutant is looked for by a process of its own, since what finds it may end the process.

#[cfg(not(sdp_mutate))]
mod hunt {
    use crate::cli::Options;

    /// Refuses: there is nothing to be found.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn run(_options: &Options, _name: &str) -> anyhow::Result<bool> {
        anyhow::bail!("no bugs are planted in this build: use cargo xtask sim --mutate")
    }
}

#[cfg(sdp_mutate)]
mod hunt {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::process::{Command, Stdio};
    use std::sync::{Mutex, PoisonError};

    use anyhow::{Context, bail};
    use sdp_core::mutate::Mutant;
    use serde_json::json;

    use crate::campaign::{plan, run_guarded};
    use crate::cli::Options;
    use crate::report::{self, Parts, Started};

    /// How a line begins that says what found a mutant.
    const FOUND: &str = "found: ";

    thread_local! {
        /// Seeds begun and virtual nanoseconds spent, for the message of a panic.
        static SPENT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    }

    /// What found a mutant, and how soon.
    #[derive(Clone, PartialEq, Debug)]
    struct Catch {
        seeds: u64,
        virtual_s: f64,
        by: String,
    }

    fn say(by: &str) {
        let (seeds, nanos) = SPENT.get();
        let by = by.lines().next().unwrap_or_default();
        eprintln!("{FOUND}{seeds} {nanos} {by}");
    }

    /// Runs seeds with one mutant until one of them fails. `Ok(true)`: it was found.
    fn hunt(options: &Options, mutant: Mutant) -> bool {
        mutant.switch_on();
        std::panic::set_hook(Box::new(|info| {
            say(&format!("panic: {info}").replace('\n', " "))
        }));
        for seed in options.start..options.start.saturating_add(options.seeds) {
            let (seeds, nanos) = SPENT.get();
            SPENT.set((seeds + 1, nanos));
            let outcome = run_guarded(&plan(options, seed), 0);
            SPENT.set((seeds + 1, nanos + outcome.nanos));
            if let Some(violation) = outcome.violations.first() {
                say(violation);
                return true;
            }
        }
        false
    }

    /// Looks for a mutant in a process of its own.
    fn send_out(options: &Options, mutant: Mutant) -> anyhow::Result<Option<Catch>> {
        let program = std::env::current_exe().context("finding this program")?;
        let output = Command::new(program)
            .args(["--mutate", mutant.name(), "--start"])
            .arg(options.start.to_string())
            .arg("--seeds")
            .arg(options.seeds.to_string())
            .stdout(Stdio::null())
            .output()
            .context("starting a hunt")?;
        let text = String::from_utf8_lossy(&output.stderr);
        let Some(line) = text.lines().find_map(|line| line.strip_prefix(FOUND)) else {
            if output.status.code().is_none() {
                bail!("{}: the hunt died of {}", mutant.name(), output.status);
            }
            return Ok(None);
        };
        let mut parts = line.splitn(3, ' ');
        let mut number = || parts.next().unwrap_or_default().parse::<u64>();
        let (seeds, nanos) = (number()?, number()?);
        let virtual_s = std::time::Duration::from_nanos(nanos).as_secs_f64();
        let by = parts.next().unwrap_or_default().to_owned();
        Ok(Some(Catch {
            seeds,
            virtual_s,
            by,
        }))
    }

    /// Looks for the mutant of a name, or for each one.
    ///
    /// # Errors
    /// When there is none of that name, or a process cannot be started.
    pub(crate) fn run(options: &Options, name: &str) -> anyhow::Result<bool> {
        if name != "all" {
            let mutant = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
            let Some(mutant) = mutant else {
                let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
                bail!("no planted bug {name:?}; there are {}", names.join(", "));
            };
            return Ok(hunt(options, *mutant));
        }
        let started = Started::now();
        let queue: Mutex<VecDeque<Mutant>> = Mutex::new(Mutant::ALL.iter().copied().collect());
        let caught = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..options.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let next = queue
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .pop_front();
                        let Some(mutant) = next else {
                            return;
                        };
                        let catch = send_out(options, mutant);
                        let mut caught = caught.lock().unwrap_or_else(PoisonError::into_inner);
                        caught.push((mutant, catch));
                    }
                });
            }
        });
        let caught = caught.into_inner().unwrap_or_else(PoisonError::into_inner);
        tell(options, &started, caught)
    }

    fn tell(
        options: &Options,
        started: &Started,
        mut caught: Vec<(Mutant, anyhow::Result<Option<Catch>>)>,
    ) -> anyhow::Result<bool> {
        caught.sort_by_key(|(mutant, _)| *mutant as usize);
        let json = options.json.as_deref();
        let (mut results, mut checks) = (Vec::new(), Vec::new());
        for (mutant, catch) in caught {
            let (name, catch) = (mutant.name(), catch?);
            let line = match &catch {
                Some(Catch {
                    seeds,
                    virtual_s,
                    by,
                }) => {
                    format!("{name:<32} {seeds:>6} seeds {virtual_s:>9.1} s simulated  {by}\n")
                }
                None => format!("{name:<32} NOT FOUND in {} seeds\n", options.seeds),
            };
            report::print(json, &line)?;
            let found = u64::from(catch.is_some());
            let check = format!("sim.mutant.{name}");
            checks.push(report::at_least(&check, found, 1, "found", ""));
            results.push(json!({
                "workload": "mutant", "provider": "sim", "mutant": name, "found": found == 1,
                "seeds": catch.as_ref().map(|catch| catch.seeds),
                "virtual_s": catch.as_ref().map(|catch| catch.virtual_s),
                "by": catch.as_ref().map(|catch| catch.by.as_str()),
            }));
        }
        let found = checks
            .iter()
            .filter(|check| check["ok"] == json!(true))
            .count();
        report::print(json, &format!("found {found} of {}\n", checks.len()))?;
        let parts = Parts {
            command: "sim",
            results,
            checks,
            skipped: Vec::new(),
        };
        report::finish(json, started, &parts)
    }
}

pub(crate) use hunt::run;
