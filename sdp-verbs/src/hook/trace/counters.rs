//! Counters that many threads add to without sharing a cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::wr::WcStatus;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:ident),* $(,)?) => {
        /// What a [`Trace`](super::Trace) has counted since it was made, or, after a
        /// subtraction, between two snapshots. All counts are of operations or of bytes.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct TraceCounters {
            $($(#[$doc])* pub $field: u64,)*
        }

        /// Index of a counter.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Counter {
            $($name,)*
        }

        const COUNTERS: &[Counter] = &[$(Counter::$name),*];

        impl TraceCounters {
            fn from_sums(sum: impl Fn(Counter) -> u64) -> Self {
                Self { $($field: sum(Counter::$name),)* }
            }

            fn zip(self, other: Self, op: impl Fn(u64, u64) -> u64) -> Self {
                Self { $($field: op(self.$field, other.$field),)* }
            }
        }
    };
}

counters! {
    /// SENDs posted.
    send_count = SendCount,
    /// Bytes of the SENDs posted, protocol headers included.
    send_bytes = SendBytes,
    /// Receives that completed successfully.
    recv_count = RecvCount,
    /// Bytes received in them, protocol headers included.
    recv_bytes = RecvBytes,
    /// RDMA READs that completed successfully.
    read_count = ReadCount,
    /// Bytes read by them.
    read_bytes = ReadBytes,
    /// RDMA WRITEs that completed successfully, zero-length ones included.
    write_count = WriteCount,
    /// Bytes written by them.
    write_bytes = WriteBytes,
    /// RDMA READs posted.
    read_posted_count = ReadPosted,
    /// RDMA WRITEs posted.
    write_posted_count = WritePosted,
    /// Windows bound.
    bind_count = BindCount,
    /// LOCAL_INVs posted.
    local_inv_count = LocalInvCount,
    /// SENDs posted that invalidate a key of the peer's.
    send_inv_count = SendInvCount,
    /// Receives that invalidated a key of ours.
    invalidated_count = InvalidatedCount,
    /// Receives posted.
    post_recv_count = PostRecvCount,
    /// Send buffers reserved.
    reserve_count = ReserveCount,
    /// Send buffers given back unposted.
    unreserve_count = UnreserveCount,
    /// Requests refused when they were posted, a full queue included.
    refused_count = RefusedCount,
    /// Completions with [`WcStatus::Flushed`].
    flushed_count = Flushed,
    /// Completions with [`WcStatus::LocalProtection`].
    local_protection_count = LocalProtection,
    /// Completions with [`WcStatus::LocalLength`].
    local_length_count = LocalLength,
    /// Completions with [`WcStatus::RemoteAccess`].
    remote_access_count = RemoteAccess,
    /// Completions with [`WcStatus::RemoteOperation`].
    remote_operation_count = RemoteOperation,
    /// Completions with [`WcStatus::SourceUnreadable`].
    source_unreadable_count = SourceUnreadable,
    /// Completions with [`WcStatus::RnrRetryExceeded`].
    rnr_retry_exceeded_count = RnrRetryExceeded,
    /// Completions with [`WcStatus::RetryExceeded`].
    retry_exceeded_count = RetryExceeded,
    /// Queue pairs that are in error because the device refused a request of the peer's
    /// ([`has_refused_peer`](crate::QueuePair::has_refused_peer)).
    refused_peer_count = RefusedPeer,
    /// Calls of [`arm`](crate::CompletionQueue::arm).
    arm_count = ArmCount,
    /// Calls of [`wait`](crate::CompletionQueue::wait).
    wait_count = WaitCount,
    /// Calls of [`wake`](crate::CompletionQueue::wake).
    wake_count = WakeCount,
    /// Regions registered or allocated.
    register_count = RegisterCount,
    /// Bytes of them.
    register_bytes = RegisterBytes,
}

impl std::ops::Add for TraceCounters {
    type Output = Self;

    /// Two wrappers' counts together.
    fn add(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}

impl std::ops::Sub for TraceCounters {
    type Output = Self;

    /// What was counted since `earlier`. A counter never goes back, so a negative difference means
    /// the snapshots were swapped; it is given as zero.
    fn sub(self, earlier: Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }
}

/// Which counter a completion that is not a success adds to.
pub(super) fn failure_counter(status: WcStatus) -> Option<Counter> {
    match status {
        WcStatus::Success => None,
        WcStatus::Flushed => Some(Counter::Flushed),
        WcStatus::LocalProtection => Some(Counter::LocalProtection),
        WcStatus::LocalLength => Some(Counter::LocalLength),
        WcStatus::RemoteAccess => Some(Counter::RemoteAccess),
        WcStatus::RemoteOperation => Some(Counter::RemoteOperation),
        WcStatus::SourceUnreadable => Some(Counter::SourceUnreadable),
        WcStatus::RnrRetryExceeded => Some(Counter::RnrRetryExceeded),
        WcStatus::RetryExceeded => Some(Counter::RetryExceeded),
    }
}

/// Shards with a thread of their own; one more is for everybody else.
const OWN_SHARDS: usize = 63;

/// Two cache lines apart, because adapters of the processor fetch lines in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Shard([AtomicU64; COUNTERS.len()]);

/// The counters themselves. A thread adds to a shard that no other thread writes, without a locked
/// instruction; a reader sums all of them.
#[derive(Debug)]
pub(super) struct Counts(Box<[Shard; OWN_SHARDS + 1]>);

impl Counts {
    pub(super) fn new() -> Self {
        Self(Box::new(std::array::from_fn(|_| {
            Shard(std::array::from_fn(|_| AtomicU64::new(0)))
        })))
    }

    pub(super) fn add(&self, counter: Counter, amount: u64) {
        // Relaxed: a counter orders nothing.
        match my_shard() {
            Some(shard) => {
                let cell = &self.0[shard].0[counter as usize];
                let sum = cell.load(Ordering::Relaxed).wrapping_add(amount);
                cell.store(sum, Ordering::Relaxed);
            }
            None => {
                let cell = &self.0[OWN_SHARDS].0[counter as usize];
                cell.fetch_add(amount, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn add_len(&self, counter: Counter, bytes: usize) {
        self.add(counter, bytes as u64);
    }

    pub(super) fn snapshot(&self) -> TraceCounters {
        TraceCounters::from_sums(|counter| {
            let cells = self.0.iter().map(|shard| &shard.0[counter as usize]);
            cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
        })
    }
}

/// Numbers of shards that no living thread owns. The lock also hands a shard's counts from the
/// thread that had it to the one that gets it.
static FREE: Mutex<FreeShards> = Mutex::new(FreeShards {
    returned: Vec::new(),
    never_used: 0,
});

struct FreeShards {
    returned: Vec<usize>,
    never_used: usize,
}

fn free_shards() -> MutexGuard<'static, FreeShards> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread's own shard; given back when the thread ends.
struct Mine(Option<usize>);

impl Mine {
    fn take() -> Self {
        let mut free = free_shards();
        if let Some(shard) = free.returned.pop() {
            return Self(Some(shard));
        }
        let shard = free.never_used;
        if shard == OWN_SHARDS {
            return Self(None);
        }
        free.never_used += 1;
        Self(Some(shard))
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        free_shards().returned.extend(self.0);
    }
}

/// The shard that only this thread adds to. `None` if there are too many threads, or if this one
/// is ending.
fn my_shard() -> Option<usize> {
    thread_local! {
        static MINE: Mine = Mine::take();
    }
    MINE.try_with(|mine| mine.0).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        const THREADS: usize = OWN_SHARDS + 17;
        let counts = Counts::new();
        // All alive at once, and more than there are shards: some share the last one.
        let all = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    all.wait();
                    for _ in 0..25 {
                        counts.add(Counter::SendCount, 1);
                        counts.add_len(Counter::SendBytes, 3);
                    }
                    all.wait();
                });
            }
        });
        let sums = counts.snapshot();
        assert_eq!((sums.send_count, sums.send_bytes), (2000, 6000));
        assert_eq!(sums.recv_count, 0);
    }

    #[test]
    fn differences_are_per_counter() {
        let early = TraceCounters {
            send_count: 2,
            ..TraceCounters::default()
        };
        let late = TraceCounters {
            send_count: 5,
            read_bytes: 7,
            ..early
        };
        let between = late - early;
        assert_eq!((between.send_count, between.read_bytes), (3, 7));
    }
}
