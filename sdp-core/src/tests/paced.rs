//! Non-blocking sends while the peer's program reads, and while it does not.

use core::time::Duration;

use sdp_wire::{BSDH_LEN, Body, Mid};

use super::util::lone::Lone;
use crate::{CallError, Config, Event, SendRequest, SendStep};

/// SO_SNDBUF and SO_RCVBUF.
const BUFFER: usize = 16 << 10;
const MESSAGE: usize = 4096 - BSDH_LEN;
/// More than there is room for anywhere.
const LARGE: usize = 100_000;
const BLOCKED: Result<usize, CallError> = Err(CallError::WouldBlock);
/// `rendezvous_wait`, nanoseconds.
const WAIT: u64 = 2_000_000;

fn config() -> Config {
    Config {
        send_buffer_len: BUFFER,
        recv_buffer_total: BUFFER,
        // The peer's are as long: it is not asked for longer ones.
        recv_buffer_len: 4096,
        nodelay: true,
        polled: true,
        ..Config::default()
    }
}

/// A non-blocking send.
fn send(lone: &mut Lone, len: usize) -> Result<usize, CallError> {
    let request = SendRequest {
        len,
        segment_ends: [len].into_iter().collect(),
        nonblocking: true,
        urgent: false,
        registered: false,
        copy_reason: None,
    };
    let id = lone.conn.send_start(lone.instant(), request);
    loop {
        match lone.poll_send(id) {
            SendStep::Copy { len, to, .. } => lone.send_copied(id, len, to),
            SendStep::Done(result) => return result,
            SendStep::Wait => panic!("a non-blocking send waits"),
        }
    }
}

/// The peer's program takes all that has come, and there are eight credits again.
fn read(lone: &mut Lone) {
    lone.see_all();
    lone.peer(Body::Data, 0);
}

/// A connection on which more was sent than can lie unread, with eight credits.
fn being_read() -> Lone {
    let mut lone = Lone::new(config());
    for _ in 0..12 {
        assert_eq!(send(&mut lone, MESSAGE), Ok(MESSAGE));
        read(&mut lone);
    }
    lone.solicited.clear();
    lone
}

fn is_woken(lone: &mut Lone) -> bool {
    std::iter::from_fn(|| lone.conn.poll_event()).any(|event| event == Event::SendReady)
}

#[test]
fn without_a_reader_all_that_fits_is_taken_at_once() {
    let mut lone = Lone::new(config());
    assert_eq!(send(&mut lone, LARGE), Ok(6 * MESSAGE + BUFFER));
    assert_eq!(send(&mut lone, LARGE), BLOCKED);
    assert!(!lone.conn.send_waits(), "there is no room, whoever reads");
}

/// What finds no message is left to the program, and not copied into private memory.
#[test]
fn while_somebody_reads_a_send_is_cut_short() {
    let mut lone = being_read();
    for _ in 0..20 {
        assert_eq!(send(&mut lone, LARGE), Ok(5 * MESSAGE));
        assert!(lone.conn.send_waits());
        assert_eq!(send(&mut lone, LARGE), BLOCKED);
        assert_eq!(lone.conn.unsent_len(), 0);
        is_woken(&mut lone);
        read(&mut lone);
        assert!(!lone.conn.send_waits());
        assert!(is_woken(&mut lone));
    }
    // The peer's progress thread had nothing to do.
    assert_eq!(lone.solicited, []);
}

/// A program that is told of room finds some, though the reader came back in between.
#[test]
fn what_was_not_denied_is_there() {
    let mut lone = being_read();
    for _ in 0..6 {
        assert_eq!(send(&mut lone, 1), Ok(1));
    }
    assert!(!lone.conn.send_waits(), "a small send denies nothing");
    assert_eq!(send(&mut lone, LARGE), Ok(MESSAGE));
    assert_eq!(lone.conn.unsent_len(), MESSAGE);
    assert!(lone.conn.send_waits());
    assert_eq!(send(&mut lone, LARGE), BLOCKED);
}

/// The last credit is for small ones too, and so is one message in private memory.
#[test]
fn small_sends_are_taken_whole() {
    let mut lone = being_read();
    assert_eq!(send(&mut lone, LARGE), Ok(5 * MESSAGE));
    for _ in 0..5 {
        assert_eq!(send(&mut lone, 1_000), Ok(1_000));
    }
    assert_eq!(lone.conn.unsent_len(), 4_000);
    assert!(lone.conn.send_waits());
    read(&mut lone);
    assert_eq!(lone.conn.unsent_len(), 0);
    assert_eq!(lone.mids(), [Mid::Data]);
    assert!(!lone.conn.send_waits());
}

/// When nobody has read for `rendezvous_wait`, the peer is asked for help and all that fits is taken.
#[test]
fn a_reader_that_stays_away_is_not_waited_for() {
    let mut lone = being_read();
    assert_eq!(send(&mut lone, LARGE), Ok(5 * MESSAGE));
    lone.pass(WAIT - 1);
    assert!(lone.conn.send_waits());
    is_woken(&mut lone);
    let ends = lone.conn.poll_timeout();
    assert_eq!(ends.map(crate::Instant::as_nanos), Some(lone.now + 1));
    lone.pass(1);
    assert!(!lone.conn.send_waits());
    assert!(is_woken(&mut lone));
    assert_eq!(send(&mut lone, LARGE), Ok(MESSAGE + BUFFER));
    assert_eq!(lone.solicited.len(), 1, "the last message calls");
    assert_eq!(send(&mut lone, LARGE), BLOCKED);
    // It comes back: the rest goes by messages again, behind what was buffered.
    read(&mut lone);
    assert!(lone.conn.unsent_len() < BUFFER);
    assert_eq!(send(&mut lone, LARGE), Ok(MESSAGE));
    assert_eq!(send(&mut lone, LARGE), BLOCKED);
    read(&mut lone);
    assert_eq!(lone.conn.unsent_len(), 0);
}

/// Who does not poll would not hear of the room that it is to wait for.
#[test]
fn who_does_not_poll_leaves_all_that_fits() {
    let mut lone = Lone::new(Config {
        polled: false,
        ..config()
    });
    for _ in 0..12 {
        assert_eq!(send(&mut lone, MESSAGE), Ok(MESSAGE));
        read(&mut lone);
    }
    assert_eq!(send(&mut lone, LARGE), Ok(6 * MESSAGE + BUFFER));
    read(&mut lone);
    lone.conn.set_polled();
    assert_eq!(send(&mut lone, LARGE), Ok(MESSAGE));
}

/// Who is told to wait polls, and does nothing by which the engine would look at its timers again.
#[test]
fn a_send_cut_short_asks_to_be_called_when_the_wait_is_over() {
    let mut lone = being_read();
    assert_eq!(send(&mut lone, LARGE), Ok(5 * MESSAGE));
    assert!(lone.conn.send_waits());
    let ends = lone.conn.poll_timeout();
    assert_eq!(ends.map(crate::Instant::as_nanos), Some(lone.now + WAIT));
}

/// Without a `rendezvous_wait` nobody is waited for; one without end is not for non-blocking sends.
#[test]
fn rendezvous_wait_bounds_it_both_ways() {
    let of = |wait| {
        let mut lone = Lone::new(Config {
            rendezvous_wait: wait,
            rendezvous_wait_min: wait,
            ..config()
        });
        for _ in 0..12 {
            assert_eq!(send(&mut lone, MESSAGE), Ok(MESSAGE));
            read(&mut lone);
        }
        lone
    };
    let mut at_once = of(Duration::ZERO);
    assert_eq!(send(&mut at_once, LARGE), Ok(6 * MESSAGE + BUFFER));
    let mut patient = of(Duration::MAX);
    assert_eq!(send(&mut patient, LARGE), Ok(5 * MESSAGE));
    patient.pass(WAIT);
    assert_eq!(send(&mut patient, LARGE), Ok(MESSAGE + BUFFER));
}

/// A peer with few buffers gives credits only when all are used.
#[test]
fn of_few_credits_none_is_kept() {
    let mut lone = being_read();
    lone.bufs = 5;
    assert_eq!(send(&mut lone, LARGE), Ok(5 * MESSAGE));
    read(&mut lone);
    for _ in 0..10 {
        assert_eq!(send(&mut lone, LARGE), Ok(3 * MESSAGE));
        assert_eq!(send(&mut lone, LARGE), BLOCKED);
        read(&mut lone);
    }
}
