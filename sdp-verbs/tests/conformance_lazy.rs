//! The conformance suite on the host provider behind `hook::Lazy`: the suite does not rely on
//! instant copies, and the wrapper keeps every promise while it dawdles.

mod host_mount;

use std::sync::Arc;

use host_mount::on_host;
use sdp_verbs::conformance::{Fixture, Poller, Sides};
use sdp_verbs::hook::{Lazy, Trace};
use sdp_verbs::host::HostProvider;
use sdp_verbs::{Caps, Provider, VerbsError};

#[derive(Debug)]
struct LazyHost {
    seed: u64,
    off: Caps,
    poller: Poller,
    traced: bool,
}

impl LazyHost {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            off: Caps::empty(),
            poller: Poller::Caller,
            traced: false,
        }
    }

    fn side(&self, seed: u64) -> Result<Arc<dyn Provider>, VerbsError> {
        let host = Arc::new(HostProvider::open()?);
        let lazy = Arc::new(Lazy::new(host).without(self.off).seeded(seed));
        if self.traced {
            return Ok(Arc::new(Trace::new(lazy)));
        }
        Ok(lazy)
    }
}

impl Fixture for LazyHost {
    fn name(&self) -> String {
        format!(
            "{}lazy host, seed {}, without {:?}, polled by {:?}",
            if self.traced { "trace over " } else { "" },
            self.seed,
            self.off,
            self.poller
        )
    }

    fn open(&self) -> Result<Sides, VerbsError> {
        Ok(Sides {
            active: self.side(self.seed)?,
            passive: self.side(self.seed + 1000)?,
        })
    }

    fn poller(&self) -> Poller {
        self.poller
    }

    fn rounds(&self) -> u32 {
        2_000
    }
}

on_host! { seed_1, LazyHost::new(1) }
on_host! { seed_2_with_threads, LazyHost { poller: Poller::Threads, ..LazyHost::new(2) } }

on_host! {
    /// The wrappers stack, in this order.
    seed_5_under_trace, LazyHost { traced: true, ..LazyHost::new(5) }
}

/// Keys die by LOCAL_INV only, and memory has to be the provider's.
mod seed_3_without_extras {
    use super::*;

    fn fixture() -> LazyHost {
        LazyHost {
            off: Caps::SEND_WITH_INV | Caps::HEAP_WINDOW | Caps::SOLICITED,
            ..LazyHost::new(3)
        }
    }

    sdp_verbs::conformance_tests!(fixture, skips: [
        "cm::ipv6_loopback?",
        "bind::a_dead_key_cannot_be_invalidated",
        "bind::another_connection_cannot_invalidate",
        "bind::over_memory_that_allows_none",
        "dead_key::after_send_with_inv",
        "read::from_a_region_with_its_own_right",
        "read::from_heap_memory",
        "role::invalidated_by_the_answer",
        "wait::solicited_events_only",
    ]);
}

/// SEND and RECV only.
mod seed_4_without_rdma {
    use super::*;

    fn fixture() -> LazyHost {
        LazyHost {
            off: Caps::RDMA_READ
                | Caps::RDMA_WRITE
                | Caps::MEMORY_WINDOW
                | Caps::LOCAL_INV
                | Caps::SEND_WITH_INV
                | Caps::REMOTE_MR
                | Caps::HEAP_WINDOW
                | Caps::SOLICITED
                | Caps::SAME_HOST,
            ..LazyHost::new(4)
        }
    }

    sdp_verbs::conformance_tests!(fixture, skips: [
        "cm::ipv6_loopback?",
        "bind::a_dead_key_cannot_be_invalidated",
        "bind::a_key_is_good_on_its_own_connection_only",
        "bind::another_connection_cannot_invalidate",
        "bind::another_queue_pair_cannot_invalidate",
        "bind::beyond_the_region",
        "bind::of_nothing",
        "bind::over_memory_that_allows_none",
        "bind::with_a_key_of_no_region",
        "race::a_read_shows_nothing_that_came_after",
        "race::a_write_changes_nothing_that_came_after",
        "write::from_memory_without_a_key",
        "dead_key::a_bound_window_is_not_bound_again",
        "dead_key::a_window_is_bound_again",
        "dead_key::after_local_inv",
        "dead_key::after_send_with_inv",
        "dead_key::after_set_error",
        "dead_key::after_the_queue_pair_is_dropped",
        "dead_key::after_the_region_is_dropped",
        "dead_key::after_the_window_is_dropped",
        "dead_key::an_old_key_stays_dead",
        "dead_key::write_after_local_inv",
        "failure::one_failure_flushes_the_rest",
        "failure::set_error_flushes_what_is_behind_a_bind",
        "order::a_fence_waits_for_reads",
        "order::binds_keep_their_places",
        "order::a_key_travels_with_the_message_behind_its_bind",
        "order::completions_keep_the_order_of_posting",
        "read::a_part",
        "read::a_whole_window",
        "read::beyond_the_local_region",
        "read::beyond_the_window",
        "read::from_a_region_with_its_own_right",
        "read::from_heap_memory",
        "read::into_memory_without_the_right",
        "read::into_several_elements",
        "read::large_and_unaligned",
        "read::many_outstanding",
        "read::of_a_key_never_given",
        "read::of_nothing",
        "read::without_the_right",
        "region::windows_start_unbound",
        "role::invalidated_by_the_answer",
        "role::read_what_the_message_names",
        "role::write_before_the_message",
        "wait::solicited_events_only",
        "write::a_part",
        "write::a_whole_window",
        "write::beyond_the_window",
        "write::from_several_elements",
        "write::is_there_before_the_message_behind_it",
        "write::large_and_unaligned",
        "write::of_nothing_completes",
        "write::of_nothing_to_a_peer_that_is_gone",
        "write::without_the_right",
    ]);
}
