//! Errors, flushes, ends of connections and links.

use super::rig::*;
use crate::error::{PostError, VerbsError};
use crate::host::link::LinkEnd;
use crate::mr::MemoryRegion;
use crate::qp::{QpAttr, QueuePair};
use crate::types::{Access, RemoteAddr, Rkey, WrId};
use crate::wr::SendOp;
use crate::wr::WcOpcode::{Read, Recv, Send, Write};
use crate::wr::WcStatus::{Flushed, RetryExceeded, Success};

#[test]
fn set_error_flushes_everything_in_order() {
    let (a, b) = pair();
    let _bufs = [a.recv(11, 8), a.recv(12, 8)];
    let target = b.owned(&[0; 8]);
    let bound = b.bind(&target, 8, Access::REMOTE_READ);
    let into = a.owned(&[0; 8]);
    let local = [sge(&into, 8)];
    a.post(
        1,
        SendOp::Write {
            local: &[],
            remote: RemoteAddr(0),
            rkey: Rkey(0),
        },
    );
    a.post(
        2,
        SendOp::Read {
            local: &local,
            remote: bound.addr,
            rkey: bound.rkey,
        },
    );
    a.send(3, b"x");
    a.qp.set_error();
    let all = brief(&a.drain());
    let (recv, send): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, op, _)| *op == Recv);
    assert_eq!(recv, [(11, Recv, Flushed), (12, Recv, Flushed)]);
    assert_eq!(
        send,
        [(1, Write, Flushed), (2, Read, Flushed), (3, Send, Flushed)]
    );
    let buf = a.qp.alloc_recv(8).unwrap();
    assert_eq!(a.qp.post_recv(WrId(0), &buf), Err(PostError::WrongState));
    assert_eq!(a.qp.reserve_send(1).unwrap_err(), PostError::WrongState);
    a.qp.set_error();
    assert!(a.drain().is_empty(), "once");
}

/// What was published before the error is delivered at the other end, then that flushes too.
#[test]
fn the_peer_of_an_error_gets_what_was_sent_and_then_flushes() {
    let (a, b) = pair();
    let bufs = [b.recv(1, 8), b.recv(2, 8)];
    a.send(0, b"last");
    b.post(
        5,
        SendOp::Write {
            local: &[],
            remote: RemoteAddr(0),
            rkey: Rkey(0),
        },
    );
    a.qp.set_error();
    let all = b.drain();
    let want = [
        (1, Recv, Success),
        (2, Recv, Flushed),
        (5, Write, RetryExceeded),
    ];
    assert_eq!(brief(&all), want);
    assert_eq!(contents(&bufs[0], all[0].byte_len), b"last");
}

#[test]
fn orderly_end_delivers_both_ways() {
    let (a, b) = pair();
    let to_b = b.recv(1, 8);
    let _more = b.recv(2, 8);
    let to_a = a.recv(3, 8);
    b.send(8, b"to a");
    a.send(9, b"to b");
    a.qp.disconnect();
    assert_eq!(
        a.qp.post_send(signaled(0, send_op(b"", None))),
        Err(PostError::WrongState)
    );
    assert_eq!(brief(&a.drain()), [(9, Send, Success), (3, Recv, Success)]);
    assert_eq!(contents(&to_a, 4), b"to a");
    let want = [(8, Send, Success), (1, Recv, Success), (2, Recv, Flushed)];
    assert_eq!(brief(&b.drain()), want);
    assert_eq!(contents(&to_b, 4), b"to b");
    b.qp.disconnect();
    assert!(a.drain().is_empty() && b.drain().is_empty());
}

/// The end marker waits behind a message that waits for a receive.
#[test]
fn orderly_end_waits_for_what_was_posted_before() {
    let (a, b) = pair();
    a.send(1, b"late");
    a.qp.disconnect();
    assert!(a.drain().is_empty() && b.drain().is_empty());
    let bufs = [b.recv(1, 8), b.recv(2, 8)];
    assert_eq!(brief(&a.drain()), [(1, Send, Success)]);
    assert_eq!(brief(&b.drain()), [(1, Recv, Success), (2, Recv, Flushed)]);
    assert_eq!(contents(&bufs[0], 4), b"late");
}

#[test]
fn a_dead_peer_delivers_first() {
    let (a, b) = pair();
    let bufs: Vec<_> = (0..20)
        .map_while(|n| (n < 16).then(|| b.recv(n, 8)))
        .collect();
    for n in 0..10 {
        a.send(n, &[u8::try_from(n).unwrap()]);
    }
    b.link.broken(LinkEnd::PeerGone);
    // With little room at a time: still all of it, in order, then the flush.
    let mut all = Vec::new();
    loop {
        let some = b.poll_some(3);
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    let want: Vec<_> = (0..16)
        .map(|n| (n, Recv, if n < 10 { Success } else { Flushed }))
        .collect();
    assert_eq!(brief(&all), want);
    assert_eq!(contents(&bufs[9], 1), [9]);
    assert!(matches!(
        b.link.create_qp(&QpAttr {
            cq: std::sync::Arc::clone(&b.cq) as _,
            send_wr_max: 1,
            recv_wr_max: 1,
            rnr_retry: 7,
            silence_max: None,
        }),
        Err(VerbsError::State { .. })
    ));
}

#[test]
fn a_broken_link_wakes_waiters_and_channels() {
    use crate::cq::{ArmFor, CompChannel, CompletionQueue, Wake};
    let (a, _b) = pair();
    let _buf = a.recv(1, 8);
    let token = a.cq.arm(ArmFor::Waiter);
    a.cq.arm(ArmFor::ChannelSolicited);
    assert!(a.drain().is_empty());
    a.link.broken(LinkEnd::Protocol("test".to_owned()));
    a.link.broken(LinkEnd::Idle);
    assert_eq!(a.cq.wait(token, None).unwrap(), Wake::Event);
    assert!(a.channel.poll().is_some());
    assert_eq!(brief(&a.drain()), [(1, Recv, Flushed)]);
}

/// Memory of a queue pair is used again only when its peer is done with it, and then it is.
#[test]
fn memory_of_queue_pairs_is_used_again() {
    let (a, b) = pair();
    let chunks_after = |rounds: usize| {
        for _ in 0..rounds {
            let near = create_qp(&a.link, &a.cq, Sizes::default());
            let far = create_qp(&b.link, &b.cq, Sizes::default());
            connect(&near, &far);
            let buf = far.alloc_recv(64 << 10).unwrap();
            far.post_recv(WrId(0), &buf).unwrap();
            near.post_send(signaled(1, send_op(b"x", None))).unwrap();
            far.post_recv(WrId(0), &buf).unwrap_err();
            near.disconnect();
            drop(near);
            drop(buf);
            b.drain();
            drop(far);
        }
        (0..)
            .take_while(|n| a.link.peer_chunk(*n).is_some())
            .count()
    };
    let few = chunks_after(10);
    assert_eq!(chunks_after(500), few);
    assert_eq!((a.link.qp_count(), b.link.qp_count()), (1, 1));
}

/// The peer may still be copying into a slot when our queue pair ends: its memory rests.
#[test]
fn a_slot_under_the_peers_hands_is_not_used_again() {
    let (a, b) = pair();
    let buf = b.recv(1, 100 << 10);
    let reserved = a.qp.reserve_send(100 << 10).unwrap();
    reserved.mem().write(0, &[1; 100 << 10]);
    let End { qp: old, .. } = b;
    drop((buf, old));
    let fresh = create_qp(&b.link, &b.cq, Sizes::default());
    let other = fresh.alloc_recv(100 << 10).unwrap();
    other.mem().write(0, &[2; 100 << 10]);
    reserved.mem().write(0, &[3; 100 << 10]);
    assert!(contents(&other, 100 << 10).iter().all(|byte| *byte == 2));
    a.drain();
    drop(reserved);
}

#[test]
fn a_refused_queue_pair_gives_its_memory_back_at_once() {
    let (a, b) = unconnected(Sizes::default());
    for _ in 0..2000 {
        let qp = create_qp(&a.link, &a.cq, Sizes::default());
        let _shown = qp.descriptor();
        qp.peer_refused();
    }
    assert!(
        (0..)
            .take_while(|n| b.link.peer_chunk(*n).is_some())
            .count()
            <= 1
    );
}

#[test]
fn dropping_in_any_order_is_fine_and_kills_nothing_else() {
    let (a, b) = pair();
    let region = a.owned(&[1; 64]);
    let bound = a.bind(&region, 64, Access::REMOTE_READ);
    let reserved = {
        let _buf = b.recv(1, 64);
        a.qp.reserve_send(8).unwrap()
    };
    let End {
        plane,
        link,
        cq,
        qp,
        channel,
        ..
    } = a;
    drop(plane);
    drop(link);
    drop(channel);
    drop(cq);
    drop(bound);
    drop(qp);
    reserved.mem().write(0, &[1; 8]);
    assert_eq!(region.len(), 4096);
    drop(region);
    assert_eq!(brief(&b.drain()), [(1, Recv, Flushed)]);
    drop(b);
    drop(reserved);
}

#[test]
fn completions_of_a_dropped_queue_pair_go_with_it() {
    let (a, b) = pair();
    let _buf = b.recv(1, 8);
    a.send(1, b"x");
    let End { qp, cq, .. } = a;
    drop(qp);
    assert_eq!(crate::cq::CompletionQueue::poll(&*cq, &mut [blank()]), 0);
}

#[test]
fn queue_pairs_have_sizes_and_a_queue_of_their_instance() {
    let (a, b) = pair();
    let attr = |cq: &End, send, recv| QpAttr {
        cq: std::sync::Arc::clone(&cq.cq) as _,
        send_wr_max: send,
        recv_wr_max: recv,
        rnr_retry: 7,
        silence_max: None,
    };
    for bad in [
        attr(&a, 0, 1),
        attr(&a, 1, 0),
        attr(&a, 1, 4097),
        attr(&a, 4097, 1),
        attr(&b, 1, 1),
    ] {
        assert!(matches!(
            a.link.create_qp(&bad),
            Err(VerbsError::Argument { .. })
        ));
    }
    assert_eq!(a.link.qp_count(), 1);
    a.link.create_qp(&attr(&a, 4096, 4096)).unwrap();
    assert_eq!(a.link.qp_count(), 1);
}
