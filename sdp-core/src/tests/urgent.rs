//! Urgent bytes (clause §4.11): where they go, where receives stop, and what they interrupt.

use core::time::Duration;
use std::vec::Vec;

use sdp_wire::{Body, Flags, Head, Mid, ModeChange, RemoteAddr, Rkey, SinkAvail};

use super::util::app::{LEAD, Op, URGENT};
use super::util::lone::Lone;
use super::util::world::World;
use crate::{
    Action, CallError, Completion, Config, CopyTarget, Event, Payload, RecvStep, SendRequest,
    SendStep, UrgentRecv, ZcopyThreshold,
};

const KIB: usize = 1 << 10;

fn copying() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Off,
        ..Config::default()
    }
}

fn advertising() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Bytes(8 * KIB),
        recv_buffer_len: 4 << 10,
        advert_len_max: 32 << 10,
        rendezvous_wait: Duration::from_millis(1),
        rendezvous_wait_min: Duration::from_millis(1),
        ..Config::default()
    }
}

/// The messages that `side` has sent, with their payload lengths.
fn sent(world: &World, side: usize) -> Vec<Head> {
    let heads = world.nics[side].log.iter().map(|(_, send)| {
        let len = match send.payload {
            Payload::None => 0,
            Payload::Grant { len, .. } | Payload::Call { len, .. } => len,
        };
        Head::decode(&send.head, send.head_len + len as usize).unwrap()
    });
    heads.collect()
}

/// OOB_PEND goes once per urgent byte, no later than the byte and at most 65,535 bytes ahead of
/// it, and every urgent byte was announced.
pub(super) fn assert_announced(world: &World, side: usize) {
    let heads = sent(world, side);
    let (mut announced, mut arrived) = (Vec::new(), 0);
    let mut position = 0_u64;
    for head in &heads {
        if head.flags.contains(Flags::OOB_PEND) {
            announced.push(position);
        }
        if head.body == Body::Data {
            position += u64::from(head.payload_len);
        }
        if head.flags.contains(Flags::OOB_PRES) {
            let at = announced.get(arrived).expect("not announced");
            assert!(position - 1 - at <= 65_535, "announced too early");
            arrived += 1;
        }
    }
    assert_eq!(announced.len(), arrived, "announced in vain");
}

/// Two connected sides; `ops` send, then the other side receives by `receives`.
fn send_then_receive(ops: Vec<Op>, receives: Vec<Op>) -> World {
    let mut world = World::connected(&copying());
    world.spawn(0, ops);
    world.run();
    world.spawn(1, receives);
    world.finish();
    world.assert_delivered();
    assert_announced(&world, 0);
    world
}

#[test]
fn a_receive_stops_at_the_mark_and_the_next_passes_over_the_byte() {
    let world = send_then_receive(
        std::vec![Op::send(10), Op::Urgent { lead: 3 }, Op::send(20)],
        std::vec![Op::recv(100), Op::recv(100), Op::RecvUrgent { peek: false }],
    );
    assert_eq!(world.outcomes(1, 0), [Ok(13), Ok(20)]);
    assert_eq!(world.apps[1].marks, [10]);
    assert_eq!(world.apps[1].urgent_received, [3, 0]);
    // It was not received while there was time.
    assert_eq!(world.apps[1].urgents, [UrgentRecv::Nothing]);
    let data = sent(&world, 0);
    let urgent = data
        .iter()
        .find(|head| head.flags.contains(Flags::OOB_PRES));
    assert_eq!(urgent.unwrap().payload_len, 4);
    assert!(urgent.unwrap().is_solicited());
}

#[test]
fn the_byte_is_received_out_of_band_once() {
    let world = send_then_receive(
        std::vec![Op::send(10), Op::Urgent { lead: 0 }, Op::send(20)],
        std::vec![
            Op::RecvUrgent { peek: true },
            Op::RecvUrgent { peek: false },
            Op::RecvUrgent { peek: false },
            Op::recv_all(100),
            Op::recv_for(100, 1_000),
        ],
    );
    let once = [UrgentRecv::Byte, UrgentRecv::Byte, UrgentRecv::Nothing];
    assert_eq!(world.apps[1].urgents, once);
    // Waiting for all ends at the mark, too.
    assert_eq!(world.outcomes(1, 0), [Ok(10), Ok(20)]);
}

#[test]
fn in_line_the_byte_is_the_first_of_its_receive() {
    let world = send_then_receive(
        std::vec![Op::send(10), Op::Urgent { lead: 0 }, Op::send(20)],
        std::vec![
            Op::Inline(true),
            Op::RecvUrgent { peek: false },
            Op::recv(100),
            Op::recv(100),
        ],
    );
    assert_eq!(world.apps[1].urgents, [UrgentRecv::Nothing]);
    assert_eq!(world.outcomes(1, 0), [Ok(10), Ok(21)]);
    assert_eq!(world.apps[1].returned[1][0], URGENT);
}

#[test]
fn a_look_stops_at_the_mark_and_from_there_sees_what_is_behind_it() {
    let world = send_then_receive(
        std::vec![Op::send(10), Op::Urgent { lead: 0 }, Op::send(20)],
        std::vec![
            Op::peek(100),
            Op::recv(4),
            Op::peek(100),
            Op::recv(6),
            // At the mark.
            Op::peek(100),
            Op::RecvUrgent { peek: false },
            Op::peek(7),
            Op::recv(100),
        ],
    );
    let all = [10, 4, 6, 6, 20, 7, 20].map(Ok);
    assert_eq!(world.outcomes(1, 0), all);
    assert_eq!(world.apps[1].urgents, [UrgentRecv::Byte]);
}

#[test]
fn a_second_urgent_byte_makes_the_first_ordinary() {
    let world = send_then_receive(
        std::vec![
            Op::send(10),
            Op::Urgent { lead: 0 },
            Op::send(5),
            Op::Urgent { lead: 0 },
            Op::send(20),
        ],
        std::vec![Op::RecvUrgent { peek: false }, Op::recv(100), Op::recv(100),],
    );
    assert_eq!(world.outcomes(1, 0), [Ok(16), Ok(20)]);
    assert_eq!(world.apps[1].returned[0][10], URGENT);
    assert_eq!(world.apps[1].marks, [15]);
}

#[test]
fn a_second_urgent_byte_while_the_stream_is_at_the_first_drops_that() {
    let mut world = World::connected(&copying());
    world.spawn(0, [Op::send(10), Op::Urgent { lead: 0 }]);
    world.run();
    world.spawn(1, [Op::recv(100)]);
    world.run();
    assert!(world.nics[1].conn.is_at_mark());
    // Nothing but the byte is there, which is none for a receive.
    assert_eq!(world.nics[1].conn.readable_len(), 0);
    assert!(!world.nics[1].conn.is_readable());
    world.spawn(0, [Op::send(5), Op::Urgent { lead: 0 }, Op::send(1)]);
    world.run();
    assert!(!world.nics[1].conn.is_at_mark());
    assert_eq!(world.nics[1].conn.readable_len(), 5);
    world.spawn(1, [Op::recv(100), Op::recv(100)]);
    world.finish();
    assert_eq!(world.outcomes(1, 1), [Ok(5), Ok(1)]);
    assert_eq!(world.apps[1].urgent_received, [0, 0]);
}

#[test]
fn an_urgent_byte_wakes_who_waits_for_one_ahead_of_its_reader() {
    let mut world = World::connected(&copying());
    world.spawn(1, [Op::AwaitUrgent, Op::RecvUrgent { peek: false }]);
    world.spawn(0, [Op::send(100_000), Op::Urgent { lead: 0 }]);
    world.finish();
    assert_eq!(world.apps[1].urgents, [UrgentRecv::Byte]);
    world.spawn(1, [Op::RecvToEnd { len: 70_000 }]);
    world.spawn(0, [Op::send(1), Op::ShutSend]);
    world.finish();
    world.assert_delivered();
    assert_eq!(world.apps[1].marks, [100_000]);
}

/// A receive that waits behind the mark leaves the byte to who receives out of band.
#[test]
fn a_waiting_receive_does_not_pass_over_the_byte_before_there_is_more() {
    let mut world = World::connected(&copying());
    world.spawn(0, [Op::Urgent { lead: 0 }]);
    world.spawn(1, [Op::recv(100)]);
    world.spawn(1, [Op::Sleep(50_000), Op::try_recv(10)]);
    world.run();
    assert!(world.nics[1].conn.is_at_mark());
    assert_eq!(world.outcomes(1, 1), [Err(CallError::WouldBlock)]);
    world.spawn(1, [Op::RecvUrgent { peek: false }]);
    world.spawn(0, [Op::send(7)]);
    world.finish();
    assert_eq!(world.apps[1].urgents, [UrgentRecv::Byte]);
    assert_eq!(world.outcomes(1, 0), [Ok(7)]);
}

/// The reader must not lose a byte that it was told of, although there is nothing else to read.
#[test]
fn a_low_water_mark_does_not_hold_back_what_ends_at_the_mark() {
    let config = Config {
        recv_low_water: 1_000,
        ..copying()
    };
    let mut world = World::connected(&config);
    world.spawn(0, [Op::send(10), Op::Urgent { lead: 0 }]);
    world.run();
    assert!(world.nics[1].conn.is_readable());
    world.spawn(1, [Op::recv(5_000)]);
    world.finish();
    assert_eq!(world.outcomes(1, 0), [Ok(10)]);
}

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
    let mut lone = Lone::new(Config {
        recv_buffer_len: 4_096,
        ..Config::default()
    });
    lone.peer(Body::ModeChange(ModeChange::RecvPipelined), 0);
    for _ in 0..2 {
        lone.peer_advertises(100_000, 0);
        let (id, _) = lone.recv(100_000);
        for (work, ..) in lone.take_reads() {
            lone.complete(work, Completion::Success);
        }
        assert_eq!(lone.poll_recv(id), RecvStep::Done(Ok(100_000)));
    }
    let (id, step) = lone.recv(100_000);
    assert_eq!(step, RecvStep::Wait);
    lone.find(Mid::SinkAvail);
    lone.see_all();
    let mut head = lone.next_head(Body::Data, 5);
    head.flags = Flags::OOB_PRES | Flags::OOB_PEND;
    lone.mseq += 1;
    lone.peer_head(head, None);
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

/// Without the credits that payload needs, the last ones announce the byte.
#[test]
fn the_last_credits_announce_what_cannot_be_sent() {
    let mut lone = Lone::new(Config {
        recv_buffer_len: 4_096,
        ..copying()
    });
    lone.send_all(4_080 * 6);
    assert_eq!(lone.see_all(), [Mid::Data; 6]);
    assert_eq!(lone.conn.send_urgent(lone.instant(), 1), Ok(true));
    lone.drain();
    let update = lone.find(Mid::Data);
    assert_eq!((update.payload_len, update.flags), (0, Flags::OOB_PEND));
    assert!(update.is_solicited());
    lone.see_all();
    lone.peer(Body::Data, 0);
    let data = lone.find(Mid::Data);
    assert_eq!((data.payload_len, data.flags), (1, Flags::OOB_PRES));
}

/// What fits nowhere takes its turn; what fits does not, though the send buffer is full.
#[test]
fn a_short_urgent_send_exceeds_a_full_buffer_and_a_long_one_takes_its_turn() {
    let config = Config {
        send_buffer_len: 20_000,
        recv_buffer_total: 20_000,
        ..copying()
    };
    let mut world = World::connected(&config);
    world.spawn(0, [Op::send(500_000)]);
    world.run_until(|world| world.nics[0].conn.send_space() == 0);
    world.spawn(0, [Op::Urgent { lead: 9 }]);
    world.spawn(
        0,
        [Op::UrgentInTurn {
            lead: 1,
            nonblocking: true,
        }],
    );
    world.spawn(0, [Op::Urgent { lead: 70_000 }, Op::ShutSend]);
    let now = world.now;
    world.run_until(|world| world.now > now + 1_000_000_000);
    assert!(world.is_done(0, 1));
    assert_eq!(world.outcomes(0, 2), [Err(CallError::WouldBlock)]);
    assert!(!world.is_done(0, 3));
    world.spawn(1, [Op::RecvToEnd { len: 30_000 }]);
    world.finish();
    world.assert_delivered();
    assert_announced(&world, 0);
    assert_eq!(world.apps[1].urgent_received[0], 70_009);
    assert_eq!(world.apps[1].marks.len(), 2);
    let last = world.apps[1].returned.last().unwrap();
    assert_eq!(last.last(), Some(&LEAD));
}

#[test]
fn urgent_bytes_faster_than_they_are_announced_leave_one_mark() {
    let mut lone = Lone::new(advertising());
    assert_eq!(lone.send(1 << 20).1, SendStep::Wait);
    lone.see_all();
    for _ in 0..3 {
        assert_eq!(lone.conn.send_urgent(lone.instant(), 2), Ok(true));
        lone.drain();
    }
    let cancel = lone.find(Mid::SrcAvailCancel);
    // A mebibyte may still be read ahead of them.
    assert!(!cancel.flags.contains(Flags::OOB_PEND));
    lone.see_all();
    lone.peer(Body::SendSm, 0);
    let data = lone.find(Mid::Data);
    assert_eq!(data.payload_len, 6);
    assert_eq!(data.flags, Flags::OOB_PRES | Flags::OOB_PEND);
}

#[test]
fn an_urgent_send_fails_as_any_other() {
    let mut world = World::connected(&copying());
    let now = world.instant();
    let conn = &mut world.nics[0].conn;
    assert_eq!(conn.send_urgent(now, 0), Ok(false));
    conn.shutdown_send(now);
    assert_eq!(conn.send_urgent(now, 1), Err(CallError::BrokenPipe));
    conn.abort(now);
    assert!(matches!(
        conn.send_urgent(now, 1),
        Err(CallError::Connection(_))
    ));
    assert_eq!(conn.send_urgent(now, 1), Err(CallError::BrokenPipe));
}

/// A byte received out of band is nothing unread; one that was not is.
#[test]
fn closing_with_the_byte_unread_resets() {
    for read in [true, false] {
        let mut world = World::connected(&copying());
        world.spawn(0, [Op::Urgent { lead: 0 }, Op::ShutSend]);
        world.run();
        let mut ops = Vec::new();
        if read {
            ops.push(Op::RecvUrgent { peek: false });
        }
        ops.push(Op::Close(None));
        world.spawn(1, ops);
        world.run();
        let failed = world.nics[0].conn.has_failed();
        assert_eq!(failed, !read);
    }
}

/// The byte came before the connection failed, and is kept although the two were told at once.
#[test]
fn a_failure_behind_the_byte_does_not_lose_it() {
    let mut lone = Lone::new(copying());
    let mut head = lone.next_head(Body::Data, 1);
    head.flags = Flags::OOB_PRES | Flags::OOB_PEND;
    let mut bytes = [0; sdp_wire::HEAD_LEN_MAX];
    head.encode(&mut bytes);
    let buf = lone.posted.remove(0);
    let message = crate::Received {
        head: &bytes,
        len: 17,
        invalidated: None,
    };
    let now = lone.instant();
    lone.conn.handle_recv(now, buf, message);
    lone.conn.abort(now);
    lone.drain();
    let kept = Action::KeepUrgent { buf, offset: 16 };
    assert!(lone.actions.contains(&kept));
    assert_eq!(lone.conn.recv_urgent(false), UrgentRecv::Byte);
}

/// Who has read the end has read everything, the byte passed over.
#[test]
fn the_end_of_the_stream_behind_the_byte_leaves_nothing_unread() {
    let mut world = World::connected(&copying());
    world.spawn(0, [Op::Urgent { lead: 0 }, Op::ShutSend]);
    world.spawn(1, [Op::recv(10), Op::Close(None)]);
    world.run();
    assert_eq!(world.outcomes(1, 0), [Ok(0)]);
    assert!(!world.nics[0].conn.has_failed());
}

#[test]
fn the_end_of_the_stream_comes_behind_the_byte() {
    let world = send_then_receive(
        std::vec![Op::send(3), Op::Urgent { lead: 0 }, Op::ShutSend],
        std::vec![
            Op::recv(10),
            Op::RecvUrgent { peek: false },
            Op::RecvUrgent { peek: false },
            Op::recv(10),
        ],
    );
    assert_eq!(world.outcomes(1, 0), [Ok(3), Ok(0)]);
    assert_eq!(
        world.apps[1].urgents,
        [UrgentRecv::Byte, UrgentRecv::Nothing]
    );
}
