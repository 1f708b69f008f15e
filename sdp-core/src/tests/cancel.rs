//! Adverts taken back: every race of clause §4.8, from both ends, message by message.

use core::time::Duration;

use sdp_wire::{Body, Hello, Mid};

use super::reading::reading;
use super::util::lone::{Lone, failed, hello, rkey};
use crate::{
    Action, Completion, Config, ConnectionError, EndCall, KeyId, RecvStep, SendId, SendStep,
    ZcopyThreshold,
};

const KIB: usize = 1 << 10;

pub(super) fn config() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Bytes(8 * KIB),
        send_buffer_len: 64 * KIB,
        rendezvous_wait: Duration::from_millis(1),
        rendezvous_wait_min: Duration::from_millis(1),
        cancel_wait: Duration::from_millis(10),
        inline_len: 64,
        ..Config::default()
    }
}

const LEN: usize = 10_064;

/// A send of [`LEN`] bytes, advertised with 64 of them inline; the peer has the SrcAvail.
fn advertised() -> (Lone, SendId) {
    let mut lone = Lone::new(config());
    let (id, step) = lone.send(LEN);
    assert_eq!(step, SendStep::Wait);
    let advert = lone.find(Mid::SrcAvail);
    assert_eq!(advert.payload_len, 64);
    assert_eq!(lone.see_all(), [Mid::SrcAvail]);
    (lone, id)
}

/// An advert behind which no nudge could go, for want of credits, wakes the peer by itself: nobody
/// may be receiving there. With more of them it does not.
#[test]
fn an_advert_that_takes_the_credit_of_a_nudge_wakes_the_peer() {
    for (bufs, wakes) in [(3, true), (4, false)] {
        let mut lone = Lone::called_by(&Hello { bufs, ..hello() }, config());
        let (_, step) = lone.send(LEN);
        assert_eq!(step, SendStep::Wait);
        let advert = lone.find(Mid::SrcAvail).mseq;
        assert_eq!(lone.solicited.contains(&advert), wakes, "{bufs} buffers");
    }
}

/// The key is killed: the work request and its completion.
fn kill(lone: &mut Lone) {
    let index = lone
        .actions
        .iter()
        .position(|action| matches!(action, Action::InvalidateKey { .. }))
        .expect("the key is not killed");
    let Action::InvalidateKey { key, work } = lone.actions.remove(index) else {
        unreachable!();
    };
    assert_eq!(key, KeyId(1));
    lone.complete(work, Completion::Success);
}

#[test]
fn the_call_waits_for_the_death_of_its_key() {
    let (mut lone, id) = advertised();
    lone.peer(Body::RdmaRdCompl { len: 4_000 }, 0);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    lone.peer(Body::RdmaRdCompl { len: 6_000 }, 0);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    kill(&mut lone);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(LEN)));
}

#[test]
fn a_report_that_invalidates_the_key_ends_the_call_at_once() {
    let (mut lone, id) = advertised();
    lone.peer_invalidating(Body::RdmaRdCompl { len: 10_000 }, 0, Some(rkey(KeyId(1))));
    assert!(lone.actions.contains(&Action::ForgetKey(KeyId(1))));
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(LEN)));
}

#[test]
fn send_sm_makes_the_rest_go_as_data() {
    let (mut lone, id) = advertised();
    lone.peer(Body::RdmaRdCompl { len: 1_000 }, 0);
    lone.peer(Body::SendSm, 0);
    kill(&mut lone);
    let (step, copied) = lone.copy_out(id);
    assert_eq!(copied, 9_000);
    assert_eq!(step, SendStep::Done(Ok(LEN)));
    assert!(lone.mids().iter().all(|mid| *mid == Mid::Data));
}

#[test]
fn a_timed_out_call_has_sent_what_was_read_and_what_there_is_room_for() {
    let (mut lone, id) = advertised();
    lone.conn.set_send_buffer_len(1_000);
    lone.bufs = 4;
    lone.peer(Body::RdmaRdCompl { len: 1_000 }, 0);
    lone.conn.send_end(lone.instant(), id, EndCall::TimedOut);
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    // A read was under way when the cancel came.
    lone.peer(Body::RdmaRdCompl { len: 500 }, 0);
    lone.peer(Body::SendSm, 0);
    kill(&mut lone);
    // One message, since one credit goes for an update, and private memory.
    assert_eq!(lone.copy_out(id), (SendStep::Done(Ok(6_644)), 5_080));
}

#[test]
fn an_interrupted_call_has_sent_what_was_read() {
    let (mut lone, id) = advertised();
    lone.peer(Body::RdmaRdCompl { len: 1_000 }, 0);
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    lone.peer(Body::SendSm, 0);
    kill(&mut lone);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(1_064)));
}

#[test]
fn a_cancel_that_crosses_the_last_report_needs_no_answer() {
    let (mut lone, id) = advertised();
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
    lone.drain();
    assert_eq!(lone.mids(), [Mid::SrcAvailCancel]);
    // Built before the peer saw the cancel.
    lone.peer(Body::RdmaRdCompl { len: 10_000 }, 0);
    kill(&mut lone);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(LEN)));
    // The next advert may go at once.
    let (_, step) = lone.send(LEN);
    assert_eq!(step, SendStep::Wait);
    assert!(lone.mids().contains(&Mid::SrcAvail));
}

#[test]
fn a_cancel_that_crosses_send_sm_owes_the_rest_and_bars_adverts_until_it_is_seen() {
    let (mut lone, id) = advertised();
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
    lone.drain();
    assert_eq!(lone.mids(), [Mid::SrcAvailCancel]);
    // MSeqAck of this SendSm is below the cancel: the peer expects Data.
    lone.peer(Body::SendSm, 0);
    kill(&mut lone);
    let (step, copied) = lone.copy_out(id);
    assert_eq!((step, copied), (SendStep::Done(Ok(LEN)), 10_000));
    // It has not confirmed the cancel, so the next send is copied.
    let (second, step) = lone.send(9 * KIB);
    assert!(matches!(step, SendStep::Copy { .. }));
    let SendStep::Copy { len, to, .. } = step else {
        unreachable!();
    };
    lone.send_copied(second, len, to);
    assert!(!lone.mids().contains(&Mid::SrcAvail));
    // It has: adverts may go again.
    assert!(matches!(lone.copy_out(second).0, SendStep::Done(Ok(_))));
    lone.see_all();
    lone.peer(Body::Data, 0);
    let (_, step) = lone.send(LEN);
    assert_eq!(step, SendStep::Wait);
    assert!(lone.mids().contains(&Mid::SrcAvail));
}

#[test]
fn no_answer_to_a_cancel_ends_the_connection_in_time() {
    let (mut lone, id) = advertised();
    lone.conn.send_end(lone.instant(), id, EndCall::TimedOut);
    lone.drain();
    lone.pass(9_999_999);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    lone.pass(1);
    assert!(lone.actions.contains(&Action::SetError));
    assert_eq!(
        lone.poll_send(id),
        SendStep::Done(failed(ConnectionError::Reset))
    );
}

#[test]
fn the_bytes_known_to_be_read_count_even_if_the_connection_ends() {
    let (mut lone, id) = advertised();
    lone.peer(Body::RdmaRdCompl { len: 1_000 }, 0);
    lone.conn.send_end(lone.instant(), id, EndCall::TimedOut);
    lone.drain();
    lone.pass(10_000_000);
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(1_064)));
    assert_eq!(lone.conn.take_error(), Some(ConnectionError::Reset));
}

#[test]
fn without_a_reader_the_advert_is_cancelled_and_the_rest_copied() {
    let (mut lone, id) = advertised();
    lone.pass(1_000_000);
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    lone.peer(Body::SendSm, 0);
    kill(&mut lone);
    let (step, copied) = lone.copy_out(id);
    assert_eq!((step, copied), (SendStep::Done(Ok(LEN)), 10_000));
}

#[test]
fn a_send_too_large_for_the_buffers_nudges_once_and_waits() {
    let mut lone = Lone::new(config());
    let (_, step) = lone.send(1 << 20);
    assert_eq!(step, SendStep::Wait);
    assert_eq!(lone.see_all(), [Mid::SrcAvail]);
    lone.pass(1_000_000);
    assert_eq!(lone.see_all(), [Mid::Data]);
    assert_eq!(lone.conn.poll_timeout(), None);
    lone.peer(Body::RdmaRdCompl { len: 100 }, 0);
    lone.pass(1_000_000);
    assert_eq!(lone.see_all(), [Mid::Data]);
}

#[test]
fn a_cancel_during_a_read_is_answered_after_it_with_the_ack_held_back() {
    let mut lone = Lone::new(Config {
        advert_len_max: 50_000,
        read_depth: 1,
        ..config()
    });
    let (id, _) = lone.recv(100_000);
    lone.peer_advertises(100_000, 10);
    assert_eq!(lone.copy_in(id), RecvStep::Wait);
    let work = lone.take_reads()[0].0;
    lone.see_all();
    let cancel = lone.mseq;
    lone.peer(Body::SrcAvailCancel, 0);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    assert!(!lone.mids().contains(&Mid::SendSm));
    // What goes meanwhile does not confirm the cancel.
    lone.peer(Body::ChRcvBuf { size: 4096 }, 0);
    assert_eq!(lone.find(Mid::ChRcvBufAck).mseq_ack, cancel - 1);
    lone.complete(work, Completion::Success);
    let report = lone.find(Mid::RdmaRdCompl);
    assert_eq!(report.body, Body::RdmaRdCompl { len: 50_000 });
    assert!(report.mseq_ack < cancel);
    let answer = lone.find(Mid::SendSm);
    assert!(answer.mseq_ack >= cancel && answer.mseq > report.mseq);
    assert!(lone.take_reads().is_empty());
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(50_010)));
}

/// MSeqAck is held back while a cancel waits for a read, so credits shrink with each message that
/// comes; buffers make up for it, or two sides in this state could not answer each other.
#[test]
fn a_cancel_not_yet_answered_leaves_the_peer_its_credits() {
    let mut lone = Lone::new(config());
    let (_, step) = lone.send(20_000);
    assert_eq!(step, SendStep::Wait);
    let (id, _) = lone.recv(100_000);
    lone.peer_advertises(100_000, 10);
    assert_eq!(lone.copy_in(id), RecvStep::Wait);
    assert_eq!(lone.take_reads().len(), 1);
    lone.peer(Body::SrcAvailCancel, 0);
    let mut limit = 0;
    for _ in 0..12 {
        for (head, _) in &lone.sent {
            limit = limit.max(head.mseq_ack + u32::from(head.bufs));
        }
        lone.see_all();
        assert!(limit >= lone.mseq, "no credit for message {}", lone.mseq);
        lone.peer(Body::RdmaRdCompl { len: 1 }, 0);
    }
    assert!(lone.is_alive());
}

#[test]
fn a_cancel_that_the_last_read_outruns_gets_no_send_sm() {
    let (mut lone, id, work) = reading();
    lone.peer(Body::SrcAvailCancel, 0);
    lone.see_all();
    lone.complete(work, Completion::Success);
    assert_eq!(lone.mids(), [Mid::RdmaRdCompl]);
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(100_000)));
    // The hold is over.
    lone.peer(Body::ChRcvBuf { size: 4096 }, 0);
    assert_eq!(lone.find(Mid::ChRcvBufAck).mseq_ack, lone.mseq - 1);
}

#[test]
fn a_cancel_of_an_unread_advert_is_answered_at_once_and_one_of_none_ignored() {
    let mut lone = Lone::new(config());
    lone.peer_advertises(100_000, 10);
    lone.peer(Body::SrcAvailCancel, 0);
    assert_eq!(lone.find(Mid::SendSm).mseq_ack, 2);
    lone.see_all();
    lone.peer(Body::SrcAvailCancel, 0);
    assert!(lone.is_alive() && !lone.mids().contains(&Mid::SendSm));
    // Data and a new advert are legal again.
    lone.peer(Body::Data, 5);
    lone.peer_advertises(1_000, 10);
    assert!(lone.is_alive());
    assert_eq!(lone.conn.readable_len(), 25);
}

#[test]
fn credits_that_a_refusal_held_back_go_once_it_is_out() {
    let mut lone = Lone::new(Config {
        recv_buffers_initial: 4,
        recv_buffers_max: 4,
        ..config()
    });
    lone.peer_advertises(100_000, 10);
    let (id, _) = lone.recv(100_000);
    lone.conn.recv_copied(lone.instant(), id, 10);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    let work = lone.take_reads()[0].0;
    lone.see_all();
    // The cancel and a nudge come in the same breath, before the refusal can leave.
    let now = lone.instant();
    lone.conn
        .handle_completion(now, work, Completion::RemoteFault);
    lone.peer_queued(Body::SrcAvailCancel, 0);
    lone.peer_queued(Body::Data, 0);
    lone.drain();
    let (cancel, refusal) = (lone.mseq - 2, lone.find(Mid::SendSm));
    assert!(refusal.mseq_ack < cancel);
    let update = lone.find(Mid::Data);
    assert!(update.mseq > refusal.mseq);
    assert_eq!((update.mseq_ack, update.bufs), (cancel + 1, 4));
}

#[test]
fn an_advert_does_not_confirm_what_came_after_it_was_queued() {
    let mut lone = Lone::new(config());
    let now = lone.instant();
    let request = crate::SendRequest {
        len: LEN,
        segment_ends: [LEN].into_iter().collect(),
        nonblocking: false,
        urgent: false,
        registered: false,
        copy_reason: None,
    };
    let id = lone.conn.send_start(now, request);
    assert_eq!(lone.conn.send_poll(now, id), SendStep::Wait);
    let key = loop {
        if let Some(Action::BindKey { key, .. }) = lone.conn.poll_action() {
            break key;
        }
    };
    let found = (rkey(key), sdp_wire::RemoteAddr(0x1000));
    lone.conn.handle_bound(now, key, Ok(found));
    // SrcAvail is queued. What comes now is not known to it, and a refusal would not be; Data
    // ahead of that does no harm.
    lone.peer_queued(Body::Data, 5);
    lone.peer(Body::ChRcvBuf { size: 4_096 }, 0);
    assert_eq!(lone.find(Mid::SrcAvail).mseq_ack, 1);
}

/// As above, where private memory is full and only the least number of buffers is posted.
#[test]
fn a_cancel_not_yet_answered_leaves_the_peer_its_credits_though_memory_is_full() {
    let mut lone = Lone::new(Config {
        recv_buffer_total: 4_096,
        ..config()
    });
    let (_, step) = lone.send(20_000);
    assert_eq!(step, SendStep::Wait);
    lone.peer_advertises(100_000, 10);
    lone.peer(Body::Data, 0);
    let reads = lone.take_reads();
    assert_eq!(reads.len(), 1, "nobody receives, so it is read ahead");
    assert_eq!(reads[0].2, 4_096 - 10);
    lone.peer(Body::SrcAvailCancel, 0);
    let mut limit = 0;
    for _ in 0..12 {
        for (head, _) in &lone.sent {
            limit = limit.max(head.mseq_ack + u32::from(head.bufs));
        }
        lone.see_all();
        assert!(limit >= lone.mseq, "no credit for message {}", lone.mseq);
        lone.peer(Body::RdmaRdCompl { len: 1 }, 0);
    }
    assert!(lone.is_alive());
}

/// The last but one credit went for an update, or for the report of the first of two reads, and the
/// last one was not for the report of the second. The peer, whose cancel and all that came behind it
/// were not confirmed, had none to send more.
#[test]
fn the_last_credits_are_kept_for_the_answer_to_a_cancel() {
    let mut lone = Lone::new(Config {
        advert_len_max: 20_000,
        read_depth: 2,
        ..config()
    });
    let (id, _) = lone.recv(100_000);
    lone.peer_advertises(100_000, 10);
    assert_eq!(lone.copy_in(id), RecvStep::Wait);
    lone.see_all();
    let reads = lone.take_reads();
    assert_eq!(reads.len(), 2);
    lone.bufs = 2;
    lone.peer(Body::SrcAvailCancel, 0);
    for (work, ..) in reads {
        lone.complete(work, Completion::Success);
    }
    assert_eq!(lone.mids(), [Mid::RdmaRdCompl, Mid::SendSm]);
}
