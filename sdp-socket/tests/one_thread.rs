//! Both ends on one thread: with the real runtime as far as TCP allows that, and on a scripted
//! runtime, where one thread at a time plays everybody in an order given by a seed and time is a
//! number.
//!
//! `SDP_SIM_SEED=n` runs one seed only, `SDP_SIM_SEED=a..b` many, as long as they take.

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

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sdp_socket::ZcopyThreshold;
use sdp_verbs::Caps;
use sdp_verbs::hook::Lazy;

use common::net::{Net, Stream};
use common::sdp::{Sdp, host, lazy, scripted};
use common::watch::{LIMIT, doing, note, watched, watched_for};

/// Seeds each body is run with.
const SEEDS: u64 = 50;

fn listen_connect_write_accept_read(net: &Sdp) {
    let (listener, addr) = net.listen();
    doing("connecting");
    let client = net.connect(addr).expect("connect");
    client.put(b"hello");
    doing("accepting");
    let (server, from) = listener.accept().expect("accept");
    assert_eq!(from, client.local_addr().expect("local_addr"));
    let mut buf = [0; 5];
    server.get(&mut buf);
    assert_eq!(&buf, b"hello");
    server.put(b"bye");
    drop(server);
    let mut buf = [0; 3];
    client.get(&mut buf);
    assert_eq!(&buf, b"bye");
    client.at_end();
}

/// One thread plays both ends in the process's own context.
#[test]
fn real_runtime() {
    watched(|| listen_connect_write_accept_read(&Sdp::shared()));
}

/// One thread plays both ends, each in a context of its own.
#[test]
fn real_runtime_between_contexts() {
    watched(|| {
        let contexts = [(), ()].map(|()| common::sdp::threaded(host()));
        listen_connect_write_accept_read(&Sdp::between(&contexts[0], &contexts[1]));
    });
}

/// The same over a provider that does everything late.
#[test]
fn real_runtime_lazy() {
    watched(|| listen_connect_write_accept_read(&Sdp::lazy(7)));
}

/// On an adapter nothing is armed between two calls that follow each other soon. After the last one
/// somebody looks all the same: a large write comes to its end, which takes an answer.
#[test]
fn after_a_conversation_the_peer_has_attention() {
    watched(|| {
        let provider = || Arc::new(Lazy::new(host()).without(Caps::SAME_HOST));
        let contexts = [(), ()].map(|()| common::sdp::threaded(provider()));
        let net = Sdp::between(&contexts[0], &contexts[1])
            .with(|builder| builder.zcopy_threshold(ZcopyThreshold::Bytes(16 << 10)));
        let (client, server) = net.pair();
        for _ in 0..20 {
            server.put(b"x");
            client.get(&mut [0]);
            client.put(b"x");
            server.get(&mut [0]);
        }
        let large = vec![7; 64 << 10];
        server.put(&large);
        let mut got = vec![0; large.len()];
        client.get(&mut got);
        assert_eq!(got, large);
    });
}

/// Runs a body with every seed: on even ones over the host provider, on odd ones over one that
/// does everything late.
fn with_seeds(body: impl Fn(&Sdp) + Send + 'static) {
    let chosen = std::env::var("SDP_SIM_SEED").ok();
    let limit = chosen.as_ref().map_or(LIMIT, |_| Duration::MAX);
    let seeds = chosen.map_or(0..SEEDS, |text| range(&text));
    watched_for(limit, move || {
        for seed in seeds {
            note("seed", format!("{seed} (SDP_SIM_SEED={seed} repeats it)"));
            let provider = || if seed % 2 == 0 { host() } else { lazy(seed) };
            scripted(seed, provider, &body);
        }
    });
}

fn range(text: &str) -> Range<u64> {
    let number = |text: &str| text.parse().expect("SDP_SIM_SEED is a number or a range");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(text)..number(text) + 1,
    }
}

#[test]
fn the_whole_life_of_a_connection() {
    with_seeds(listen_connect_write_accept_read);
}

macro_rules! mount {
    ($($file:ident :: { $($body:ident),+ $(,)? }),+ $(,)?) => {
        $(mod $file {
            $(
                #[test]
                fn $body() {
                    crate::with_seeds(crate::bodies::$file::$body);
                }
            )+
        })+
    };
}

mount! {
    data::{
        echo_of_few_sizes, full_duplex_briefly, vectored, peek_then_read, peek_at_a_large_write,
        small_writes_large_reader_briefly, empty_calls, clones_are_one_stream,
    },
    close::{
        half_close_by_client, half_close_by_server, both_half_close, shutdown_read_ends_reading,
        drop_before_the_peer_reads, write_and_close_before_accept, drop_with_unread_bytes,
        linger_of_zero, take_error_takes_it, write_to_closed_peer, shutdown_wakes_read,
        shutdown_wakes_write,
    },
    wait::{read_timeout, options_are_kept, write_timeout, nonblocking, nonblocking_and_back},
    names::{
        addresses, connect_refused, bind_in_use, connect_before_accept_briefly,
        listener_dropped_before_accept,
    },
    promise::{
        both_send_then_both_receive, both_send_all_that_fits_in_small_buffers,
        both_send_all_that_fits_in_a_few_small_calls, too_many_bytes,
    },
    ours::{small_writes_never_interleave, write_while_unwinding},
    queues::{read_waitall, read_waitall_timeout, low_water, queue_lengths},
    zcopy::{
        from_heap, from_registered, switched_off, switched_over, parts_of_a_registered_buffer,
        mixed_memory_in_one_write, small_reads_of_a_large_advert,
        write_timeout_with_a_small_advert_open, drop_after_a_large_write, reader_drops_in_the_middle,
        shutdown_ends_an_open_advert,
    },
}
