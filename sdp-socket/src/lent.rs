//! The bound on memory of calls that is registered.
//!
//! Where a process may register so much and no more, what calls lend to the adapter must leave room
//! for message buffers: a call that gets no memory is copied, but a connection without a receive
//! buffer stands still.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sdp_verbs::{Access, Lkey, MemoryRegion, Rkey, VerbsError};

/// The account.
#[derive(Debug)]
pub(crate) struct Lent {
    max: usize,
    used: AtomicUsize,
}

impl Lent {
    /// Half of what may be `registered` in all.
    pub(crate) fn within(registered: usize) -> Arc<Self> {
        Arc::new(Self {
            max: registered / 2,
            used: AtomicUsize::new(0),
        })
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Result<Share, VerbsError> {
        let fits = |used: usize| used.checked_add(len).filter(|used| *used <= self.max);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .map_err(|_| VerbsError::Limit {
                what: "registering memory of a call",
                limit: format!("{} bytes, half of RLIMIT_MEMLOCK", self.max),
                remedy: "raise the limit of locked memory (ulimit -l)",
            })?;
        Ok(Share {
            lent: Arc::clone(self),
            len,
        })
    }
}

/// Bytes taken; they go back when this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    lent: Arc<Lent>,
    len: usize,
}

impl Share {
    /// `region`, which gives these bytes back when it is gone.
    pub(crate) fn with(self, region: Arc<dyn MemoryRegion>) -> Arc<dyn MemoryRegion> {
        Arc::new(LentRegion {
            region,
            _share: self,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.lent.used.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// A region that counts. The order of the fields matters: it is deregistered first.
#[derive(Debug)]
struct LentRegion {
    region: Arc<dyn MemoryRegion>,
    _share: Share,
}

impl MemoryRegion for LentRegion {
    fn addr(&self) -> NonNull<u8> {
        self.region.addr()
    }

    fn len(&self) -> usize {
        self.region.len()
    }

    fn lkey(&self) -> Lkey {
        self.region.lkey()
    }

    fn rkey(&self) -> Option<Rkey> {
        self.region.rkey()
    }

    fn access(&self) -> Access {
        self.region.access()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half may be taken, and again what has been given back.
    #[test]
    fn half_is_for_calls() {
        let lent = Lent::within(100);
        let share = lent.take(30).unwrap();
        let error = lent.take(21).unwrap_err().to_string();
        assert!(error.contains("50 bytes"), "{error}");
        let rest = lent.take(20).unwrap();
        drop(share);
        drop(lent.take(30).unwrap());
        drop(rest);
        assert_eq!(lent.used.load(Ordering::Relaxed), 0);
    }

    /// Without a limit there is none here.
    #[test]
    fn no_limit() {
        let lent = Lent::within(usize::MAX);
        assert!(lent.take(1 << 40).is_ok());
    }
}
