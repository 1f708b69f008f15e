//! Random numbers that a seed repeats.

/// SplitMix64: small, and good enough to choose an order of events.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream `number` of a seed.
    #[must_use]
    pub fn new(seed: u64, number: u64) -> Self {
        let mut rng = Self(seed ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03));
        rng.next();
        rng
    }

    /// The next number.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator without an end would have to be unwrapped at every use"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True about half of the time.
    pub fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// 0, 1, 2 or 3.
    pub(crate) fn batch(&mut self) -> usize {
        // Two bits fit every usize.
        usize::try_from(self.next() >> 62).unwrap_or(0)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(limit);
        // The high half of the product is below `limit`.
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low).saturating_add(1))
    }

    /// True `parts` times of a million.
    pub fn chance(&mut self, parts: u32) -> bool {
        parts != 0 && self.below(1_000_000) < u64::from(parts)
    }

    /// One of several.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(choices.len() as u64)).unwrap_or(0);
        &choices[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_streams_differ() {
        let run = |seed, number| {
            let mut rng = Rng::new(seed, number);
            (0..64).map(|_| rng.batch()).collect::<Vec<_>>()
        };
        assert_eq!(run(7, 1), run(7, 1));
        assert_ne!(run(7, 1), run(7, 2));
        assert_ne!(run(7, 1), run(8, 1));
        assert!((0..4).all(|value| run(7, 1).contains(&value)));
    }

    #[test]
    fn ranges_are_reached_and_kept() {
        let mut rng = Rng::new(1, 1);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|_| rng.between(3, 9)).collect();
        assert_eq!(seen, (3..=9).collect());
        assert_eq!(rng.below(0), 0);
        assert!(!rng.chance(0) && rng.chance(1_000_000));
    }
}
