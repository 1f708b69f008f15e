//! The handshake, copies both ways, credits, and the end.

use core::time::Duration;

use sdp_wire::{Body, ModeChange};

use super::util::copying;
use super::util::lone::Lone;
use super::util::op::Op;
use super::util::world::{Laws, World};
use crate::{CallError, Config, Event, Phase};

#[test]
fn the_handshake_connects_both_sides() {
    let world = World::connected(&copying());
    for nic in &world.nics {
        assert!(nic.events.contains(&Event::Connected));
        assert_eq!(nic.conn.phase(), Phase::Open);
        assert_eq!(nic.conn.peer().unwrap().adverts_max, 16);
    }
}

#[test]
fn a_lost_confirmation_is_made_up_for_by_the_first_message() {
    let laws = Laws {
        lose_rtu: true,
        ..Laws::default()
    };
    let mut world = World::new([copying(), copying()], laws);
    world.spawn(0, [Op::send(100), Op::ShutSend, Op::RecvToEnd { len: 10 }]);
    world.spawn(
        1,
        [
            Op::recv_all(100),
            Op::send(7),
            Op::ShutSend,
            Op::RecvToEnd { len: 1 },
        ],
    );
    world.finish();
    world.assert_delivered();
}

#[test]
fn small_and_large_copies_arrive_in_order_both_ways() {
    let mut world = World::connected(&copying());
    for side in 0..2 {
        let sends = [1, 2, 3, 1000, 40_000, 200_000, 5_000_000, 1].map(Op::send);
        world.spawn(side, sends.into_iter().chain([Op::ShutSend]));
        world.spawn(side, [Op::RecvToEnd { len: 70_000 }]);
    }
    world.finish();
    world.assert_delivered();
    world.run();
    assert!(world.nics.iter().all(|nic| nic.conn.is_closed()));
    assert!(
        world
            .nics
            .iter()
            .all(|nic| nic.events.contains(&Event::Closed(None)))
    );
}

#[test]
fn a_send_into_silence_returns_at_once_and_is_one_message() {
    let mut world = World::connected(&copying());
    let before = world.nics[0].log.len();
    world.spawn(0, [Op::send(100)]);
    world.spawn(1, [Op::recv(1000)]);
    world.finish();
    assert_eq!(world.outcomes(1, 0), [Ok(100)]);
    world.run();
    assert_eq!(world.nics[0].log.len() - before, 1);
}

#[test]
fn half_close_lets_the_other_half_go_on() {
    let mut world = World::connected(&copying());
    world.spawn(
        0,
        [
            Op::send(10),
            Op::ShutSend,
            Op::send(1),
            Op::RecvToEnd { len: 1000 },
        ],
    );
    world.spawn(
        1,
        [
            Op::RecvToEnd { len: 1000 },
            Op::Sleep(1_000_000),
            Op::send(5000),
            Op::ShutSend,
        ],
    );
    world.finish();
    assert_eq!(world.outcomes(0, 0)[1], Err(CallError::BrokenPipe));
    world.assert_delivered();
}

#[test]
fn a_nonblocking_receive_of_nothing_would_block() {
    let mut world = World::connected(&copying());
    world.spawn(0, [Op::try_recv(10), Op::recv_for(10, 5_000)]);
    world.finish();
    let would_block = Err(CallError::WouldBlock);
    assert_eq!(world.outcomes(0, 0), [would_block, would_block]);
}

/// A message was numbered when its receive was to be posted, and went with the last credit though
/// there was no memory for the receive.
#[test]
fn the_last_credit_goes_for_a_receive_that_is_posted() {
    let mut lone = Lone::new(copying());
    (lone.bufs, lone.recv_len_max) = (1, 0);
    lone.peer(Body::Data, 10);
    lone.peer(Body::Data, 10);
    lone.peer(Body::ModeChange(ModeChange::RecvPipelined), 0);
    assert_eq!(lone.sent, []);
    lone.recv_len_max = u32::MAX;
    lone.pass(20_000_000);
    let [(head, _)] = lone.sent[..] else {
        panic!("not one update: {:?}", lone.sent);
    };
    assert!(head.mseq_ack + u32::from(head.bufs) > 4);
}

/// As above, with memory: what goes with the last credit goes as soon as the receive is posted.
#[test]
fn an_answer_goes_with_the_last_credit_once_the_receive_is_posted() {
    let mut lone = Lone::new(copying());
    lone.bufs = 1;
    lone.peer(Body::ChRcvBuf { size: 4_096 }, 0);
    let answer = lone.find(sdp_wire::Mid::ChRcvBufAck);
    assert!(answer.mseq_ack + u32::from(answer.bufs) > 4);
}

/// What was received in small pieces was copied to private memory between any two of them; then, where
/// senders wait for readers for ever, what fits SO_RCVBUF was not taken any more.
#[test]
fn who_has_just_read_is_given_time_to_read_on() {
    for rendezvous_wait in [Duration::from_millis(2), Duration::MAX] {
        let mut lone = Lone::new(Config {
            recv_buffers_max: 4,
            rendezvous_wait,
            ..copying()
        });
        let posted = lone.posted_count;
        lone.peer(Body::Data, 4_000);
        lone.recv_all(10);
        // The last credit but the two for messages without payload.
        lone.peer(Body::Data, 4_000);
        assert_eq!(lone.posted_count, posted, "buffers were emptied");
        lone.pass(1_000_000);
        assert_eq!(lone.posted_count, posted, "within the time");
        // Nobody comes: the peer goes on by what is moved.
        lone.pass(2_000_000);
        assert!(lone.posted_count > posted, "nothing was moved");
    }
}
