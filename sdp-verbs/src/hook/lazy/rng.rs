//! Random numbers that a seed repeats.

/// SplitMix64: small, and good enough to shuffle batches.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    /// The stream `number` of a seed.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut rng = Self(seed ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True about half of the time.
    pub(super) fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// 0, 1, 2 or 3.
    pub(super) fn batch(&mut self) -> usize {
        // Two bits fit every usize.
        usize::try_from(self.next() >> 62).unwrap_or(0)
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
}
