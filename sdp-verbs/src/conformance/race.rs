//! Keys that die while a transfer is under way.
//!
//! The owner takes a key back, and from then on does with the memory what it likes. Whatever the
//! peer has under way either happened entirely before that, or fails.

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{End, Lab, Link, Mem, NOTHING, Options, Rig, pattern};
use crate::caps::Caps;
use crate::cq::CompletionQueue;
use crate::qp::QueuePair;
use crate::types::{Access, Rkey, WrId};
use crate::wr::{SendFlags, SendOp, SendWr, WcOpcode, WcStatus, WorkCompletion};
use std::sync::atomic::{AtomicBool, Ordering};

const LEN: usize = 64 << 10;
const ROUNDS: u32 = 100;
/// What the owner does with memory that is his again.
const REUSED: u8 = 0xEE;

/// For who may not give up.
static NEVER: AtomicBool = AtomicBool::new(false);

/// Polls until something completes; gives up when told to.
fn poll_for(cq: &dyn CompletionQueue, stop: &AtomicBool) -> Option<WorkCompletion> {
    let mut out = [NOTHING];
    loop {
        if cq.poll(&mut out) == 1 {
            return Some(out[0]);
        }
        if stop.load(Ordering::Acquire) {
            return None;
        }
        std::thread::yield_now();
    }
}

/// The owner's side of a round: takes the key back after `delay` and uses the memory anew; then
/// serves what is left until told to stop.
fn take_back(
    qp: &dyn QueuePair,
    cq: &dyn CompletionQueue,
    rkey: Rkey,
    mem: &Mem,
    delay: u32,
    stop: &AtomicBool,
) -> Verdict {
    for _ in 0..delay {
        std::hint::spin_loop();
    }
    qp.post_send(SendWr {
        wr_id: WrId(1),
        op: SendOp::LocalInv { rkey },
        flags: SendFlags::SIGNALED,
    })?;
    let done = poll_for(cq, &NEVER).map(|wc| (wc.opcode, wc.status));
    if done != Some((WcOpcode::LocalInv, WcStatus::Success)) {
        // The connection is in error, and that is another way for a key to die.
        qp.set_error();
    }
    mem.write(0, &[REUSED; LEN]);
    while poll_for(cq, stop).is_some() {}
    Ok(())
}

/// Races one request of the active end against the death of the key. True if the request won.
fn race(
    link: &Link,
    owned: &Mem,
    rkey: Rkey,
    delay: u32,
    post: impl FnOnce(&End) -> Verdict<WrId>,
) -> Verdict<bool> {
    let (qp, cq) = (&**link.passive.qp(), &**link.passive.cq());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| take_back(qp, cq, rkey, owned, delay, &done));
        let raced = post(&link.active).and_then(|id| {
            let wc = poll_for(&**link.active.cq(), &NEVER);
            let wc = wc.ok_or_else(|| Stop::failed("no completion"))?;
            ensure_eq!(wc.wr_id, id, "{wc:?}");
            Ok(wc.status)
        });
        done.store(true, Ordering::Release);
        owner
            .join()
            .map_err(|_| Stop::failed("the owner panicked"))??;
        match raced? {
            WcStatus::Success => Ok(true),
            // An owner whose own request met the error does not answer any more.
            WcStatus::RemoteAccess | WcStatus::RetryExceeded => Ok(false),
            other => Err(Stop::failed(format!(
                "the request completed with {other:?}"
            ))),
        }
    })
}

fn bare_link(lab: &Lab) -> Verdict<Link> {
    let options = Options {
        recvs: 0,
        ..Options::default()
    };
    lab.link(&options)
}

/// A delay for a round: some before, some during, some after the transfer.
fn delay(round: u32) -> u32 {
    round.wrapping_mul(0x9E37_79B9) >> 18
}

pub(super) fn a_read_shows_nothing_that_came_after(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_READ | Caps::MEMORY_WINDOW | Caps::LOCAL_INV)?;
    let lab = rig.manual_lab()?;
    let mut link = bare_link(&lab)?;
    let (source, target) = (link.passive.mem(LEN)?, link.active.mem(LEN)?);
    for round in 0..ROUNDS {
        let seed = u8::try_from(round % 251).unwrap_or(0);
        source.write(0, &pattern(seed, LEN));
        let shown = link.passive.expose(&source, 0, LEN, Access::REMOTE_READ)?;
        let won = race(&link, &source, shown.rkey, delay(round), |end| {
            Ok(end.post_read(&[target.sge(0, LEN)], shown.addr, shown.rkey)?)
        })?;
        if won {
            let intact = target.read(0, LEN) == pattern(seed, LEN);
            ensure!(
                intact,
                "round {round}: a successful read shows what came after the key"
            );
        } else {
            link = bare_link(&lab)?;
        }
    }
    Ok(())
}

pub(super) fn a_write_changes_nothing_that_came_after(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_WRITE | Caps::MEMORY_WINDOW | Caps::LOCAL_INV)?;
    let lab = rig.manual_lab()?;
    let mut link = bare_link(&lab)?;
    let (source, target) = (link.active.mem(LEN)?, link.passive.mem(LEN)?);
    source.write(0, &pattern(1, LEN));
    for round in 0..ROUNDS {
        let shown = link.passive.expose(&target, 0, LEN, Access::REMOTE_WRITE)?;
        let won = race(&link, &target, shown.rkey, delay(round), |end| {
            Ok(end.post_write(&[source.sge(0, LEN)], shown.addr, shown.rkey)?)
        })?;
        let intact = target.read(0, LEN).iter().all(|byte| *byte == REUSED);
        ensure!(intact, "round {round}: a write came in through a dead key");
        if !won {
            link = bare_link(&lab)?;
        }
    }
    Ok(())
}
