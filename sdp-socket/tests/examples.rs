//! The examples do what they say.

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;
#[path = "../examples/mio_echo.rs"]
mod mio_echo;
#[path = "../examples/tokio_echo.rs"]
mod tokio_echo;

use common::watch::watched;

#[test]
fn echo_on_mio() {
    watched(|| mio_echo::main().expect("the example"));
}

#[test]
fn echo_on_tokio() {
    watched(|| tokio_echo::main().expect("the example"));
}
