//! How long this machine kept threads waiting for a processor: what its milliseconds are worth.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the thread sleeps each time.
const NAP: Duration = Duration::from_millis(1);

/// A thread that does nothing but sleep, and looks how late it wakes up.
#[derive(Debug)]
pub(super) struct Stalls {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Stalls {
    /// Begins to look.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn watch() -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = thread::Builder::new()
            .name("stalls".to_owned())
            .spawn(move || {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let asleep = Instant::now();
                    thread::sleep(NAP);
                    longest = longest.max(asleep.elapsed().saturating_sub(NAP));
                }
                longest
            })?;
        Ok(Self { over, thread })
    }

    /// Ends it: the longest time it was kept waiting.
    pub(super) fn longest(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(longest) => longest,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
