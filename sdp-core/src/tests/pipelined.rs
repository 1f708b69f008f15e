//! Several adverts in flight, message by message, from both ends.

use sdp_wire::{Body, Hello, Mid, ModeChange, RemoteAddr, Rkey, SrcAvail, Version};
use std::vec::Vec;

use super::util::lone::{Lone, hello, rkey};
use super::util::op::Op;
use super::util::world::World;
use crate::stats::mid_index;
use crate::{
    Completion, Config, ConnectionError, EndCall, KeyId, RecvStep, SendId, SendStep, WorkId,
    ZcopyThreshold,
};

const KIB: usize = 1 << 10;
const CHUNK: usize = 10 * KIB;

fn config() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4 * KIB),
        advert_len_max: 10 << 10,
        inline_len: 64,
        read_direct_min: 2 * KIB,
        ..Config::default()
    }
}

/// A send of so many chunks to a peer that takes `adverts_max` adverts and has many buffers.
fn sending(config: Config, adverts_max: u16, chunks: usize) -> (Lone, SendId) {
    let peer = Hello {
        bufs: 30,
        adverts_max,
        ..hello()
    };
    let mut lone = Lone::called_by(&peer, config);
    lone.bufs = 30;
    let (id, step) = lone.send(chunks * CHUNK);
    assert_eq!(step, SendStep::Wait);
    (lone, id)
}

fn read_compl(lone: &mut Lone, len: usize) {
    let len = u32::try_from(len).unwrap();
    lone.peer(Body::RdmaRdCompl { len }, 0);
}

#[test]
fn a_large_send_opens_as_many_adverts_as_the_peer_takes() {
    let (mut lone, id) = sending(config(), 3, 5);
    let change = Mid::ModeChange;
    assert_eq!(
        lone.mids(),
        [Mid::SrcAvail, change, Mid::SrcAvail, Mid::SrcAvail]
    );
    let inline: Vec<u32> = lone.sent.iter().map(|(head, _)| head.payload_len).collect();
    assert_eq!(inline, [64, 0, 0, 0]);
    lone.see_all();
    // Each that is read makes room for another, which begins where the last one ends.
    read_compl(&mut lone, CHUNK - 64);
    assert_eq!(lone.see_all(), [Mid::SrcAvail]);
    read_compl(&mut lone, CHUNK);
    assert_eq!(lone.see_all(), [Mid::SrcAvail]);
    for _ in 0..3 {
        assert_eq!(lone.poll_send(id), SendStep::Wait);
        read_compl(&mut lone, CHUNK);
    }
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(5 * CHUNK)));
    assert_eq!(lone.conn.stats().tx_adverts_open_max, 3);
}

#[test]
fn towards_a_peer_that_takes_one_advert_the_mode_never_changes() {
    let (mut lone, id) = sending(config(), 1, 3);
    for _ in 0..3 {
        assert_eq!(lone.see_all(), [Mid::SrcAvail]);
        read_compl(&mut lone, CHUNK - 64);
    }
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(3 * CHUNK)));
    assert_eq!(lone.conn.stats().sent[mid_index(Mid::ModeChange)], 0);
}

#[test]
fn open_adverts_fit_the_send_buffer() {
    let small = Config {
        send_buffer_len: 2 * CHUNK,
        ..config()
    };
    let (mut lone, _) = sending(small, 16, 5);
    let count = |lone: &Lone| lone.mids().iter().filter(|m| **m == Mid::SrcAvail).count();
    assert_eq!(count(&lone), 2);
    lone.see_all();
    read_compl(&mut lone, CHUNK - 65);
    assert_eq!(count(&lone), 0);
    read_compl(&mut lone, 1);
    assert_eq!(count(&lone), 1);
}

#[test]
fn the_last_chunk_takes_the_tail() {
    let peer = Hello {
        bufs: 30,
        ..hello()
    };
    let mut lone = Lone::called_by(&peer, config());
    let (_, step) = lone.send(2 * CHUNK + 100);
    assert_eq!(step, SendStep::Wait);
    let lens: Vec<u32> = lone
        .sent
        .iter()
        .filter_map(|(head, _)| match head.body {
            Body::SrcAvail(advert) => Some(advert.len),
            _ => None,
        })
        .collect();
    assert_eq!(lens, [10 << 10, (10 << 10) + 100]);
}

#[test]
fn a_cancel_takes_back_all_adverts_and_its_answer_gives_an_exact_count() {
    let (mut lone, id) = sending(config(), 3, 5);
    lone.see_all();
    read_compl(&mut lone, 100);
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
    lone.drain();
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    // A report of a read that was under way, then the answer.
    read_compl(&mut lone, CHUNK - 164);
    read_compl(&mut lone, 50);
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(CHUNK + 50)));
    assert_eq!(lone.conn.stats().tx_bytes_bcopy, 0);
}

#[test]
fn a_cancel_that_crosses_the_reports_of_all_needs_no_answer() {
    let (mut lone, id) = sending(config(), 3, 3);
    lone.see_all();
    lone.conn.send_end(lone.instant(), id, EndCall::TimedOut);
    lone.drain();
    read_compl(&mut lone, CHUNK - 64);
    read_compl(&mut lone, CHUNK);
    read_compl(&mut lone, CHUNK);
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(3 * CHUNK)));
}

#[test]
fn a_refusal_of_the_oldest_takes_the_others_back_and_owes_its_rest_first() {
    let (mut lone, id) = sending(config(), 3, 3);
    lone.see_all();
    read_compl(&mut lone, 936);
    lone.peer(Body::SendSm, 0);
    // No Data yet: adverts are open.
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    let (step, copied) = lone.copy_out(id);
    assert_eq!(copied, 3 * CHUNK - 1_000);
    assert_eq!(step, SendStep::Done(Ok(3 * CHUNK)));
    // The peer's hint is followed as soon as nothing is open.
    assert!(lone.mids().contains(&Mid::ModeChange));
    let change = lone.find(Mid::ModeChange);
    assert_eq!(change.body, Body::ModeChange(ModeChange::RecvCombined));
}

#[test]
fn refusals_that_cross_the_cancel_are_all_owed() {
    let (mut lone, id) = sending(config(), 3, 4);
    lone.see_all();
    // Two refusals on their way, neither of which has seen the cancel that the first leads to.
    let seen = lone.seen;
    lone.peer(Body::SendSm, 0);
    assert_eq!(lone.see_all(), [Mid::SrcAvailCancel]);
    lone.seen = seen;
    lone.peer(Body::SendSm, 0);
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
    let (step, copied) = lone.copy_out(id);
    assert_eq!(copied, 3 * CHUNK - 64);
    assert_eq!(step, SendStep::Done(Ok(3 * CHUNK)));
}

#[test]
fn reports_before_the_refused_bytes_break_the_order() {
    let (mut lone, _) = sending(config(), 3, 3);
    lone.see_all();
    lone.peer(Body::SendSm, 0);
    read_compl(&mut lone, 100);
    assert!(lone.broken_rule().starts_with("§4.4 row 11"));
}

#[test]
fn a_peer_that_asks_for_pipelined_gets_it() {
    let (mut lone, id) = sending(config(), 3, 1);
    assert_eq!(lone.see_all(), [Mid::SrcAvail]);
    let len = u32::try_from(CHUNK - 64).unwrap();
    let mut head = lone.next_head(Body::RdmaRdCompl { len }, 0);
    head.flags = sdp_wire::Flags::REQ_PIPE;
    lone.mseq += 1;
    lone.peer_head(head, Some(rkey(KeyId(1))));
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(CHUNK)));
    let change = lone.find(Mid::ModeChange).body;
    assert_eq!(change, Body::ModeChange(ModeChange::RecvPipelined));
}

/// A peer whose half is Pipelined, with adverts of `lens`.
fn offered(config: Config, lens: &[u32]) -> Lone {
    let mut lone = Lone::new(config);
    lone.peer(Body::ModeChange(ModeChange::RecvPipelined), 0);
    for len in lens {
        lone.peer_advertises(*len, 0);
    }
    assert!(lone.is_alive());
    lone.see_all();
    lone
}

fn lens(reads: &[(WorkId, crate::ReadInto, u32)]) -> Vec<u32> {
    reads.iter().map(|(_, _, len)| *len).collect()
}

fn reports(lone: &Lone) -> Vec<(Mid, u32)> {
    lone.sent
        .iter()
        .filter_map(|(head, _)| match head.body {
            Body::RdmaRdCompl { len } => Some((Mid::RdmaRdCompl, len)),
            Body::SendSm => Some((Mid::SendSm, 0)),
            _ => None,
        })
        .collect()
}

#[test]
fn reads_go_across_adverts_and_each_is_reported_on_its_own() {
    let mut lone = offered(config(), &[5_000, 6_000, 7_000]);
    let (id, step) = lone.recv(12_000);
    assert_eq!(step, RecvStep::Wait);
    let reads = lone.take_reads();
    assert_eq!(lens(&reads), [5_000, 6_000, 1_000]);
    for (work, ..) in &reads {
        lone.complete(*work, Completion::Success);
    }
    let compl = Mid::RdmaRdCompl;
    assert_eq!(
        reports(&lone),
        [(compl, 5_000), (compl, 6_000), (compl, 1_000)]
    );
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(12_000)));
    let (_, _) = lone.recv(100_000);
    assert_eq!(lens(&lone.take_reads()), [6_000]);
}

#[test]
fn one_send_sm_answers_the_cancel_of_several() {
    let mut lone = offered(config(), &[5_000, 6_000, 7_000]);
    let (id, _) = lone.recv(12_000);
    let reads = lone.take_reads();
    let cancel = lone.mseq;
    lone.peer(Body::SrcAvailCancel, 0);
    assert!(reports(&lone).is_empty());
    for (work, ..) in &reads {
        lone.complete(*work, Completion::Success);
    }
    let compl = Mid::RdmaRdCompl;
    let told = reports(&lone);
    assert_eq!(
        told,
        [
            (compl, 5_000),
            (compl, 6_000),
            (compl, 1_000),
            (Mid::SendSm, 0)
        ]
    );
    assert!(lone.find(Mid::RdmaRdCompl).mseq_ack < cancel);
    assert_eq!(lone.find(Mid::SendSm).mseq_ack, cancel);
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(12_000)));
}

#[test]
fn a_refused_advert_is_followed_by_its_bytes_and_then_by_the_next_advert() {
    let mut lone = offered(config(), &[5_000, 6_000]);
    let (id, _) = lone.recv(100_000);
    let reads = lone.take_reads();
    assert_eq!(lens(&reads), [5_000, 6_000]);
    lone.complete(reads[0].0, Completion::RemoteFault);
    assert!(reports(&lone).is_empty());
    // This one was good, but nothing may be reported before the bytes ahead of it.
    lone.complete(reads[1].0, Completion::Success);
    assert_eq!(reports(&lone), [(Mid::SendSm, 0)]);
    lone.see_all();
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    assert!(lone.take_reads().is_empty());
    lone.peer(Body::Data, 4_000);
    assert!(matches!(
        lone.poll_recv(id),
        RecvStep::Copy {
            at: 0,
            len: 4_000,
            ..
        }
    ));
    lone.conn.recv_copied(lone.instant(), id, 4_000);
    assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(4_000)));
    lone.peer(Body::Data, 1_000);
    let (id, _) = lone.recv(100_000);
    lone.conn.recv_copied(lone.instant(), id, 1_000);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    assert_eq!(lens(&lone.take_reads()), [6_000]);
    // More Data than was owed is payload behind an advert.
    lone.peer(Body::Data, 1);
    assert!(lone.broken_rule().starts_with("§4.4 row 3"));
}

#[test]
fn an_advert_that_crosses_a_refusal_waits_for_the_owed_bytes_and_a_later_one_does_not() {
    for crossing in [true, false] {
        let mut lone = offered(config(), &[5_000]);
        let (id, _) = lone.recv(5_000);
        let reads = lone.take_reads();
        lone.complete(reads[0].0, Completion::RemoteFault);
        assert_eq!(reports(&lone), [(Mid::SendSm, 0)]);
        if !crossing {
            // It knows of the refusal and has nothing to send: the memory was bad.
            lone.see_all();
        }
        lone.peer_advertises(5_000, 0);
        assert_eq!(lone.poll_recv(id), RecvStep::Wait);
        assert_eq!(lone.take_reads().len(), usize::from(!crossing));
    }
}

#[test]
fn a_version_1_peer_is_never_refused_unasked() {
    let peer = Hello {
        version: Version::V1_1,
        ..hello()
    };
    let mut lone = Lone::called_by(&peer, config());
    lone.peer_advertises(5_000, 10);
    let (id, _) = lone.recv(100_000);
    lone.conn.recv_copied(lone.instant(), id, 10);
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    let reads = lone.take_reads();
    lone.complete(reads[0].0, Completion::RemoteFault);
    assert!(reports(&lone).is_empty());
    let closed = lone.closed();
    assert!(matches!(
        closed,
        Some(Some(ConnectionError::PeerMisbehaved(_)))
    ));
}

#[test]
fn adverts_that_break_pipelined_mode() {
    let two = Config {
        adverts_max: 2,
        ..config()
    };
    let mut many = offered(two, &[100, 100]);
    many.peer_advertises(100, 0);
    assert!(many.broken_rule().starts_with("§4.2: more"));

    let mut inline = offered(config(), &[]);
    inline.peer_advertises(100, 10);
    assert!(inline.broken_rule().starts_with("§4.2: SrcAvail with"));

    let mut cancelled = offered(config(), &[100_000]);
    let (_, step) = cancelled.recv(1_000_000);
    assert_eq!(step, RecvStep::Wait);
    cancelled.peer(Body::SrcAvailCancel, 0);
    cancelled.peer_advertises(100, 0);
    assert!(cancelled.broken_rule().starts_with("§4.8 step 1"));
}

#[test]
fn the_peer_may_go_back_to_combined_with_adverts_open() {
    let mut lone = offered(config(), &[5_000, 6_000]);
    lone.peer(Body::ModeChange(ModeChange::RecvCombined), 0);
    let (_, step) = lone.recv(100_000);
    assert_eq!(step, RecvStep::Wait);
    for (work, ..) in lone.take_reads() {
        lone.complete(work, Completion::Success);
    }
    assert_eq!(reports(&lone).len(), 2);
    let advert = SrcAvail {
        len: 100,
        rkey: Rkey(1),
        addr: RemoteAddr(1),
    };
    lone.peer(Body::SrcAvail(advert), 10);
    assert!(lone.is_alive());
}

#[test]
fn a_large_receive_calls_a_buffered_half_back() {
    let mut lone = Lone::new(config());
    lone.peer(Body::ModeChange(ModeChange::RecvBuffered), 0);
    lone.see_all();
    let (id, _) = lone.recv(100);
    assert!(!lone.mids().contains(&Mid::ModeChange));
    lone.conn.recv_end(lone.instant(), id, EndCall::TimedOut);
    let _ = lone.poll_recv(id);
    assert_eq!(lone.recv(100_000).1, RecvStep::Wait);
    let change = lone.find(Mid::ModeChange).body;
    assert_eq!(change, Body::ModeChange(ModeChange::SendCombined));
    lone.peer_advertises(100_000, 10);
    assert!(lone.is_alive());
}

/// Two engines, one large send: the reader's reads overlap, and nothing is copied.
#[test]
fn a_large_send_is_read_with_several_adverts_open() {
    let large = Config {
        advert_len_max: 1 << 20,
        ..config()
    };
    let mut world = World::connected(&large);
    world.spawn(1, [Op::recv_all(64 << 20)]);
    world.spawn(0, [Op::send(64 << 20)]);
    world.finish();
    world.assert_delivered();
    let stats = world.nics[0].conn.stats();
    assert_eq!(stats.tx_bytes_bcopy, 0);
    assert_eq!(stats.tx_adverts_open_max, 4);
    assert_eq!(world.nics[1].conn.stats().rx_bytes_read_ahead, 0);
}

/// The peer's side of a cancel that several reports answer: the last message that it may send, by
/// what it was told. It posts two buffers, so that what it gets costs it all but one credit.
struct Asking {
    cancel: u32,
    limit: u32,
}

impl Asking {
    /// It has seen what was sent, and brings a credit for the next message.
    fn answer(&mut self, lone: &mut Lone) {
        assert!(!lone.sent.is_empty(), "stands still");
        for (head, _) in &lone.sent {
            self.limit = self.limit.max(head.mseq_ack + u32::from(head.bufs));
        }
        lone.see_all();
        assert!(lone.mseq <= self.limit, "no credit for an update");
        lone.peer(Body::Data, 0);
    }

    fn is_answered(&self, lone: &Lone) -> bool {
        lone.sent
            .last()
            .is_some_and(|(head, _)| head.mseq_ack >= self.cancel)
    }
}

/// Reports of adverts that were read in full took more credits than the peer could bring by updates,
/// none of which is confirmed before the answer: both sides waited.
#[test]
fn the_cancel_of_adverts_being_read_is_answered_though_buffers_are_few() {
    for buffers in [4, 8, 32] {
        let few = Config {
            recv_buffers_initial: 4,
            recv_buffers_max: buffers,
            read_depth: 16,
            ..config()
        };
        let mut lone = offered(few, &[5_000; 16]);
        let (_, step) = lone.recv(100_000);
        assert_eq!(step, RecvStep::Wait);
        let reads = lone.take_reads();
        let begun = usize::from(buffers) / 2;
        assert_eq!(reads.len(), begun, "{buffers} buffers");
        lone.see_all();
        let (cancel, limit) = (lone.mseq, lone.mseq + 3);
        let mut asking = Asking { cancel, limit };
        lone.bufs = 2;
        lone.peer(Body::SrcAvailCancel, 0);
        for (work, ..) in reads {
            lone.complete(work, Completion::Success);
        }
        while !asking.is_answered(&lone) {
            asking.answer(&mut lone);
        }
        let reports = lone.conn.stats().sent[mid_index(Mid::RdmaRdCompl)];
        assert_eq!(reports, begun as u64);
    }
}

/// In the place of an advert that was read in full another one is begun, also where nobody receives.
#[test]
fn few_buffers_put_adverts_off_until_others_are_reported() {
    let few = Config {
        recv_buffers_max: 4,
        read_depth: 16,
        ..config()
    };
    let mut lone = offered(few, &[5_000; 5]);
    lone.peer(Body::Data, 0);
    let mut reads = lone.take_reads();
    assert_eq!(lens(&reads), [5_000, 5_000], "nudged, it reads ahead");
    for _ in 2..5 {
        lone.complete(reads.remove(0).0, Completion::Success);
        let more = lone.take_reads();
        assert_eq!(lens(&more), [5_000]);
        reads.extend(more);
    }
}

/// Credits went for reports of what this side read until none was left for updates, while the peer
/// had several adverts of a cancel to report and was not brought the credits for that.
#[test]
fn reports_leave_credits_for_the_answer_to_a_cancel_of_several() {
    let pieces = Config {
        read_depth: 1,
        recv_buffers_max: 4,
        ..config()
    };
    let (mut lone, id) = sending(pieces, 8, 8);
    lone.see_all();
    let (reader, step) = lone.recv(100 * CHUNK);
    assert_eq!(step, RecvStep::Wait);
    // It takes twelve messages before it confirms the cancel.
    lone.bufs = 12;
    let len = u32::try_from(20 * CHUNK).unwrap();
    lone.peer_advertises(len, 10);
    lone.see_all();
    lone.conn.send_end(lone.instant(), id, EndCall::Interrupted);
    lone.drain();
    assert_eq!(lone.mids(), [Mid::SrcAvailCancel]);
    for _ in 0..15 {
        assert_eq!(lone.copy_in(reader), RecvStep::Wait);
        let work = lone.take_reads()[0].0;
        lone.complete(work, Completion::Success);
    }
    let mut limit = 0;
    for left in (0..8).rev() {
        for (head, _) in lone.sent.drain(..) {
            limit = limit.max(head.mseq_ack + u32::from(head.bufs));
        }
        // The report of the last advert confirms the cancel, so it may take the last credit.
        let kept = u32::from(left > 0);
        assert!(lone.mseq + kept <= limit, "no credit: {left} more reports");
        let len = if left == 7 { CHUNK - 64 } else { CHUNK };
        read_compl(&mut lone, len);
    }
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(8 * CHUNK)));
}
