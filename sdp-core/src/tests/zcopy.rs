//! Read ZCopy: adverts, direct reads, read-ahead, and both policies of giving up.

use core::time::Duration;
use std::vec::Vec;

use sdp_wire::{Body, Mid};

use super::util::lone::Lone;
use super::util::op::Op;
use super::util::world::{Laws, World};
use crate::{Adaptive, CallError, Config, CopyReason, ReadInto, SendStep, ZcopyThreshold};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn config() -> Config {
    Config {
        zcopy_threshold: ZcopyThreshold::Bytes(64 * KIB),
        ..Config::default()
    }
}

#[test]
fn a_large_send_is_read_straight_into_a_large_receive() {
    let mut world = World::connected(&config());
    world.spawn(1, [Op::recv_all(4 * MIB)]);
    world.spawn(0, [Op::send(4 * MIB)]);
    world.finish();
    assert_eq!(world.outcomes(0, 0), [Ok(4 * MIB)]);
    assert_eq!(world.sent(0, Mid::SrcAvail), 4);
    let stats = world.nics[1].conn.stats();
    assert_eq!(stats.rx_bytes_zcopy + stats.rx_bytes_inline, 4 * MIB as u64);
    assert_eq!(stats.rx_bytes_read_ahead, 0);
    assert!(
        world.nics[1]
            .reads
            .iter()
            .all(|(into, _)| matches!(into, ReadInto::Call { .. }))
    );
    let stats = world.nics[0].conn.stats();
    assert_eq!(stats.tx_bytes_zcopy + stats.tx_bytes_inline, 4 * MIB as u64);
    world.assert_delivered();
}

/// Who reads at once: what is not advertised is copied, and for one reason.
#[test]
fn what_is_copied_is_counted_by_its_reason() {
    const LEN: usize = 100_000;
    let with = |copied, pieces| Op::Send {
        len: LEN,
        nonblocking: false,
        copied,
        pieces,
        time_limit: None,
    };
    let off = || Config {
        zcopy_threshold: ZcopyThreshold::Off,
        ..config()
    };
    let tail = std::vec![90_000, LEN];
    let below = 64 * KIB - 1;
    for (config, op, len, reason) in [
        (config(), Op::send(below), below, CopyReason::BelowThreshold),
        (off(), Op::send(LEN), LEN, CopyReason::ThresholdOff),
        (config(), Op::try_send(LEN), LEN, CopyReason::NonBlocking),
        (
            config(),
            with(true, Vec::new()),
            LEN,
            CopyReason::MemoryUnreachable,
        ),
        (config(), with(false, tail), 10_000, CopyReason::Tail),
        (
            config(),
            Op::UrgentInTurn {
                lead: LEN - 1,
                nonblocking: false,
            },
            LEN,
            CopyReason::Urgent,
        ),
    ] {
        let mut world = World::connected(&config);
        world.spawn(1, [Op::RecvToEnd { len: LEN }]);
        world.spawn(0, [op, Op::ShutSend]);
        world.finish();
        world.assert_delivered();
        let stats = world.nics[0].conn.stats();
        let copied: Vec<_> = (CopyReason::ALL.iter().zip(stats.copies))
            .filter(|(_, (_, bytes))| *bytes > 0)
            .collect();
        assert_eq!(copied, [(&reason, (1, len as u64))]);
        assert_eq!(stats.tx_bytes_bcopy, len as u64, "{reason:?}");
    }
}

#[test]
fn without_invalidation_keys_are_killed_before_the_send_returns() {
    let plain = Config {
        invalidate_cap: false,
        ..config()
    };
    for configs in [
        [config(), plain.clone()],
        [plain.clone(), config()],
        [plain.clone(), plain],
    ] {
        let mut world = World::connected_with(configs, Laws::default());
        world.spawn(1, [Op::recv_all(2 * MIB)]);
        // That no key is alive when the send returns is asserted by the world.
        world.spawn(0, [Op::send(2 * MIB)]);
        world.finish();
        assert_eq!(world.sent(0, Mid::SrcAvail), 2);
        world.assert_delivered();
    }
}

#[test]
fn a_tail_below_the_threshold_goes_with_the_last_advert() {
    let mut world = World::connected(&config());
    world.spawn(1, [Op::recv_all(MIB + 100)]);
    world.spawn(0, [Op::send(MIB + 100)]);
    world.finish();
    assert_eq!(world.sent(0, Mid::SrcAvail), 1);
    assert_eq!(world.nics[0].conn.stats().tx_bytes_bcopy, 0);
}

#[test]
fn small_receives_of_a_large_send_read_ahead_in_large_pieces() {
    let mut world = World::connected(&config());
    world.spawn(1, [Op::Sleep(10_000), Op::RecvToEnd { len: 1000 }]);
    world.spawn(0, [Op::send(MIB), Op::ShutSend]);
    world.finish();
    world.assert_delivered();
    let reads = &world.nics[1].reads;
    assert!(reads.len() <= 6, "{} reads", reads.len());
    assert!(
        reads
            .iter()
            .all(|(into, _)| matches!(into, ReadInto::Mem { .. }))
    );
    world.run();
    assert!(world.nics[1].mems.is_empty(), "private memory is freed");
}

#[test]
fn a_peek_reads_ahead_and_leaves_the_bytes() {
    let mut world = World::connected(&config());
    let look = Op::peek(200_000);
    world.spawn(
        1,
        [
            Op::Sleep(10_000),
            look.clone(),
            look.clone(),
            look,
            Op::recv_all(MIB),
        ],
    );
    world.spawn(0, [Op::send(MIB)]);
    world.finish();
    assert_eq!(world.outcomes(1, 0)[3], Ok(MIB));
    world.assert_delivered();
}

#[test]
fn pieces_of_memory_are_advertised_and_read_each_on_its_own() {
    let mut world = World::connected(&config());
    let pieces = std::vec![10, 10 + 100 * KIB, 20 + 100 * KIB, 20 + 300 * KIB];
    let len = 20 + 300 * KIB;
    world.spawn(
        0,
        [Op::Send {
            len,
            nonblocking: false,
            copied: false,
            pieces,
            time_limit: None,
        }],
    );
    world.spawn(
        1,
        [Op::Recv {
            len,
            nonblocking: false,
            peek: false,
            wait_all: true,
            pieces: std::vec![50 * KIB, 51 * KIB, 250 * KIB, len],
            time_limit: None,
        }],
    );
    world.finish();
    assert_eq!(world.sent(0, Mid::SrcAvail), 2);
    assert_eq!(world.nics[0].conn.stats().tx_bytes_bcopy, 20);
    world.assert_delivered();
}

#[test]
fn a_slow_reader_that_comes_in_time_still_reads_directly() {
    let mut world = World::connected(&config());
    world.spawn(0, [Op::send(MIB)]);
    world.spawn(1, [Op::Sleep(100_000), Op::recv_all(MIB)]);
    world.finish();
    assert_eq!(world.nics[1].conn.stats().rx_bytes_read_ahead, 0);
    assert_eq!(world.sent(0, Mid::SrcAvailCancel), 0);
}

#[test]
fn with_no_reader_a_send_that_fits_here_is_taken_back_and_copied() {
    let mut world = World::connected(&config());
    world.spawn(0, [Op::send(MIB)]);
    world.finish();
    assert_eq!(world.sent(0, Mid::SrcAvailCancel), 1);
    assert!(world.now < 10_000_000);
    world.spawn(1, [Op::recv_all(MIB)]);
    world.finish();
    world.assert_delivered();
}

/// S = R = 1 MiB.
fn narrow() -> Config {
    Config {
        send_buffer_len: MIB,
        recv_buffer_total: MIB,
        ..config()
    }
}

#[test]
fn with_no_reader_what_fits_both_buffers_is_accepted_in_one_call() {
    let mut world = World::connected(&narrow());
    world.spawn(0, [Op::send(2 * MIB)]);
    world.finish();
    assert_eq!(world.outcomes(0, 0), [Ok(2 * MIB)]);
    world.spawn(1, [Op::recv_all(2 * MIB)]);
    world.finish();
    world.assert_delivered();
}

#[test]
fn with_no_reader_what_exceeds_both_buffers_waits_for_one() {
    let mut world = World::connected(&narrow());
    let over = 2 * MIB + MIB / 4 + 64 * KIB;
    world.spawn(0, [Op::send(over)]);
    world.run();
    assert!(!world.all_done(), "{over} bytes accepted without a reader");
    let promised = 2 * 4 * KIB + 128;
    assert!(world.nics[1].conn.readable_len() >= MIB - promised);
    world.spawn(1, [Op::recv_all(over)]);
    world.finish();
    world.assert_delivered();
}

#[test]
fn both_send_then_both_receive() {
    let n = 2 * MIB;
    for piece in [n, 4 * KIB, 64 * KIB, 100 * KIB] {
        let mut world = World::connected(&narrow());
        for side in 0..2 {
            let sends = (0..n / piece).map(|_| Op::send(piece));
            let rest = (!n.is_multiple_of(piece)).then(|| Op::send(n % piece));
            world.spawn(side, sends.chain(rest).chain([Op::recv_all(n)]));
        }
        world.finish();
        world.assert_delivered();
    }
}

/// Credits run out while a key is made: the advert cannot leave, and waits no longer for a reader
/// than one that could.
#[test]
fn an_advert_without_a_credit_is_given_up_as_any_other() {
    let mut lone = Lone::new(config());
    lone.late_keys = true;
    let (id, step) = lone.send(MIB);
    assert_eq!(step, SendStep::Wait);
    lone.see_all();
    lone.bufs = 2;
    lone.peer(Body::Data, 0);
    lone.make_late_key();
    assert!(!lone.mids().contains(&Mid::SrcAvail));
    for _ in 0..2 {
        lone.pass(2_000_000);
        lone.kill_keys();
    }
    assert_eq!(lone.copy_out(id), (SendStep::Done(Ok(MIB)), MIB));
}

#[test]
fn both_send_then_both_receive_byte_by_byte() {
    let small = Config {
        send_buffer_len: 8 * KIB,
        recv_buffer_total: 8 * KIB,
        ..config()
    };
    let mut world = World::connected(&small);
    for side in 0..2 {
        let sends = (0..16 * KIB).map(|_| Op::send(1));
        world.spawn(side, sends.chain([Op::recv_all(16 * KIB)]));
    }
    world.finish();
    world.assert_delivered();
}

#[test]
fn crossing_adverts_of_waiting_senders_move_both_ways() {
    let mut world = World::connected(&narrow());
    for side in 0..2 {
        world.spawn(side, [Op::send(1500 * KIB), Op::recv_all(1500 * KIB)]);
    }
    world.finish();
    assert!(world.sent(0, Mid::SrcAvail) > 0 && world.sent(1, Mid::SrcAvail) > 0);
    world.assert_delivered();
}

#[test]
fn a_send_with_a_time_limit_ends_with_an_exact_count() {
    for limit in [1, 1_500, 3_000, 100_000, 201_000, 210_000, 500_000] {
        let mut world = World::connected(&narrow());
        let over = 8 * MIB;
        world.spawn(0, [Op::send_for(over, limit), Op::ShutSend]);
        world.finish();
        let outcome = world.outcomes(0, 0)[0];
        assert!(matches!(outcome, Ok(n) if n < over) || outcome == Err(CallError::WouldBlock));
        world.spawn(1, [Op::RecvToEnd { len: 100_000 }]);
        world.finish();
        world.assert_delivered();
    }
}

#[test]
fn a_peer_that_stops_is_waited_for_no_longer_than_cancel_wait() {
    let quick = Config {
        cancel_wait: Duration::from_millis(50),
        ..narrow()
    };
    let mut world = World::connected(&quick);
    world.spawn(0, [Op::send_for(8 * MIB, 10_000), Op::send(1), Op::send(1)]);
    // Nothing the peer is told reaches it any more.
    world.cut(1);
    world.finish();
    let outcomes = world.outcomes(0, 0);
    assert_eq!(
        outcomes[0],
        Err(CallError::Connection(crate::ConnectionError::Reset))
    );
    assert_eq!(outcomes[1], Err(CallError::BrokenPipe));
}

#[test]
fn nonblocking_sends_never_advertise() {
    let mut world = World::connected(&narrow());
    world.spawn(
        0,
        [Op::try_send(4 * MIB), Op::try_send(4 * MIB), Op::ShutSend],
    );
    world.finish();
    assert!(matches!(world.outcomes(0, 0)[0], Ok(n) if n >= MIB));
    assert_eq!(world.sent(0, Mid::SrcAvail), 0);
    world.spawn(1, [Op::RecvToEnd { len: 100_000 }]);
    world.finish();
    world.assert_delivered();
}

#[test]
fn a_nonblocking_receive_starts_the_read_ahead() {
    let mut world = World::connected(&config());
    world.spawn(0, [Op::send(MIB)]);
    // The first finds the inline bytes, the second nothing yet, the third what was read ahead.
    let ops = [
        Op::Sleep(20_000),
        Op::try_recv(MIB),
        Op::try_recv(MIB),
        Op::Sleep(20_000),
        Op::try_recv(MIB),
        Op::RecvToEnd { len: MIB },
    ];
    world.spawn(1, ops);
    world.run();
    let outcomes = world.outcomes(1, 0);
    assert_eq!(outcomes[0], Ok(64));
    assert_eq!(outcomes[1], Err(CallError::WouldBlock));
    assert_eq!(outcomes[2], Ok(256 * KIB));
}

#[test]
fn with_cheap_reads_a_nonblocking_receive_reads_directly() {
    let cheap = Config {
        read_nonblocking: true,
        ..config()
    };
    let mut world = World::connected(&cheap);
    world.spawn(0, [Op::send(MIB)]);
    world.spawn(1, [Op::Sleep(20_000), Op::try_recv(MIB), Op::try_recv(MIB)]);
    world.finish();
    // The bytes inline were copied, and the same call went on with the rest.
    assert_eq!(world.outcomes(1, 0)[0], Ok(MIB));
    assert_eq!(world.outcomes(1, 0)[1], Err(CallError::WouldBlock));
}

#[test]
fn two_senders_take_turns_and_do_not_interleave() {
    let mut world = World::connected(&config());
    // The second waits its turn; its bytes follow those of the first.
    world.spawn(0, [Op::send(3 * MIB)]);
    world.run_until(|world| !world.nics[0].sends.is_empty());
    world.apps[0].accepted = 3 * MIB as u64;
    world.spawn(0, [Op::Sleep(1), Op::send(100)]);
    world.spawn(1, [Op::Sleep(50_000), Op::recv_all(3 * MIB + 100)]);
    world.run_until(|world| world.is_done(1, 0));
    assert_eq!(world.outcomes(1, 0), [Ok(3 * MIB + 100)]);
}

#[test]
fn a_send_waiting_for_its_turn_obeys_its_limit_and_nonblocking() {
    let mut world = World::connected(&narrow());
    world.spawn(0, [Op::send(8 * MIB)]);
    world.spawn(
        0,
        [Op::Sleep(1_000), Op::try_send(10), Op::send_for(10, 10_000)],
    );
    world.run();
    let would_block = Err(CallError::WouldBlock);
    assert_eq!(world.outcomes(0, 1), [would_block, would_block]);
}

#[test]
fn shutdown_ends_a_waiting_send_and_a_waiting_receive() {
    let mut world = World::connected(&narrow());
    world.spawn(0, [Op::send(8 * MIB)]);
    world.spawn(0, [Op::recv(10)]);
    world.spawn(0, [Op::Sleep(1_000_000), Op::ShutRecv, Op::ShutSend]);
    world.finish();
    assert!(matches!(world.outcomes(0, 0)[0], Ok(n) if n < 8 * MIB));
    assert_eq!(world.outcomes(0, 1), [Ok(0)]);
    world.spawn(1, [Op::RecvToEnd { len: 100_000 }]);
    world.finish();
    world.assert_delivered();
}

/// Large sends begin as copies, and a few try the other way; every copy has its reason.
#[test]
fn what_is_faster_is_found_out_by_few_sends() {
    let mut world = World::connected(&Config {
        zcopy_threshold: ZcopyThreshold::Bytes(16 << 10),
        adaptive: Some(Adaptive {
            registered: true,
            heap: false,
        }),
        ..Config::default()
    });
    // As much as both ends' buffers hold, four that are measured, four that try the other way.
    let copied = (8_usize << 20).div_ceil(20_000) + 4;
    let sends = copied + 4;
    world.spawn(0, (0..sends).map(|_| Op::send(20_000)));
    world.spawn(1, (0..sends).map(|_| Op::recv_all(20_000)));
    world.finish();
    world.assert_delivered();
    let conn = &world.nics[0].conn;
    let [choice] = conn.choices()[..] else {
        panic!("{:?}", conn.choices());
    };
    assert_eq!((choice.from, choice.registered), (16 << 10, false));
    assert_eq!((choice.sends, choice.explored), (sends as u64, 4));
    assert!(choice.copy_cost.is_some() && choice.zcopy_cost.is_some());
    let reason = CopyReason::NotMeasured as usize;
    assert_eq!(
        conn.stats().copies[reason],
        (copied as u64, copied as u64 * 20_000)
    );
    let by_reads = conn.stats().tx_bytes_zcopy + conn.stats().tx_bytes_inline;
    assert_eq!(by_reads, 4 * 20_000);
}
