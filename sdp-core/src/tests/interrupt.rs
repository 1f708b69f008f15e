//! Urgent bytes among adverts and offers (clause §4.11): what they interrupt, and how it goes on.

use std::vec::Vec;

use sdp_wire::{Body, Flags, Head, Mid, RemoteAddr, Rkey, SinkAvail};

use super::urgent::{advertising, assert_announced, sent};
use super::util::app::URGENT;
use super::util::copying;
use super::util::lone::Lone;
use super::util::op::Op;
use super::util::world::World;
use super::write::offering;
use crate::{
    Action, Completion, Config, CopyTarget, Event, RecvStep, SendRequest, SendStep, UrgentRecv,
    ZcopyThreshold,
};

/// An urgent byte during a send without copies: the adverts are taken back, the byte goes between
/// what the peer has read and the rest, and the rest goes without copies again.
fn interrupt(config: &Config, at: u64, reader: Op) -> World {
    const LEN: usize = 2 << 20;
    let mut world = World::connected(config);
    world.spawn(0, [Op::send(LEN), Op::ShutSend]);
    world.spawn(0, [Op::Sleep(at), Op::Urgent { lead: 0 }]);
    world.spawn(1, [Op::Inline(true), reader]);
    world.finish();
    assert_eq!(world.outcomes(0, 0), [Ok(LEN)]);
    world.assert_delivered();
    assert_announced(&world, 0);
    assert_eq!(world.apps[1].urgent_received, [0, 1]);
    for bytes in &world.apps[1].returned {
        let place = bytes.iter().position(|byte| *byte == URGENT);
        assert!(place.is_none_or(|place| place == 0), "no stop at the mark");
    }
    world
}

#[test]
fn an_urgent_byte_interrupts_adverts_and_they_go_on_behind_it() {
    for adverts_max in [1, 16] {
        for at in [1, 3_000, 7_000] {
            let config = Config {
                adverts_max,
                ..advertising()
            };
            let world = interrupt(&config, at, Op::RecvToEnd { len: 1 << 20 });
            let stats = world.nics[0].conn.stats();
            assert!(stats.tx_bytes_zcopy > 3 << 19, "copied: {:?}", stats.copies);
            let mids: Vec<Mid> = sent(&world, 0).iter().map(Head::mid).collect();
            assert!(mids.contains(&Mid::SrcAvailCancel), "{at}");
        }
    }
}

#[test]
fn an_urgent_byte_does_not_wait_for_a_reader() {
    let mut world = World::connected(&advertising());
    world.spawn(0, [Op::send(8 << 20), Op::ShutSend]);
    world.spawn(0, [Op::Sleep(300), Op::Urgent { lead: 2 }]);
    // The call is over before the peer has answered; the byte arrives though nobody reads.
    world.run_until(|world| world.is_done(0, 1));
    assert_eq!(world.now % 1_000_000 / 100_000, 0);
    world.spawn(1, [Op::AwaitUrgent, Op::RecvUrgent { peek: false }]);
    world.run_until(|world| world.is_done(1, 0));
    assert!(!world.is_done(0, 0));
    assert_eq!(world.apps[1].urgents, [UrgentRecv::Byte]);
    world.spawn(1, [Op::RecvToEnd { len: 1 << 20 }]);
    world.finish();
    world.assert_delivered();
}

#[test]
fn small_receives_and_late_readers_find_the_mark_too() {
    for len in [1_000, 5_000, 100_000] {
        interrupt(&advertising(), 5_000, Op::RecvToEnd { len });
    }
    interrupt(&copying(), 5_000, Op::RecvToEnd { len: 5_000 });
}

#[test]
fn a_refused_advert_is_paid_before_the_urgent_byte() {
    let mut lone = Lone::new(advertising());
    let (id, _) = lone.send(10_000);
    lone.see_all();
    assert_eq!(lone.conn.send_urgent(lone.instant(), 1), Ok(true));
    lone.drain();
    // All of the advert is near enough to say so with the cancel.
    let cancel = lone.find(Mid::SrcAvailCancel);
    assert!(cancel.flags.contains(Flags::OOB_PEND));
    // The peer refuses before it hears of the cancel.
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    let (step, copied) = lone.copy_out(id);
    assert_eq!((step, copied), (SendStep::Done(Ok(10_000)), 10_000 - 64));
    let lens: Vec<(u32, bool)> = lone
        .sent
        .iter()
        .filter(|(head, _)| head.body == Body::Data)
        .map(|(head, _)| (head.payload_len, head.flags.contains(Flags::OOB_PRES)))
        .collect();
    assert!(lens.last().is_some_and(|(_, urgent)| *urgent));
    assert_eq!(
        lens.iter().map(|(len, _)| len).sum::<u32>(),
        10_000 - 64 + 1
    );
}

/// Of two adverts the peer refuses the first before it hears of the cancel: the bytes of both are still
/// ahead of the urgent byte, though only the second is open.
#[test]
fn what_was_refused_is_ahead_of_the_urgent_byte_while_another_advert_is_open() {
    let mut lone = Lone::new(Config {
        advert_len_max: 80_000,
        ..advertising()
    });
    assert_eq!(lone.send(130_000).1, SendStep::Wait);
    let adverts = lone.see_all();
    let adverts = adverts.iter().filter(|mid| **mid == Mid::SrcAvail);
    assert_eq!(adverts.count(), 2);
    assert_eq!(lone.conn.send_urgent(lone.instant(), 1), Ok(true));
    lone.drain();
    lone.peer(Body::SendSm, 0);
    // A message that would announce it, if it were near enough.
    lone.conn.shutdown_recv(lone.instant());
    for _ in 0..3 {
        lone.peer(Body::Data, 100);
    }
    lone.drain();
    let announced = |(head, _): &(Head, _)| head.flags.contains(Flags::OOB_PEND);
    assert!(!lone.sent.iter().any(announced), "{:?}", lone.sent);
}

/// A driver did several small copies before it polled the next action: the send's next bytes
/// went to private memory ahead of the urgent one, and the mark stood at one of them.
#[test]
fn a_send_does_not_overtake_the_urgent_byte_on_its_way_to_private_memory() {
    let mut lone = Lone::new(advertising());
    let now = lone.instant();
    // The first piece of memory is advertised; the second is too short for that.
    let request = SendRequest {
        len: 12_000,
        segment_ends: [10_000, 12_000].into_iter().collect(),
        nonblocking: false,
        urgent: false,
        registered: false,
        copy_reason: None,
    };
    let id = lone.conn.send_start(now, request);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    lone.see_all();
    assert_eq!(lone.conn.send_urgent(now, 1), Ok(true));
    lone.drain();
    lone.peer(Body::SendSm, 0);
    lone.kill_keys();
    while lone.conn.poll_event().is_some() {}
    // The refused advert is paid, and the urgent byte is next.
    let (at, len, to) = (64, 10_000 - 64, CopyTarget::Private);
    let owed = SendStep::Copy { at, len, to };
    assert_eq!(lone.conn.send_poll(now, id), owed);
    lone.conn.send_copied(now, id, len, to);
    assert_eq!(lone.conn.send_poll(now, id), SendStep::Wait);
    assert_eq!(lone.conn.poll_event(), Some(Event::SendReady));
    lone.drain();
    let urgent = Action::SendUrgent { len: 1 };
    assert!(lone.actions.contains(&urgent));
    let next = lone.poll_send(id);
    assert!(
        matches!(next, SendStep::Copy { at: 10_000, .. }),
        "{next:?}"
    );
}

#[test]
fn an_urgent_byte_uses_an_offer_up_and_is_never_written() {
    let config = Config {
        zcopy_threshold: ZcopyThreshold::Bytes(4_000),
        ..Config::default()
    };
    let mut lone = Lone::new(config);
    // A second advert makes the half Pipelined; the first offer takes all of the send.
    let (id, _) = lone.send(3 << 20);
    lone.see_all();
    let offer = SinkAvail {
        len: 3 << 20,
        rkey: Rkey(1),
        addr: RemoteAddr(1),
        non_discards: 1,
    };
    lone.peer(Body::SinkAvail(offer), 0);
    assert_eq!(lone.poll_send(id), SendStep::Wait);
    for (work, ..) in lone.take_writes() {
        lone.complete(work, Completion::Success);
    }
    lone.kill_keys();
    assert_eq!(lone.poll_send(id), SendStep::Done(Ok(3 << 20)));
    lone.peer(Body::SinkAvail(offer), 0);
    lone.see_all();
    assert_eq!(lone.conn.send_urgent(lone.instant(), 1), Ok(true));
    lone.drain();
    assert!(lone.take_writes().is_empty());
    let data = lone.find(Mid::Data);
    assert_eq!(data.payload_len, 1);
    assert_eq!(data.flags, Flags::OOB_PRES | Flags::OOB_PEND);
    // Nothing is left to be taken back.
    lone.see_all();
    lone.peer(Body::SinkAvailCancel, 0);
    assert!(!lone.mids().contains(&Mid::SinkCancelAck));
}

/// The offer of a waiting receive is used up by the urgent Data.
#[test]
fn a_waiting_offer_is_ended_by_the_urgent_byte() {
    let (mut lone, id, _) = offering();
    lone.peer_urgent_queued(5);
    lone.drain();
    let kept = |action: &Action| matches!(action, Action::KeepUrgent { offset: 20, .. });
    assert!(lone.actions.iter().any(kept));
    assert_eq!(lone.poll_recv(id), RecvStep::Wait);
    lone.kill_keys();
    assert_eq!(lone.copy_in(id), RecvStep::Done(Ok(4)));
    assert!(lone.conn.is_at_mark());
    assert_eq!(lone.conn.recv_urgent(false), UrgentRecv::Byte);
}

/// A peer that announces an urgent byte behind an advert gets the advert read, reader or not.
#[test]
fn an_advert_ahead_of_an_announced_byte_is_read_at_once() {
    let mut lone = Lone::new(Config::default());
    assert_eq!(lone.conn.recv_urgent(false), UrgentRecv::Nothing);
    lone.peer_advertises(50_000, 10);
    assert!(lone.take_reads().is_empty());
    let mut head = lone.next_head(Body::Data, 0);
    head.flags = Flags::OOB_PEND;
    lone.mseq += 1;
    lone.peer_head(head, None);
    assert_eq!(lone.conn.recv_urgent(false), UrgentRecv::Coming);
    assert_eq!(lone.take_reads().len(), 1);
}
