//! The conformance suite on an adapter: two instances of the provider on one device, or on the two
//! that `SDP_TEST_RDMA_DEVICES=active,passive` names. `SDP_TEST_RDMA_WINDOWS=0` does without
//! memory windows.
#![cfg(target_pointer_width = "64")]

use std::net::IpAddr;
use std::sync::Arc;

use sdp_verbs::conformance::{Fixture, Poller, Sides};
use sdp_verbs::rdma::{RdmaOptions, RdmaProvider};
use sdp_verbs::{Provider, VerbsError};

#[derive(Debug)]
struct Rdma {
    poller: Poller,
}

fn open(side: usize) -> Result<RdmaProvider, VerbsError> {
    let named = std::env::var("SDP_TEST_RDMA_DEVICES").unwrap_or_default();
    let device = named
        .split(',')
        .nth(side)
        .or_else(|| named.split(',').next());
    RdmaProvider::open_with(&RdmaOptions {
        device: device.map(str::to_owned).filter(|name| !name.is_empty()),
        without_windows: std::env::var("SDP_TEST_RDMA_WINDOWS").as_deref() == Ok("0"),
    })
}

/// What software devices do otherwise than the specification says.
const DEFECTS: [(&str, &str, &str); 7] = [
    (
        "rxe",
        "bind::a_dead_key_cannot_be_invalidated",
        "panics when a peer invalidates a window that is not bound",
    ),
    (
        "rxe",
        "bind::another_connection_cannot_invalidate",
        "lets any connection invalidate a window",
    ),
    (
        "rxe",
        "race::a_read_shows_nothing_that_came_after",
        "fills a packet of a read after its key died, if it had looked at the key before",
    ),
    (
        "rxe",
        "race::a_write_changes_nothing_that_came_after",
        "finishes a write that began before its key died",
    ),
    (
        "rxe",
        "read::beyond_the_window",
        "checks the bounds of the region instead of the window's",
    ),
    (
        "rxe",
        "write::beyond_the_window",
        "checks the bounds of the region instead of the window's",
    ),
    (
        "siw",
        "read::without_the_right",
        "lets a peer read what it may only write",
    ),
];

/// Which software device the passive side's is, if it is one. Only rxe has the attribute `parent`;
/// siw's devices have nothing that tells them but the name that everybody gives them.
fn driver() -> &'static str {
    let provider = open(1).expect("an RDMA device");
    let name = provider.device_name();
    if std::path::Path::new(&format!("/sys/class/infiniband/{name}/parent")).exists() {
        "rxe"
    } else if name.starts_with("siw") {
        "siw"
    } else {
        "an adapter"
    }
}

/// An address that peers reach the passive side by.
fn passive_address(fits: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let provider = open(1).expect("an RDMA device");
    let mut all = provider.addresses().expect("addresses").into_iter();
    all.find_map(|addr| Some(addr.ip()).filter(&fits))
}

impl Fixture for Rdma {
    fn name(&self) -> String {
        match open(1) {
            Ok(provider) => format!(
                "rdma on {}, {:?}, polled by {:?}",
                provider.device_name(),
                provider.caps(),
                self.poller
            ),
            Err(error) => error.to_string(),
        }
    }

    fn open(&self) -> Result<Sides, VerbsError> {
        Ok(Sides {
            active: Arc::new(open(0)?),
            passive: Arc::new(open(1)?),
        })
    }

    fn address(&self) -> IpAddr {
        passive_address(IpAddr::is_ipv4).expect("an IPv4 address behind the device")
    }

    fn address_v6(&self) -> Result<IpAddr, String> {
        passive_address(IpAddr::is_ipv6)
            .ok_or_else(|| "no IPv6 address behind the device".to_owned())
    }

    fn spared(&self, case: &str) -> Option<String> {
        let (device, _, what) = DEFECTS
            .iter()
            .find(|(device, name, _)| *name == case && *device == driver())?;
        Some(format!("{device} (seen in Linux 6.1) {what}"))
    }

    fn poller(&self) -> Poller {
        self.poller
    }

    fn rounds(&self) -> u32 {
        // What looks for a gap of nanoseconds finds none between system calls.
        2_000
    }
}

/// Both ways of polling; what may be skipped depends on what the device can do.
macro_rules! polled_by {
    ($module:ident, $poller:expr) => {
        mod $module {
            use super::*;

            fn fixture() -> Rdma {
                Rdma { poller: $poller }
            }

            sdp_verbs::conformance_tests!(fixture, ignored: "needs an RDMA device", skips: [
                "bind::a_dead_key_cannot_be_invalidated?",
                "bind::a_key_is_good_on_its_own_connection_only?",
                "bind::another_connection_cannot_invalidate?",
                "bind::another_queue_pair_cannot_invalidate?",
                "bind::beyond_the_region?",
                "bind::of_nothing?",
                "bind::over_memory_that_allows_none?",
                "bind::with_a_key_of_no_region?",
                "cm::ipv6_loopback?",
                "dead_key::a_bound_window_is_not_bound_again?",
                "dead_key::a_window_is_bound_again?",
                "dead_key::after_local_inv?",
                "dead_key::after_send_with_inv?",
                "dead_key::after_set_error?",
                "dead_key::after_the_queue_pair_is_dropped?",
                "dead_key::after_the_region_is_dropped?",
                "dead_key::after_the_window_is_dropped?",
                "dead_key::an_old_key_stays_dead?",
                "dead_key::write_after_local_inv?",
                "failure::no_receive_for_too_long?",
                "failure::one_failure_flushes_the_rest?",
                "failure::set_error_flushes_everything_once?",
                "failure::set_error_flushes_what_is_behind_a_bind?",
                "message::a_send_waits_for_a_receive?",
                "order::a_key_travels_with_the_message_behind_its_bind?",
                "order::binds_keep_their_places?",
                "queue::a_full_send_queue_says_so?",
                "queue::two_threads_may_post?",
                "race::a_read_shows_nothing_that_came_after?",
                "race::a_write_changes_nothing_that_came_after?",
                "read::beyond_the_window?",
                "read::from_heap_memory?",
                "read::without_the_right?",
                "region::windows_start_unbound?",
                "reserve::a_reservation_holds_up_no_earlier_message?",
                "role::invalidated_by_the_answer?",
                "role::read_what_the_message_names?",
                "role::stream_one_way?",
                "role::write_before_the_message?",
                "wait::solicited_events_only?",
                "write::beyond_the_window?",
            ]);
        }
    };
}

polled_by!(by_the_caller, Poller::Caller);
polled_by!(by_threads, Poller::Threads);
