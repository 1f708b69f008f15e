//! Memory and bytes of a stream between the two processes.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::DerefMut;

use rustix::process::{Resource, geteuid, getrlimit};
use sdp_socket::{SdpBuffer, SdpStream};

use super::script::Moves;
use crate::perf::pattern::Pattern;

/// Memory of a call.
pub(super) type Bytes = Box<dyn DerefMut<Target = [u8]> + Send>;

/// `len` bytes of the kind that fits.
///
/// # Errors
/// Out of memory or descriptors.
pub(super) fn memory(moves: Moves, len: usize) -> io::Result<Bytes> {
    Ok(match moves {
        Moves::Registered => Box::new(SdpBuffer::new(len)?),
        Moves::Copied | Moves::Heap => Box::new(vec![0; len]),
    })
}

/// The longest call, of at most `len` bytes, whose memory an adapter is sure to show to the peer: a
/// quarter of what this process may lock.
pub(super) fn shown_max(len: usize) -> usize {
    let limit = getrlimit(Resource::Memlock).current;
    let limit = limit.filter(|_| !geteuid().is_root());
    let quarter = limit.and_then(|bytes| usize::try_from(bytes / 4).ok());
    quarter.unwrap_or(len).min(len)
}

/// Bytes of one way, as far as they have come.
#[derive(Debug)]
pub(super) struct Flow {
    pattern: Pattern,
    /// How many.
    pub(super) at: u64,
}

impl Flow {
    /// None yet.
    pub(super) fn new(pattern: u32) -> Self {
        Self {
            pattern: Pattern::of(pattern),
            at: 0,
        }
    }

    /// One write of what comes next.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn write(&mut self, stream: &SdpStream, bytes: &mut [u8]) -> io::Result<usize> {
        self.fill(bytes);
        self.send(stream, bytes)
    }

    /// Makes `bytes` what comes next.
    pub(super) fn fill(&self, bytes: &mut [u8]) {
        self.pattern.fill(self.at, bytes);
    }

    /// One write of bytes that are what comes next.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn send(&mut self, mut stream: &SdpStream, bytes: &[u8]) -> io::Result<usize> {
        let count = stream.write(bytes)?;
        self.at += count as u64;
        Ok(count)
    }

    /// One read of what must come next; 0 at the end of the stream.
    ///
    /// # Errors
    /// Those of the stream; `InvalidData` if it is not what was sent.
    pub(super) fn read(&mut self, mut stream: &SdpStream, bytes: &mut [u8]) -> io::Result<usize> {
        let count = loop {
            match stream.read(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        let wrong = self.pattern.check(self.at, &bytes[..count]);
        wrong.map_err(|wrong| io::Error::new(ErrorKind::InvalidData, wrong.to_string()))?;
        self.at += count as u64;
        Ok(count)
    }
}
