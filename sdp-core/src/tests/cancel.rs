//! Adverts taken back: every race of clause §4.8, from both ends, message by message.

use core::time::Duration;

use sdp_wire::{Body, Hello, Mid};

use super::util::lone::{Lone, failed, hello, rkey};
use crate::{
    Action, CallError, Completion, Config, ConnectionError, EndCall, KeyId, RecvStep, SendId,
    SendStep, ZcopyThreshold,
};

const KIB: usize = 1 << 10;

fn config() -> Config {
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

/// An advert of 100,000 bytes, 10 of them inline, that a receive of 100,000 is reading: the
/// inline bytes are copied, the read is under way.
fn reading() -> (Lone, crate::RecvId, crate::WorkId) {
    let mut lone = Lone::new(config());
    let (id, step) = lone.recv(100_000);
    assert_eq!(step, RecvStep::Wait);
    lone.peer_advertises(100_000, 10);
    assert_eq!(lone.copy_in(id), RecvStep::Wait);
    let reads = lone.take_reads();
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].2, 99_990);
    lone.see_all();
    (lone, id, reads[0].0)
}

#[test]
fn the_sink_reports_a_read_only_when_it_is_complete_and_never_inline_bytes() {
    let (mut lone, id, work) = reading();
    assert!(lone.sent.is_empty());
    lone.complete(work, Completion::Success);
    let (report, invalidate) = lone.sent[0];
    assert_eq!(report.body, Body::RdmaRdCompl { len: 99_990 });
    assert_eq!(invalidate, Some(sdp_wire::Rkey(77)));
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(100_000)));
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
fn memory_that_the_peer_cannot_show_is_refused_after_what_was_read() {
    let mut lone = Lone::new(Config {
        advert_len_max: 40_000,
        ..config()
    });
    lone.peer_advertises(100_010, 10);
    let mut request = crate::RecvRequest {
        len: 100_010,
        segment_ends: [40_010, 80_010, 100_010].into_iter().collect(),
        nonblocking: false,
        peek: false,
        wait_all: false,
        copy_reason: None,
    };
    request.wait_all = true;
    let id = lone.conn.recv_start(lone.instant(), request);
    assert_eq!(lone.copy_in(id), RecvStep::Wait);
    let reads = lone.take_reads();
    assert_eq!(reads.len(), 3);
    lone.see_all();
    lone.complete(reads[0].0, Completion::Success);
    lone.complete(reads[1].0, Completion::RemoteFault);
    assert!(!lone.mids().contains(&Mid::SendSm));
    // The bytes behind the hole do not count.
    lone.complete(reads[2].0, Completion::Success);
    assert_eq!(
        lone.find(Mid::RdmaRdCompl).body,
        Body::RdmaRdCompl { len: 40_000 }
    );
    assert_eq!(
        lone.find(Mid::SendSm).mseq,
        lone.find(Mid::RdmaRdCompl).mseq + 1
    );
    assert!(lone.is_alive());
    lone.see_all();
    // The rest comes as Data.
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    lone.peer(Body::Data, 20_000);
    assert!(matches!(
        lone.poll_recv(id),
        RecvStep::Copy {
            at: 40_010,
            len: 20_000,
            ..
        }
    ));
}

#[test]
fn a_receive_whose_own_memory_is_bad_fails_and_leaves_the_bytes() {
    let (mut lone, id, work) = reading();
    lone.complete(work, Completion::LocalFault);
    assert!(lone.sent.is_empty());
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(10)));
    let (id, step) = lone.recv(100_000);
    assert_eq!(step, RecvStep::Wait);
    let reads = lone.take_reads();
    assert_eq!(reads[0].2, 99_990);
    lone.complete(reads[0].0, Completion::LocalFault);
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Err(CallError::Fault)));
}

#[test]
fn a_read_without_memory_waits_for_those_before_it_and_is_refused() {
    let mut lone = Lone::new(Config {
        advert_len_max: 40_000,
        read_depth: 4,
        ..config()
    });
    lone.peer_advertises(100_010, 10);
    let (id, _) = lone.recv(200_000);
    lone.conn.recv_copied(lone.instant(), id, 10);
    assert_eq!(lone.copy_in(id), RecvStep::Wait);
    let reads = lone.take_reads();
    assert_eq!(reads.len(), 3);
    // Told when it could not be posted, before the one in front of it has ended.
    lone.unposted(reads[1].0, Completion::NoMemory);
    lone.unposted(reads[2].0, Completion::NoMemory);
    assert!(!lone.mids().contains(&Mid::SendSm));
    lone.complete(reads[0].0, Completion::Success);
    assert_eq!(
        lone.find(Mid::RdmaRdCompl).body,
        Body::RdmaRdCompl { len: 40_000 }
    );
    lone.find(Mid::SendSm);
    assert!(lone.is_alive());
    assert!(lone.take_reads().is_empty(), "a refused advert is read");
}

/// The receive waited for ever for reads that nobody would answer a second time.
#[test]
fn a_broken_transport_ends_reads_that_were_not_posted_too() {
    let mut lone = Lone::new(Config {
        advert_len_max: 40_000,
        read_depth: 4,
        ..config()
    });
    lone.peer_advertises(100_010, 10);
    let (id, _) = lone.recv(200_000);
    lone.conn.recv_copied(lone.instant(), id, 10);
    assert_eq!(lone.copy_in(id), RecvStep::Wait);
    let reads = lone.take_reads();
    lone.unposted(reads[1].0, Completion::NoMemory);
    lone.unposted(reads[2].0, Completion::NoMemory);
    lone.complete(reads[0].0, Completion::TransportFailed("lost"));
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(10)));
    let (_, step) = lone.recv(200_000);
    let gone = failed(ConnectionError::Transport("lost"));
    assert_eq!(step, RecvStep::Done(gone));
}

#[test]
fn a_key_that_is_dead_too_early_ends_the_connection_by_name() {
    let (mut lone, id, work) = reading();
    lone.complete(work, Completion::RemoteAccess);
    assert!(lone.broken_rule().starts_with("§4.4 row 2"));
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(10)));
}

#[test]
fn an_advert_nobody_reads_is_read_ahead_after_the_wait_or_when_nudged() {
    for nudged in [false, true] {
        let mut lone = Lone::new(config());
        lone.peer_advertises(600_000, 10);
        assert!(lone.take_reads().is_empty());
        if nudged {
            lone.peer(Body::Data, 0);
        } else {
            lone.pass(1_000_000);
        }
        let reads = lone.take_reads();
        let lens: std::vec::Vec<u32> = reads.iter().map(|(_, _, len)| *len).collect();
        assert_eq!(lens, [262_144, 262_144, 600_000 - 10 - 2 * 262_144]);
    }
}

#[test]
fn answers_wait_for_credits_and_merge() {
    let mut lone = Lone::new(Config {
        advert_len_max: 30_000,
        read_depth: 1,
        recv_buffers_max: 4,
        ..config()
    });
    let (id, _) = lone.recv(100_000);
    // The peer posts nothing: no message may go, not even an answer.
    lone.bufs = 0;
    lone.peer_advertises(100_000, 10);
    let mut read = 0;
    while read < 99_990 {
        assert_eq!(lone.copy_in(id), RecvStep::Wait);
        let reads = lone.take_reads();
        assert_eq!(reads.len(), 1);
        read += reads[0].2;
        lone.complete(reads[0].0, Completion::Success);
        let (_, step) = (0, lone.poll_recv(id));
        if let RecvStep::Done(outcome) = step {
            assert_eq!(outcome, Ok(100_000));
        }
    }
    assert!(lone.sent.is_empty());
    lone.bufs = 3;
    lone.peer(Body::Data, 0);
    assert_eq!(
        lone.find(Mid::RdmaRdCompl).body,
        Body::RdmaRdCompl { len: 99_990 }
    );
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
