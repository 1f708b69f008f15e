//! How far apart two processors are just now.
//!
//! A hypervisor moves virtual processors between "two threads of one core" and "two cores far
//! apart", even within a second, and every figure follows. So each round notes this marker.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::report::Figure;

const BATCHES: usize = 5;
const ROUND_TRIPS: u64 = 500;

/// One counter in a cache line of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// One way of a spinning ping-pong between the first two processors of this process, in µs: the
/// median of a few batches. None if there is one processor only, they cannot be chosen, or no threads can be had.
pub(crate) fn spin_us() -> Option<f64> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let (near, far) = (cpus.next()?, cpus.next()?);
    let (ping, pong) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
    let total = BATCHES as u64 * ROUND_TRIPS;
    thread::scope(|scope| {
        let answer = || {
            let pinned = pin(far);
            for turn in 1..=total {
                while ping.0.load(Ordering::Acquire) < turn {
                    spin_loop();
                }
                pong.0.store(turn, Ordering::Release);
            }
            pinned
        };
        thread::Builder::new().spawn_scoped(scope, answer).ok()?;
        let ask = || {
            let pinned = pin(near);
            let mut batches = Vec::with_capacity(BATCHES);
            let mut turn = 0;
            for _ in 0..BATCHES {
                let begin = Instant::now();
                for _ in 0..ROUND_TRIPS {
                    turn += 1;
                    ping.0.store(turn, Ordering::Release);
                    while pong.0.load(Ordering::Acquire) < turn {
                        spin_loop();
                    }
                }
                batches.push(begin.elapsed().as_secs_f64() * 1e6 / (2.0 * ROUND_TRIPS as f64));
            }
            pinned.then_some(batches)
        };
        let asking = thread::Builder::new().spawn_scoped(scope, ask);
        if asking.is_err() {
            // Who answers is not to wait.
            ping.0.store(u64::MAX, Ordering::Release);
        }
        let batches = asking.ok()?.join().ok().flatten()?;
        Figure::of(&batches).map(|figure| figure.median)
    })
}

fn pin(cpu: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_plausible_time_where_there_are_two_processors() {
        let cpus = thread::available_parallelism().unwrap().get();
        match spin_us() {
            Some(us) => assert!(us > 0.001, "{us}"),
            None => assert_eq!(cpus, 1),
        }
    }
}
