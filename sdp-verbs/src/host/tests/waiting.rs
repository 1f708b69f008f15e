//! Arming, sleeping, waking, channels.

use std::time::Duration;

use super::rig::*;
use crate::cq::{ArmFor, CompChannel, CompletionQueue, CqToken, Wake};
use crate::host::channel::HostChannel;
use crate::host::cq::HostCq;
use crate::host::link::LinkEnd;
use crate::qp::QueuePair;
use crate::sync::{Ordering, SleepWord};
use crate::types::{RemoteAddr, Rkey, WrId};
use crate::wr::{SendFlags, SendOp, SendWr};

const BRIEF: Option<Duration> = Some(Duration::from_millis(1));

#[test]
fn a_message_between_look_and_sleep_ends_the_wait() {
    let (a, b) = pair();
    let _buf = b.recv(1, 64);
    let token = b.cq.arm(ArmFor::Waiter);
    assert!(b.drain().is_empty());
    a.send(1, b"x");
    assert_eq!(b.cq.wait(token, None).unwrap(), Wake::Event);
    assert_eq!(b.drain().len(), 1);
    let token = b.cq.arm(ArmFor::Waiter);
    assert_eq!(b.cq.wait(token, BRIEF).unwrap(), Wake::TimedOut);
}

/// The word of the new queue pair began where the sum with that of the old one had been: who had
/// looked before slept.
#[test]
fn queue_pairs_that_take_turns_between_look_and_sleep_end_the_wait() {
    let sizes = Sizes::default();
    let (_a, mut b) = unconnected(sizes);
    for _ in 0..4 {
        let token = b.cq.arm(ArmFor::Waiter);
        let End { link, cq, qp, .. } = b;
        drop(qp);
        let qp = create_qp(&link, &cq, sizes);
        assert_eq!(cq.wait(token, BRIEF).unwrap(), Wake::Event);
        b = End { link, cq, qp, ..b };
    }
}

/// A peer that sets its word back, by as much as ours has moved on, hides no event of this process.
#[test]
fn a_peer_that_scribbles_on_its_word_hides_no_local_event() {
    let (a, _b) = pair();
    let cell = a.cq.cell_for(&a.link).unwrap();
    let word = cell.word();
    for back in 0..4 {
        let token = a.cq.arm(ArmFor::Waiter);
        let armed = word.load(Ordering::Relaxed);
        a.cq.wake();
        assert!(word.replace(word.load(Ordering::Relaxed), armed.wrapping_sub(back)));
        assert_eq!(a.cq.wait(token, BRIEF).unwrap(), Wake::Event, "{back}");
    }
}

/// Ping-pong between sleepers, with and without a limit: a lost wake-up would hang (or, with the
/// limit, time out).
#[test]
fn sleepers_wake_each_other_every_time() {
    for limit in [None, Some(LONG)] {
        let (a, b) = pair();
        let sleep_for_one = |end: &End| loop {
            let token = end.cq.arm(ArmFor::Waiter);
            let mut got = end.drain();
            if let Some(wc) = got.pop() {
                assert!(got.is_empty());
                return wc;
            }
            assert_eq!(end.cq.wait(token, limit).unwrap(), Wake::Event);
        };
        let quiet = |end: &End, n: u64| {
            let bytes = n.to_ne_bytes();
            let wr = SendWr {
                wr_id: WrId(n),
                op: send_op(&bytes, None),
                flags: SendFlags::empty(),
            };
            end.qp.post_send(wr).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let buf = b.qp.alloc_recv(8).unwrap();
                for n in 0..2000 {
                    b.qp.post_recv(WrId(n), &buf).unwrap();
                    assert_eq!(sleep_for_one(&b).wr_id.0, n);
                    quiet(&b, n);
                }
            });
            let buf = a.qp.alloc_recv(8).unwrap();
            for n in 0..2000 {
                a.qp.post_recv(WrId(n), &buf).unwrap();
                quiet(&a, n);
                assert_eq!(sleep_for_one(&a).wr_id.0, n);
            }
        });
    }
}

#[test]
fn wake_ends_a_wait_before_and_during() {
    let (a, _b) = pair();
    let token = a.cq.arm(ArmFor::Waiter);
    a.cq.wake();
    assert_eq!(a.cq.wait(token, None).unwrap(), Wake::Event);
    for limit in [None, Some(LONG)] {
        let token = a.cq.arm(ArmFor::Waiter);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| a.cq.wait(token, limit));
            a.cq.wake();
            assert_eq!(waiter.join().unwrap().unwrap(), Wake::Event);
        });
    }
}

/// Whether a thread of this process sleeps, as the kernel says.
fn is_asleep(tid: rustix::process::Pid) -> bool {
    let stat = format!("/proc/self/task/{}/stat", tid.as_raw_nonzero());
    let stat = std::fs::read_to_string(stat).unwrap();
    stat.rsplit(") ").next().unwrap().starts_with('S')
}

/// Who sleeps with a limit sleeps on the word of the one link, which goes with its last queue pair: that
/// ends the sleep, since the next queue pair has another word.
#[test]
fn a_queue_pair_that_goes_ends_a_sleep_on_it() {
    for limit in [None, Some(LONG)] {
        let (a, _b) = pair();
        // It has told of its end, and nothing of it is to come.
        a.qp.set_error();
        a.drain();
        let End { cq, qp, link, .. } = a;
        let token = cq.arm(ArmFor::Waiter);
        let (send_tid, tid) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let cq = &cq;
            let waiter = scope.spawn(move || {
                send_tid.send(rustix::thread::gettid()).unwrap();
                cq.wait(token, limit)
            });
            let tid = tid.recv().unwrap();
            while !is_asleep(tid) {
                std::thread::yield_now();
            }
            drop(qp);
            let _next = create_qp(&link, cq, Sizes::default());
            assert_eq!(waiter.join().unwrap().unwrap(), Wake::Event);
        });
    }
}

/// A peer that is killed between saying that there is something and waking the sleeper is not
/// relied on: the event of its death, and any other of this process, wakes.
#[test]
fn a_peer_killed_while_it_wakes_leaves_nobody_asleep() {
    for limit in [None, Some(LONG)] {
        let (a, _b) = pair();
        let cell = a.cq.cell_for(&a.link).unwrap();
        let token = a.cq.arm(ArmFor::Waiter);
        let (send_tid, tid) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                send_tid.send(rustix::thread::gettid()).unwrap();
                a.cq.wait(token, limit)
            });
            let tid = tid.recv().unwrap();
            while !is_asleep(tid) {
                std::thread::yield_now();
            }
            // All that the peer still did.
            let armed = cell.word().load(Ordering::Relaxed);
            assert!(cell.word().replace(armed, armed.wrapping_add(1)));
            a.link.broken(LinkEnd::PeerGone);
            assert_eq!(waiter.join().unwrap().unwrap(), Wake::Event);
        });
    }
}

#[test]
fn a_queue_without_queue_pairs_can_be_waited_for() {
    let (a, _b) = pair();
    let cq = HostCq::new(&a.plane, 1, std::sync::Arc::clone(&a.channel), CqToken(9));
    let token = cq.arm(ArmFor::Waiter);
    assert_eq!(cq.wait(token, BRIEF).unwrap(), Wake::TimedOut);
    cq.wake();
    assert_eq!(cq.wait(token, None).unwrap(), Wake::Event);
}

#[test]
fn local_completions_wake_too() {
    let (a, b) = pair();
    let _buf = b.recv(1, 64);
    let token = a.cq.arm(ArmFor::Waiter);
    assert!(a.drain().is_empty());
    a.send(1, b"x");
    assert_eq!(a.cq.wait(token, None).unwrap(), Wake::Event);
}

#[test]
fn a_receive_wakes_the_sender_that_waits_for_it() {
    let (a, b) = pair();
    a.send(1, b"x");
    let token = a.cq.arm(ArmFor::Waiter);
    assert!(a.drain().is_empty());
    let _buf = b.recv(1, 64);
    assert_eq!(a.cq.wait(token, None).unwrap(), Wake::Event);
    assert_eq!(a.drain().len(), 1);
}

#[test]
fn one_queue_over_two_links_hears_both() {
    let (a, b) = pair();
    let (c, d) = pair();
    // A second link of `a`'s instance, with its own queue pair on `a`'s queue.
    let [(left, wire_left), (right, _wire_right)] = link_again(&a.plane, &d.plane);
    let far = create_qp(&right, &d.cq, Sizes::default());
    let near = create_qp(&left, &a.cq, Sizes::default());
    connect(&near, &far);
    let on_first = a.recv(1, 64);
    let on_second = near.alloc_recv(64).unwrap();
    for limit in [None, Some(LONG)] {
        near.post_recv(WrId(2), &on_second).unwrap();
        let token = a.cq.arm(ArmFor::Waiter);
        assert!(a.drain().is_empty());
        far.post_send(signaled(1, send_op(b"x", None))).unwrap();
        assert_eq!(a.cq.wait(token, limit).unwrap(), Wake::Event);
        assert_eq!(a.one().wr_id.0, 2);
        let token = a.cq.arm(ArmFor::Waiter);
        assert_eq!(a.cq.wait(token, BRIEF).unwrap(), Wake::TimedOut);
        b.send(1, b"y");
        assert_eq!(a.cq.wait(token, limit).unwrap(), Wake::Event);
        assert_eq!(a.one().wr_id.0, 1);
        a.qp.post_recv(WrId(1), &on_first).unwrap();
    }
    drop((near, c, wire_left));
    // One link again: the other's word is slept on no more.
    let token = a.cq.arm(ArmFor::Waiter);
    b.send(1, b"y");
    assert_eq!(a.cq.wait(token, None).unwrap(), Wake::Event);
}

fn send_flagged(end: &End, flags: SendFlags) {
    let wr = SendWr {
        wr_id: WrId(0),
        op: send_op(b"x", None),
        flags,
    };
    end.qp.post_send(wr).unwrap();
}

#[test]
fn the_channel_tells_of_anything_once_per_arm() {
    let (a, b) = pair();
    let _bufs: Vec<_> = (0..4).map(|n| b.recv(n, 8)).collect();
    send_flagged(&a, SendFlags::SOLICITED);
    assert!(!is_readable(&b.channel), "not armed");
    b.cq.arm(ArmFor::Channel);
    assert_eq!(b.drain().len(), 1);
    send_flagged(&a, SendFlags::empty());
    assert!(readable(&b.channel));
    assert_eq!(b.channel.poll(), Some(CqToken(2)));
    assert_eq!(b.channel.poll(), None);
    assert!(!is_readable(&b.channel), "None clears it");
    send_flagged(&a, SendFlags::SOLICITED);
    assert!(!is_readable(&b.channel), "one-shot");
    b.cq.arm(ArmFor::Channel);
    b.cq.disarm_channel();
    send_flagged(&a, SendFlags::SOLICITED);
    assert!(!is_readable(&b.channel), "disarmed");
}

#[test]
fn solicited_only_means_that_and_failures() {
    let (a, b) = pair();
    let _bufs: Vec<_> = (0..3).map(|n| b.recv(n, 8)).collect();
    b.cq.arm(ArmFor::ChannelSolicited);
    send_flagged(&a, SendFlags::empty());
    assert!(!is_readable(&b.channel));
    send_flagged(&a, SendFlags::SOLICITED);
    assert_eq!(b.channel.poll(), Some(CqToken(2)));
    b.cq.arm(ArmFor::ChannelSolicited);
    b.qp.set_error();
    assert_eq!(b.channel.poll(), Some(CqToken(2)));
    // Local successes do not count, local failures do.
    let (a, b) = pair();
    let _buf = b.recv(0, 8);
    a.cq.arm(ArmFor::ChannelSolicited);
    a.send(1, b"fits");
    assert_eq!(a.channel.poll(), None);
    let _small = b.recv(1, 1);
    a.send(2, b"does not");
    assert_eq!(a.channel.poll(), Some(CqToken(1)));
}

/// Work for the adapter counts although it gives no completion: there is nobody else to do it.
#[test]
fn a_write_request_reaches_a_channel_armed_for_solicited() {
    let (a, b) = pair();
    b.cq.arm(ArmFor::ChannelSolicited);
    a.post(
        1,
        SendOp::Write {
            local: &[],
            remote: RemoteAddr(0),
            rkey: Rkey(0),
        },
    );
    assert_eq!(b.channel.poll(), Some(CqToken(2)));
    a.cq.arm(ArmFor::ChannelSolicited);
    assert!(b.drain().is_empty());
    assert_eq!(a.channel.poll(), Some(CqToken(1)));
    assert_eq!(a.drain().len(), 1);
}

/// A doorbell wakes every channel of the instance; the event goes to the one it belongs to.
#[test]
fn events_find_their_channel() {
    let (a, b) = pair();
    let other = HostChannel::new(&b.plane).unwrap();
    let cq = HostCq::new(&b.plane, 8, std::sync::Arc::clone(&other), CqToken(77));
    let second = (
        create_qp(&a.link, &a.cq, Sizes::default()),
        create_qp(&b.link, &cq, Sizes::default()),
    );
    connect(&second.0, &second.1);
    let buf = second.1.alloc_recv(8).unwrap();
    second.1.post_recv(WrId(0), &buf).unwrap();
    let _first = b.recv(1, 8);
    cq.arm(ArmFor::Channel);
    b.cq.arm(ArmFor::Channel);
    second
        .0
        .post_send(signaled(0, send_op(b"x", None)))
        .unwrap();
    a.send(1, b"y");
    assert!(readable(&b.channel) && readable(&other));
    assert_eq!(b.channel.poll(), Some(CqToken(2)));
    assert_eq!(b.channel.poll(), None);
    assert!(readable(&other));
    assert_eq!(other.poll(), Some(CqToken(77)));
    assert_eq!(other.poll(), None);
    assert!(!is_readable(&other));
    drop(cq);
}

/// The doorbell is rung once for many events.
#[test]
fn events_of_many_queue_pairs_come_together() {
    let (a, b) = pair();
    let mut kept = Vec::new();
    for n in 0..200 {
        let cq = HostCq::new(
            &b.plane,
            8,
            std::sync::Arc::clone(&b.channel),
            CqToken(100 + n),
        );
        let near = create_qp(&a.link, &a.cq, Sizes::default());
        let far = create_qp(&b.link, &cq, Sizes::default());
        connect(&near, &far);
        let buf = far.alloc_recv(8).unwrap();
        far.post_recv(WrId(0), &buf).unwrap();
        cq.arm(ArmFor::Channel);
        kept.push((near, far, cq, buf));
    }
    for (near, ..) in &kept {
        near.post_send(signaled(0, send_op(b"x", None))).unwrap();
    }
    let mut seen: Vec<_> = std::iter::from_fn(|| b.channel.poll())
        .map(|t| t.0)
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (100..300).collect::<Vec<_>>());
}
