//! The deadlines of one connection.

use core::time::Duration;

use crate::time::Instant;

/// What may run out: first what a call may wait for, then the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// Source: nobody has taken a byte for `rendezvous_wait`.
    TxStall,
    /// Source: the peer has not answered a SrcAvailCancel.
    Cancel,
    /// Sink: the peer has not answered a SinkAvailCancel.
    SinkCancel,
    /// Sink: an advert has had no reader for `rendezvous_wait`.
    RxAhead,
    /// The linger time of a close.
    Linger,
    /// A close without progress.
    CloseWait,
    /// Memory was refused; ask again.
    Retry,
    /// Source: small sends have been held back long enough.
    Coalesce,
    /// A move to another queue pair is not complete.
    Move,
    /// The peer's buffers have not been needed for long.
    Idle,
    /// The peer has been silent for long.
    Keepalive,
    /// The peer takes no bytes.
    UserTimeout,
    /// Memory was scarce; it may not be any more.
    Scarce,
    /// Where the side that connected must send first: nothing shows yet that it was heard, or the
    /// side that accepted has not heard it.
    Opening,
    /// Sink: the reader of a moment ago has not come back.
    Unread,
}

/// All timers, in the order in which they are looked at.
pub(crate) const TIMERS: [Timer; 15] = [
    Timer::TxStall,
    Timer::Cancel,
    Timer::SinkCancel,
    Timer::RxAhead,
    Timer::Linger,
    Timer::CloseWait,
    Timer::Retry,
    Timer::Coalesce,
    Timer::Move,
    Timer::Idle,
    Timer::Keepalive,
    Timer::UserTimeout,
    Timer::Scarce,
    Timer::Opening,
    Timer::Unread,
];

/// From this one on no call waits for a timer.
const HOUSEKEEPING: usize = Timer::Idle as usize;

/// Deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: [Option<Instant>; TIMERS.len()],
}

impl Timers {
    /// Sets a deadline, or none if it is at the end of time.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        let never = Instant::from_nanos(u64::MAX);
        self.at[timer as usize] = (at < never).then_some(at);
    }

    /// Sets a deadline unless there is one.
    pub(crate) fn set_once(&mut self, timer: Timer, now: Instant, after: Duration) {
        if self.at[timer as usize].is_none() {
            self.set(timer, now + after);
        }
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.at[timer as usize] = None;
    }

    pub(crate) fn clear_all(&mut self) {
        self.at = [None; TIMERS.len()];
    }

    pub(crate) const fn is_set(&self, timer: Timer) -> bool {
        self.at[timer as usize].is_some()
    }

    /// Whether the deadline has come; it is forgotten then.
    pub(crate) fn take_expired(&mut self, timer: Timer, now: Instant) -> bool {
        let expired = self.at[timer as usize].is_some_and(|at| at <= now);
        if expired {
            self.clear(timer);
        }
        expired
    }

    /// The next deadline that a call may wait for.
    #[inline]
    pub(crate) fn next(&self) -> Option<Instant> {
        let (waited_for, _) = self.at.split_at(HOUSEKEEPING);
        waited_for.iter().flatten().min().copied()
    }

    /// The next deadline that none does.
    #[inline]
    pub(crate) fn next_housekeeping(&self) -> Option<Instant> {
        let (_, rest) = self.at.split_at(HOUSEKEEPING);
        rest.iter().flatten().min().copied()
    }
}
