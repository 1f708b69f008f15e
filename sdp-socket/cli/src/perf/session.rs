//! One test on the server: its connections, their threads, and the runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::control::{ConnDone, Done, Open};
use super::cpu::process_time;
use super::flow::UNKNOWN;
use super::pattern::Pattern;
use super::{Workload, bw, lat};
use crate::lab::keep_what_goes_on;
use crate::transport::{Conn, Counters, verbs_counters};

/// How long connections may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// How long the last bytes of a run may take to arrive.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// The same for a client that has given up, and will not wait long for our account of it.
const GIVEN_UP_MAX: Duration = Duration::from_millis(500);

/// A test.
#[derive(Debug)]
pub(super) struct Session {
    open: Open,
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes of the current run by connection.
    totals: Vec<AtomicU64>,
}

#[derive(Debug)]
struct State {
    conns: Vec<Option<Arc<dyn Conn>>>,
    /// Number of the current run; 0 before the first.
    run: u64,
    done: Vec<Option<ConnDone>>,
    before: Snapshot,
    closed: bool,
    failure: Option<String>,
}

/// Counters at the beginning of a run.
#[derive(Debug, Default)]
struct Snapshot {
    cpu: Duration,
    engine: Option<Counters>,
    verbs: Option<Counters>,
}

impl Session {
    /// A test without connections yet.
    pub(super) fn new(open: Open) -> Self {
        let count = open.conns as usize;
        Self {
            open,
            state: Mutex::new(State {
                conns: (0..count).map(|_| None).collect(),
                run: 0,
                done: vec![None; count],
                before: Snapshot::default(),
                closed: false,
                failure: None,
            }),
            changed: Condvar::new(),
            totals: (0..count).map(|_| AtomicU64::new(UNKNOWN)).collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left a state that is still consistent field by field.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready`; whether it came in time.
    fn wait(
        &self,
        patience: Duration,
        ready: impl Fn(&State) -> bool,
    ) -> (MutexGuard<'_, State>, bool) {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        while !ready(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (state, false);
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        (state, true)
    }

    /// Waits until all connections have arrived.
    ///
    /// # Errors
    /// When they do not, or one cannot be served.
    pub(super) fn wait_connected(&self) -> anyhow::Result<()> {
        let all = |state: &State| state.conns.iter().all(Option::is_some);
        let (state, connected) =
            self.wait(ARRIVAL_MAX, |state| all(state) || state.failure.is_some());
        if let Some(failure) = &state.failure {
            bail!("{failure}");
        }
        if !connected {
            let count = state.conns.iter().flatten().count();
            bail!(
                "{count} of {} connections arrived in {ARRIVAL_MAX:?}; {}",
                self.open.conns,
                keep_what_goes_on("perf-server")
            );
        }
        Ok(())
    }

    /// Takes the counters and lets the threads receive.
    pub(super) fn start(&self) {
        let mut state = self.state();
        for total in &self.totals {
            total.store(UNKNOWN, Ordering::Relaxed);
        }
        state.done.fill(None);
        state.before = state.snapshot();
        state.run += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Says how much was sent.
    ///
    /// # Errors
    /// When that is not said for each connection.
    pub(super) fn announce(&self, totals: &[u64]) -> anyhow::Result<()> {
        if totals.len() != self.totals.len() {
            bail!(
                "{} totals for {} connections",
                totals.len(),
                self.totals.len()
            );
        }
        for (total, bytes) in self.totals.iter().zip(totals) {
            total.store(*bytes, Ordering::Release);
        }
        Ok(())
    }

    /// Waits for the end of the run and says what happened in it.
    pub(super) fn finish(&self) -> Done {
        let given_up = |total: &AtomicU64| total.load(Ordering::Relaxed) == UNKNOWN;
        let patience = if self.totals.iter().any(given_up) {
            GIVEN_UP_MAX
        } else {
            DRAIN_MAX
        };
        let (state, ended) = self.wait(patience, |state| state.done.iter().all(Option::is_some));
        let kept = (!ended).then(|| keep_what_goes_on("perf-server"));
        let now = state.snapshot();
        let conns = state.done.iter().cloned().map(|done| {
            done.unwrap_or_else(|| ConnDone {
                error: Some(format!(
                    "the last bytes did not arrive in {patience:?}; {}",
                    kept.as_deref().unwrap_or_default()
                )),
                ..ConnDone::default()
            })
        });
        let cpu = now.cpu.saturating_sub(state.before.cpu);
        Done {
            cpu_ns: u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX),
            conns: conns.collect(),
            engine: difference(now.engine, state.before.engine.as_ref()),
            verbs: difference(now.verbs, state.before.verbs.as_ref()),
        }
    }

    /// Ends the test: its threads end when they are not in a call any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.conns.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Serves one connection until the test ends.
    ///
    /// # Errors
    /// When the connection has no place in the test or no memory can be had for it.
    pub(super) fn serve(&self, index: u32, conn: &Arc<dyn Conn>) -> anyhow::Result<()> {
        let at = index as usize;
        let memory = conn
            .set_nodelay()
            .context("cannot set the connection up")
            .and_then(|()| conn.buffer(self.open.endpoint.size).context("no memory"));
        let pattern = Pattern::of(index);
        let mut buf = {
            let mut state = self.state();
            match (state.conns.get_mut(at), memory) {
                (Some(place @ None), Ok(mut buf)) => {
                    // Touched once before the first run.
                    pattern.fill(0, &mut buf);
                    *place = Some(Arc::clone(conn));
                    self.changed.notify_all();
                    buf
                }
                (Some(None), Err(error)) => {
                    state.failure = Some(format!("connection {index}: {error:#}"));
                    self.changed.notify_all();
                    return Err(error);
                }
                _ => bail!("connection {index} is there already or has no place"),
            }
        };
        let check = self.open.verify.then_some(pattern);
        let receive = match self.open.workload {
            Workload::Bw => bw::receive,
            Workload::Lat => lat::echo,
        };
        let mut last = 0;
        while let Some(run) = self.wait_run(last) {
            let done = receive(&**conn, &mut buf, check, &self.totals[at]);
            let broken = done.error.is_some();
            self.state().done[at] = Some(done);
            self.changed.notify_all();
            if broken {
                break;
            }
            last = run;
        }
        Ok(())
    }

    /// Waits for the run after `last`; none if the test has ended.
    fn wait_run(&self, last: u64) -> Option<u64> {
        let mut state = self.state();
        while !state.closed && state.run == last {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        (!state.closed).then_some(state.run)
    }
}

impl State {
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            engine: sum(self.conns.iter().flatten().map(|conn| conn.counters())),
            verbs: verbs_counters(),
            cpu: process_time(),
        }
    }
}

/// All counters together; none if no connection has any.
pub(super) fn sum(all: impl Iterator<Item = Option<Counters>>) -> Option<Counters> {
    all.flatten().reduce(|mut sum, one| {
        for (name, count) in one {
            *sum.entry(name).or_default() += count;
        }
        sum
    })
}

/// What was counted since `before`.
pub(super) fn difference(now: Option<Counters>, before: Option<&Counters>) -> Option<Counters> {
    let mut now = now?;
    for (name, count) in &mut now {
        let earlier = before.and_then(|before| before.get(name));
        *count = count.saturating_sub(earlier.copied().unwrap_or(0));
    }
    Some(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(pairs: &[(&str, u64)]) -> Counters {
        let pairs = pairs.iter();
        pairs
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn counters_add_up_and_give_differences() {
        let (a, b) = (counters(&[("x", 1), ("y", 2)]), counters(&[("x", 10)]));
        let both = sum([Some(a.clone()), None, Some(b)].into_iter());
        assert_eq!(both, Some(counters(&[("x", 11), ("y", 2)])));
        assert_eq!(sum([None, None].into_iter()), None);
        assert_eq!(
            difference(both, Some(&a)),
            Some(counters(&[("x", 10), ("y", 0)]))
        );
        assert_eq!(difference(None, Some(&a)), None);
    }
}
