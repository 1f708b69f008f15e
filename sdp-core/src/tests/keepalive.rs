//! Signs of life, and bytes that nobody takes.

use core::time::Duration;

use sdp_wire::{Body, Mid};

use super::util::lone::Lone;
use crate::{
    Action, Completion, Config, ConnectionError, Keepalive, SendStep, WorkId, ZcopyThreshold,
};

const SECOND: u64 = 1_000_000_000;

fn config() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Off,
        keepalive: Some(Keepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(5),
            count: 3,
        }),
        ..Config::default()
    }
}

/// The probes asked for since the last look.
fn probes(lone: &mut Lone) -> alloc::vec::Vec<WorkId> {
    let mut probes = alloc::vec::Vec::new();
    lone.actions.retain(|action| match action {
        Action::Probe { work } => {
            probes.push(*work);
            false
        }
        _ => true,
    });
    probes
}

fn timed_out(lone: &mut Lone) -> bool {
    let told = lone.closed();
    let torn = lone.actions.contains(&Action::SetError);
    assert_eq!(told.is_some(), torn);
    matches!(told, Some(Some(ConnectionError::TimedOut(_))))
}

#[test]
fn a_silent_peer_is_asked_after_the_idle_time_and_again_after_its_answer() {
    let mut lone = Lone::new(config());
    assert_eq!(lone.conn.poll_timeout(), None, "no call waits for it");
    for _ in 0..3 {
        lone.pass(59 * SECOND);
        assert_eq!(probes(&mut lone), []);
        lone.pass(SECOND);
        let [work] = probes(&mut lone)[..] else {
            panic!("not asked once");
        };
        lone.pass(4 * SECOND);
        lone.complete(work, Completion::Success);
        // The next look is for the answer, which is there.
        lone.pass(SECOND);
        assert_eq!(probes(&mut lone), []);
        lone.now -= SECOND;
    }
    assert_eq!(lone.conn.stats().probes, 3);
    assert!(lone.is_alive());
    assert_eq!(lone.mids(), [], "a probe is no message");
}

#[test]
fn a_peer_that_misses_all_answers_is_gone() {
    let mut lone = Lone::new(config());
    lone.pass(60 * SECOND);
    assert_eq!(probes(&mut lone).len(), 1);
    for _ in 0..2 {
        lone.pass(5 * SECOND);
        assert!(lone.is_alive());
        assert_eq!(probes(&mut lone), [], "the adapter repeats it by itself");
    }
    lone.pass(5 * SECOND);
    assert!(timed_out(&mut lone));
}

#[test]
fn a_message_is_an_answer_too() {
    let mut lone = Lone::new(config());
    lone.pass(60 * SECOND);
    lone.pass(9 * SECOND);
    lone.peer(Body::Data, 0);
    for _ in 0..3 {
        assert!(lone.is_alive());
        lone.pass(5 * SECOND);
    }
    assert!(lone.is_alive());
    lone.pass(5 * SECOND);
    assert!(timed_out(&mut lone));
}

#[test]
fn a_busy_peer_is_not_asked() {
    let mut lone = Lone::new(config());
    for _ in 0..10 {
        lone.pass(50 * SECOND);
        lone.peer(Body::Data, 0);
    }
    assert_eq!(lone.conn.stats().probes, 0);
}

#[test]
fn a_probe_that_fails_says_that_the_peer_is_gone() {
    let mut lone = Lone::new(config());
    lone.pass(60 * SECOND);
    let work = probes(&mut lone)[0];
    lone.complete(work, Completion::Unanswered);
    assert!(timed_out(&mut lone));
}

#[test]
fn user_timeout_is_the_limit_of_probing_too() {
    let mut lone = Lone::new(Config {
        user_timeout: Some(Duration::from_secs(100)),
        ..config()
    });
    lone.pass(60 * SECOND);
    for _ in 0..7 {
        lone.pass(5 * SECOND);
        assert!(lone.is_alive());
    }
    lone.pass(5 * SECOND);
    assert!(timed_out(&mut lone));
}

#[test]
fn it_can_be_switched_on_and_off_at_any_time() {
    let mut lone = Lone::new(Config {
        keepalive: None,
        ..config()
    });
    assert_eq!(lone.conn.poll_housekeeping(), None);
    lone.pass(1_000 * SECOND);
    // Silence before it was switched on counts, as in TCP.
    lone.conn.set_keepalive(lone.instant(), config().keepalive);
    lone.pass(0);
    assert_eq!(probes(&mut lone).len(), 1);
    lone.conn.set_keepalive(lone.instant(), None);
    assert_eq!(lone.conn.poll_housekeeping(), None);
    lone.pass(1_000 * SECOND);
    assert!(lone.is_alive());
}

/// A peer of few credits is sent more than it can take.
fn stuck() -> Lone {
    let mut lone = Lone::new(Config {
        keepalive: None,
        user_timeout: Some(Duration::from_secs(30)),
        ..config()
    });
    lone.bufs = 3;
    lone.peer(Body::Data, 0);
    let (id, mut step) = lone.send(10_000);
    while let SendStep::Copy { len, to, .. } = step {
        lone.send_copied(id, len, to);
        step = lone.poll_send(id);
    }
    if step == SendStep::Wait {
        lone.pass(SECOND);
        let (step, _) = lone.copy_out(id);
        assert_eq!(step, SendStep::Done(Ok(10_000)));
    }
    assert!(lone.conn.unsent_len() > 0);
    lone
}

#[test]
fn bytes_that_the_peer_does_not_take_for_so_long_end_the_connection() {
    let mut lone = stuck();
    lone.pass(28 * SECOND);
    assert!(lone.is_alive());
    lone.pass(2 * SECOND);
    assert!(timed_out(&mut lone));
}

#[test]
fn bytes_that_it_takes_do_not() {
    let mut lone = stuck();
    lone.pass(20 * SECOND);
    lone.see_all();
    lone.peer(Body::Data, 0);
    assert_eq!(lone.mids(), [Mid::Data], "credits for one message");
    lone.pass(25 * SECOND);
    assert!(lone.is_alive());
    lone.see_all();
    lone.bufs = 8;
    lone.peer(Body::Data, 0);
    assert_eq!(lone.conn.unsent_len(), 0);
    lone.pass(1_000 * SECOND);
    assert!(lone.is_alive());
}
