//! What is sent: bytes that differ from connection to connection and from place to place.

use sdp_verbs::Rng;

/// A prime, so that no two messages of a length are alike.
const PERIOD: usize = 4_093;
/// How far the bytes of one connection are ahead of those of the one before.
const STEP: usize = 509;

/// The bytes of every stream, for pieces up to a length.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// For pieces of up to `len` bytes.
    pub(crate) fn new(seed: u64, len: usize) -> Self {
        let mut rng = Rng::new(seed, 0xF1);
        let period: Vec<u8> = (0..PERIOD).map(|_| rng.next().to_le_bytes()[0]).collect();
        let mut bytes = period.repeat(len / PERIOD + 2);
        bytes.truncate(PERIOD + len);
        Self(bytes)
    }

    /// Bytes of a connection, from a place in its stream on.
    ///
    /// # Panics
    /// When more are asked for than it was made for.
    pub(crate) fn at(&self, conn: usize, place: u64, len: usize) -> &[u8] {
        let place = usize::try_from(place % PERIOD as u64).unwrap_or_default();
        let start = (place + conn * STEP) % PERIOD;
        &self.0[start..start + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_and_differ() {
        let pattern = Pattern::new(1, 10_000);
        let whole = pattern.at(3, 5, 10_000);
        assert_eq!(pattern.at(3, 105, 9_900), &whole[100..]);
        assert_ne!(pattern.at(3, 5 + 65_536, 10_000), whole);
        assert_ne!(pattern.at(4, 5, 10_000), whole);
    }
}
