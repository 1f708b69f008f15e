//! What poll(2) shows of each state, and when.

use super::*;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const ZERO: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

fn state(pair: &ReadyPair) -> PollFlags {
    let all = PollFlags::IN | PollFlags::PRI | PollFlags::OUT | PollFlags::RDHUP;
    let ready = pair.descriptor();
    let mut fds = [PollFd::new(&ready, all)];
    poll(&mut fds, Some(&ZERO)).unwrap();
    fds[0].revents()
}

fn shown(pair: &mut ReadyPair, level: Level) -> PollFlags {
    pair.show(level, 0).unwrap();
    state(pair)
}

const READABLE: Level = Level {
    readable: true,
    arrivals: 1,
    full: false,
    roomy: true,
    urgent: false,
    read_closed: false,
    write_closed: false,
    ended: None,
};
const IDLE: Level = Level {
    readable: false,
    ..READABLE
};
const FULL: Level = Level {
    readable: false,
    full: true,
    roomy: false,
    ..READABLE
};

/// Every state a TCP socket can be in has its mask, and leaves it again.
#[test]
fn masks() {
    let mut pair = ReadyPair::new().unwrap();
    assert_eq!(state(&pair), PollFlags::OUT);
    assert_eq!(shown(&mut pair, READABLE), PollFlags::IN | PollFlags::OUT);
    assert_eq!(shown(&mut pair, FULL), PollFlags::empty());
    let between = Level {
        full: false,
        ..FULL
    };
    assert_eq!(shown(&mut pair, between), PollFlags::empty());
    assert_eq!(
        shown(
            &mut pair,
            Level {
                roomy: true,
                ..between
            }
        ),
        PollFlags::OUT
    );
    let half = Level {
        readable: true,
        read_closed: true,
        ..READABLE
    };
    let open = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
    assert_eq!(shown(&mut pair, half), open);
    let over = Level {
        ended: Some(false),
        ..half
    };
    assert_eq!(shown(&mut pair, over), open | PollFlags::HUP);
}

/// Both halves shut is HUP while the connection lasts, however full it was, and an end in error is
/// still ERR.
#[test]
fn both_halves_shut_is_hung_up() {
    let open = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
    for before in [IDLE, READABLE, FULL] {
        let mut pair = ReadyPair::new().unwrap();
        shown(&mut pair, before);
        let shut = Level {
            read_closed: true,
            write_closed: true,
            ..before
        };
        assert_eq!(shown(&mut pair, shut), open | PollFlags::HUP, "{before:?}");
        assert_eq!(shown(&mut pair, shut), open | PollFlags::HUP, "{before:?}");
        let reset = Level {
            ended: Some(true),
            ..shut
        };
        let mask = shown(&mut pair, reset);
        assert!(mask.contains(PollFlags::ERR | PollFlags::HUP), "{mask:?}");
    }
}

/// An urgent byte is shown by itself and beside tokens, and taken back without a trace. Where
/// the kernel cannot, everything else is as without it.
#[test]
fn urgent_bytes() {
    let mut pair = ReadyPair::new().unwrap();
    let quiet = Level {
        readable: false,
        arrivals: 0,
        ..READABLE
    };
    for before in [quiet, READABLE] {
        shown(&mut pair, before);
        let mask = shown(
            &mut pair,
            Level {
                urgent: true,
                ..before
            },
        );
        let open = PollFlags::IN | PollFlags::OUT;
        assert!(mask == open | PollFlags::PRI || mask == state(&pair));
        for arrivals in 5..900 {
            let level = Level {
                urgent: true,
                readable: arrivals % 3 > 0,
                arrivals,
                ..READABLE
            };
            assert_eq!(shown(&mut pair, level), mask | PollFlags::IN);
        }
        assert_eq!(shown(&mut pair, READABLE), open);
        assert_eq!(shown(&mut pair, quiet), PollFlags::OUT);
    }
}

/// A reset is reported as an error, whatever the state before.
#[test]
fn reset_is_an_error() {
    for before in [READABLE, FULL] {
        let mut pair = ReadyPair::new().unwrap();
        shown(&mut pair, before);
        let reset = Level {
            readable: true,
            ended: Some(true),
            ..before
        };
        let mask = shown(&mut pair, reset);
        assert!(
            mask.contains(PollFlags::ERR | PollFlags::HUP | PollFlags::IN),
            "{mask:?}"
        );
    }
}

/// Of a connect that fails nobody sees OUT alone first.
#[test]
fn a_failure_shows_whole() {
    for _ in 0..200 {
        let mut pair = ReadyPair::new().unwrap();
        shown(&mut pair, FULL);
        let ready = pair.descriptor();
        let poller = std::thread::spawn(move || {
            let mut fds = [PollFd::new(&ready, PollFlags::OUT)];
            poll(&mut fds, None).unwrap();
            fds[0].revents()
        });
        let failed = Level {
            ended: Some(true),
            ..FULL
        };
        pair.show(failed, 0).unwrap();
        let seen = poller.join().unwrap();
        assert!(seen.contains(PollFlags::ERR), "{seen:?}");
    }
}

/// As in a process whose forked child has a copy of Q.
#[test]
fn the_end_shows_though_q_is_open_elsewhere() {
    for in_error in [false, true] {
        let mut pair = ReadyPair::new().unwrap();
        let copy = pair.q.as_ref().unwrap().try_clone().unwrap();
        let ended = Level {
            readable: true,
            ended: Some(in_error),
            ..READABLE
        };
        let mask = shown(&mut pair, ended);
        assert!(mask.contains(PollFlags::HUP | PollFlags::IN), "{mask:?}");
        drop(copy);
    }
}

/// Without edges nobody looks after a pair that says IN, unless OUT or the end is to be shown.
#[test]
fn what_is_shown_already_is_not_awaited() {
    let mut pair = ReadyPair::new().unwrap();
    pair.set_edges(false);
    assert_eq!(pair.awaits(), Awaits::Arrivals, "nothing is there");
    shown(&mut pair, READABLE);
    assert_eq!(pair.awaits(), Awaits::Nothing, "IN is shown");
    let full = Level {
        readable: true,
        ..FULL
    };
    shown(&mut pair, full);
    assert_eq!(pair.awaits(), Awaits::Anything, "OUT is to be shown");
    shown(&mut pair, READABLE);
    pair.set_edges(true);
    assert_eq!(pair.awaits(), Awaits::Arrivals, "each arrival is an edge");
}

/// A token that is counted and does not come, because its peer was interrupted or could not put it,
/// keeps nothing else from being shown. When it comes it is taken like any other.
#[test]
fn a_token_that_does_not_come_hides_nothing() {
    let mut pair = ReadyPair::new().unwrap();
    pair.set_edges(false);
    pair.show(IDLE, 1).unwrap();
    assert_eq!(pair.awaits(), Awaits::Arrivals, "nothing is shown");
    let open = PollFlags::IN | PollFlags::OUT;
    assert_eq!(shown(&mut pair, READABLE), open);
    assert_eq!(shown(&mut pair, IDLE), PollFlags::OUT);
    send(pair.q.as_ref().unwrap(), b"r", SendFlags::empty()).unwrap();
    assert_eq!(state(&pair), open, "late");
    assert_eq!(shown(&mut pair, IDLE), PollFlags::OUT);
    assert_eq!(pair.late, 0);
}

/// A connection that is left with something to read says so at once, whatever the peer that has
/// taken the token upon itself does.
#[test]
fn what_is_there_is_shown_before_its_token() {
    let mut pair = ReadyPair::new().unwrap();
    let open = PollFlags::IN | PollFlags::OUT;
    pair.show(READABLE, 1).unwrap();
    assert_eq!(state(&pair), PollFlags::OUT, "the token is late");
    pair.confirm().unwrap();
    assert_eq!(state(&pair), open);
    // It comes beside ours: both are taken with the bytes.
    send(pair.q.as_ref().unwrap(), b"r", SendFlags::empty()).unwrap();
    assert_eq!(shown(&mut pair, IDLE), PollFlags::OUT);
    assert_eq!((pair.tokens, pair.late), (0, 0));
}

/// Of what is counted and what is there, never the last one that is there is taken.
#[test]
fn of_several_tokens_one_stays_that_is_there() {
    let mut pair = ReadyPair::new().unwrap();
    let open = PollFlags::IN | PollFlags::OUT;
    assert_eq!(shown(&mut pair, READABLE), open);
    let next = Level {
        arrivals: 2,
        ..READABLE
    };
    pair.show(next, 1).unwrap();
    assert_eq!(state(&pair), open);
    pair.confirm().unwrap();
    assert_eq!(state(&pair), open);
    send(pair.q.as_ref().unwrap(), b"r", SendFlags::empty()).unwrap();
    assert_eq!(shown(&mut pair, IDLE), PollFlags::OUT);
}

/// A peer that writes faster than its bytes can be taken keeps nobody for long.
#[test]
fn a_look_takes_no_more_than_a_portion() {
    let mut pair = ReadyPair::new().unwrap();
    let flood = [0; 8 * TAKE_MAX * TAKES_MAX];
    send(pair.q.as_ref().unwrap(), &flood, SendFlags::empty()).unwrap();
    let open = PollFlags::IN | PollFlags::OUT;
    pair.show(IDLE, 1).unwrap();
    assert_eq!(state(&pair), open, "it took everything");
    for _ in 0..8 {
        pair.show(IDLE, 1).unwrap();
    }
    assert_eq!(state(&pair), PollFlags::OUT);
}

/// Every arrival is an edge although the one before was not taken; no arrival is none.
#[test]
fn edges() {
    let mut pair = ReadyPair::new().unwrap();
    let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let flags = EventFlags::IN | EventFlags::ET;
    epoll::add(&epoll, pair.descriptor(), EventData::new_u64(7), flags).unwrap();
    let edges = || {
        let mut events: Vec<Event> = Vec::with_capacity(4);
        epoll::wait(
            &epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&ZERO),
        )
        .unwrap()
    };
    for arrivals in 1..100 {
        let level = Level {
            arrivals,
            ..READABLE
        };
        pair.show(level, 0).unwrap();
        assert_eq!(edges(), 1, "arrival {arrivals}");
        let level = Level {
            arrivals,
            ..READABLE
        };
        pair.show(level, 0).unwrap();
        assert_eq!(edges(), 0, "nothing came after {arrivals}");
    }
    assert_eq!(
        shown(&mut pair, FULL),
        PollFlags::empty(),
        "one call takes all tokens"
    );
}
