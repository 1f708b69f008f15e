//! Random programs in random worlds, against the oracle: every byte accepted is delivered once,
//! in order, and every call ends. What the programs and worlds lead to is counted: every rare turn
//! of the protocol must be among it.

use core::time::Duration;
use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::urgent::assert_announced;
use super::util::op::Op;
use super::util::world::{Laws, World};
use crate::mark::Mark;
use crate::{Adaptive, Config, ZcopyThreshold};

const KIB: usize = 1 << 10;

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => Just(0_usize),
        4 => 1..64_usize,
        4 => 1..5_000_usize,
        4 => 1..60_000_usize,
        1 => 1..400_000_usize,
    ]
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![3 => Just(None), 2 => (1..400_000_u64).prop_map(Some)]
}

/// Up to two ends inside, in order, and the end.
fn pieces(len: usize) -> impl Strategy<Value = Vec<usize>> {
    vec(0..=len, 0..3).prop_map(move |mut ends| {
        ends.sort_unstable();
        ends.push(len);
        ends
    })
}

fn send() -> impl Strategy<Value = Op> {
    (len(), limit(), 0..10_u8).prop_flat_map(|(len, time_limit, kind)| {
        pieces(len).prop_map(move |pieces| Op::Send {
            len,
            nonblocking: kind == 0,
            copied: kind == 1,
            pieces,
            time_limit,
        })
    })
}

fn recv() -> impl Strategy<Value = Op> {
    (len(), limit(), 0..12_u8).prop_flat_map(|(len, time_limit, kind)| {
        pieces(len).prop_map(move |pieces| Op::Recv {
            len,
            nonblocking: kind == 0,
            peek: kind == 1 || kind == 2,
            // Waiting for all is bounded, since the sender may have sent its last.
            wait_all: kind == 3 && time_limit.is_some(),
            pieces,
            time_limit: time_limit.or(Some(3_000_000)),
        })
    })
}

fn sleep() -> impl Strategy<Value = Op> {
    (1..600_000_u64).prop_map(Op::Sleep)
}

/// Urgent sends by a thread of their own.
fn urgents() -> impl Strategy<Value = Vec<Op>> {
    let urgent = (0..3_usize, 0..200_usize).prop_map(|(kind, lead)| match kind {
        0 => Op::UrgentInTurn {
            lead: lead * 20,
            nonblocking: false,
        },
        _ => Op::Urgent { lead: lead % 7 },
    });
    let pause = (1..30_000_u64).prop_map(Op::Sleep);
    prop_oneof![
        2 => Just(Vec::new()),
        1 => vec(prop_oneof![2 => urgent, 1 => pause], 0..9),
    ]
}

fn recv_urgent() -> impl Strategy<Value = Op> {
    prop_oneof![
        any::<bool>().prop_map(|peek| Op::RecvUrgent { peek }),
        any::<bool>().prop_map(Op::Inline),
    ]
}

fn sender() -> impl Strategy<Value = Vec<Op>> {
    vec(prop_oneof![5 => send(), 1 => sleep()], 0..14)
}

fn receiver() -> impl Strategy<Value = Vec<Op>> {
    vec(
        prop_oneof![8 => recv(), 2 => sleep(), 1 => recv_urgent()],
        0..14,
    )
}

fn config() -> impl Strategy<Value = Config> {
    (
        prop_oneof![Just(4 * KIB), Just(40 * KIB), Just(300 * KIB)],
        prop_oneof![Just(4 * KIB), Just(40 * KIB), Just(300 * KIB)],
        prop_oneof![Just(37_u32), Just(300), Just(4_160), Just(32_832)],
        (4..9_u16, 4..33_u16),
        prop_oneof![
            Just(ZcopyThreshold::Off),
            Just(ZcopyThreshold::Bytes(2)),
            Just(ZcopyThreshold::Bytes(4 * KIB)),
        ],
        (16..40_u32, 1..5_u32, any::<bool>(), any::<bool>()),
        prop_oneof![Just(0_u64), Just(20), Just(200)],
        (1..200_u32, 1..80_usize, any::<bool>()),
        (
            prop_oneof![Just(1_u16), Just(2), Just(3), Just(16)],
            prop_oneof![Just(500_u32), Just(4 << 10), Just(64 << 10)],
        ),
    )
        .prop_map(
            |(snd, rcv, recv_buffer_len, (initial, max), threshold, flags, wait, lens, adverts)| {
                let (send_slots, read_depth, invalidate_cap, read_nonblocking) = flags;
                let (inline_len, kib, nodelay) = lens;
                Config {
                    send_buffer_len: snd,
                    recv_buffer_total: rcv,
                    recv_buffer_len,
                    recv_buffer_len_initial: [u32::MAX, u32::MAX, 4_160, 400, u32::MAX, 37]
                        [kib % 6],
                    idle_wait: Duration::from_micros([300, 10_000_000, 20_000_000][kib % 3]),
                    recv_buffers_initial: initial,
                    recv_buffers_max: max,
                    polled: kib % 2 == 0,
                    zcopy_threshold: threshold,
                    adaptive: (kib % 5 == 0).then_some(Adaptive {
                        registered: true,
                        heap: true,
                    }),
                    send_slots,
                    read_depth,
                    invalidate_cap,
                    read_nonblocking,
                    rendezvous_wait: Duration::from_micros(wait),
                    rendezvous_wait_min: Duration::from_micros(wait / 4),
                    inline_len,
                    nodelay,
                    adverts_max: adverts.0,
                    advert_len_max: adverts.1,
                    read_ahead_len: kib * KIB,
                    read_direct_min: 2 * KIB,
                    ..Config::default()
                }
            },
        )
}

/// Where only the side that connected may send first, the other one does not hear at once.
fn opening() -> impl Strategy<Value = Option<u64>> {
    let deaf_max = prop_oneof![Just(0_u64), Just(1_000_000), Just(30_000_000)];
    prop_oneof![2 => Just(None), 1 => deaf_max.prop_map(Some)]
}

fn laws() -> impl Strategy<Value = Laws> {
    (
        prop_oneof![Just(0_u64), Just(1_000), Just(30_000)],
        prop_oneof![Just(0_u64), Just(500), Just(100_000)],
        prop_oneof![Just(0_u64), Just(300), Just(50_000)],
        any::<u64>(),
        any::<bool>(),
        prop_oneof![2 => Just(0_u64), 1 => 1..30_u64],
        opening(),
    )
        .prop_map(
            |(latency, jitter, copy, seed, lose_rtu, trouble, opening)| Laws {
                latency,
                jitter,
                copy,
                seed,
                lose_rtu,
                trouble,
                opening,
            },
        )
}

/// Moves to another queue pair, by a thread of its own, in a third of the cases.
fn moves() -> impl Strategy<Value = Vec<Op>> {
    let one = (1..400_000_u64).prop_map(|time| std::vec![Op::Sleep(time), Op::Move]);
    prop_oneof![
        2 => Just(Vec::new()),
        1 => vec(one, 1..5).prop_map(|ops| ops.concat()),
    ]
}

/// Programs and the world they run in.
type Case = ([Config; 2], Laws, [[Vec<Op>; 4]; 2]);

fn case() -> impl Strategy<Value = Case> {
    (
        [config(), config()],
        laws(),
        [sender(), sender()],
        [receiver(), receiver()],
        [urgents(), urgents()],
        [moves(), moves()],
    )
        .prop_map(|(configs, laws, [s0, s1], [r0, r1], [u0, u1], [m0, m1])| {
            (configs, laws, [[s0, r0, u0, m0], [s1, r1, u1, m1]])
        })
}

/// As [`case`], of sides that would rather not copy: small buffers, low thresholds, short waits.
fn rdma_case() -> impl Strategy<Value = Case> {
    let config = (
        config(),
        prop_oneof![Just(37_u32), Just(300)],
        prop_oneof![Just(2_u16), Just(16)],
        prop_oneof![Just(500_u32), Just(4 << 10)],
    )
        .prop_map(
            |(config, recv_buffer_len, adverts_max, advert_len_max)| Config {
                recv_buffer_len,
                adverts_max,
                advert_len_max,
                zcopy_threshold: ZcopyThreshold::Bytes(100),
                read_direct_min: 100,
                rendezvous_wait: Duration::from_millis(1),
                rendezvous_wait_min: Duration::from_millis(1),
                ..config
            },
        )
        .boxed();
    let programs = || {
        let send = prop_oneof![
            6 => (200..6_000_usize).prop_map(Op::send),
            2 => (200..6_000_usize, 1..90_000_u64).prop_map(|(len, time)| Op::send_for(len, time)),
            1 => (1..20_usize).prop_map(Op::send),
            2 => (1..60_000_u64).prop_map(Op::Sleep),
        ];
        let recv = prop_oneof![
            4 => (200..6_000_usize).prop_map(|len| Op::recv_for(len, 3_000_000)),
            4 => (200..6_000_usize, 1..90_000_u64).prop_map(|(len, time)| Op::recv_for(len, time)),
            1 => (1..60_000_u64).prop_map(Op::Sleep),
            1 => recv_urgent(),
        ];
        [
            vec(send, 5..30).boxed(),
            vec(recv, 5..40).boxed(),
            urgents().boxed(),
            moves().boxed(),
        ]
    };
    ([config.clone(), config], laws(), [programs(), programs()])
        .prop_map(|(configs, laws, programs)| (configs, laws, programs))
}

/// As [`rdma_case`], of sides that read many adverts at once and have few buffers to be told so.
fn few_buffers_case() -> impl Strategy<Value = Case> {
    rdma_case().prop_map(|(configs, laws, programs)| {
        let few = |config| Config {
            recv_buffers_max: 4,
            adverts_max: 16,
            read_depth: 16,
            advert_len_max: 300,
            ..config
        };
        (configs.map(few), laws, programs)
    })
}

/// Both sides send and receive at random, say goodbye, and read to the end.
fn begin((configs, laws, programs): Case) -> World {
    let mut world = World::new(configs, laws);
    for (side, [sends, receives, urgents, moves]) in programs.into_iter().enumerate() {
        world.spawn(side, sends.into_iter().chain([Op::ShutSend]));
        let last = Op::RecvToEnd { len: 20_000 };
        world.spawn(side, receives.into_iter().chain([last]));
        world.spawn(side, urgents);
        world.spawn(side, moves);
    }
    world
}

/// Nothing is left of the connection.
fn assert_over(world: &World) {
    for nic in &world.nics {
        assert!(nic.conn.is_closed(), "not closed: {}", world.picture());
        assert!(nic.mems.is_empty(), "memory left: {}", world.picture());
        assert!(nic.grants.is_empty(), "grants left: {}", world.picture());
    }
}

/// As [`begin`], to the end of the connection.
fn run(case: Case) -> World {
    let mut world = begin(case);
    world.finish();
    world.assert_delivered();
    world.run();
    for side in 0..2 {
        assert_announced(&world, side);
    }
    assert_over(&world);
    world
}

/// As [`begin`], but one side breaks off at some time. What was received by then is right, and
/// every call ends.
fn run_broken(case: Case, at: u64, how: u8) {
    let mut world = begin(case);
    let end = match how {
        0 => Op::Abort,
        1 => Op::Close(None),
        2 => Op::Close(Some(Duration::ZERO)),
        3 => Op::Close(Some(Duration::from_micros(50))),
        _ => Op::ShutRecv,
    };
    world.spawn(
        0,
        [
            Op::Sleep(at),
            end.clone(),
            Op::Sleep(1_000_000),
            Op::Close(None),
        ],
    );
    world.finish();
    for side in 0..2 {
        world.spawn(side, [Op::Close(None)]);
    }
    world.run();
    assert_over(&world);
}

/// Few cases by default, so that the tests stay quick; `PROPTEST_CASES` asks for more.
pub(super) fn cases() -> ProptestConfig {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: if asked { default.cases } else { 24 },
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn random_programs_lose_no_byte(case in case()) {
        run(case);
    }

    #[test]
    fn random_programs_without_copies_lose_no_byte(case in rdma_case()) {
        run(case);
    }

    #[test]
    fn random_programs_with_few_buffers_lose_no_byte(case in few_buffers_case()) {
        run(case);
    }

    #[test]
    fn random_programs_survive_a_break(
        case in prop_oneof![case().boxed(), rdma_case().boxed()], at in 0..3_000_000_u64, how in 0..5_u8,
    ) {
        run_broken(case, at, how);
    }
}

/// Cases by number, the same at every run, until each turn was taken.
#[test]
fn every_turn_is_taken() {
    let mut taken: BTreeMap<Mark, u64> = BTreeMap::new();
    for seed in 0..SEEDS_MAX {
        std::println!("seed {seed}");
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(cases(), rng);
        let strategy = prop_oneof![1 => case().boxed(), 3 => rdma_case().boxed()];
        let case = strategy.new_tree(&mut runner).expect("no filter").current();
        for nic in &run(case).nics {
            for mark in nic.conn.marks() {
                *taken.entry(mark).or_default() += 1;
            }
        }
        if Mark::ALL.iter().all(|mark| taken.contains_key(mark)) {
            return;
        }
    }
    let missed = Mark::ALL.iter().filter(|mark| !taken.contains_key(mark));
    panic!(
        "never reached: {:?} of {taken:?}",
        missed.collect::<Vec<_>>()
    );
}

/// Cases tried at most.
const SEEDS_MAX: u64 = 1_000;
