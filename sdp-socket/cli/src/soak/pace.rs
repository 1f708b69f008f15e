//! Waiting where a socket does not: for non-blocking calls, and for readers that are slow on
//! purpose.

use std::thread;
use std::time::Duration;

/// Longest pause between two tries, as a power of two of microseconds.
const PAUSE_SHIFT_MAX: u32 = 10;

/// Tries of one non-blocking call in vain.
#[derive(Debug, Default)]
pub(super) struct Pace {
    vain: u32,
}

impl Pace {
    /// Waits a little, longer each time: the first times only for other threads.
    pub(super) fn pause(&mut self) {
        self.vain += 1;
        if self.vain < 4 {
            thread::yield_now();
        } else {
            thread::sleep(Duration::from_micros(
                1 << (self.vain + 2).min(PAUSE_SHIFT_MAX),
            ));
        }
    }

    /// The call did something.
    pub(super) fn done(&mut self) {
        self.vain = 0;
    }
}
