//! Seeded choices.

/// A small generator (SplitMix64): the same seed gives the same choices.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Choices that follow from all of `parts`.
    pub(crate) fn of(parts: &[u64]) -> Self {
        Self(parts.iter().fold(0, |seed, part| mix(seed ^ mix(*part))))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One of `0..end`; 0 if that is empty.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let drawn = self.next() % (end.max(1) as u64);
        // Below `end`.
        usize::try_from(drawn).unwrap_or(0)
    }

    /// One of `low..=high`.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `count` times, on average.
    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A length of 1 to `max` bytes, every order of magnitude equally often.
    pub(crate) fn length(&mut self, max: usize) -> usize {
        let bits = self.below(max.ilog2() as usize + 1);
        let low = 1usize << bits;
        self.between(low, (2 * low - 1).min(max))
    }
}

/// A bijection that changes about half the bits for any change of one (the finisher of
/// SplitMix64).
pub(crate) fn mix(value: u64) -> u64 {
    let z = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_choices_and_another_one_others() {
        let draw = |seed| {
            let mut rng = Rng::of(&[seed, 1]);
            [(); 8].map(|()| rng.below(1000))
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn lengths_reach_from_one_byte_to_the_largest() {
        let mut rng = Rng::of(&[7]);
        let lengths: Vec<usize> = (0..10_000).map(|_| rng.length(8 << 20)).collect();
        assert!(lengths.iter().all(|len| (1..=8 << 20).contains(len)));
        assert!(lengths.contains(&1));
        assert!(lengths.iter().any(|len| *len > 4 << 20));
    }
}
