//! The bodies of `keys.rs` over an adapter: a peer that speaks raw verbs tries old keys.
//! `SDP_TEST_RDMA_WINDOWS=0` does without memory windows: keys are then regions.
#![cfg(target_pointer_width = "64")]

#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod bodies;
#[allow(
    dead_code,
    reason = "each test program uses its own part of what they share"
)]
mod common;

use bodies::keys::Ground;
use common::watch::watched;

macro_rules! mount {
    ($($body:ident),+ $(,)?) => {
        $(
            #[test]
            #[ignore = "needs an RDMA device"]
            fn $body() {
                watched(|| bodies::keys::$body(&Ground::rdma()));
            }
        )+
    };
}

mount! {
    after_send_returned, after_recv_returned, during_a_read, after_recv_returned_what_was_written,
    after_a_time_out, unanswered_cancel, after_the_buffer_was_freed_and_used_again,
}
