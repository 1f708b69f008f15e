//! The table of states and messages: what each message does in each state. A change of behaviour
//! is a difference of these texts. `docs/state-tables.md` shows them, and the simulator counts
//! whether it has been everywhere.

use std::string::String;
use std::vec::Vec;

use sdp_wire::{Body, Mid, ModeChange, RemoteAddr, Rkey, ServiceId, SinkAvail, SrcAvail};

use super::suspend::resuming;
use super::util::lone::Lone;
use crate::{Completion, Config, ConnectionError, EndCall, Event, SendStep, ZcopyThreshold};

/// States to be in, by name.
const STATES: [&str; 15] = [
    "accepted",
    "open",
    "source advert",
    "source adverts",
    "source cancelling",
    "sink advert",
    "sink reading",
    "sink pipelined",
    "offering",
    "offered",
    "peer has closed",
    "closed",
    "asks to move",
    "is asked to move",
    "dead",
];

/// States that no message changes, with what this side's own calls do to them.
const BETWEEN: [&str; 2] = ["between queue pairs", "called again"];

fn lone() -> Lone {
    Lone::new(Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4_000),
        ..Config::default()
    })
}

/// A receive has offered its memory.
fn offers(lone: &mut Lone) {
    lone.peer(Body::ModeChange(ModeChange::RecvPipelined), 0);
    for _ in 0..2 {
        lone.peer_advertises(100_000, 0);
        let (id, _) = lone.recv(100_000);
        for (work, ..) in lone.take_reads() {
            lone.complete(work, Completion::Success);
        }
        assert_eq!(lone.poll_recv(id), crate::RecvStep::Done(Ok(100_000)));
    }
    assert_eq!(lone.recv(100_000).1, crate::RecvStep::Wait);
    lone.find(Mid::SinkAvail);
}

/// A send uses one of two offers, and has no more to send.
fn is_offered(lone: &mut Lone) {
    assert_eq!(lone.send(3 << 20).1, SendStep::Wait);
    let offer = SinkAvail {
        len: 100,
        rkey: Rkey(1),
        addr: RemoteAddr(1),
        non_discards: 1,
    };
    lone.see_all();
    for _ in 0..2 {
        lone.peer(Body::SinkAvail(offer), 0);
    }
    lone.find(Mid::RdmaWrCompl);
}

fn in_state(state: &str) -> Lone {
    let mut lone = match state {
        "accepted" => Lone::accepted(Config::default()),
        _ => lone(),
    };
    match state {
        "asks to move" | "between queue pairs" | "called again" => {
            lone.conn.suspend(lone.instant(), service_id()).unwrap();
            lone.drain();
            lone.find(Mid::SuspComm);
            if state != "asks to move" {
                lone.see_all();
                lone.peer(Body::SuspCommAck, 0);
            }
            if state == "called again" {
                let hello = resuming(Some(service_id()));
                lone.conn.handle_call(lone.instant(), &hello).unwrap();
            }
        }
        "source advert" | "source cancelling" | "is asked to move" => {
            let (id, step) = lone.send(10_000);
            assert_eq!(step, SendStep::Wait);
            if state == "is asked to move" {
                let service_id = service_id();
                lone.peer(Body::SuspComm { service_id }, 0);
                lone.find(Mid::SrcAvailCancel);
            }
            if state == "source cancelling" {
                lone.conn.send_end(lone.instant(), id, EndCall::TimedOut);
                lone.drain();
            }
        }
        "source adverts" => {
            let (_, step) = lone.send(3 << 20);
            assert_eq!(step, SendStep::Wait);
            assert_eq!(lone.find(Mid::SrcAvail).payload_len, 0);
        }
        "sink pipelined" => {
            lone.peer_advertises(100_000, 10);
            lone.peer(Body::ModeChange(ModeChange::RecvPipelined), 0);
            lone.peer_advertises(100_000, 0);
        }
        "offering" => offers(&mut lone),
        "offered" => is_offered(&mut lone),
        "sink advert" => lone.peer_advertises(100_000, 10),
        "sink reading" => {
            lone.peer_advertises(100_000, 10);
            let (id, _) = lone.recv(100_000);
            lone.conn.recv_copied(lone.instant(), id, 10);
            assert_eq!(lone.copy_in(id), crate::RecvStep::Wait);
            assert_eq!(lone.take_reads().len(), 1);
        }
        "peer has closed" => lone.peer(Body::DisConn, 0),
        "closed" => {
            lone.conn.close(lone.instant(), None);
            lone.drain();
            let work = lone.last_work.expect("DisConn is signalled");
            lone.complete(work, Completion::Success);
        }
        "dead" => {
            lone.conn.abort(lone.instant());
            lone.drain();
        }
        _ => {}
    }
    while lone.conn.poll_event().is_some() {}
    lone.see_all();
    lone
}

fn service_id() -> ServiceId {
    ServiceId::resuming_at(1, 7 << 32)
}

fn messages() -> Vec<(&'static str, Body, u32)> {
    let advert = SrcAvail {
        len: 1_000,
        rkey: Rkey(1),
        addr: RemoteAddr(1),
    };
    let sink = SinkAvail {
        len: 1_000,
        rkey: Rkey(1),
        addr: RemoteAddr(1),
        non_discards: 0,
    };
    let service_id = service_id();
    std::vec![
        ("Data", Body::Data, 10),
        ("Data, empty", Body::Data, 0),
        ("SrcAvail", Body::SrcAvail(advert), 10),
        ("SrcAvail, bare", Body::SrcAvail(advert), 0),
        ("SrcAvailCancel", Body::SrcAvailCancel, 0),
        ("RdmaRdCompl", Body::RdmaRdCompl { len: 1 }, 0),
        ("SendSm", Body::SendSm, 0),
        ("SinkAvail", Body::SinkAvail(sink), 0),
        ("RdmaWrCompl", Body::RdmaWrCompl { len: 1 }, 0),
        ("SinkAvailCancel", Body::SinkAvailCancel, 0),
        ("SinkCancelAck", Body::SinkCancelAck, 0),
        (
            "ModeChange 00",
            Body::ModeChange(ModeChange::RecvBuffered),
            0
        ),
        (
            "ModeChange 10",
            Body::ModeChange(ModeChange::RecvCombined),
            0
        ),
        (
            "ModeChange 20",
            Body::ModeChange(ModeChange::RecvPipelined),
            0
        ),
        (
            "ModeChange 90",
            Body::ModeChange(ModeChange::SendCombined),
            0
        ),
        ("ChRcvBuf", Body::ChRcvBuf { size: 4_096 }, 0),
        ("ChRcvBufAck", Body::ChRcvBufAck { size: 4_096 }, 0),
        ("SuspComm", Body::SuspComm { service_id }, 0),
        ("SuspCommAck", Body::SuspCommAck, 0),
        ("DisConn", Body::DisConn, 0),
        ("AbortConn", Body::AbortConn, 0),
    ]
}

/// What became of the connection, in a few letters: the clause that was broken; `-`, the message
/// was taken; `+`, it was and a message answered it; `end`, gracefully.
fn verdict(lone: &mut Lone) -> String {
    let mut end = None;
    while let Some(event) = lone.conn.poll_event() {
        if let Event::Closed(why) = event {
            end = Some(why);
        }
    }
    match end {
        None if lone.sent.is_empty() => "-".into(),
        None => "+".into(),
        Some(None) => "end".into(),
        Some(Some(
            ConnectionError::PeerMisbehaved(rule) | ConnectionError::PeerIncompatible(rule),
        )) => rule.split([':', ' ']).next().unwrap_or(rule).into(),
        Some(Some(ConnectionError::LocallyAborted)) => "abort".into(),
        Some(Some(ConnectionError::Reset)) => "reset".into(),
        Some(Some(other)) => std::format!("{other:?}"),
    }
}

#[test]
fn every_message_in_every_state() {
    let mut table = std::format!("| | {} |\n|---|", STATES.join(" | "));
    table.push_str(&"---|".repeat(STATES.len()));
    table.push('\n');
    for (name, body, payload_len) in messages() {
        let verdicts = STATES.map(|state| {
            let mut lone = in_state(state);
            lone.peer(body, payload_len);
            verdict(&mut lone)
        });
        table.push_str(&std::format!("| {name} | {} |\n", verdicts.join(" | ")));
    }
    let expected = include_str!("table.md");
    assert!(table == expected, "the table is now\n{table}");
}

/// Which message takes a connection from which phase to which: the lines of the diagram.
#[test]
fn every_change_of_phase() {
    let mut lines = std::collections::BTreeSet::new();
    for state in STATES {
        for (name, body, payload_len) in messages() {
            let mut lone = in_state(state);
            let before = lone.conn.phase();
            lone.peer(body, payload_len);
            let (after, end) = (lone.conn.phase(), verdict(&mut lone));
            let input = match body.mid() {
                // That a rule was broken matters, and not by which message.
                _ if end.starts_with('§') => "a broken rule",
                _ if after == before => continue,
                _ if after == crate::Phase::Open => "first message",
                _ => name,
            };
            lines.insert(std::format!("{before:?} --{input}--> {after:?}\n"));
        }
        for (input, act) in LOCAL {
            let mut lone = in_state(state);
            let before = lone.conn.phase();
            act(&mut lone);
            lone.drain();
            let after = lone.conn.phase();
            if after != before {
                lines.insert(std::format!("{before:?} --{input}--> {after:?}\n"));
            }
        }
    }
    for state in BETWEEN {
        for (input, act) in LOCAL {
            let mut lone = in_state(state);
            let before = lone.conn.phase();
            act(&mut lone);
            lone.drain();
            let after = lone.conn.phase();
            if after != before {
                lines.insert(std::format!("{before:?} --{input}--> {after:?}\n"));
            }
        }
    }
    let found: String = lines.into_iter().collect();
    assert!(
        found == include_str!("phases.txt"),
        "the phases are now\n{found}"
    );
}

/// What happens at this side.
type Act = fn(&mut Lone);
const LOCAL: [(&str, Act); 4] = [
    ("close()", |lone| lone.conn.close(lone.instant(), None)),
    ("shutdown()", |lone| lone.conn.shutdown_send(lone.instant())),
    ("abort()", |lone| lone.conn.abort(lone.instant())),
    ("confirmation", |lone| {
        lone.conn
            .handle_cm(lone.instant(), crate::CmInput::Established);
    }),
];

/// What the peer's ModeChange makes of the half this side receives on, seen by what is taken
/// afterwards: the lines of the diagram.
#[test]
fn every_change_of_mode() {
    let ways: [(&str, &[ModeChange]); 3] = [
        ("Combined", &[]),
        ("Buffered", &[ModeChange::RecvBuffered]),
        ("Pipelined", &[ModeChange::RecvPipelined]),
    ];
    let mut found = String::new();
    for (mode, way) in ways {
        for change in ModeChange::ALL {
            let then = mode_after(way, change);
            found.push_str(&std::format!("{mode} --{change:?}--> {then}\n"));
        }
    }
    assert!(
        found == include_str!("modes.txt"),
        "the modes are now\n{found}"
    );
}

fn mode_after(way: &[ModeChange], change: ModeChange) -> &'static str {
    let takes = |advert_payload: Option<u32>| {
        let mut lone = lone();
        for change in way.iter().chain([&change]) {
            lone.peer(Body::ModeChange(*change), 0);
        }
        if let Some(payload_len) = advert_payload.filter(|_| lone.is_alive()) {
            lone.peer_advertises(1_000, payload_len);
        }
        lone.is_alive()
    };
    match (takes(None), takes(Some(0)), takes(Some(10))) {
        (false, ..) => "end",
        (true, true, _) => "Pipelined",
        (true, false, true) => "Combined",
        (true, false, false) => "Buffered",
    }
}
