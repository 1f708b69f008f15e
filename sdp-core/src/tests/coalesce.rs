//! Small sends that are held back for others, and those that must not be.

use core::time::Duration;

use sdp_wire::{Body, Hello, Mid};

use super::util::lone::{Lone, hello};
use crate::{Config, SendRequest, SendStep, ZcopyThreshold};

const LARGE: u32 = 12_000;

/// A connection whose peer had 30 buffers free and now has 6: credits are scarce.
fn scarce(config: Config) -> Lone {
    let peer = Hello {
        bufs: 30,
        ..hello()
    };
    let mut lone = Lone::called_by(&peer, config);
    lone.bufs = 6;
    lone.peer(Body::Data, 0);
    lone.see_all();
    lone
}

fn small_send_is_held_back(lone: &mut Lone) -> bool {
    lone.send_all(10);
    !lone.mids().contains(&Mid::Data)
}

#[test]
fn a_small_send_is_held_back_while_credits_are_scarce() {
    let mut lone = scarce(Config::default());
    assert!(small_send_is_held_back(&mut lone));
    let nodelay = Config {
        nodelay: true,
        ..Config::default()
    };
    assert!(!small_send_is_held_back(&mut scarce(nodelay)));
}

/// The first, short piece of a large send went nowhere: it was too short for a message of its own
/// and the call too long for private memory, and with a patience without end nobody moved it.
#[test]
fn a_large_send_that_begins_with_a_short_piece_is_not_held_back() {
    let mut lone = scarce(Config {
        rendezvous_wait: Duration::MAX,
        rendezvous_wait_min: Duration::MAX,
        zcopy_threshold: ZcopyThreshold::Bytes(4096),
        ..Config::default()
    });
    let request = SendRequest {
        len: 27_592,
        segment_ends: [105, 5_998, 27_592].into_iter().collect(),
        nonblocking: false,
        urgent: false,
        registered: true,
        copy_reason: None,
    };
    let id = lone.conn.send_start(lone.instant(), request);
    let (step, copied) = lone.copy_out(id);
    assert_eq!((step, copied), (SendStep::Wait, 105));
    assert_eq!(lone.mids()[..2], [Mid::Data, Mid::SrcAvail]);
}

/// Longer buffers are fewer: their number is judged by itself, not by that of the shorter ones,
/// and the receives of the old length are to be used up.
#[test]
fn after_a_resize_a_small_send_is_not_held_back_for_ever() {
    let peer = Hello {
        bufs: 30,
        ..hello()
    };
    let mut lone = Lone::called_by(
        &peer,
        Config {
            zcopy_threshold: ZcopyThreshold::Off,
            recv_buffer_len: LARGE,
            ..Config::default()
        },
    );
    lone.bufs = 30;
    while !lone.mids().contains(&Mid::ChRcvBuf) {
        lone.send_all(100_000);
        lone.peer(Body::Data, 0);
    }
    // No more of the old length are posted: they run out.
    lone.see_all();
    lone.bufs = 6;
    lone.peer(Body::Data, 0);
    assert!(!small_send_is_held_back(&mut lone), "while it is asked for");
    lone.see_all();
    lone.bufs = 8;
    lone.peer(Body::ChRcvBufAck { size: LARGE }, 0);
    assert!(!small_send_is_held_back(&mut lone), "after it is answered");
}

/// A send that is short of a message but too long to be copied twice is not held back for others, and
/// without credits it waits for them, but no longer than a reader may take that is there.
#[test]
fn a_send_of_middling_length_waits_a_moment_for_credits() {
    const MIDDLING: usize = 20 << 10;
    let peer = Hello {
        bufs: 30,
        local_recv_size: 32 << 10,
        ..hello()
    };
    let config = Config {
        rendezvous_wait: Duration::MAX,
        rendezvous_wait_min: Duration::MAX,
        ..Config::default()
    };
    let mut lone = Lone::called_by(&peer, config);
    lone.bufs = 6;
    lone.peer(Body::Data, 0);
    lone.see_all();
    lone.send_all(MIDDLING);
    assert!(lone.see_all().contains(&Mid::Data));

    lone.bufs = 2;
    lone.peer(Body::Data, 0);
    lone.drain();
    let (id, step) = lone.send(MIDDLING);
    assert_eq!(step, SendStep::Wait);
    let until = lone.conn.poll_timeout().expect("it has an end");
    lone.now = until.as_nanos() - 1;
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    lone.pass(1);
    assert!(until.as_nanos() < 10_000_000, "{until:?}");
    assert_eq!(lone.copy_out(id), (SendStep::Done(Ok(MIDDLING)), MIDDLING));
    assert!(!lone.mids().contains(&Mid::Data));
}
