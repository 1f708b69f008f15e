//! Write ZCopy, message by message, from both ends: every rule of clauses §4.5 to §4.7 and every
//! race of §4.9.

use core::time::Duration;
use std::vec::Vec;

use sdp_wire::{Body, Flags, Mid, ModeChange, RemoteAddr, Rkey, SinkAvail};

use super::util::lone::{Lone, failed, rkey};
use super::util::op::Op;
use super::util::world::World;
use crate::{
    Completion, Config, ConnectionError, EndCall, KeyId, RecvId, RecvRequest, RecvStep, SendId,
    SendStep, ZcopyThreshold,
};

fn config() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4_000),
        recv_buffer_len: 4_096,
        recv_buffers_initial: 30,
        read_direct_min: 2_000,
        cancel_wait: Duration::from_millis(10),
        ..Config::default()
    }
}

/// The peer's half is Pipelined, and two large adverts of its have been read.
fn hungry(config: Config) -> Lone {
    let mut lone = Lone::new(config);
    lone.bufs = 30;
    lone.peer(Body::ModeChange(ModeChange::RecvPipelined), 0);
    for _ in 0..2 {
        lone.peer_advertises(10_000, 0);
        let (id, step) = lone.recv(10_000);
        assert_eq!(step, RecvStep::Wait);
        for (work, ..) in lone.take_reads() {
            lone.complete(work, Completion::Success);
        }
        assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(10_000)));
    }
    lone.see_all();
    lone
}

/// A receive of 50,000 bytes that has offered its memory, and the key.
pub(super) fn offering() -> (Lone, RecvId, Rkey) {
    let mut lone = hungry(config());
    let (id, step) = lone.recv(50_000);
    assert_eq!(step, RecvStep::Wait);
    let Body::SinkAvail(offer) = lone.find(Mid::SinkAvail).body else {
        unreachable!();
    };
    assert_eq!((offer.len, offer.non_discards), (50_000, 0));
    lone.see_all();
    (lone, id, offer.rkey)
}

fn offers(lone: &Lone) -> usize {
    let mids = lone.mids();
    mids.iter().filter(|mid| **mid == Mid::SinkAvail).count()
}

/// What a Transaction would save is one message: the offer follows the request by itself, and the answer
/// waits for nothing.
#[test]
fn a_request_with_a_large_answer_takes_three_messages() {
    const ROUNDS: u64 = 20;
    const ANSWER: usize = 100_000;
    let mut world = World::connected(&Config::default());
    let rounds = || 0..ROUNDS;
    let ask = |_| [Op::send(100), Op::recv(ANSWER)];
    world.spawn(0, rounds().flat_map(ask));
    let answer = |_| [Op::recv(100), Op::send(ANSWER)];
    world.spawn(1, rounds().flat_map(answer));
    world.finish();
    // The first answers are read, and show that they are large.
    let written = world.sent(1, Mid::RdmaWrCompl);
    assert!(written >= ROUNDS - 3, "{written}");
    assert_eq!(world.sent(0, Mid::SinkAvail), written);
    let others = world.sent(0, Mid::Data) + world.sent(1, Mid::Data);
    assert!(others <= ROUNDS + 2, "{others}");
}

#[test]
fn a_waiting_receive_is_done_when_its_memory_was_written() {
    let (mut lone, id, key) = offering();
    let compl = Body::RdmaWrCompl { len: 30_000 };
    lone.peer_invalidating(compl, 0, Some(key));
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(30_000)));
    assert_eq!(lone.conn.stats().rx_bytes_written, 30_000);
}

#[test]
fn without_invalidation_the_receive_waits_for_the_death_of_its_key() {
    let (mut lone, id, _) = offering();
    lone.peer(Body::RdmaWrCompl { len: 50_000 }, 0);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    lone.kill_keys();
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(50_000)));
}

#[test]
fn a_message_uses_the_offer_up_and_reaches_the_receive() {
    let (mut lone, id, _) = offering();
    lone.peer(Body::Data, 100);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    lone.kill_keys();
    assert_eq!(lone.copy_in(id), RecvStep::Done(Ok(100)));
    // It was not counted; one that meets no offer is.
    lone.peer(Body::Data, 10);
    lone.recv_all(10);
    for _ in 0..2 {
        lone.peer_advertises(10_000, 0);
        let (id, _) = lone.recv(10_000);
        for (work, ..) in lone.take_reads() {
            lone.complete(work, Completion::Success);
        }
        assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(10_000)));
    }
    assert_eq!(lone.recv(50_000).1, RecvStep::Wait);
    let Body::SinkAvail(offer) = lone.find(Mid::SinkAvail).body else {
        unreachable!();
    };
    assert_eq!(offer.non_discards, 1);
}

#[test]
fn only_a_plain_receive_larger_than_any_message_offers_its_memory() {
    let change = |request: &mut RecvRequest, kind: usize| match kind {
        0 => request.peek = true,
        1 => request.wait_all = true,
        2 => request.nonblocking = true,
        3 => request.segment_ends = [4_096, 50_000].into_iter().collect(),
        _ => request.copy_reason = Some(crate::CopyReason::BindFailed),
    };
    for kind in 0..5 {
        let mut lone = hungry(config());
        let mut request = RecvRequest {
            len: 50_000,
            segment_ends: [50_000].into_iter().collect(),
            nonblocking: false,
            peek: false,
            wait_all: false,
            copy_reason: None,
        };
        change(&mut request, kind);
        let id = lone.conn.recv_start(lone.instant(), request);
        let _ = lone.poll_recv(id);
        assert_eq!(offers(&lone), 0, "kind {kind}");
    }
    // Nor does one of a connection that has seen nothing large, or is not Pipelined.
    let mut fresh = Lone::new(config());
    fresh.peer(Body::ModeChange(ModeChange::RecvPipelined), 0);
    assert_eq!(fresh.recv(50_000).1, RecvStep::Wait);
    assert_eq!(offers(&fresh), 0);
    let mut combined = hungry(config());
    combined.peer(Body::ModeChange(ModeChange::RecvCombined), 0);
    assert_eq!(combined.recv(50_000).1, RecvStep::Wait);
    assert_eq!(offers(&combined), 0);
    // Nor while unread bytes or an advert are there.
    let mut unread = hungry(config());
    unread.peer_advertises(10_000, 0);
    assert_eq!(unread.recv(50_000).1, RecvStep::Wait);
    assert_eq!(offers(&unread), 0);
}

#[test]
fn an_ended_receive_takes_its_offer_back() {
    let (mut lone, id, _) = offering();
    lone.conn.recv_end(lone.instant(), id, EndCall::TimedOut);
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SinkAvailCancel]);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    lone.peer(Body::SinkCancelAck, 0);
    lone.kill_keys();
    let would_block = Err(crate::CallError::WouldBlock);
    assert_eq!(lone.poll_recv(id), RecvStep::Done(would_block));
}

#[test]
fn a_cancel_that_crosses_a_write_or_a_message_needs_no_answer() {
    for written in [true, false] {
        let (mut lone, id, _) = offering();
        lone.conn.recv_end(lone.instant(), id, EndCall::TimedOut);
        lone.drain();
        assert_eq!(lone.see_all(), [Mid::SinkAvailCancel]);
        if written {
            lone.peer(Body::RdmaWrCompl { len: 700 }, 0);
        } else {
            lone.peer(Body::Data, 700);
        }
        lone.kill_keys();
        assert_eq!(lone.copy_in(id), RecvStep::Done(Ok(700)));
        // None is expected.
        lone.peer(Body::SinkCancelAck, 0);
        assert!(lone.broken_rule().starts_with("§4.9"));
    }
}

#[test]
fn no_answer_to_the_cancel_of_an_offer_ends_the_connection_in_time() {
    let (mut lone, id, _) = offering();
    lone.conn.recv_end(lone.instant(), id, EndCall::TimedOut);
    lone.drain();
    lone.pass(9_999_999);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    lone.pass(1);
    assert_eq!(
        lone.poll_recv(id),
        RecvStep::Done(failed(ConnectionError::Reset))
    );
}

#[test]
fn a_shut_receive_takes_its_offer_back() {
    let (mut lone, id, _) = offering();
    lone.conn.shutdown_recv(lone.instant());
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SinkAvailCancel]);
    lone.peer(Body::SinkCancelAck, 0);
    lone.kill_keys();
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(0)));
}

#[test]
fn an_advert_that_crosses_an_offer_is_discarded() {
    let (mut lone, id, key) = offering();
    lone.peer_advertises(20_000, 0);
    lone.peer_advertises(20_000, 0);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    assert!(lone.take_reads().is_empty());
    lone.peer_invalidating(Body::RdmaWrCompl { len: 40_000 }, 0, Some(key));
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(40_000)));
    assert_eq!(lone.conn.readable_len(), 0);
}

#[test]
fn the_end_of_pipelined_mode_or_of_the_half_voids_an_offer() {
    for body in [Body::ModeChange(ModeChange::RecvCombined), Body::DisConn] {
        let (mut lone, id, _) = offering();
        lone.peer(body, 0);
        lone.kill_keys();
        let step = lone.poll_recv(id);
        if body == Body::DisConn {
            assert_eq!(step, RecvStep::Done(Ok(0)));
        } else {
            assert_eq!(step, RecvStep::Wait);
            lone.peer_advertises(10_000, 10);
            assert_eq!(lone.copy_in(id), RecvStep::Wait);
            assert_eq!(lone.take_reads().len(), 1);
        }
    }
}

#[test]
fn reports_of_writes_that_do_not_fit() {
    let (mut beyond, _, _) = offering();
    beyond.peer(Body::RdmaWrCompl { len: 50_001 }, 0);
    assert!(beyond.broken_rule().starts_with("§4.5 row 4"));

    let mut none = hungry(config());
    none.peer(Body::RdmaWrCompl { len: 1 }, 0);
    assert!(none.broken_rule().starts_with("§4.5 row 5"));

    let (mut other, _, _) = offering();
    other.peer_invalidating(Body::RdmaWrCompl { len: 1 }, 0, Some(Rkey(1)));
    assert!(other.broken_rule().starts_with("§4.4 row 12"));
}

#[test]
fn a_receive_that_waited_asks_for_pipelined_mode() {
    for waits in [true, false] {
        let mut lone = Lone::new(config());
        let id = if waits {
            let (id, _) = lone.recv(20_000);
            lone.peer_advertises(20_000, 10);
            id
        } else {
            lone.peer_advertises(20_000, 10);
            let (id, _) = lone.recv(20_000);
            lone.conn.recv_copied(lone.instant(), id, 10);
            id
        };
        assert_eq!(lone.copy_in(id), RecvStep::Wait);
        for (work, ..) in lone.take_reads() {
            lone.complete(work, Completion::Success);
        }
        let flags = lone.find(Mid::RdmaRdCompl).flags;
        assert_eq!(flags.contains(Flags::REQ_PIPE), waits);
    }
}

/// An engine whose sending half is Pipelined at the peer's wish.
pub(super) fn pipelined() -> Lone {
    let mut lone = Lone::new(config());
    lone.bufs = 30;
    let (id, _) = lone.send(5_000);
    let mut head = lone.next_head(Body::RdmaRdCompl { len: 4_936 }, 0);
    lone.see_all();
    head.mseq_ack = lone.seen;
    head.flags = Flags::REQ_PIPE;
    lone.mseq += 1;
    lone.peer_head(head, Some(rkey(KeyId(1))));
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(5_000)));
    assert_eq!(lone.see_all(), [Mid::ModeChange]);
    lone
}

/// The inline bytes of the SrcAvail above were payload that used up no offer.
pub(super) const COUNTED: u32 = 1;

pub(super) fn offer(lone: &mut Lone, len: u32, non_discards: u32) {
    let offer = SinkAvail {
        len,
        rkey: Rkey(55),
        addr: RemoteAddr(0x9000),
        non_discards,
    };
    lone.peer(Body::SinkAvail(offer), 0);
}

pub(super) fn finish_writes(lone: &mut Lone) -> Vec<(u64, u32)> {
    let writes = lone.take_writes();
    for (work, ..) in &writes {
        lone.complete(*work, Completion::Success);
    }
    writes.iter().map(|(_, at, len)| (*at, *len)).collect()
}

fn send_small(lone: &mut Lone) {
    let (id, step) = lone.send(10);
    let SendStep::Copy { len, to, .. } = step else {
        panic!("a small send is copied");
    };
    lone.send_copied(id, len, to);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(10)));
}

#[test]
fn a_large_send_is_written_into_the_offer_and_reported_behind_the_writes() {
    let mut lone = pipelined();
    offer(&mut lone, 50_000, COUNTED);
    let (id, step) = lone.send(20_000);
    assert_eq!(step, SendStep::Wait);
    let (head, invalidate) = lone.sent[0];
    assert_eq!(head.body, Body::RdmaWrCompl { len: 20_000 });
    assert_eq!(invalidate, Some(Rkey(55)));
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    assert_eq!(finish_writes(&mut lone), [(0x9000, 20_000)]);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(20_000)));
    assert_eq!(lone.conn.stats().tx_bytes_written, 20_000);
}

#[test]
fn what_does_not_fit_the_offer_is_advertised_behind_it() {
    let mut lone = pipelined();
    offer(&mut lone, 8_000, COUNTED);
    let (id, _) = lone.send(20_000);
    assert_eq!(lone.mids(), [Mid::RdmaWrCompl, Mid::SrcAvail]);
    lone.see_all();
    lone.peer(Body::RdmaRdCompl { len: 12_000 }, 0);
    finish_writes(&mut lone);
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(20_000)));
}

#[test]
fn offers_that_crossed_messages_are_stale() {
    let mut lone = pipelined();
    send_small(&mut lone);
    send_small(&mut lone);
    // The worked case of §4.6: two messages were sent, three offers know of none of them.
    for _ in 0..3 {
        offer(&mut lone, 50_000, COUNTED);
    }
    lone.see_all();
    let (id, step) = lone.send(60_000);
    assert_eq!(step, SendStep::Wait);
    assert_eq!(finish_writes(&mut lone), [(0x9000, 50_000)]);
    assert_eq!(lone.mids(), [Mid::RdmaWrCompl, Mid::SrcAvail]);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
}

#[test]
fn a_small_message_retires_the_offer_in_hand() {
    let mut lone = pipelined();
    offer(&mut lone, 50_000, COUNTED);
    send_small(&mut lone);
    // The peer has not counted it, and neither has this side.
    offer(&mut lone, 50_000, COUNTED);
    lone.see_all();
    let (_, step) = lone.send(20_000);
    assert_eq!(step, SendStep::Wait);
    assert_eq!(lone.mids(), [Mid::RdmaWrCompl]);
}

#[test]
fn an_offer_overrides_open_adverts_from_the_first_byte_not_reported() {
    let mut lone = pipelined();
    let (id, _) = lone.send(20_000);
    assert_eq!(lone.see_all(), [Mid::SrcAvail]);
    lone.peer(Body::RdmaRdCompl { len: 3_000 }, 0);
    offer(&mut lone, 50_000, COUNTED);
    assert_eq!(
        lone.find(Mid::RdmaWrCompl).body,
        Body::RdmaWrCompl { len: 17_000 }
    );
    assert_eq!(finish_writes(&mut lone), [(0x9000, 17_000)]);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(20_000)));
    // The advert is gone.
    lone.peer(Body::RdmaRdCompl { len: 1 }, 0);
    assert!(lone.broken_rule().starts_with("§4.4 row 7"));
}

#[test]
fn an_offer_overrides_adverts_being_cancelled_and_is_void_for_the_ended_call() {
    let mut lone = pipelined();
    let (id, _) = lone.send(20_000);
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SrcAvail, Mid::SrcAvailCancel]);
    offer(&mut lone, 50_000, COUNTED);
    lone.kill_keys();
    let interrupted = Err(crate::CallError::Interrupted);
    assert_eq!(lone.poll_send(id), SendStep::Done(interrupted));
    // The next send begins with the offer.
    lone.see_all();
    let (_, step) = lone.send(20_000);
    assert_eq!(step, SendStep::Wait);
    assert_eq!(lone.mids(), [Mid::RdmaWrCompl]);
}

#[test]
fn an_offer_taken_back_is_given_back_once_and_a_late_cancel_is_ignored() {
    let mut lone = pipelined();
    offer(&mut lone, 50_000, COUNTED);
    offer(&mut lone, 50_000, COUNTED);
    lone.peer(Body::SinkAvailCancel, 0);
    assert_eq!(lone.see_all(), [Mid::SinkCancelAck]);
    lone.peer(Body::SinkAvailCancel, 0);
    assert!(!lone.mids().contains(&Mid::SinkCancelAck) && lone.is_alive());
    // Nothing is in hand: the next send advertises.
    let (_, step) = lone.send(20_000);
    assert_eq!(step, SendStep::Wait);
    assert_eq!(lone.find(Mid::SrcAvail).payload_len, 0);
}

#[test]
fn an_offer_that_crosses_the_change_to_combined_is_ignored_and_counted_right() {
    let mut lone = pipelined();
    // A refusal makes this side leave Pipelined.
    let (id, _) = lone.send(20_000);
    lone.see_all();
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    assert_eq!(
        lone.find(Mid::ModeChange).body,
        Body::ModeChange(ModeChange::RecvCombined)
    );
    let (step, _) = lone.copy_out(id);
    assert_eq!(step, SendStep::Done(Ok(20_000)));
    offer(&mut lone, 50_000, COUNTED);
    assert!(lone.is_alive() && lone.take_writes().is_empty());
    lone.see_all();
    offer(&mut lone, 50_000, COUNTED);
    assert!(lone.broken_rule().starts_with("§4.2"));
}

#[test]
fn a_transaction_brings_bytes_and_an_offer() {
    let mut lone = pipelined();
    let command = SinkAvail {
        len: 50_000,
        rkey: Rkey(55),
        addr: RemoteAddr(0x9000),
        non_discards: COUNTED,
    };
    lone.peer(Body::SinkAvail(command), 40);
    lone.recv_all(40);
    let (_, step) = lone.send(20_000);
    assert_eq!(step, SendStep::Wait);
    assert_eq!(finish_writes(&mut lone), [(0x9000, 20_000)]);
}

#[test]
fn a_write_whose_key_is_dead_ends_the_connection_by_name_and_an_ended_call_waits_for_its_writes() {
    let mut lone = pipelined();
    offer(&mut lone, 50_000, COUNTED);
    let (id, _): (SendId, _) = lone.send(20_000);
    lone.conn.send_end(lone.instant(), id, EndCall::TimedOut);
    lone.drain();
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    let work = lone.take_writes()[0].0;
    lone.complete(work, Completion::RemoteAccess);
    let gone = ConnectionError::MemoryGone("§4.5 row 6");
    assert_eq!(lone.closed(), Some(Some(gone)));

    let mut stuck = pipelined();
    offer(&mut stuck, 50_000, COUNTED);
    let (id, _) = stuck.send(20_000);
    stuck.conn.send_end(stuck.instant(), id, EndCall::TimedOut);
    stuck.drain();
    stuck.pass(10_000_000);
    // The memory is named by a request until that has come back.
    assert_eq!(stuck.poll_send(id), SendStep::Wait);
    let work = stuck.take_writes()[0].0;
    stuck.complete(work, Completion::Flushed);
    assert_eq!(
        stuck.poll_send(id),
        SendStep::Done(failed(ConnectionError::Reset))
    );
}
