//! Urgent bytes (clause §4.11): where they go and where receives stop.

use core::time::Duration;
use std::vec::Vec;

use sdp_wire::{Body, Flags, Head, Mid};

use super::util::app::{LEAD, URGENT};
use super::util::copying;
use super::util::lone::Lone;
use super::util::op::Op;
use super::util::world::World;
use crate::{Action, CallError, Config, SendStep, UrgentRecv, ZcopyThreshold};

const KIB: usize = 1 << 10;

pub(super) fn advertising() -> Config {
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
pub(super) fn sent(world: &World, side: usize) -> Vec<Head> {
    let heads = world.nics[side].log.iter().map(|(_, send)| {
        let len = send.payload.byte_len() as usize;
        Head::decode(&send.head, send.head_len + len).unwrap()
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
    let buf = lone.peer_urgent_queued(1);
    lone.conn.abort(lone.instant());
    lone.drain();
    let kept = Action::KeepUrgent { buf, offset: 16 };
    assert!(lone.actions.contains(&kept));
    assert_eq!(lone.conn.recv_urgent(false), UrgentRecv::Byte);
}

/// Two urgent bytes were told of at once, of which the second makes the first leave the stream. That was
/// to be kept too, out of a buffer that had been posted again, or given back: a driver did not find it.
#[test]
fn an_urgent_byte_that_another_follows_at_once_is_not_kept() {
    for scarce in [false, true] {
        let mut lone = Lone::new(copying());
        // More receives are posted than are wanted when memory is scarce.
        for _ in 0..8 {
            lone.peer(Body::Data, 100);
        }
        lone.recv_all(800);
        lone.conn.set_memory_scarce(lone.instant(), scarce);
        lone.drain();
        lone.actions.clear();
        let first = lone.peer_urgent_queued(1);
        let second = lone.peer_urgent_queued(1);
        lone.drain();
        let given_back = lone.actions.contains(&Action::FreeRecv(first));
        assert_eq!(given_back, scarce);
        let is_kept = |action: &&Action| matches!(action, Action::KeepUrgent { .. });
        let kept: Vec<_> = lone.actions.iter().filter(is_kept).collect();
        let (buf, offset) = (second, 16);
        assert_eq!(kept, [&Action::KeepUrgent { buf, offset }]);
        assert_eq!(lone.conn.recv_urgent(false), UrgentRecv::Byte);
    }
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
