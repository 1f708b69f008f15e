//! How long a large send waits for a reader before both ends buffer (policy 3): learned.
//!
//! Where reads come, waiting pays, and how long they take to come is the scheduler's business: on
//! two processors with sixteen threads, milliseconds. Where none comes, every wait is lost. So the
//! wait halves each time nobody came, down to its minimum, and is the whole maximum again as soon
//! as somebody did. At the minimum one send in [`EXPLORE`] waits the maximum, to notice a change.
//!
//! Where bytes that were copied are still on their way, signs of the peer's come as fast as the link
//! lets them: several connections share it, and credits come for many messages at once. Of a peer that
//! gives signs regularly the next one is waited for, even if that takes longer: what is copied in
//! between would stand in the way of the next advert too, and so on for ever.
//!
//! The maximum is for a reader to come. On a slow device a reader that came at once may still be at
//! it then: where that shows, the wait may become up to [`STRETCH_MAX`] times as long.

use core::time::Duration;

/// One send in this many waits as long as it may.
const EXPLORE: u32 = 16;
/// How often the maximum may double.
const STRETCH_MAX: u32 = 5;
/// Signs further apart than the maximum, doubled so often, are not regular.
const PACE_MAX: u32 = 3;

#[derive(Debug)]
pub(crate) struct Patience {
    wait: Duration,
    min: Duration,
    max: Duration,
    /// How often the maximum is doubled.
    stretch: u32,
    sends: u32,
}

impl Patience {
    /// Learns between `min` and `max`; `min` at or above `max`: always `max`.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self {
            wait: max,
            min: min.min(max),
            max,
            stretch: 0,
            sends: 0,
        }
    }

    /// How long the advert that is sent now may wait.
    pub(crate) fn next(&mut self) -> Duration {
        self.sends = self.sends.wrapping_add(1);
        if self.sends.is_multiple_of(EXPLORE) {
            self.longest()
        } else {
            self.wait
        }
    }

    /// How long anything else may.
    pub(crate) const fn wait(&self) -> Duration {
        self.wait
    }

    /// How long the next sign may take of a peer whose last two were `gap` apart.
    pub(crate) fn for_pace(&self, gap: Duration) -> Duration {
        let regular = gap <= self.max.saturating_mul(1 << PACE_MAX);
        if regular && self.min < self.max {
            self.wait.max(gap.saturating_mul(2))
        } else {
            self.wait
        }
    }

    fn longest(&self) -> Duration {
        self.max.saturating_mul(1 << self.stretch)
    }

    /// A reader came.
    pub(crate) fn was_read(&mut self) {
        self.wait = self.longest();
    }

    /// Nobody came.
    pub(crate) fn was_not_read(&mut self) {
        self.stretch = self.stretch.saturating_sub(1);
        self.wait = (self.wait / 2).max(self.min);
    }

    /// Somebody had come: what [`was_not_read`](Self::was_not_read) was told of had been read by
    /// the time the peer could answer.
    pub(crate) fn was_being_read(&mut self) {
        if self.min < self.max {
            self.stretch = (self.stretch + 2).min(STRETCH_MAX);
        }
        self.was_read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const MIN: Duration = Duration::from_micros(50);
    const MAX: Duration = Duration::from_millis(2);

    /// Without readers the wait falls to its minimum, but for one send in sixteen; one reader
    /// restores it.
    #[test]
    fn learns_both_ways() {
        let mut patience = Patience::new(MIN, MAX);
        for _ in 0..10 {
            patience.was_not_read();
        }
        assert_eq!(patience.wait(), MIN);
        let waits: Vec<Duration> = (0..EXPLORE).map(|_| patience.next()).collect();
        assert_eq!(waits.iter().filter(|wait| **wait == MAX).count(), 1);
        assert_eq!(waits.iter().filter(|wait| **wait == MIN).count(), 15);
        patience.was_read();
        assert_eq!(patience.next(), MAX);
    }

    /// A reader that takes longer than the maximum is waited for from the second or third time on,
    /// and no longer than before once nobody comes.
    #[test]
    fn a_slow_reader_stretches_it() {
        let mut patience = Patience::new(MIN, MAX);
        for _ in 0..3 {
            patience.was_not_read();
            patience.was_being_read();
        }
        assert_eq!(patience.next(), 16 * MAX);
        for _ in 0..20 {
            patience.was_not_read();
            patience.was_being_read();
        }
        assert_eq!(patience.next(), 32 * MAX);
        for _ in 0..5 {
            patience.was_not_read();
        }
        patience.was_read();
        assert_eq!(patience.next(), MAX);
    }

    /// A peer that gives signs, however slowly, is waited for, one that has paused is not.
    #[test]
    fn a_slow_pace_is_waited_for() {
        let mut patience = Patience::new(MIN, MAX);
        for _ in 0..10 {
            patience.was_not_read();
        }
        assert_eq!(patience.for_pace(Duration::ZERO), MIN);
        assert_eq!(patience.for_pace(3 * MAX), 6 * MAX);
        assert_eq!(patience.for_pace(9 * MAX), MIN);
        let fixed = Patience::new(MAX, MAX);
        assert_eq!(fixed.for_pace(3 * MAX), MAX);
    }

    /// Equal bounds fix it, zero and for ever included.
    #[test]
    fn fixed() {
        for fixed in [Duration::ZERO, MAX, Duration::MAX] {
            let mut patience = Patience::new(fixed, fixed);
            patience.was_not_read();
            patience.was_being_read();
            assert_eq!((patience.wait(), patience.next()), (fixed, fixed));
        }
    }
}
