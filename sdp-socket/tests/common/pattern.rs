//! Bytes that tell where in which stream they belong.

/// A stream of bytes given by a key: each byte depends on its position, so that lost, doubled,
/// swapped and foreign bytes all show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern(pub(crate) u64);

impl Pattern {
    /// Eight bytes of the stream: those from `word * 8` on.
    fn word(self, word: u64) -> [u8; 8] {
        let mut x = (word ^ self.0.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 29;
        x.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_le_bytes()
    }

    /// Visits the pieces of `at..at + len` that lie within one word.
    fn pieces(self, at: u64, len: usize, mut f: impl FnMut(usize, &[u8])) {
        let mut done = 0;
        while done < len {
            let pos = at + done as u64;
            let bytes = self.word(pos / 8);
            let skip = usize::try_from(pos % 8).expect("below 8");
            let n = (8 - skip).min(len - done);
            f(done, &bytes[skip..skip + n]);
            done += n;
        }
    }

    /// Writes the bytes from position `at` on into `buf`.
    pub(crate) fn fill(self, at: u64, buf: &mut [u8]) {
        self.pieces(at, buf.len(), |i, bytes| {
            buf[i..i + bytes.len()].copy_from_slice(bytes);
        });
    }

    /// `len` bytes from position `at` on.
    pub(crate) fn bytes(self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(at, &mut bytes);
        bytes
    }

    /// Checks that `buf` holds the bytes from position `at` on.
    ///
    /// # Panics
    /// At the first wrong byte, naming its position.
    #[track_caller]
    pub(crate) fn check(self, at: u64, buf: &[u8]) {
        let wrong = self.first_wrong(at, buf);
        if let Some(i) = wrong {
            let shown = &buf[i..buf.len().min(i + 16)];
            let wanted = self.bytes(at + i as u64, shown.len());
            panic!(
                "wrong byte at position {} of {self:?} (offset {i} of {} here): {shown:02x?}, not {wanted:02x?}",
                at + i as u64,
                buf.len(),
            );
        }
    }

    /// Offset in `buf` of the first byte that is not the stream's.
    pub(crate) fn first_wrong(self, at: u64, buf: &[u8]) -> Option<usize> {
        let mut wrong = None;
        self.pieces(at, buf.len(), |i, bytes| {
            let got = &buf[i..i + bytes.len()];
            if wrong.is_none() && got != bytes {
                wrong = got
                    .iter()
                    .zip(bytes)
                    .position(|(a, b)| a != b)
                    .map(|n| i + n);
            }
        });
        wrong
    }
}
