//! The bodies of `stream.rs` over an adapter, both ends on one device.
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

use common::sdp::Sdp;
use common::watch::watched;

macro_rules! mount {
    ($($file:ident :: { $($body:ident),+ $(,)? }),+ $(,)?) => {
        $(mod $file {
            use super::*;
            $(
                #[test]
                #[ignore = "needs an RDMA device"]
                fn $body() {
                    watched(|| crate::bodies::$file::$body(&Sdp::rdma()));
                }
            )+
        })+
    };
}

mount! {
    data::{
        echo_of_many_sizes, full_duplex, vectored, peek_then_read, peek_at_a_large_write,
        slow_small_reader, small_writes_large_reader, mixed_sizes, empty_calls,
        clones_are_one_stream, many_connections,
    },
    close::{
        half_close_by_client, half_close_by_server, both_half_close,
        shutdown_read_ends_reading, drop_after_write, drop_before_the_peer_reads,
        write_and_close_before_accept, drop_with_unread_bytes, linger_of_zero,
        take_error_takes_it, write_to_closed_peer, shutdown_wakes_read,
        shutdown_wakes_write,
    },
    wait::{
        read_timeout, options_are_kept, write_timeout, nonblocking, nonblocking_and_back,
    },
    names::{
        connect_refused, connect_before_accept, listener_dropped_before_accept,
    },
    promise::{both_send_then_both_receive, both_send_all_that_fits, too_many_bytes},
    ours::{writes_never_interleave, accepted_streams_inherit, connect_timeout},
    zcopy::{
        from_heap, from_registered, switched_off, switched_over,
        parts_of_a_registered_buffer, mixed_memory_in_one_write,
        small_reads_of_a_large_advert, write_timeout_with_an_open_advert, crossing_adverts,
        drop_after_a_large_write, reader_drops_in_the_middle, shutdown_ends_an_open_advert,
    },
}
