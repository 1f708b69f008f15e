//! SuspComm and SuspCommAck: what is finished before a queue pair is left, and who is let in on the
//! next one.

use core::time::Duration;
use std::vec::Vec;

use sdp_wire::{Body, Flags, HELLO_LEN, Mid, RemoteAddr, Rkey, ServiceId, SinkAvail};

use super::util::lone::{Lone, hello};
use super::util::op::Op;
use super::util::world::World;
use crate::{
    Action, CallError, CmInput, Completion, Config, ConnectionError, EndCall, Phase, SendId,
    SendStep, ZcopyThreshold,
};

fn id() -> ServiceId {
    ServiceId::resuming_at(5, 0xBEEF << 40)
}

fn lone() -> Lone {
    Lone::new(Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4_000),
        ..Config::default()
    })
}

/// This side has asked.
fn asking() -> Lone {
    let mut lone = lone();
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    let service_id = id();
    assert_eq!(lone.find(Mid::SuspComm).body, Body::SuspComm { service_id });
    lone.see_all();
    lone
}

/// This side has asked and was answered.
fn left() -> Lone {
    let mut lone = asking();
    lone.peer(Body::SuspCommAck, 0);
    assert_eq!(lone.actions.pop(), Some(Action::Leave { call: None }));
    assert_eq!(lone.conn.phase(), Phase::Moving);
    lone
}

/// The peer's Hello on a new queue pair.
pub(super) fn resuming(id: Option<ServiceId>) -> [u8; HELLO_LEN] {
    let mut bytes = [0; HELLO_LEN];
    hello().encode(&mut bytes);
    if let Some(id) = id {
        sdp_wire::mark_resuming(&mut bytes, id);
    }
    bytes
}

/// The peer calls on a new queue pair, and confirms.
fn resume(lone: &mut Lone) {
    let now = lone.instant();
    lone.conn.handle_call(now, &resuming(Some(id()))).unwrap();
    lone.begin_anew();
    lone.conn.handle_cm(now, CmInput::Established);
    lone.drain();
}

#[test]
fn who_does_not_name_the_connection_is_not_let_in() {
    let mut lone = left();
    let now = lone.instant();
    let near = ServiceId::from_raw(id().raw() ^ 1);
    for wrong in [None, Some(near), Some(ServiceId::from_port(5))] {
        assert!(lone.conn.handle_call(now, &resuming(wrong)).is_err());
        lone.drain();
        assert_eq!(lone.conn.phase(), Phase::Moving);
    }
    // Of another version, which the first Hello has settled.
    let mut old = resuming(Some(id()));
    old[16] = 0x11;
    assert!(lone.conn.handle_call(now, &old).is_err());
    resume(&mut lone);
    assert_eq!(
        (lone.conn.phase(), lone.conn.moves_done()),
        (Phase::Open, 1)
    );
    // The door is closed behind it.
    assert!(lone.conn.handle_call(now, &resuming(Some(id()))).is_err());
    lone.peer(Body::Data, 10);
    assert_eq!(lone.conn.readable_len(), 10);
}

#[test]
fn a_connection_is_called_back_only_where_it_was_left() {
    let mut lone = asking();
    let now = lone.instant();
    assert!(lone.conn.handle_call(now, &resuming(Some(id()))).is_err());
    lone.conn.handle_path(now, 1, None, None);
    lone.drain();
    assert!(lone.actions.is_empty(), "{:?}", lone.actions);
}

/// A message behind SuspComm may never reach the peer, so it announces nothing (§4.11).
#[test]
fn an_urgent_byte_is_announced_where_it_is_sent() {
    let mut lone = asking();
    assert_eq!(lone.conn.send_urgent(lone.instant(), 1), Ok(true));
    lone.drain();
    assert_eq!(lone.mids(), []);
    lone.peer(Body::SuspCommAck, 0);
    resume(&mut lone);
    let flags = lone.find(Mid::Data).flags;
    assert_eq!(flags, Flags::OOB_PEND | Flags::OOB_PRES);
}

/// Nobody reads, SO_RCVBUF is full, and the peer's last credit is no good for SuspCommAck (§3.2).
#[test]
fn a_peer_that_is_asked_has_a_credit_to_answer_with() {
    let mut lone = Lone::new(Config {
        recv_buffer_total: 4_096,
        ..Config::default()
    });
    lone.peer(Body::Data, 4_096);
    lone.peer(Body::Data, 4_096);
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    lone.see_all();
    lone.bufs = 2;
    lone.peer(Body::Data, 0);
    let told: Vec<_> = lone.sent.iter().map(|(head, _)| head.bufs).collect();
    assert!(told.last().is_some_and(|bufs| *bufs > 1), "{told:?}");
}

/// Nobody reads on either side: SuspComm could not go, for the last credit is for a message that
/// brings some (§3.2), and SO_RCVBUF was full. The move timed out.
#[test]
fn a_move_is_asked_for_by_the_last_credit() {
    let mut lone = Lone::new(Config {
        recv_buffer_total: 4_096,
        recv_buffers_max: 4,
        nodelay: true,
        ..Config::default()
    });
    lone.bufs = 4;
    lone.peer(Body::Data, 4_096);
    lone.peer(Body::Data, 4_096);
    lone.send_all(10);
    lone.send_all(10);
    // There is no credit for the urgent byte itself.
    assert_eq!(lone.conn.send_urgent(lone.instant(), 1), Ok(true));
    lone.drain();
    assert_eq!(lone.mids(), [Mid::Data; 3]);
    let told = lone.find(Mid::Data).bufs;
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    assert_eq!(lone.find(Mid::SuspComm).bufs, told + 1);
}

#[test]
fn the_answer_is_the_last_message() {
    let mut lone = lone();
    let service_id = id();
    lone.peer(Body::SuspComm { service_id }, 0);
    assert_eq!(lone.find(Mid::SuspCommAck).body, Body::SuspCommAck);
    lone.see_all();
    let (send, step) = lone.send(10);
    // It goes to private memory, and on the next queue pair.
    assert!(matches!(step, SendStep::Copy { .. }));
    lone.send_copied(
        send,
        10,
        match step {
            SendStep::Copy { to, .. } => to,
            other => panic!("{other:?}"),
        },
    );
    lone.conn.shutdown_send(lone.instant());
    lone.drain();
    lone.peer(Body::Data, 0);
    assert_eq!(lone.mids(), []);
    let work = lone.last_work.expect("SuspCommAck is signalled");
    lone.complete(work, Completion::Success);
    let call = Some(id());
    assert_eq!(lone.actions.pop(), Some(Action::Leave { call }));
    assert_eq!(lone.conn.unsent_len(), 10);
}

#[test]
fn what_is_open_is_taken_back_before_the_answer() {
    let mut lone = lone();
    let (_, step) = lone.send(10_000);
    assert_eq!(step, SendStep::Wait);
    lone.see_all();
    let service_id = id();
    lone.peer(Body::SuspComm { service_id }, 0);
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    lone.peer(Body::SendSm, 0);
    assert_eq!(lone.mids(), [], "the key is alive");
    lone.kill_keys();
    assert_eq!(lone.see_all(), [Mid::SuspCommAck]);
}

#[test]
fn nothing_new_comes_after_suspcomm() {
    let service_id = id();
    let news: [(Body, u32); 4] = [
        (Body::Data, 1),
        (Body::DisConn, 0),
        (Body::SuspComm { service_id }, 0),
        (Body::SuspCommAck, 0),
    ];
    for (body, payload_len) in news {
        let mut lone = lone();
        lone.peer(Body::SuspComm { service_id }, 0);
        lone.peer(body, payload_len);
        let rule = lone.broken_rule();
        assert!(rule.starts_with("§2.8"), "{body:?}: {rule}");
    }
    // Nor anything after the answer: the next queue pair begins with a handshake.
    let mut lone = asking();
    lone.peer_advertises(100, 1);
    lone.peer(Body::SuspCommAck, 0);
    assert!(lone.broken_rule().starts_with("§2.8"));
}

#[test]
fn of_two_that_cross_the_accepting_sides_counts() {
    let mut lone = lone();
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    lone.find(Mid::SuspComm);
    // The peer has not seen it.
    let service_id = ServiceId::from_port(9);
    lone.peer(Body::SuspComm { service_id }, 0);
    assert_eq!(lone.mids(), [Mid::SuspComm]);
    lone.see_all();
    lone.peer(Body::SuspCommAck, 0);
    assert_eq!(lone.conn.phase(), Phase::Moving);
    // One that has seen it answers it.
    let mut lone = asking();
    lone.peer(Body::SuspComm { service_id }, 0);
    assert!(lone.broken_rule().starts_with("§2.8"));
}

/// Both ask at the same time: the connecting side comes second, and both get what they want.
#[test]
fn both_sides_move_at_once() {
    let mut world = World::connected(&Config::default());
    for side in 0..2 {
        world.spawn(side, [Op::Move, Op::send(50_000), Op::ShutSend]);
        world.spawn(side, [Op::RecvToEnd { len: 9_000 }]);
    }
    world.finish();
    world.assert_delivered();
    for nic in &world.nics {
        assert_eq!((nic.conn.moves_done(), nic.pair), (1, 2));
    }
}

#[test]
fn halves_that_have_ended_are_not_ended_again() {
    let mut lone = lone();
    lone.conn.shutdown_send(lone.instant());
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::DisConn]);
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SuspComm]);
    lone.peer(Body::SuspCommAck, 0);
    resume(&mut lone);
    assert!(lone.conn.has_sent_all());
    assert_eq!(lone.mids(), []);
    lone.peer(Body::DisConn, 0);
    assert_eq!(lone.closed(), Some(None));
}

#[test]
fn a_peer_that_does_not_answer_ends_the_connection() {
    let wait = u64::try_from(Config::default().move_wait.as_nanos()).unwrap();
    for mut lone in [asking(), left()] {
        lone.pass(wait - 1);
        assert!(lone.is_alive());
        lone.pass(1);
        let why = lone.closed();
        assert!(
            matches!(why, Some(Some(ConnectionError::TimedOut(_)))),
            "{why:?}"
        );
    }
}

/// As long as the peer does not know of it, a move that takes too long does no harm.
#[test]
fn a_move_that_could_not_be_asked_for_is_given_up() {
    let mut lone = lone();
    assert_eq!(lone.send(10_000).1, SendStep::Wait);
    lone.see_all();
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    // The answer to the cancel has come, but the key does not die.
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    lone.peer(Body::SendSm, 0);
    assert!(lone.conn.is_move_wanted());
    assert_eq!(
        lone.conn.suspend(lone.instant(), id()),
        Err(CallError::WouldBlock)
    );
    lone.pass(u64::try_from(Config::default().move_wait.as_nanos()).unwrap());
    assert!(lone.is_alive() && !lone.conn.is_moving());
    assert_eq!(lone.conn.moves_done(), 0);
    lone.peer(Body::Data, 10);
    assert_eq!(lone.conn.readable_len(), 10);
}

/// The peer closes the old queue pair as soon as it has answered; before that it has no right to.
#[test]
fn the_end_of_the_old_queue_pair_is_one_only_before_the_answer() {
    let mut lone = left();
    lone.conn.handle_cm(lone.instant(), CmInput::Disconnected);
    lone.drain();
    assert!(lone.is_alive());
    resume(&mut lone);
    assert_eq!(lone.conn.phase(), Phase::Open);
    lone.conn.handle_cm(lone.instant(), CmInput::Disconnected);
    lone.drain();
    assert_eq!(lone.closed(), Some(Some(ConnectionError::Reset)));
    let mut lone = asking();
    lone.conn.handle_cm(lone.instant(), CmInput::Disconnected);
    lone.drain();
    assert_eq!(lone.closed(), Some(Some(ConnectionError::Reset)));
}

#[test]
fn a_close_between_two_queue_pairs_is_said_on_the_next_one() {
    let mut lone = left();
    lone.conn.close(lone.instant(), None);
    lone.drain();
    assert!(lone.is_alive());
    resume(&mut lone);
    assert_eq!(lone.mids(), [Mid::DisConn]);
    let mut lone = left();
    lone.conn.close(lone.instant(), Some(Duration::ZERO));
    lone.drain();
    assert_eq!(lone.closed(), Some(Some(ConnectionError::LocallyAborted)));
}

/// It was taken for one that our DisConn would end; but that waits for the next queue pair.
#[test]
fn an_offer_to_a_side_that_has_shut_is_given_back() {
    let mut lone = lone();
    assert_eq!(lone.send(3 << 20).1, SendStep::Wait);
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    lone.see_all();
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    assert_eq!(lone.see_all(), [Mid::SuspComm]);
    lone.conn.shutdown_send(lone.instant());
    lone.drain();
    let offer = SinkAvail {
        len: 100_000,
        rkey: Rkey(1),
        addr: RemoteAddr(1),
        // The inline bytes of the first advert.
        non_discards: 1,
    };
    lone.peer(Body::SinkAvail(offer), 0);
    lone.peer(Body::SinkAvailCancel, 0);
    assert_eq!(lone.see_all(), [Mid::SinkCancelAck]);
}

/// The peer took it for one that had been asked for in knowledge of its own.
#[test]
fn suspcomm_does_not_confirm_what_came_after_it_was_queued() {
    let mut lone = lone();
    lone.conn.suspend(lone.instant(), id()).unwrap();
    // Both are handed in before the first action is carried out.
    let service_id = ServiceId::from_port(9);
    lone.peer(Body::SuspComm { service_id }, 0);
    assert_eq!(lone.find(Mid::SuspComm).mseq_ack, 0);
    lone.see_all();
    lone.peer(Body::SuspCommAck, 0);
    assert_eq!(lone.conn.phase(), Phase::Moving);
}

/// The answer's completion came after the end, and the connection went on to its next queue pair.
#[test]
fn what_has_ended_does_not_move() {
    let mut lone = lone();
    lone.peer(Body::SuspComm { service_id: id() }, 0);
    assert_eq!(lone.see_all(), [Mid::SuspCommAck]);
    let answer = lone.last_work.unwrap();
    lone.peer(Body::SuspComm { service_id: id() }, 0);
    assert!(lone.broken_rule().starts_with("§2.8: a second SuspComm"));
    lone.complete(answer, Completion::Success);
    assert_eq!(lone.conn.phase(), Phase::Closed);
}

/// Of several adverts the peer had refused the first. The second one's place in the stream counted the
/// first one's bytes as accepted, and on the next queue pair they were owed to nobody: a send whose time
/// was over returned them without having sent them, if there was no memory to copy them to.
#[test]
fn refused_bytes_are_owed_on_the_next_queue_pair() {
    const LEN: usize = 30_000;
    const ADVERT: usize = 10_000;
    let mut lone = Lone::new(Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4_000),
        advert_len_max: 10_000,
        ..Config::default()
    });
    let (send, step) = lone.send(LEN);
    assert_eq!(step, SendStep::Wait);
    let inline = usize::try_from(lone.sent[0].0.payload_len).unwrap();
    let mids = lone.see_all();
    let adverts = mids.iter().filter(|mid| **mid == Mid::SrcAvail);
    assert!(adverts.count() > 1, "{mids:?}");
    let before_cancel = lone.seen;
    lone.conn.send_end(lone.instant(), send, EndCall::TimedOut);
    lone.conn.suspend(lone.instant(), id()).unwrap();
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    // The first refusal crosses the cancel, the second answers it.
    let cancel = core::mem::replace(&mut lone.seen, before_cancel);
    lone.peer(Body::SendSm, 0);
    lone.seen = cancel;
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    assert_eq!(lone.conn.send_accepted(send), ADVERT);
    no_memory(&mut lone, send);
    assert_eq!(lone.find(Mid::SuspComm).payload_len, 0);
    lone.peer(Body::SuspCommAck, 0);
    resume(&mut lone);
    no_memory(&mut lone, send);
    assert_eq!(lone.poll_send(send), SendStep::Wait, "bytes are owed");
    lone.pass(1_000_000_000);
    let (step, copied) = lone.copy_out(send);
    assert_eq!((step, copied), (SendStep::Done(Ok(LEN)), LEN - inline));
}

/// The send is to copy, and there is no memory to copy to.
fn no_memory(lone: &mut Lone, send: SendId) {
    let step = lone.poll_send(send);
    let SendStep::Copy { to, .. } = step else {
        panic!("{step:?}");
    };
    lone.conn.send_copy_failed(lone.instant(), send, to);
    lone.drain();
}
