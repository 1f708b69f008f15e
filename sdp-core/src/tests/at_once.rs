//! Small calls without a turn: the same messages and counts as with one, and none where something else
//! is to be done first.

use sdp_wire::{Body, Flags, Head, Hello, Mid, ServiceId};

use super::util::lone::{Lone, hello};
use super::write::{COUNTED, finish_writes, offer, pipelined};
use crate::{
    CallError, Config, CopyReason, EndCall, Event, PostSend, RecvStep, SendRequest, SendStep,
    ZcopyThreshold,
};

/// A connection whose peer has many buffers free.
fn rich() -> Lone {
    let peer = Hello {
        bufs: 30,
        ..hello()
    };
    let config = Config {
        recv_buffers_initial: 16,
        ..Config::default()
    };
    let mut lone = Lone::called_by(&peer, config);
    lone.bufs = 30;
    while lone.conn.poll_event().is_some() {}
    lone
}

fn send_at_once(lone: &mut Lone, len: usize) -> Option<PostSend> {
    lone.conn
        .send_at_once(len, Some(CopyReason::BelowThreshold))
}

fn head(send: &PostSend) -> Head {
    let total = send.head_len + send.payload.byte_len() as usize;
    Head::decode(&send.head, total).unwrap()
}

fn goes(lone: &mut Lone) -> bool {
    send_at_once(lone, 10).is_some()
}

/// Two connections that are told the same, of which one takes turns.
#[test]
fn the_message_is_the_one_that_a_turn_gives() {
    let (mut fast, mut slow) = (rich(), rich());
    let mut at_once = 0;
    for n in 1..2000_u32 {
        let len = n as usize % 900 + 1;
        slow.send_all(len);
        match send_at_once(&mut fast, len) {
            Some(send) => {
                at_once += 1;
                assert!(fast.conn.poll_action().is_none(), "message {n}");
                assert!(fast.conn.poll_event().is_none(), "message {n}");
                fast.seen = n;
                assert_eq!(head(&send), slow.find(Mid::Data), "message {n}");
                assert_eq!(send.solicited, slow.solicited.contains(&n), "message {n}");
                assert_eq!(send.work, None, "message {n}");
            }
            None => {
                fast.send_all(len);
                assert_eq!(fast.find(Mid::Data), slow.find(Mid::Data), "message {n}");
                assert_eq!(fast.last_work, slow.last_work, "message {n}");
            }
        }
        assert_eq!(fast.conn.poll_timeout(), slow.conn.poll_timeout());
        let housekeeping = |lone: &Lone| lone.conn.poll_housekeeping();
        assert_eq!(housekeeping(&fast), housekeeping(&slow));
        for lone in [&mut fast, &mut slow] {
            lone.seen = n;
            lone.sent.clear();
            if let Some(work) = lone.last_work.take() {
                lone.complete(work, crate::Completion::Success);
            }
            // It reads, and says something now and then.
            lone.peer(Body::Data, if n % 3 == 0 { 40 } else { 0 });
            if n % 3 == 0 {
                lone.recv_all(40);
            }
            lone.drain();
            while lone.conn.poll_event().is_some() {}
        }
    }
    assert_eq!(fast.conn.stats(), slow.conn.stats());
    assert!(at_once > 1500, "{at_once}");
}

#[test]
fn none_goes_before_what_waits() {
    let lone = &mut rich();
    assert!(goes(lone));
    // Another call has the turn: its copy is being made.
    let (id, step) = lone.send(10);
    assert!(!goes(lone));
    let SendStep::Copy { len, to, .. } = step else {
        panic!("{step:?}");
    };
    lone.send_copied(id, len, to);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(10)));
    assert!(goes(lone));

    // Few credits: small sends are gathered, and so lie in private memory.
    lone.bufs = 10;
    lone.peer(Body::Data, 0);
    lone.drain();
    assert!(!goes(lone));
    lone.send_all(10);
    assert_ne!(lone.conn.unsent_len(), 0);
    lone.conn.set_nodelay(true);
    assert!(!goes(lone));

    // Not without gathering, either, while the driver has something to do first.
    let lone = &mut rich();
    lone.peer_queued(Body::Data, 10);
    assert!(!goes(lone));
    lone.drain();
    assert!(goes(lone));
}

/// As long as somebody who was turned away has not been told that there is room.
#[test]
fn none_goes_while_somebody_was_turned_away() {
    let lone = &mut rich();
    let (id, step) = lone.send(10);
    let SendStep::Copy { len, to, .. } = step else {
        panic!("{step:?}");
    };
    let hasty = SendRequest {
        len: 10,
        segment_ends: [10].into_iter().collect(),
        nonblocking: true,
        urgent: false,
        registered: false,
        copy_reason: None,
    };
    lone.send_copied(id, len, to);
    let other = lone.conn.send_start(lone.instant(), hasty);
    assert_eq!(
        lone.poll_send(other),
        SendStep::Done(Err(CallError::WouldBlock))
    );
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(10)));
    while lone.conn.poll_event().is_some() {}
    assert!(!goes(lone));
    lone.peer(Body::Data, 0);
    lone.drain();
    assert_eq!(lone.conn.poll_event(), Some(Event::SendReady));
    assert!(goes(lone));
}

/// Nothing leaves the queue pair that is about to be left.
#[test]
fn none_goes_during_a_move() {
    let lone = &mut rich();
    let service = ServiceId::resuming_at(5, 0xBEEF << 40);
    lone.conn.suspend(lone.instant(), service).unwrap();
    lone.drain();
    assert!(!goes(lone));
}

/// An offer that crossed such a message is stale, as behind any other.
#[test]
fn what_goes_is_counted_against_offers() {
    let mut lone = pipelined();
    assert!(goes(&mut lone));
    lone.seen += 1;
    offer(&mut lone, 50_000, COUNTED);
    let (id, _) = lone.send(10_000);
    assert!(
        finish_writes(&mut lone).is_empty(),
        "written into a stale offer"
    );
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
}

#[test]
fn none_takes_the_last_credits() {
    let nodelay = Config {
        nodelay: true,
        ..Config::default()
    };
    let mut lone = Lone::new(nodelay);
    let mut gone = 0;
    while goes(&mut lone) {
        gone += 1;
    }
    // Of eight credits three are what payload needs, and the message that leaves no more is for
    // a turn.
    assert_eq!(gone, 5);
    lone.send_all(10);
    assert!(lone.mids().contains(&Mid::Data));
}

#[test]
fn none_goes_where_sends_end() {
    let mut early = Lone::accepted(Config::default());
    early.conn.shutdown_send(early.instant());
    assert!(!goes(&mut early));
    let lone = &mut rich();
    lone.conn.shutdown_send(lone.instant());
    lone.drain();
    assert!(!goes(lone));
    let lone = &mut rich();
    lone.conn.abort(lone.instant());
    assert!(!goes(lone));
    lone.drain();
    assert!(!goes(lone));
}

#[test]
fn neither_nothing_nor_a_full_message_goes() {
    let lone = &mut rich();
    let max = 4096 - sdp_wire::BSDH_LEN;
    assert!(send_at_once(lone, 0).is_none());
    assert!(send_at_once(lone, max).is_none());
    assert!(send_at_once(lone, max - 1).is_some());
}

/// What may be advertised is.
#[test]
fn none_that_reaches_the_threshold_goes() {
    let config = Config {
        zcopy_threshold: ZcopyThreshold::Bytes(1000),
        ..Config::default()
    };
    let lone = &mut Lone::new(config);
    assert!(lone.conn.send_at_once(1000, None).is_none());
    assert!(lone.conn.send_at_once(999, None).is_some());
    lone.conn.set_threshold(ZcopyThreshold::Off);
    assert!(lone.conn.send_at_once(1000, None).is_some());
    let counted = |reason| lone.conn.stats().copies[reason as usize];
    assert_eq!(counted(CopyReason::BelowThreshold), (1, 999));
    assert_eq!(counted(CopyReason::ThresholdOff), (1, 1000));
}

/// Receives one message and says what is found, taking it.
fn receive(lone: &mut Lone, len: usize) -> Option<usize> {
    let found = lone.conn.found_at_once(len)?;
    let now = lone.instant();
    lone.conn.received_at_once(now, found);
    lone.drain();
    Some(found.len)
}

/// The peer gets the same credits back, and the counts are the same.
#[test]
fn what_is_received_is_what_a_turn_gives() {
    let (mut fast, mut slow) = (rich(), rich());
    for n in 1..500 {
        let len = n % 900 + 1;
        for lone in [&mut fast, &mut slow] {
            lone.peer(Body::Data, len);
            lone.drain();
        }
        // Some in two parts.
        let parts = if n % 5 == 0 && len > 7 {
            [7, len as usize - 7]
        } else {
            [len as usize, 0]
        };
        for part in parts.into_iter().filter(|part| *part > 0) {
            assert_eq!(receive(&mut fast, part), Some(part), "message {n}");
            slow.recv_all(part);
        }
        assert_eq!(fast.sent, slow.sent, "message {n}");
        assert_eq!(fast.conn.poll_timeout(), slow.conn.poll_timeout());
        let housekeeping = |lone: &Lone| lone.conn.poll_housekeeping();
        assert_eq!(housekeeping(&fast), housekeeping(&slow));
        for lone in [&mut fast, &mut slow] {
            let updates = u32::try_from(lone.sent.len()).unwrap();
            lone.seen += updates;
            lone.sent.clear();
        }
    }
    assert_eq!(fast.posted_count, slow.posted_count);
    assert_eq!(fast.conn.stats(), slow.conn.stats());
}

#[test]
fn nothing_is_taken_from_under_a_receive_that_waits() {
    let lone = &mut rich();
    let (id, step) = lone.recv(10);
    assert_eq!(step, RecvStep::Wait);
    lone.peer(Body::Data, 10);
    lone.drain();
    assert_eq!(receive(lone, 10), None);
    assert_eq!(lone.copy_in(id), RecvStep::Done(Ok(10)));
}

/// A receive that may return more than one message has does so.
#[test]
fn less_than_there_is_is_not_received() {
    let lone = &mut rich();
    for _ in 0..2 {
        lone.peer(Body::Data, 10);
        lone.drain();
    }
    assert_eq!(receive(lone, 30), None);
    assert_eq!(receive(lone, 4), Some(4));
    assert_eq!(receive(lone, 7), None);
    assert_eq!(receive(lone, 6), Some(6));
    assert_eq!(receive(lone, 30), Some(10));
    assert_eq!(receive(lone, 1), None);
}

#[test]
fn low_water_urgent_bytes_adverts_and_ends_are_for_a_turn() {
    let lone = &mut rich();
    lone.conn.set_recv_low_water(11);
    lone.peer(Body::Data, 10);
    lone.drain();
    assert_eq!(receive(lone, 20), None);
    assert_eq!(receive(lone, 10), Some(10));
    lone.conn.set_recv_low_water(1);

    let mut head = lone.next_head(Body::Data, 10);
    head.flags = Flags::OOB_PRES;
    lone.peer_head(head, None);
    lone.drain();
    assert_eq!(receive(lone, 10), None);

    let advertising = Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4096),
        ..Config::default()
    };
    let lone = &mut Lone::new(advertising);
    lone.peer_advertises(100_000, 10);
    lone.drain();
    assert_eq!(receive(lone, 10), None);

    let lone = &mut rich();
    lone.peer(Body::Data, 10);
    lone.conn.shutdown_recv(lone.instant());
    lone.drain();
    assert_eq!(receive(lone, 10), None);
}
