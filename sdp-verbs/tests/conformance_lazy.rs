//! The conformance suite on the host provider behind `hook::Lazy`: the suite does not rely on
//! instant copies, and the wrapper keeps every promise while it dawdles.

use std::sync::Arc;

use sdp_verbs::conformance::{Fixture, Poller, Sides};
use sdp_verbs::hook::{Lazy, Trace};
use sdp_verbs::host::HostProvider;
use sdp_verbs::{Caps, Provider, VerbsError};

#[derive(Debug)]
struct LazyHost {
    seed: u64,
    off: Caps,
    poller: Poller,
}

impl LazyHost {
    fn side(&self, seed: u64) -> Result<Arc<dyn Provider>, VerbsError> {
        let host = Arc::new(HostProvider::open()?);
        Ok(Arc::new(Lazy::new(host).without(self.off).seeded(seed)))
    }
}

impl Fixture for LazyHost {
    fn name(&self) -> String {
        format!(
            "lazy host, seed {}, without {:?}, polled by {:?}",
            self.seed, self.off, self.poller
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
}

mod seed_1 {
    use super::*;

    fn fixture() -> LazyHost {
        LazyHost {
            seed: 1,
            off: Caps::empty(),
            poller: Poller::Caller,
        }
    }

    sdp_verbs::conformance_tests!(fixture, skips: ["cm::ipv6_loopback?", "read::from_heap_memory?"]);
}

mod seed_2_with_threads {
    use super::*;

    fn fixture() -> LazyHost {
        LazyHost {
            seed: 2,
            off: Caps::empty(),
            poller: Poller::Threads,
        }
    }

    sdp_verbs::conformance_tests!(fixture, skips: ["cm::ipv6_loopback?", "read::from_heap_memory?"]);
}

/// As on siw: no windows, and keys are regions registered for the purpose.
mod seed_3_without_windows {
    use super::*;

    fn fixture() -> LazyHost {
        LazyHost {
            seed: 3,
            off: Caps::MEMORY_WINDOW | Caps::LOCAL_INV | Caps::SEND_WITH_INV | Caps::HEAP_WINDOW,
            poller: Poller::Caller,
        }
    }

    sdp_verbs::conformance_tests!(fixture, skips: ["cm::ipv6_loopback?"]);
}

/// SEND and RECV only.
mod seed_4_without_rdma {
    use super::*;

    fn fixture() -> LazyHost {
        LazyHost {
            seed: 4,
            off: Caps::RDMA_READ
                | Caps::RDMA_WRITE
                | Caps::MEMORY_WINDOW
                | Caps::LOCAL_INV
                | Caps::SEND_WITH_INV
                | Caps::REMOTE_MR
                | Caps::HEAP_WINDOW
                | Caps::SOLICITED
                | Caps::SAME_HOST,
            poller: Poller::Caller,
        }
    }

    sdp_verbs::conformance_tests!(fixture, skips: ["cm::ipv6_loopback?"]);
}

/// The wrappers stack, in this order.
mod seed_5_under_trace {
    use super::*;

    #[derive(Debug)]
    struct Traced(LazyHost);

    impl Fixture for Traced {
        fn name(&self) -> String {
            format!("trace over {}", self.0.name())
        }

        fn open(&self) -> Result<Sides, VerbsError> {
            let Sides { active, passive } = self.0.open()?;
            Ok(Sides {
                active: Arc::new(Trace::new(active)),
                passive: Arc::new(Trace::new(passive)),
            })
        }
    }

    fn fixture() -> Traced {
        Traced(LazyHost {
            seed: 5,
            off: Caps::empty(),
            poller: Poller::Caller,
        })
    }

    sdp_verbs::conformance_tests!(fixture, skips: ["cm::ipv6_loopback?", "read::from_heap_memory?"]);
}
