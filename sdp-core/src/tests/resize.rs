//! Receive buffers that grow and shrink.

use core::time::Duration;
use std::vec::Vec;

use sdp_wire::{Body, Mid};

use super::util::lone::Lone;
use super::util::op::Op;
use super::util::world::{Laws, World};
use crate::{Action, Config, ConnectionError, ZcopyThreshold};

const SMALL: u32 = 4_200;
const LARGE: u32 = 12_000;

fn config() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Off,
        recv_buffer_len_initial: SMALL,
        recv_buffer_len: LARGE,
        idle_wait: Duration::from_millis(10),
        nodelay: true,
        ..Config::default()
    }
}

/// Lengths of the receives posted since the last look.
fn lens(lone: &mut Lone) -> Vec<u32> {
    core::mem::take(&mut lone.posted_lens)
}

/// Payload lengths of the Data sent since the last look.
fn payloads(lone: &mut Lone) -> Vec<u32> {
    let data = lone.sent.iter().map(|(head, _)| head);
    let lens = data
        .filter(|head| head.mid() == Mid::Data && head.payload_len > 0)
        .map(|head| head.payload_len)
        .collect();
    lone.see_all();
    lens
}

#[test]
fn a_larger_size_is_in_force_when_the_last_receive_of_the_old_one_is_used_up() {
    let mut lone = Lone::new(config());
    assert_eq!(lens(&mut lone), [SMALL; 4]);
    lone.peer(Body::ChRcvBuf { size: 8_000 }, 0);
    // The receive that the request came into is posted again, with the new length.
    assert_eq!(lens(&mut lone), [8_000]);
    for left in (1..=3).rev() {
        assert!(
            !lone.mids().contains(&Mid::ChRcvBufAck),
            "{left} old ones are posted"
        );
        lone.peer(Body::Data, 0);
    }
    let size = 8_000;
    assert_eq!(lone.find(Mid::ChRcvBufAck).body, Body::ChRcvBufAck { size });
    assert_eq!(lens(&mut lone), [8_000; 3]);
}

/// The larger size was granted whether or not there was memory: without it nothing was posted any
/// more, and the connection stood still.
#[test]
fn a_size_that_there_is_no_memory_for_is_not_granted() {
    for after in 0..4 {
        let mut lone = Lone::new(config());
        lens(&mut lone);
        if after == 0 {
            lone.recv_len_max = SMALL;
        }
        lone.peer(Body::ChRcvBuf { size: 8_000 }, 0);
        for used_up in 1..4 {
            if used_up == after {
                assert!(!lone.mids().contains(&Mid::ChRcvBufAck));
                lone.recv_len_max = SMALL;
            }
            lone.peer(Body::Data, 0);
        }
        let size = SMALL;
        assert_eq!(lone.find(Mid::ChRcvBufAck).body, Body::ChRcvBufAck { size });
        let lens = lens(&mut lone);
        assert_eq!(lens.len(), 4, "{lens:?}");
        assert!(lens[after..].iter().all(|len| *len == SMALL), "{lens:?}");
    }
}

#[test]
fn a_smaller_size_is_in_force_at_once_and_memory_is_given_back() {
    let mut lone = Lone::new(config());
    lone.peer(Body::ChRcvBuf { size: LARGE }, 0);
    for _ in 0..4 {
        lone.peer(Body::Data, 0);
    }
    lone.see_all();
    lens(&mut lone);
    lone.peer(Body::ChRcvBuf { size: 5_000 }, 0);
    let size = 5_000;
    assert_eq!(lone.find(Mid::ChRcvBufAck).body, Body::ChRcvBufAck { size });
    assert_eq!(lens(&mut lone), [5_000]);
    // Not below what this side began with.
    lone.see_all();
    lone.peer(Body::ChRcvBuf { size: 100 }, 0);
    let size = SMALL;
    assert_eq!(lone.find(Mid::ChRcvBufAck).body, Body::ChRcvBufAck { size });
}

#[test]
fn what_cannot_be_granted_is_answered_with_the_size_in_force() {
    let mut lone = Lone::new(config());
    lone.peer(Body::ChRcvBuf { size: 100_000 }, 0);
    for _ in 0..4 {
        lone.peer(Body::Data, 0);
    }
    assert_eq!(
        lone.find(Mid::ChRcvBufAck).body,
        Body::ChRcvBufAck { size: LARGE }
    );
    lone.see_all();
    lone.peer(Body::ChRcvBuf { size: 100_000 }, 0);
    assert_eq!(
        lone.find(Mid::ChRcvBufAck).body,
        Body::ChRcvBufAck { size: LARGE }
    );
    lone.see_all();
    lone.peer(Body::ChRcvBuf { size: LARGE }, 0);
    assert_eq!(
        lone.find(Mid::ChRcvBufAck).body,
        Body::ChRcvBufAck { size: LARGE }
    );
}

/// A peer of 4,096 bytes has been sent four full messages and been asked for more.
fn asked() -> Lone {
    let mut lone = Lone::new(Config {
        recv_buffer_len: 32_000,
        ..config()
    });
    lone.bufs = 20;
    lone.peer(Body::Data, 0);
    lone.see_all();
    lone.send_all(4 * 4_080);
    let ask = lone.find(Mid::ChRcvBuf).body;
    assert_eq!(ask, Body::ChRcvBuf { size: 32_000 });
    assert_eq!(payloads(&mut lone), [4_080; 4]);
    lone
}

#[test]
fn a_larger_size_is_used_from_the_answer_on() {
    let mut lone = asked();
    lone.send_all(10_000);
    assert_eq!(payloads(&mut lone), [4_080, 4_080, 1_840]);
    lone.peer(Body::ChRcvBufAck { size: 33_000 }, 0);
    lone.send_all(10_000);
    assert_eq!(payloads(&mut lone), [10_000]);
}

/// Memory of a message of the first length can always be had, of a longer one only when there is some.
#[test]
fn a_larger_size_is_not_used_while_memory_is_scarce() {
    let mut lone = asked();
    lone.peer(Body::ChRcvBufAck { size: 32_000 }, 0);
    lone.conn.set_memory_scarce(lone.instant(), true);
    lone.send_all(10_000);
    assert_eq!(payloads(&mut lone), [4_184, 4_184, 1_632]);
    lone.conn.set_memory_scarce(lone.instant(), false);
    lone.send_all(10_000);
    assert_eq!(payloads(&mut lone), [10_000]);
}

#[test]
fn who_has_refused_is_not_asked_again() {
    let mut lone = asked();
    // This peer's numbers leave out the header.
    lone.peer(Body::ChRcvBufAck { size: 4_080 }, 0);
    for _ in 0..3 {
        lone.send_all(5 * 4_064);
        lone.peer(Body::Data, 0);
        assert!(!lone.mids().contains(&Mid::ChRcvBuf));
        assert_eq!(payloads(&mut lone), [4_064; 5]);
    }
}

#[test]
fn an_idle_peer_is_asked_for_its_first_size_which_is_obeyed_at_once() {
    let mut lone = asked();
    lone.peer(Body::ChRcvBufAck { size: 32_000 }, 0);
    lone.pass(9_000_000);
    assert_eq!(lone.mids(), []);
    lone.pass(1_000_000);
    assert_eq!(
        lone.find(Mid::ChRcvBuf).body,
        Body::ChRcvBuf { size: 4_096 }
    );
    assert!(lone.conn.awaits_housekeeping());
    lone.send_all(10_000);
    assert_eq!(payloads(&mut lone), [4_080, 4_080, 1_840]);
    // Whatever the peer makes of it holds from its answer on.
    lone.peer(Body::ChRcvBufAck { size: 6_000 }, 0);
    assert_eq!(lone.conn.peer().unwrap().recv_buffer_len, 6_000);
}

#[test]
fn receives_of_the_old_size_are_used_up_at_an_idle_peer() {
    let mut lone = asked();
    lone.peer(Body::ChRcvBufAck { size: 32_000 }, 0);
    lone.pass(10_000_000);
    assert_eq!(lone.see_all(), [Mid::ChRcvBuf, Mid::Data]);
    lone.peer(Body::ChRcvBufAck { size: 4_096 }, 0);
    // Twenty credits, of which two are kept; the peer gives more, and gets the rest.
    assert_eq!(lone.mids(), [Mid::Data; 18]);
    assert!(lone.sent.iter().all(|(head, _)| head.payload_len == 0));
    lone.see_all();
    lone.peer(Body::Data, 0);
    assert_eq!(lone.see_all().len(), 2);
    assert!(!lone.conn.awaits_housekeeping());
}

#[test]
fn rules_of_resizing() {
    let mut twice = Lone::new(config());
    twice.peer(Body::ChRcvBuf { size: LARGE }, 0);
    twice.peer(Body::ChRcvBuf { size: LARGE }, 0);
    assert!(twice.broken_rule().starts_with("§3.4: a second ChRcvBuf"));

    let mut unasked = Lone::new(config());
    unasked.peer(Body::ChRcvBufAck { size: SMALL }, 0);
    assert!(
        unasked
            .broken_rule()
            .starts_with("§3.4: ChRcvBufAck without")
    );

    let mut less = asked();
    less.peer(Body::ChRcvBufAck { size: 4_079 }, 0);
    assert!(
        less.broken_rule()
            .starts_with("§3.4: ChRcvBufAck of less than before")
    );

    for (size, rule) in [(4_079, "of less than was"), (32_001, "of more than before")] {
        let mut wrong = asked();
        wrong.peer(Body::ChRcvBufAck { size: 32_000 }, 0);
        wrong.pass(10_000_000);
        wrong.see_all();
        wrong.peer(Body::ChRcvBufAck { size }, 0);
        let Some(Some(ConnectionError::PeerMisbehaved(broken))) = wrong.closed() else {
            panic!("{size} was taken");
        };
        assert!(broken.contains(rule), "{broken}");
    }
}

#[test]
fn a_request_that_crosses_ours_is_disregarded_by_the_accepting_side() {
    let mut lone = Lone::new(Config {
        recv_buffer_len: 32_000,
        ..config()
    });
    lone.bufs = 20;
    lone.peer(Body::Data, 0);
    let seen = lone.seen;
    lone.send_all(4 * 4_080);
    assert!(lone.mids().contains(&Mid::ChRcvBuf));
    lone.see_all();
    let after = core::mem::replace(&mut lone.seen, seen);
    lone.peer(Body::ChRcvBuf { size: 5_000 }, 0);
    assert_eq!(
        lens(&mut lone).last(),
        Some(&SMALL),
        "it was not disregarded"
    );
    // Ours stands, and the peer may ask again once it has seen it.
    lone.seen = after;
    lone.peer(Body::ChRcvBufAck { size: 32_000 }, 0);
    lone.peer(Body::ChRcvBuf { size: 5_000 }, 0);
    assert_eq!(lens(&mut lone).last(), Some(&5_000));
}

/// The peer, which made the connection, would take ours for one asked for in knowledge of its own,
/// and wait for an answer to that: but it is disregarded.
#[test]
fn a_request_does_not_confirm_what_came_after_it_was_queued() {
    let mut lone = asked();
    lone.peer(Body::ChRcvBufAck { size: 32_000 }, 0);
    lone.see_all();
    let seen = lone.mseq - 1;
    // Both are handed in before the first action is carried out.
    lone.now += 10_000_000;
    lone.conn.handle_timeout(lone.instant());
    lone.peer(Body::ChRcvBuf { size: LARGE }, 0);
    assert_eq!(lone.find(Mid::ChRcvBuf).mseq_ack, seen);
    assert!(!lone.mids().contains(&Mid::ChRcvBufAck));
}

/// Both sides send much, then rest: buffers grow, whoever asked first, and shrink again.
#[test]
fn buffers_grow_both_ways_and_shrink_when_idle() {
    for seed in 1..30 {
        let laws = Laws {
            jitter: 3_000,
            copy: 200,
            seed,
            ..Laws::default()
        };
        let mut world = World::connected_with([config(), config()], laws);
        let few: usize = world.nics[0].buffer_memory();
        assert_eq!(few, 4 * SMALL as usize);
        for side in 0..2 {
            let sends = (0..40).map(|_| Op::send(10_000));
            world.spawn(side, sends);
            world.spawn(side, (0..40).map(|_| Op::recv_all(10_000)));
        }
        world.run_until(|world| {
            let large = |nic: &super::util::nic::Nic| nic.buffer_memory() > 4 * few;
            world.nics.iter().all(large)
        });
        world.finish();
        for nic in &world.nics {
            assert_eq!(nic.conn.peer().unwrap().recv_buffer_len, LARGE);
        }
        world.run();
        for nic in &world.nics {
            assert_eq!(nic.conn.peer().unwrap().recv_buffer_len, SMALL);
            assert!(
                nic.buffer_memory() <= 2 * few,
                "{} bytes stay",
                nic.buffer_memory()
            );
            assert!(!nic.conn.awaits_housekeeping());
            assert_eq!(nic.conn.poll_housekeeping(), None);
        }
        // And again.
        for side in 0..2 {
            world.spawn(side, [Op::send(200_000), Op::ShutSend]);
            world.spawn(side, [Op::RecvToEnd { len: 50_000 }]);
        }
        world.finish();
        world.assert_delivered();
    }
}

/// A receive that has never been posted was to have the larger length, and there was no memory for it.
/// It was taken for one that had memory of the old length, and given back when memory was scarce.
#[test]
fn a_buffer_that_never_had_memory_is_not_given_back() {
    let mut lone = Lone::new(config());
    lone.peer(Body::ChRcvBuf { size: 8_000 }, 0);
    let had = lone.posted.clone();
    assert_eq!(lens(&mut lone).last(), Some(&8_000), "it grows");
    // Unread bytes keep their receives, so what the peer is given more of are new ones.
    lone.recv_len_max = SMALL;
    while lone.refused.is_empty() {
        lone.peer_queued(Body::Data, 10);
        lone.conn.set_memory_scarce(lone.instant(), true);
        lone.drain();
        lone.conn.set_memory_scarce(lone.instant(), false);
    }
    assert!(!had.contains(&lone.refused[0]), "{:?}", lone.refused);
    assert!(!lone.actions.contains(&Action::FreeRecv(lone.refused[0])));
}

/// A buffer is never freed while it is posted or holds bytes: the world checks.
#[test]
fn freed_buffers_are_posted_with_memory_of_the_new_length() {
    let mut lone = Lone::new(config());
    lone.peer(Body::ChRcvBuf { size: LARGE }, 0);
    for _ in 0..12 {
        lone.peer(Body::Data, 100);
    }
    lone.actions.clear();
    lone.recv_all(1_200);
    lone.peer(Body::ChRcvBuf { size: SMALL }, 0);
    let freed = |action: &Action| matches!(action, Action::FreeRecv(_));
    assert!(lone.actions.iter().any(freed));
    assert_eq!(lens(&mut lone).last(), Some(&LARGE));
}
