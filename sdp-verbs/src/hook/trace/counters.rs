//! Counters that many threads add to without sharing a cache line.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
    /// Completions with [`WcStatus::RnrRetryExceeded`].
    rnr_retry_exceeded_count = RnrRetryExceeded,
    /// Completions with [`WcStatus::RetryExceeded`].
    retry_exceeded_count = RetryExceeded,
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
        WcStatus::RnrRetryExceeded => Some(Counter::RnrRetryExceeded),
        WcStatus::RetryExceeded => Some(Counter::RetryExceeded),
    }
}

const SHARDS: usize = 16;

/// Two cache lines apart, because adapters of the processor fetch lines in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Shard([AtomicU64; COUNTERS.len()]);

/// The counters themselves. A thread adds to its own shard; a reader sums all of them.
#[derive(Debug)]
pub(super) struct Counts([Shard; SHARDS]);

impl Counts {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| {
            Shard(std::array::from_fn(|_| AtomicU64::new(0)))
        }))
    }

    pub(super) fn add(&self, counter: Counter, amount: u64) {
        // Relaxed: a counter orders nothing.
        self.0[my_shard()].0[counter as usize].fetch_add(amount, Ordering::Relaxed);
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

fn my_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let counts = Counts::new();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        counts.add(Counter::SendCount, 1);
                        counts.add_len(Counter::SendBytes, 3);
                    }
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
