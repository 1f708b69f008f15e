//! The bytes of one execution, taken as numbers, and the loop over its steps.

/// Takes numbers from the input; zeros behind its end.
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Takes steps until nothing is left, or enough have been taken.
    pub(crate) fn steps(&mut self, max: usize, mut step: impl FnMut(&mut Self)) {
        for _ in 0..max {
            if self.0.is_empty() {
                break;
            }
            step(self);
        }
    }
}
