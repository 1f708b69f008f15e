//! Memory of the whole process is scarce: every connection goes on as if its socket buffers were
//! as small as this file says, and with as few receive buffers as it began with, though their length
//! stays what the peer was told. What it holds beyond that leaves as the stream moves on.

use core::time::Duration;

use super::{Connection, Shared};
use crate::time::Instant;
use crate::timer::Timer;

/// SO_SNDBUF and SO_RCVBUF at most, each, while memory is scarce: bytes.
const BUFFER_FLOOR: usize = 16 << 10;

/// Who waits for memory asks for a visit so often, in order to hear that there is some again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Shared {
    /// SO_SNDBUF now, bytes.
    pub(crate) fn send_buffer_len(&self) -> usize {
        self.scarce_len(self.config.send_buffer_len)
    }

    /// SO_RCVBUF now, bytes.
    pub(crate) fn recv_buffer_total(&self) -> usize {
        self.scarce_len(self.config.recv_buffer_total)
    }

    /// `len`, or the floor if that is less and memory is scarce.
    pub(crate) fn scarce_len(&self, len: usize) -> usize {
        if self.scarce {
            len.min(BUFFER_FLOOR)
        } else {
            len
        }
    }
}

impl Connection {
    /// Memory of the process has become scarce, or there is enough again. While it is scarce the
    /// engine asks for no more than the connection needs to get on, so nothing should be refused.
    /// Asks for [`Self::poll_housekeeping`] visits while something waits for memory.
    pub fn set_memory_scarce(&mut self, now: Instant, scarce: bool) {
        if self.sh.scarce == scarce {
            return;
        }
        self.sh.scarce = scarce;
        self.sh.stats.memory_scarce += u64::from(scarce);
        self.sh.wake.send = true;
        self.sh.wake.recv = true;
        self.pump(now);
    }

    /// Sees to it that whoever waits for memory is visited.
    pub(super) fn watch_memory(&mut self, now: Instant) {
        let waits = || self.tx.is_in_call() || self.rx.has_unread(&self.sh);
        if self.sh.scarce && waits() {
            self.sh.timers.set_once(Timer::Scarce, now, LOOK_AGAIN);
        } else {
            self.sh.timers.clear(Timer::Scarce);
        }
    }
}
