//! The conformance suite over a host provider that can do everything, bare or wrapped.

/// Mounts the suite in a module, on the fixture that the expression gives.
macro_rules! on_host {
    ($(#[$about:meta])* $module:ident, $fixture:expr) => {
        $(#[$about])*
        mod $module {
            use super::*;

            fn fixture() -> impl Fixture {
                $fixture
            }

            sdp_verbs::conformance_tests!(fixture, skips: [
                "bind::over_memory_that_allows_none?",
                "cm::ipv6_loopback?",
                "read::from_a_region_with_its_own_right",
                "read::from_heap_memory?",
            ]);
        }
    };
}
pub(crate) use on_host;
