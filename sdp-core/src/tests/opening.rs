//! Where the side that connected must send first.

use sdp_wire::{Body, HELLO_ACK_LEN, Mid};

use super::util::lone::{HELLO_ACK, Lone};
use super::util::op::Op;
use super::util::world::{Laws, World};
use crate::connection::Connection;
use crate::{Action, CmInput, Completion, Config, ConnectionError, Event, Instant, WorkId};

const MS: u64 = 1_000_000;

fn config() -> Config {
    Config {
        caller_first: true,
        ..Config::default()
    }
}

#[test]
fn the_side_that_accepted_is_silent_until_it_hears_something() {
    let mut lone = Lone::accepted(config());
    lone.actions.clear();
    lone.conn.handle_cm(lone.instant(), CmInput::Established);
    lone.drain();
    assert!(lone.conn.is_connected());
    lone.conn.shutdown_send(lone.instant());
    lone.pass(9_999 * MS);
    assert!(lone.is_alive());
    assert_eq!(lone.mids(), []);
    lone.peer(Body::Data, 0);
    assert_eq!(lone.mids(), [Mid::Data, Mid::DisConn]);
    assert_eq!(lone.sent[0].0.payload_len, 0, "the answer");
    assert!(lone.solicited.contains(&1), "which wakes the peer");
    // Its time was for the first message only.
    lone.pass(60_000 * MS);
    assert!(lone.is_alive());
}

/// The answer was queued before the message's own word on credits was read: it was one too many for a
/// peer that had fewer receives left than its Hello had told.
#[test]
fn the_answer_has_a_credit_by_the_first_message() {
    for confirmed in [true, false] {
        let mut lone = Lone::accepted(config());
        if confirmed {
            lone.conn.handle_cm(lone.instant(), CmInput::Established);
        }
        lone.bufs = 0;
        lone.peer(Body::Data, 0);
        assert_eq!(lone.mids(), []);
        lone.bufs = 4;
        lone.conn.shutdown_send(lone.instant());
        lone.peer(Body::Data, 0);
        assert_eq!(lone.mids(), [Mid::DisConn]);
    }
}

#[test]
fn a_peer_that_connects_and_says_nothing_is_given_up() {
    let mut lone = Lone::accepted(config());
    lone.conn.handle_cm(lone.instant(), CmInput::Established);
    lone.pass(10_000 * MS);
    let told = lone.closed();
    assert!(
        matches!(told, Some(Some(ConnectionError::TimedOut(_)))),
        "{told:?}"
    );
}

/// The side that connects, when it has its answer.
fn connected() -> Connection {
    let now = Instant::from_nanos(0);
    let mut conn = Connection::connect(now, config(), 1, None, None);
    while conn.poll_action().is_some() {}
    let mut bytes = [0; HELLO_ACK_LEN];
    HELLO_ACK.encode(&mut bytes);
    conn.handle_cm(now, CmInput::Response(&bytes));
    assert_eq!(conn.poll_action(), Some(Action::Establish));
    assert_eq!(conn.poll_event(), Some(Event::Connected));
    conn
}

/// Messages posted and knocks since the last look.
fn sent(conn: &mut Connection) -> (usize, alloc::vec::Vec<WorkId>) {
    let (mut messages, mut knocks) = (0, alloc::vec::Vec::new());
    while let Some(action) = conn.poll_action() {
        match action {
            Action::PostSend(_) => messages += 1,
            Action::Knock { work } => knocks.push(work),
            other => panic!("{other:?}"),
        }
    }
    (messages, knocks)
}

#[test]
fn the_side_that_connected_speaks_at_once_and_knocks_until_it_is_answered() {
    let mut conn = connected();
    assert_eq!(sent(&mut conn), (1, alloc::vec![]));
    let mut times = alloc::vec::Vec::new();
    for ms in 1..10_000 {
        let now = Instant::from_nanos(ms * MS);
        conn.handle_timeout(now);
        let (messages, knocks) = sent(&mut conn);
        assert_eq!(messages, 0);
        for knock in knocks {
            times.push(ms);
            conn.handle_completion(now, knock, Completion::Success);
        }
    }
    assert_eq!(times, [5, 15, 35, 75, 155, 315, 635, 1275]);
    assert!(!conn.is_closed(), "who hears nothing may be slow");
}

#[test]
fn no_call_waits_for_the_knocking() {
    let conn = connected();
    assert_eq!(conn.poll_timeout(), None);
    assert_eq!(conn.poll_housekeeping(), Some(Instant::from_nanos(5 * MS)));
}

#[test]
fn a_knock_that_fails_is_the_end_of_the_transport() {
    let mut conn = connected();
    sent(&mut conn);
    let now = Instant::from_nanos(5 * MS);
    conn.handle_timeout(now);
    let (_, knocks) = sent(&mut conn);
    conn.handle_completion(now, knocks[0], Completion::Unanswered);
    assert!(conn.is_closed());
}

/// Both sides have ended their halves, the one that was called back before it was, but the other one
/// was not heard yet on the new queue pair: what it said would be lost with that.
#[test]
fn who_is_not_heard_yet_does_not_end_the_connection() {
    for seed in 0..50 {
        let laws = Laws {
            seed,
            opening: Some(30 * MS),
            ..Laws::default()
        };
        let configs = [Config::default(), Config::default()];
        let mut world = World::connected_with(configs, laws);
        world.spawn(0, [Op::ShutSend, Op::Sleep(100_000), Op::Move]);
        world.spawn(0, [Op::RecvToEnd { len: 100 }]);
        world.spawn(1, [Op::Sleep(103_000), Op::send(34), Op::ShutSend]);
        world.spawn(1, [Op::RecvToEnd { len: 100 }]);
        world.finish();
        world.assert_delivered();
        assert_eq!(world.nics.iter().map(|nic| nic.pair).max(), Some(1));
    }
}
