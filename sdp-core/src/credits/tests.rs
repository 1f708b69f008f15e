//! Credits message by message, without a connection.

use sdp_wire::{Flags, Head};

use super::*;

fn head(mseq: u32, mseq_ack: u32, bufs: u16, payload_len: u32) -> Head {
    Head {
        flags: Flags::empty(),
        bufs,
        mseq,
        mseq_ack,
        body: Body::Data,
        payload_len,
    }
}

#[test]
fn credit_is_absolute_and_counts_messages_in_flight() {
    let mut c = Credits::new(4);
    c.start(4);
    for mseq in 1..=3 {
        assert_eq!(c.take(), mseq);
        c.stamp(mseq);
    }
    assert_eq!(c.available(), 1);
    // The peer has seen one of three and posts five: two of them are spoken for.
    let gain = c.on_receive(&head(1, 1, 5, 0), true).unwrap();
    assert_eq!(c.available(), 3);
    assert!(gain.credits && gain.acks);
}

#[test]
fn three_credits_for_payload_two_for_control_one_for_what_brings_credits() {
    let mut c = Credits::new(4);
    c.start(3);
    assert!(c.payload_allowed());
    let mseq = c.take();
    c.stamp(mseq);
    assert!(!c.payload_allowed() && c.control_allowed());
    let mseq = c.take();
    c.stamp(mseq);
    assert!(!c.control_allowed());
    c.on_posted();
    assert!(!c.control_allowed());
    c.on_receive_handed_out();
    assert!(c.control_allowed());
}

#[test]
fn what_a_queued_message_brings_the_next_one_does_not() {
    let mut c = Credits::new(4);
    c.start(2);
    c.on_posted();
    c.on_receive_handed_out();
    let first = c.take();
    assert!(
        !c.control_allowed(),
        "the last credit, and nothing new to tell"
    );
    c.stamp(first);
    assert!(!c.control_allowed());
    c.on_posted();
    c.on_receive_handed_out();
    assert!(c.control_allowed());
}

#[test]
fn the_limit_told_to_the_peer_is_enforced() {
    let mut c = Credits::new(3);
    assert_eq!(
        c.on_receive(&head(2, 0, 4, 0), true),
        Err("§3.1: MSeq does not follow the last one")
    );
    c.on_receive(&head(1, 0, 4, 1), false).unwrap();
    assert_eq!(
        c.on_receive(&head(2, 0, 4, 1), false),
        Err("§3.2: payload with fewer than three credits")
    );
    c.on_receive(&head(2, 0, 4, 0), true).unwrap();
    c.on_receive(&head(3, 0, 4, 0), true).unwrap();
    assert_eq!(
        c.on_receive(&head(4, 0, 4, 0), true),
        Err("§3.1: a message without a credit")
    );
    let mut c = Credits::new(3);
    assert_eq!(
        c.on_receive(&head(1, 1, 4, 0), true),
        Err("§3.1: MSeqAck of a message not sent")
    );
}

#[test]
fn numbers_wrap() {
    let mut c = Credits::new(4);
    c.start(4);
    c.next_mseq = u32::MAX;
    c.sent_mseq = u32::MAX - 1;
    c.acked_mseq = u32::MAX - 1;
    assert_eq!(c.take(), u32::MAX);
    c.stamp(u32::MAX);
    assert_eq!(c.take(), 0);
    c.stamp(0);
    c.recv_mseq = u32::MAX;
    c.told_max = 3;
    c.on_receive(&head(0, 0, 4, 0), true).unwrap();
    assert_eq!(c.available(), 4);
    assert!(c.is_acked(u32::MAX) && c.is_acked(0) && !c.is_acked(1));
}

#[test]
fn a_held_ack_stays_below_the_cancel() {
    let mut c = Credits::new(4);
    c.start(4);
    c.on_receive(&head(1, 0, 4, 0), false).unwrap();
    c.hold_ack();
    c.on_posted();
    let mseq = c.take();
    assert_eq!(c.stamp(mseq), (4, 0));
    c.release_ack();
    let mseq = c.take();
    assert_eq!(c.stamp(mseq), (4, 1));
}

#[test]
fn a_refusal_does_not_confirm_what_came_after_it_was_queued() {
    let mut c = Credits::new(4);
    c.start(4);
    c.on_receive(&head(1, 0, 4, 0), false).unwrap();
    let refusal = c.take();
    c.hold_refusal();
    // The cancel comes before the refusal leaves, and its own answer is queued behind.
    c.on_receive(&head(2, 0, 4, 0), false).unwrap();
    c.hold_ack();
    let answer = c.take();
    assert_eq!(c.stamp(refusal).1, 1);
    c.release_refusal();
    c.release_ack();
    assert_eq!(c.stamp(answer).1, 2);
}

/// The peer had spent all its credits, and the last one of this side's was not taken for the
/// answer that brings it new ones: both sides waited.
#[test]
fn the_last_credit_answers_a_cancel() {
    let mut c = Credits::new(4);
    c.start(1);
    for mseq in 1..=4 {
        c.on_receive(&head(mseq, 0, 1, 0), false).unwrap();
        c.hold_ack();
        c.on_posted();
    }
    // There may be no memory for them.
    assert!(!c.control_allowed() && !c.answer_allowed(true));
    for _ in 0..4 {
        c.on_receive_handed_out();
    }
    assert!(c.has_settled());
    assert!(!c.control_allowed() && c.answer_allowed(true));
    let answer = c.take();
    c.release_ack();
    assert_eq!(c.stamp(answer), (4, 4));
}

/// The answer was taken for a refusal that had crossed the cancel: both sides waited.
#[test]
fn the_answer_to_a_cancel_confirms_it_whatever_is_queued_behind() {
    let mut c = Credits::new(8);
    c.start(8);
    c.on_receive(&head(1, 0, 8, 0), false).unwrap();
    let before = c.take();
    c.hold_refusal();
    c.on_receive(&head(2, 0, 8, 0), false).unwrap();
    c.hold_ack();
    let answer = c.take();
    let behind = c.take();
    c.hold_refusal();
    assert_eq!(c.stamp(before).1, 1);
    c.release_refusal();
    c.release_ack();
    assert_eq!(c.stamp(answer).1, 2);
    assert_eq!(c.stamp(behind).1, 2);
}

/// SuspComm was queued by the last credit; then Data came that it did not confirm, and it brought
/// the peer nothing.
#[test]
fn what_waits_to_leave_does_not_lose_the_credit_it_brings() {
    let mut c = Credits::new(4);
    c.start(1);
    c.on_posted();
    c.on_receive_handed_out();
    assert!(c.control_allowed());
    let mseq = c.take();
    c.hold_refusal();
    c.on_receive(&head(1, 0, 2, 10), false).unwrap();
    c.on_receive(&head(2, 0, 2, 10), false).unwrap();
    assert_eq!(c.stamp(mseq), (3, 2));
}

#[test]
fn two_sides_with_two_buffers_do_not_answer_updates_for_ever() {
    let mut c = Credits::new(2);
    c.start(2);
    c.on_receive(&head(1, 0, 2, 0), true).unwrap();
    c.on_posted();
    assert!(!c.update_due());
    // The same after something else than an update.
    let mut c = Credits::new(2);
    c.start(2);
    c.on_receive(&head(1, 0, 2, 0), false).unwrap();
    c.on_posted();
    assert!(c.update_due());
}

/// The peer had two credits and could send no payload, and the only one of this side's was kept
/// though nobody had a cancel to answer: both sides waited.
#[test]
fn the_last_credit_goes_for_an_update_that_brings_many() {
    let mut c = Credits::new(4);
    c.start(1);
    for mseq in 1..=2 {
        c.on_receive(&head(mseq, 0, 1, 0), true).unwrap();
    }
    for _ in 0..5 {
        c.on_posted();
        c.on_receive_handed_out();
    }
    assert_eq!((c.available(), c.known(), c.gain()), (1, 2, 5));
    assert!(c.update_due());
}

/// All credits went with updates while the peer, which confirmed nothing, wrote on; when it had
/// one left it could not answer the cancel.
#[test]
fn a_peer_that_has_a_cancel_to_answer_is_never_without_a_credit() {
    let mut c = Credits::new(4);
    c.start(8);
    c.set_awaited(1);
    let (mut mseq, mut limit) = (0, 4);
    let mut message = |c: &mut Credits, len| {
        mseq += 1;
        assert!(mseq <= limit, "no credit for message {mseq}");
        c.on_receive(&head(mseq, 0, 8, len), false).unwrap();
        c.on_posted();
        c.on_receive_handed_out();
        if c.update_due() {
            let update = c.take();
            let (bufs, ack) = c.stamp(update);
            limit = ack + u32::from(bufs);
        }
        limit - mseq
    };
    let mut left = 4;
    for _something_else in 0..2 {
        while left >= PAYLOAD_MIN {
            left = message(&mut c, 10);
        }
        left = message(&mut c, 0);
    }
    for _report_and_answer in 0..2 {
        message(&mut c, 0);
    }
}
