//! The conformance suite on the simulated fabric: when every call carries out all that follows,
//! when another thread lets time pass, over adapters that can do less, and behind `hook::Lazy`.

use std::sync::Arc;
use std::time::Duration;

use sdp_verbs::conformance::{Fixture, Poller, Sides};
use sdp_verbs::hook::Lazy;
use sdp_verbs::sim::{Drive, Fabric, Fault, Faults, SOON, SimOptions, Timing};
use sdp_verbs::{Caps, Provider, VerbsError};

#[derive(Clone, Debug)]
struct Sim {
    name: &'static str,
    drive: Drive,
    poller: Poller,
    off: Caps,
    faults: Faults,
    lazy: bool,
}

impl Sim {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            drive: Drive::Eager,
            poller: Poller::Caller,
            off: Caps::empty(),
            faults: Faults::none(),
            lazy: false,
        }
    }
}

/// Lets time pass as long as anybody uses the fabric.
fn let_time_pass(fabric: &Arc<Fabric>) -> Result<(), VerbsError> {
    let fabric = Arc::downgrade(fabric);
    let pass = move || {
        while let Some(fabric) = fabric.upgrade() {
            if !fabric.step(Some(SOON)) {
                let _ = fabric.wait_for_work(Duration::from_millis(10));
            }
        }
    };
    let spawned = std::thread::Builder::new()
        .name("clock".to_owned())
        .spawn(pass);
    spawned.map_err(|error| VerbsError::os("starting the clock", error))?;
    Ok(())
}

impl Fixture for Sim {
    fn name(&self) -> String {
        format!("sim, {}", self.name)
    }

    fn open(&self) -> Result<Sides, VerbsError> {
        let fabric = Fabric::new(7, self.drive, Timing::default(), self.faults.clone());
        let options = SimOptions {
            caps: SimOptions::default().caps - self.off,
            ..SimOptions::default()
        };
        let side = |seed| {
            let node: Arc<dyn Provider> = fabric.node(options);
            if self.lazy {
                Arc::new(Lazy::new(node).seeded(seed))
            } else {
                node
            }
        };
        let sides = Sides {
            active: side(1),
            passive: side(2),
        };
        if self.drive == Drive::Stepped {
            let_time_pass(&fabric)?;
        }
        Ok(sides)
    }

    fn poller(&self) -> Poller {
        self.poller
    }

    fn rounds(&self) -> u32 {
        2_000
    }
}

/// Mounts the suite on adapters that can do everything.
macro_rules! in_full {
    ($(#[$about:meta])* $module:ident, $fixture:expr) => {
        $(#[$about])*
        mod $module {
            use super::*;

            fn fixture() -> Sim {
                $fixture
            }

            sdp_verbs::conformance_tests!(fixture, skips: ["cm::ipv6_loopback?"]);
        }
    };
}

in_full! { at_once, Sim::new("at once") }
in_full! { in_steps, Sim { drive: Drive::Stepped, ..Sim::new("in steps") } }
in_full! { lazily, Sim { lazy: true, ..Sim::new("lazily") } }

in_full! {
    /// Nothing of this is forbidden to an adapter: late completions, queue pairs that overtake each
    /// other, receives that are not ready at first, a confirmation that is lost.
    in_steps_with_threads_and_delays, {
        let mut faults = Faults::none()
            .with(Fault::LateCompletion, 200_000)
            .with(Fault::Reorder, 200_000)
            .with(Fault::CmLostRtu, 200_000);
        faults.late_max = 1_000_000;
        Sim {
            drive: Drive::Stepped,
            poller: Poller::Threads,
            faults,
            ..Sim::new("in steps, threads, delays")
        }
    }
}

/// As siw: keys of regions only, which die when the region does.
mod without_windows {
    use super::*;

    fn fixture() -> Sim {
        Sim {
            off: Caps::MEMORY_WINDOW | Caps::LOCAL_INV | Caps::SEND_WITH_INV | Caps::HEAP_WINDOW,
            ..Sim::new("without windows")
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
        "failure::set_error_flushes_what_is_behind_a_bind",
        "order::a_key_travels_with_the_message_behind_its_bind",
        "order::binds_keep_their_places",
        "race::a_read_shows_nothing_that_came_after",
        "race::a_write_changes_nothing_that_came_after",
        "read::from_heap_memory",
        "region::windows_start_unbound",
        "role::invalidated_by_the_answer",
        "role::read_what_the_message_names",
        "role::write_before_the_message",
    ]);
}
