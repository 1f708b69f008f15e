//! Threads that do not get on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sdp_socket::SdpStream;

/// A connection on which no call has returned for this long, though one was begun, hangs. One way
/// alone may stand still for longer: a reader waits while its peer has nothing to send.
const HANG: Duration = Duration::from_secs(20);

/// What the threads of one slot do.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Of the thread that sends.
    pub(super) send: Job,
    /// Of the thread that receives, and opens and closes.
    pub(super) receive: Job,
    stream: Mutex<Option<SdpStream>>,
}

/// One thread.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Moves with each call that returned.
    steps: AtomicU64,
    /// Payload bytes it has moved.
    bytes: AtomicU64,
    /// What it is about to do; empty while it has nothing to do.
    doing: Mutex<String>,
}

impl Job {
    /// It begins something.
    pub(super) fn doing(&self, what: &dyn Fn() -> String) {
        *lock(&self.doing) = what();
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// It has moved payload.
    pub(super) fn moved(&self, count: usize) {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Payload bytes it has moved so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// It has nothing to do.
    pub(super) fn idle(&self) {
        lock(&self.doing).clear();
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// The stream whose state is told if a thread hangs.
    pub(super) fn set_stream(&self, stream: Option<SdpStream>) {
        // The old one is dropped, which closes it, outside the lock.
        let old = std::mem::replace(&mut *lock(&self.stream), stream);
        drop(old);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it holds is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at all slots from time to time.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    slots: &'a [Activity],
    seen: Vec<(u64, Instant)>,
}

impl<'a> Watch<'a> {
    /// Begins to look.
    pub(super) fn of(slots: &'a [Activity]) -> Self {
        let now = Instant::now();
        Self {
            slots,
            seen: slots.iter().map(|_| (u64::MAX, now)).collect(),
        }
    }

    /// Looks again; the first connection that hangs, in words.
    pub(super) fn look(&mut self) -> Option<String> {
        for (number, (slot, seen)) in self.slots.iter().zip(&mut self.seen).enumerate() {
            let jobs = [&slot.send, &slot.receive];
            let steps = jobs.map(|job| job.steps.load(Ordering::Relaxed));
            let steps = steps[0].wrapping_add(steps[1]);
            let doing = jobs.map(|job| lock(&job.doing).clone());
            if steps != seen.0 || doing.iter().all(String::is_empty) {
                *seen = (steps, Instant::now());
            } else if seen.1.elapsed() > HANG {
                let stats = lock(&slot.stream).as_ref().map(SdpStream::stats);
                return Some(format!(
                    "slot {number} hangs for {} s: sends: {}; receives: {}; the connection: {stats:?}",
                    HANG.as_secs(),
                    doing[0],
                    doing[1],
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as if `HANG` had passed since the last look that found something new.
    fn look_later(watch: &mut Watch<'_>) -> Option<String> {
        let found = watch.look();
        for (_, since) in &mut watch.seen {
            *since = since.checked_sub(2 * HANG).unwrap();
        }
        found.or_else(|| watch.look())
    }

    #[test]
    fn a_connection_hangs_when_neither_way_gets_on() {
        let slots = [Activity::default()];
        let mut watch = Watch::of(&slots);
        assert_eq!(look_later(&mut watch), None, "nothing is begun");
        slots[0].receive.doing(&|| "a read".to_owned());
        slots[0].send.doing(&|| "a write".to_owned());
        let found = look_later(&mut watch).expect("it hangs");
        assert!(
            found.contains("a read") && found.contains("a write"),
            "{found}"
        );
        slots[0].send.doing(&|| "another write".to_owned());
        assert_eq!(watch.look(), None, "one way gets on");
    }
}
