//! Adverts as their sink sees them: what is read, reported and refused (clause §4.4).

use sdp_wire::{Body, Mid};

use super::cancel::config;
use super::util::lone::{Lone, failed};
use crate::{
    CallError, Completion, Config, ConnectionError, RecvId, RecvRequest, RecvStep, WorkId,
};

/// An advert of 100,000 bytes, 10 of them inline, that a receive of 100,000 is reading: the
/// inline bytes are copied, the read is under way.
pub(super) fn reading() -> (Lone, RecvId, WorkId) {
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
fn memory_that_the_peer_cannot_show_is_refused_after_what_was_read() {
    let mut lone = Lone::new(Config {
        advert_len_max: 40_000,
        ..config()
    });
    lone.peer_advertises(100_010, 10);
    let mut request = RecvRequest {
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
    let gone = ConnectionError::MemoryGone("§4.4 row 2");
    assert_eq!(lone.closed(), Some(Some(gone)));
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
