//! The memory of one job, of either kind, watched at its edges.

use std::io;
use std::sync::Arc;

use sdp_socket::{Context, SdpBuffer};

use super::plan::CALL_MAX;
use crate::lab::Rng;

/// Bytes around a window that nobody may change.
const EDGE: usize = 16;
/// What stands there.
const GUARD: u8 = 0xa5;
/// Windows begin at any of the first so many bytes: every alignment of a cache line and a page.
const START_MAX: usize = 8 << 10;
const LEN: usize = START_MAX + CALL_MAX + 2 * EDGE;

/// Memory for calls of up to [`CALL_MAX`] bytes.
#[derive(Debug)]
pub(super) struct Room {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Heap(Vec<u8>),
    Registered(SdpBuffer, Option<Arc<Context>>),
}

impl Room {
    /// Memory of the allocator.
    pub(super) fn heap() -> Self {
        Self {
            kind: Kind::Heap(vec![GUARD; LEN]),
        }
    }

    /// Memory registered with `context`, or with the process's own.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub(super) fn registered(context: Option<&Arc<Context>>) -> io::Result<Self> {
        let mut buffer = match context {
            Some(context) => SdpBuffer::with_context(context, LEN)?,
            None => SdpBuffer::new(LEN)?,
        };
        buffer.fill(GUARD);
        Ok(Self {
            kind: Kind::Registered(buffer, context.cloned()),
        })
    }

    /// Whether it is registered.
    pub(super) fn is_registered(&self) -> bool {
        matches!(self.kind, Kind::Registered(..))
    }

    /// Gives registered memory back and takes some anew.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        if let Kind::Registered(_, context) = &self.kind {
            *self = Self::registered(context.clone().as_ref())?;
        }
        Ok(())
    }

    /// A window of `len` bytes somewhere in this memory.
    pub(super) fn window(&mut self, rng: &mut Rng, len: usize) -> Window<'_> {
        let start = rng.below(START_MAX);
        let all: &mut [u8] = match &mut self.kind {
            Kind::Heap(bytes) => bytes,
            Kind::Registered(buffer, _) => buffer,
        };
        let around = &mut all[start..start + len + 2 * EDGE];
        around[..EDGE].fill(GUARD);
        around[EDGE + len..].fill(GUARD);
        Window { around }
    }
}

/// Memory of one call.
#[derive(Debug)]
pub(super) struct Window<'a> {
    around: &'a mut [u8],
}

impl Window<'_> {
    /// The bytes of the call.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let end = self.around.len() - EDGE;
        &mut self.around[EDGE..end]
    }

    /// Whether the bytes on both sides are untouched.
    pub(super) fn edges_hold(&self) -> bool {
        let end = self.around.len() - EDGE;
        let guards = self.around[..EDGE].iter().chain(&self.around[end..]);
        guards.into_iter().all(|byte| *byte == GUARD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_written_beside_the_window_is_noticed() {
        let mut room = Room::heap();
        let mut rng = Rng::of(&[1]);
        let mut window = room.window(&mut rng, CALL_MAX);
        window.bytes().fill(0);
        assert!(window.edges_hold());
        window.around[EDGE - 1] = 0;
        assert!(!window.edges_hold());
    }
}
