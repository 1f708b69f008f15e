//! The same bodies over kernel TCP, over SDP, and over SDP on a provider that does everything as
//! late as it may.

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

use common::net::{Net, Stream};
use common::sdp::{Sdp, host, threaded};
use common::tcp::Tcp;
use common::threads::until_others_sleep;
use common::watch::{actor, watched};

/// Mounts bodies as tests over something.
macro_rules! mount {
    ($net:expr; $($file:ident :: { $($body:ident),+ $(,)? }),+ $(,)?) => {
        $(mod $file {
            #[allow(unused_imports, reason = "not every kind of sockets needs every name")]
            use super::super::*;
            $(
                #[test]
                fn $body() {
                    watched(|| crate::bodies::$file::$body(&$net));
                }
            )+
        })+
    };
}

/// What kernel TCP does as well.
macro_rules! common_bodies {
    ($net:expr; $($more:tt)*) => {
        mount! {
            $net;
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
            queues::{read_waitall, read_waitall_timeout, low_water, queue_lengths},
            urgent::{
                urgent_byte_out_of_band, urgent_byte_passed_over, urgent_byte_in_line,
                two_urgent_bytes, urgent_byte_at_the_mark_of_another, urgent_during_a_large_write,
            },
            names::{
                addresses, wildcard_addresses, addresses_v6, connect_refused, bind_in_use,
                bind_elsewhere, connect_before_accept, listener_dropped_before_accept,
            },
            $($more)*
        }
    };
}

/// What only our streams promise.
macro_rules! sdp_bodies {
    ($net:expr) => {
        common_bodies! {
            $net;
            promise::{
                both_send_then_both_receive, both_send_all_that_fits,
                both_send_all_that_fits_in_small_calls, both_send_all_that_fits_in_single_bytes,
                too_many_bytes,
            },
            ours::{
                urgent_byte_beside_a_blocked_write,
                writes_never_interleave, small_writes_never_interleave,
                one_port_space_with_tcp, builder_clones_are_independent, accepted_streams_inherit,
                connect_timeout, write_while_unwinding,
            },
            zcopy::{
                from_heap, from_registered, auto_tells_memory_apart, switched_off, switched_over,
                parts_of_a_registered_buffer, a_registered_buffer_again_and_again,
                mixed_memory_in_one_write, small_reads_of_a_large_advert,
                write_timeout_with_an_open_advert, crossing_adverts, drop_after_a_large_write,
                reader_drops_in_the_middle, shutdown_ends_an_open_advert,
            },
        }
    };
}

mod tcp {
    common_bodies! { Tcp::new(); promise::{both_send_then_both_receive} }
}

/// Both ends in the one context that programs share.
mod host {
    sdp_bodies! { Sdp::shared() }
}

mod lazy_1 {
    sdp_bodies! { Sdp::lazy(1) }
}

mod lazy_2 {
    sdp_bodies! { Sdp::lazy(2) }
}

mod lazy_3 {
    sdp_bodies! { Sdp::lazy(3) }
}

/// A call that does not return is found in the diagnosis, which does not wait for it.
#[test]
fn a_blocked_call_is_diagnosed() {
    watched(|| {
        let contexts = [threaded(host()), threaded(host())];
        let net = Sdp::between(&contexts[0], &contexts[1]);
        let (client, server) = net.pair();
        net.all(vec![
            actor("reader", || client.get(&mut [0; 1])),
            actor("looker", || {
                until_others_sleep();
                let [ours, theirs] = contexts.each_ref().map(|context| context.diagnosis());
                assert!(ours.contains("callers 1"), "{ours}");
                assert!(theirs.contains("callers 0"), "{theirs}");
                server.put(b"x");
            }),
        ]);
    });
}
