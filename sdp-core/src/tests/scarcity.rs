//! Memory of the process is scarce: connections make do with little, and go on.

use super::util::op::Op;
use super::util::world::World;
use crate::{Config, ZcopyThreshold};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// SO_SNDBUF and SO_RCVBUF each, while memory is scarce.
const FLOOR: usize = 16 * KIB;
/// Receives posted at first, and their length.
const POSTED: usize = 4;
const POSTED_LEN: usize = 4 * KIB + 64;

/// S = R = 1 MiB.
fn config(zcopy_threshold: ZcopyThreshold) -> Config {
    Config {
        send_buffer_len: MIB,
        recv_buffer_total: MIB,
        zcopy_threshold,
        ..Config::default()
    }
}

fn set_scarce(world: &mut World, scarce: bool) {
    for side in 0..2 {
        let now = world.instant();
        world.nics[side].conn.set_memory_scarce(now, scarce);
        world.drain(side);
    }
}

/// Whoever waits for memory asks for visits for ever: the time it takes to come to rest otherwise.
fn rest(world: &mut World) {
    let until = world.now + 1_000_000_000;
    world.run_until(|world| world.now >= until);
}

/// With no reader both sides buffer up to the floor, and up to the buffers' sizes as soon as there
/// is memory again; calls that wait go on by themselves.
#[test]
fn buffers_shrink_to_the_floor_and_grow_again() {
    for threshold in [ZcopyThreshold::Off, ZcopyThreshold::Bytes(64 * KIB)] {
        let mut world = World::connected(&config(threshold));
        set_scarce(&mut world, true);
        world.spawn(0, [Op::send(2 * MIB)]);
        rest(&mut world);
        assert!(!world.all_done(), "{threshold:?}");
        let held = world.nics[1].conn.readable_len();
        assert!(held <= FLOOR + POSTED * POSTED_LEN, "{held}");
        let [sender, receiver] = [0, 1].map(|side| &world.nics[side].conn);
        assert_eq!(sender.send_buffer_len(), FLOOR);
        assert_eq!(receiver.stats().memory_scarce, 1);
        set_scarce(&mut world, false);
        world.finish();
        assert_eq!(world.outcomes(0, 0), [Ok(2 * MIB)]);
        world.spawn(1, [Op::recv_all(2 * MIB)]);
        world.finish();
        world.assert_delivered();
    }
}

/// Calls of any size move bytes while memory is scarce.
#[test]
fn readers_get_everything() {
    for piece in [MIB, 100 * KIB, 1_000] {
        for threshold in [ZcopyThreshold::Off, ZcopyThreshold::Bytes(64 * KIB)] {
            let mut world = World::connected(&config(threshold));
            set_scarce(&mut world, true);
            world.spawn(0, [Op::send(MIB)]);
            rest(&mut world);
            let receives = (0..MIB / piece).map(|_| Op::recv_all(piece));
            world.spawn(1, receives.chain([Op::recv_all(MIB % piece)]));
            world.finish();
            world.assert_delivered();
        }
    }
}

/// No longer receive buffers are granted, and no more of them than at first.
#[test]
fn receive_buffers_stay_as_they_began() {
    let mut world = World::connected(&config(ZcopyThreshold::Off));
    set_scarce(&mut world, true);
    world.spawn(0, [Op::send(MIB)]);
    world.spawn(1, [Op::recv_all(MIB)]);
    world.finish();
    let lens = &world.nics[1].buf_lens;
    assert!(lens.values().all(|len| *len <= POSTED_LEN), "{lens:?}");
    assert!(lens.len() <= 2 * POSTED, "{lens:?}");
}

/// Receive buffers that were granted before are given back as the stream moves on.
#[test]
fn receive_buffers_are_given_back() {
    let mut world = World::connected(&config(ZcopyThreshold::Off));
    world.spawn(0, [Op::send(4 * MIB)]);
    world.spawn(1, [Op::recv_all(4 * MIB)]);
    world.finish();
    let before = world.nics[1].buf_lens.len();
    set_scarce(&mut world, true);
    world.spawn(0, [Op::send(4 * MIB)]);
    world.spawn(1, [Op::recv_all(4 * MIB)]);
    world.finish();
    world.assert_delivered();
    let after = world.nics[1].buf_lens.len();
    assert!(before > POSTED, "{before} receives at work");
    assert!(after <= POSTED, "{after} of {before} receives kept");
}

/// A low water mark that memory does not allow for makes nobody wait for ever.
#[test]
fn low_water_above_the_floor_is_met() {
    let mut world = World::connected(&config(ZcopyThreshold::Off));
    world.nics[1].conn.set_recv_low_water(MIB / 2);
    set_scarce(&mut world, true);
    world.spawn(0, [Op::send(MIB)]);
    rest(&mut world);
    assert!(world.nics[1].conn.is_readable());
}
