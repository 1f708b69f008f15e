//! Messages that must not come: each ends the connection under the name of the rule it broke.

use core::time::Duration;

use sdp_wire::{
    Body, DecodeErrorKind, HELLO_ACK_LEN, HELLO_LEN, HelloAck, Mid, ModeChange, RemoteAddr, Rkey,
    ServiceId, SinkAvail, Version,
};

use super::util::lone::{HELLO_ACK, Lone, hello, rkey};
use crate::connection::Connection;
use crate::{
    Action, CallError, CmInput, Completion, Config, ConnectionError, Event, Instant, KeyId,
    RecvStep, SendStep, ZcopyThreshold,
};

fn config() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4_000),
        ..Config::default()
    }
}

fn lone() -> Lone {
    Lone::new(config())
}

/// The connection was torn down, and nothing more is posted.
fn assert_torn_down(lone: &mut Lone) {
    let end: std::vec::Vec<&Action> = lone
        .actions
        .iter()
        .filter(|action| matches!(action, Action::SetError | Action::Disconnect))
        .collect();
    assert_eq!(end, [&Action::SetError, &Action::Disconnect]);
    lone.sent.clear();
    lone.pass(100_000_000_000);
    assert!(lone.sent.is_empty());
    assert_eq!(lone.conn.poll_timeout(), None);
}

#[test]
fn messages_that_fit_no_state() {
    let sink = SinkAvail {
        len: 100,
        rkey: Rkey(1),
        addr: RemoteAddr(0),
        non_discards: 0,
    };
    let service_id = ServiceId::from_port(0);
    let table = [
        (Body::RdmaRdCompl { len: 1 }, "§4.4 row 7"),
        (Body::SendSm, "§4.4 row 9"),
        (Body::RdmaWrCompl { len: 1 }, "§4.5 row 5"),
        (Body::SinkAvail(sink), "§4.2"),
        (Body::SinkAvailCancel, "§4.9"),
        (Body::SinkCancelAck, "§4.9"),
        (Body::AbortConn, "§2.4"),
        (Body::ChRcvBufAck { size: 4096 }, "§3.4"),
        (Body::SuspCommAck, "§2.8"),
        (Body::ModeChange(ModeChange::RecvCombined), "§4.10"),
        (Body::ModeChange(ModeChange::SendCombined), "§4.10"),
    ];
    for (body, clause) in table {
        let mut lone = lone();
        lone.peer(body, 0);
        let rule = lone.broken_rule();
        assert!(rule.starts_with(clause), "{body:?}: {rule}");
        assert_torn_down(&mut lone);
    }
    let mut lone = lone();
    lone.peer(Body::SuspComm { service_id }, 0);
    assert!(
        lone.broken_rule()
            .starts_with("§2.8: SuspComm without a port")
    );
    assert_torn_down(&mut lone);
}

#[test]
fn adverts_that_break_the_mode() {
    let mut two = lone();
    two.peer_advertises(1_000, 10);
    two.peer_advertises(1_000, 10);
    assert!(two.broken_rule().starts_with("§4.2: a second"));

    let mut bare = lone();
    bare.peer_advertises(1_000, 0);
    assert!(
        bare.broken_rule()
            .starts_with("§4.2: SrcAvail without payload")
    );

    let mut whole = lone();
    whole.peer_advertises(10, 10);
    assert!(whole.broken_rule().starts_with("§4.4 row 1"));

    let mut data = lone();
    data.peer_advertises(1_000, 10);
    data.peer(Body::Data, 5);
    assert!(data.broken_rule().starts_with("§4.4 row 3"));

    let mut buffered = lone();
    buffered.peer(Body::ModeChange(ModeChange::RecvBuffered), 0);
    buffered.peer(Body::Data, 5);
    assert!(buffered.is_alive());
    buffered.peer_advertises(1_000, 10);
    assert!(
        buffered
            .broken_rule()
            .starts_with("§4.2: SrcAvail in Buffered")
    );

    let mut open = lone();
    open.peer_advertises(1_000, 10);
    open.peer(Body::ModeChange(ModeChange::RecvBuffered), 0);
    assert!(open.broken_rule().starts_with("§4.10"));
}

#[test]
fn reports_that_do_not_add_up() {
    let mut lone = lone();
    let (id, _) = lone.send(10_000);
    lone.see_all();
    lone.peer(Body::RdmaRdCompl { len: 9_000 }, 0);
    lone.peer(Body::RdmaRdCompl { len: 937 }, 0);
    assert!(lone.broken_rule().starts_with("§4.4 row 8"));
    // What was reported before counts.
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(9_064)));
}

#[test]
fn invalidations_of_what_was_not_offered() {
    let key = rkey(KeyId(1));
    let table = [
        (Body::RdmaRdCompl { len: 1 }, Rkey(1), "§4.4 row 12"),
        (Body::SendSm, Rkey(1), "§4.4 row 12"),
        (Body::Data, key, "§4.4 row 12"),
    ];
    for (body, invalidated, clause) in table {
        let mut lone = lone();
        assert_eq!(lone.send(10_000).1, SendStep::Wait);
        lone.see_all();
        lone.peer_invalidating(body, 0, Some(invalidated));
        assert!(lone.broken_rule().starts_with(clause));
    }
    let mut lone = Lone::new(Config {
        invalidate_cap: false,
        ..config()
    });
    assert_eq!(lone.send(10_000).1, SendStep::Wait);
    lone.see_all();
    lone.peer_invalidating(Body::RdmaRdCompl { len: 9_936 }, 0, Some(key));
    assert!(lone.broken_rule().starts_with("§1.9"));
}

#[test]
fn after_disconn_no_payload_comes() {
    let mut data = lone();
    data.peer(Body::DisConn, 0);
    data.peer(Body::Data, 1);
    assert!(data.broken_rule().starts_with("§2.3 step 1"));

    let mut again = lone();
    again.peer(Body::DisConn, 0);
    again.peer(Body::DisConn, 0);
    assert!(again.broken_rule().starts_with("§2.3 step 2"));

    let mut open = lone();
    open.peer_advertises(1_000, 10);
    open.peer(Body::DisConn, 0);
    assert!(open.broken_rule().starts_with("§2.3 step 1"));

    // An update is no payload.
    let mut update = lone();
    update.peer(Body::DisConn, 0);
    update.peer(Body::Data, 0);
    assert!(update.is_alive());
}

#[test]
fn numbers_that_do_not_fit() {
    let mut gap = lone();
    gap.mseq = 2;
    gap.peer(Body::Data, 0);
    assert!(gap.broken_rule().starts_with("§3.1: MSeq "));

    let mut future = lone();
    future.seen = 1;
    future.peer(Body::Data, 0);
    assert!(future.broken_rule().starts_with("§3.1: MSeqAck of"));

    let mut back = lone();
    back.peer(Body::ChRcvBuf { size: 4096 }, 0);
    back.see_all();
    back.peer(Body::Data, 0);
    back.seen = 0;
    back.peer(Body::Data, 0);
    assert!(back.broken_rule().starts_with("§3.1: MSeqAck went back"));
}

#[test]
fn payload_without_three_credits() {
    // Four buffers, none of which comes back while the bytes are unread and no room is left.
    let mut lone = Lone::new(Config {
        recv_buffers_max: 4,
        recv_buffer_total: 1,
        ..config()
    });
    lone.peer(Body::Data, 1);
    lone.peer(Body::Data, 1);
    assert!(lone.is_alive());
    lone.peer(Body::Data, 1);
    assert!(lone.broken_rule().starts_with("§3.2"));
}

#[test]
fn bytes_that_are_no_message() {
    let mut short = lone();
    short.peer_bytes(&[0xFF; 5], 5, None);
    let Some(Some(ConnectionError::Malformed(error))) = short.closed() else {
        panic!("not refused as malformed");
    };
    assert_eq!(error.kind, DecodeErrorKind::Truncated);
    assert_torn_down(&mut short);

    let mut hello_again = lone();
    let mut bytes = [0; HELLO_LEN];
    hello().encode(&mut bytes);
    hello_again.peer_bytes(&bytes, HELLO_LEN, None);
    let why = hello_again.closed();
    assert!(
        matches!(why, Some(Some(ConnectionError::Malformed(_)))),
        "{why:?}"
    );
}

#[test]
fn bytes_received_before_a_violation_are_delivered_then_the_error_once_then_the_end() {
    let mut lone = lone();
    lone.peer(Body::Data, 5);
    lone.peer(Body::SendSm, 0);
    let error = ConnectionError::PeerMisbehaved("§4.4 row 9: SendSm without an open source advert");
    let (id, _) = lone.recv(0);
    assert_eq!(
        lone.poll_recv(id),
        RecvStep::Done(Err(CallError::NotConnected))
    );
    let (id, _) = lone.recv(3);
    let _ = id;
    assert_eq!(lone.conn.readable_len(), 5);
    let step = lone.copy_in(id);
    assert_eq!(step, RecvStep::Wait);
    lone.conn.recv_copied(lone.instant(), id, 3);
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(3)));
    let (id, step) = lone.recv(10);
    assert!(matches!(step, RecvStep::Copy { len: 2, .. }));
    lone.conn.recv_copied(lone.instant(), id, 2);
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(2)));
    assert_eq!(
        lone.recv(10).1,
        RecvStep::Done(Err(CallError::Connection(error)))
    );
    assert_eq!(lone.recv(10).1, RecvStep::Done(Ok(0)));
    assert_eq!(lone.send(10).1, SendStep::Done(Err(CallError::BrokenPipe)));
}

#[test]
fn hellos_that_cannot_be_accepted() {
    let now = Instant::from_nanos(0);
    for (what, change) in [
        (
            "adverts",
            &(|hello: &mut sdp_wire::Hello| hello.adverts_max = 0) as &dyn Fn(&mut _),
        ),
        ("buffers", &|hello: &mut sdp_wire::Hello| hello.bufs = 2),
        ("size", &|hello: &mut sdp_wire::Hello| {
            hello.local_recv_size = 36
        }),
    ] {
        let mut bad = hello();
        change(&mut bad);
        let mut bytes = [0; HELLO_LEN];
        bad.encode(&mut bytes);
        let refusal = Connection::accept(now, config(), &bytes).expect_err(what);
        assert!(
            matches!(refusal.error, ConnectionError::Malformed(_)),
            "{what}"
        );
    }
    assert!(Connection::accept(now, config(), &[]).is_err());
}

#[test]
fn hello_acks_that_cannot_be_taken_are_rejected() {
    let ack = HELLO_ACK;
    let (bufs, adverts_max, version) = (0, 0, Version::V1_1);
    let table = [
        (HelloAck { bufs, ..ack }, false),
        (HelloAck { adverts_max, ..ack }, false),
        (HelloAck { version, ..ack }, false),
        (ack, true),
    ];
    for (ack, good) in table {
        let now = Instant::from_nanos(0);
        let mut conn = Connection::connect(now, config(), 1, None, None);
        while conn.poll_action().is_some() {}
        let mut bytes = [0; HELLO_ACK_LEN];
        ack.encode(&mut bytes);
        conn.handle_cm(now, CmInput::Response(&bytes));
        let answer = conn.poll_action();
        if good {
            assert_eq!(answer, Some(Action::Establish));
            assert_eq!(conn.poll_event(), Some(Event::Connected));
        } else {
            assert!(matches!(answer, Some(Action::Reject(_))), "{answer:?}");
            assert!(conn.is_closed());
        }
    }
}

#[test]
fn the_connection_manager_says_no() {
    let now = Instant::from_nanos(0);
    let rejected = CmInput::Rejected {
        private_data: &[],
        reason: "nobody listens",
    };
    let table = [
        (rejected, ConnectionError::Refused("nobody listens")),
        (
            CmInput::Unreachable { errno: 113 },
            ConnectionError::Unreachable(113),
        ),
        (CmInput::Disconnected, ConnectionError::Reset),
    ];
    for (input, error) in table {
        let mut conn = Connection::connect(now, config(), 1, None, None);
        while conn.poll_action().is_some() {}
        conn.handle_cm(now, input);
        assert_eq!(conn.take_error(), Some(error));
        assert_eq!(conn.take_error(), None);
        assert!(conn.is_closed());
    }
}

#[test]
fn first_receives_without_memory_end_the_handshake() {
    let now = Instant::from_nanos(0);
    let mut conn = Connection::connect(now, config(), 1, None, None);
    let Some(Action::PostRecv { buf, .. }) = conn.poll_action() else {
        panic!("no receive posted first");
    };
    conn.buffer_unavailable(now, buf);
    while let Some(action) = conn.poll_action() {
        assert!(
            !matches!(action, Action::Connect(_)),
            "a Hello that claims what is not there"
        );
    }
    assert!(conn.is_closed());
}

#[test]
fn a_transport_that_fails_says_why() {
    let why = "the adapter failed";
    let error = ConnectionError::Transport(why);
    assert_eq!(ends_by(Completion::TransportFailed(why)), error);
}

/// As TCP says it when nobody confirms what is sent.
#[test]
fn a_peer_that_does_not_answer_has_timed_out() {
    let error = ends_by(Completion::Unanswered);
    assert!(matches!(error, ConnectionError::TimedOut(_)), "{error:?}");
}

/// Why the connection is over when its last message ended like that.
fn ends_by(result: Completion) -> ConnectionError {
    let mut lone = lone();
    let (id, step) = lone.send(10);
    let SendStep::Copy { len, to, .. } = step else {
        panic!("no copy");
    };
    lone.send_copied(id, len, to);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(10)));
    lone.conn.shutdown_send(lone.instant());
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::Data, Mid::DisConn]);
    let work = lone.last_work.unwrap();
    lone.complete(work, result);
    lone.closed().flatten().expect("an error")
}

#[test]
fn abort_after_disconn_says_so_to_the_peer() {
    let mut lone = lone();
    lone.conn.close(lone.instant(), None);
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::DisConn]);
    lone.complete(lone.last_work.unwrap(), Completion::Success);
    lone.conn.abort(lone.instant());
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::AbortConn]);
    assert!(!lone.conn.is_closed());
    lone.complete(lone.last_work.unwrap(), Completion::Success);
    assert_eq!(lone.closed(), Some(Some(ConnectionError::LocallyAborted)));
    assert_torn_down(&mut lone);
}

#[test]
fn abort_conn_after_disconn_is_a_reset() {
    let mut lone = lone();
    lone.peer(Body::DisConn, 0);
    lone.peer(Body::AbortConn, 0);
    assert_eq!(lone.closed(), Some(Some(ConnectionError::Reset)));
}

#[test]
fn close_with_unread_bytes_aborts_and_a_close_without_progress_is_given_up() {
    let mut unread = lone();
    unread.peer(Body::Data, 5);
    unread.conn.close(unread.instant(), None);
    unread.drain();
    assert_torn_down(&mut unread);

    let mut idle = Lone::new(Config {
        close_wait: Duration::from_secs(60),
        ..config()
    });
    idle.conn.close(idle.instant(), None);
    idle.drain();
    idle.complete(idle.last_work.unwrap(), Completion::Success);
    idle.pass(59_000_000_000);
    assert!(idle.is_alive());
    idle.see_all();
    // Something comes: the wait begins anew.
    idle.peer(Body::Data, 0);
    idle.pass(59_000_000_000);
    assert!(idle.is_alive());
    idle.pass(1_000_000_000);
    assert_eq!(idle.see_all().last(), Some(&Mid::AbortConn));
}

/// The last credit is for what brings the peer some (§3.2), and unread bytes keep their receives.
#[test]
fn a_goodbye_takes_the_last_but_one_credit() {
    let mut lone = Lone::new(Config {
        recv_buffers_max: 4,
        recv_buffer_total: 1,
        ..config()
    });
    lone.bufs = 1;
    lone.peer(Body::Data, 1);
    lone.conn.shutdown_send(lone.instant());
    lone.drain();
    assert_eq!(lone.mids(), []);
    lone.bufs = 2;
    lone.peer(Body::Data, 1);
    assert_eq!(lone.mids(), [Mid::DisConn]);
}

#[test]
fn a_disconnect_without_goodbye_is_a_reset_and_with_it_the_end() {
    let mut rude = lone();
    rude.peer(Body::Data, 5);
    rude.conn.handle_cm(rude.instant(), CmInput::Disconnected);
    rude.drain();
    assert_eq!(rude.closed(), Some(Some(ConnectionError::Reset)));
    assert_eq!(rude.conn.readable_len(), 5);

    let mut polite = lone();
    polite.peer(Body::DisConn, 0);
    polite
        .conn
        .handle_cm(polite.instant(), CmInput::Disconnected);
    assert_eq!(polite.closed(), Some(None));
}
