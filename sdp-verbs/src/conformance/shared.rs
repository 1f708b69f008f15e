//! Completion queues that several queue pairs share, and that several threads poll.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{BOUND, End, Lab, NOTHING, Options, Rig, Side};
use crate::cm::{CmEventKind, CmId};
use crate::cq::{ArmFor, CompletionQueue, CqToken, Wake};
use crate::memory::RecvBuf;
use crate::qp::{QpAttr, QueuePair};
use crate::types::{QpNum, WrId};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WcStatus, WorkCompletion};

/// Receives of each queue pair.
const RECVS: u8 = 4;

/// One of several queue pairs on one completion queue.
struct Member {
    peer: End,
    _id: Arc<dyn CmId>,
    qp: Arc<dyn QueuePair>,
    bufs: Vec<RecvBuf>,
}

/// Connections whose passive ends share a queue.
struct Shared {
    members: Vec<Member>,
    cq: Arc<dyn CompletionQueue>,
    lab: Lab,
}

impl Shared {
    fn new(rig: &Rig<'_>, count: usize) -> Verdict<Self> {
        let lab = rig.manual_lab()?;
        let station = lab.station(Side::Passive);
        let cq = station
            .provider
            .create_cq(256, &station.comp, CqToken(77))?;
        let (listener, addr) = lab.listen(4)?;
        let mut members = Vec::new();
        for _ in 0..count {
            let id = lab.resolve(Side::Active, addr)?;
            let peer = End::new(&lab, Side::Active, id, &Options::default())?;
            peer.id().connect(b"")?;
            let (id, _) = lab.request(Side::Passive, &*listener)?;
            let qp = id.create_qp(&QpAttr {
                cq: Arc::clone(&cq),
                send_wr_max: 16,
                recv_wr_max: 16,
                rnr_retry: 7,
                silence_max: None,
            })?;
            let mut bufs = Vec::new();
            for number in 0..RECVS {
                let buf = qp.alloc_recv(64)?;
                qp.post_recv(WrId(u64::from(number)), &buf)?;
                bufs.push(buf);
            }
            id.accept(b"")?;
            peer.establish()?;
            let event = lab.event(Side::Passive, &*id)?;
            ensure!(
                matches!(event, CmEventKind::Established),
                "accepting gave {event:?}"
            );
            members.push(Member {
                peer,
                _id: id,
                qp,
                bufs,
            });
        }
        lab.settle();
        Ok(Self { members, cq, lab })
    }

    fn member(&self, num: QpNum) -> Verdict<&Member> {
        let member = self.members.iter().find(|member| member.qp.num() == num);
        member.ok_or_else(|| Stop::failed(format!("no queue pair has the number {num:?}")))
    }

    fn next(&self) -> Verdict<WorkCompletion> {
        let mut out = [NOTHING];
        self.lab.until("completion on a shared queue", || {
            (self.cq.poll(&mut out) == 1).then_some(out[0])
        })
    }

    /// The message of a completion, whose receive is posted again.
    fn message(&self, wc: &WorkCompletion) -> Verdict<Vec<u8>> {
        ensure_eq!(
            (wc.opcode, wc.status),
            (WcOpcode::Recv, WcStatus::Success),
            "{wc:?}"
        );
        let member = self.member(wc.qp)?;
        let buf = usize::try_from(wc.wr_id.0)
            .ok()
            .and_then(|at| member.bufs.get(at));
        let Some(buf) = buf else {
            return Err(Stop::failed(format!("{wc:?} completes no receive")));
        };
        let mut bytes = vec![0; wc.byte_len.min(buf.mem().len())];
        buf.mem().read(0, &mut bytes);
        member.qp.post_recv(wc.wr_id, buf)?;
        Ok(bytes)
    }
}

pub(super) fn completions_name_their_queue_pair(rig: &Rig<'_>) -> Verdict {
    let shared = Shared::new(rig, 4)?;
    for round in 0..10u8 {
        for (number, member) in (0u8..).zip(&shared.members) {
            member
                .peer
                .post_message(&[number, round, 1], SendFlags::empty())?;
            member
                .peer
                .post_message(&[number, round, 2], SendFlags::SIGNALED)?;
        }
        let mut next: HashMap<QpNum, u8> = HashMap::new();
        for _ in 0..2 * shared.members.len() {
            let wc = shared.next()?;
            let turn = next.entry(wc.qp).and_modify(|turn| *turn += 1).or_insert(1);
            let place = shared
                .members
                .iter()
                .position(|member| member.qp.num() == wc.qp);
            let number = place
                .and_then(|place| u8::try_from(place).ok())
                .unwrap_or(u8::MAX);
            ensure_eq!(
                shared.message(&wc)?,
                [number, round, *turn],
                "message of {wc:?}"
            );
        }
        for member in &shared.members {
            ensure_eq!(
                member.peer.next_sent()?.status,
                WcStatus::Success,
                "sending"
            );
        }
    }
    Ok(())
}

pub(super) fn any_queue_pair_ends_a_wait(rig: &Rig<'_>) -> Verdict {
    const ROUNDS: usize = 300;
    let shared = Shared::new(rig, 3)?;
    let peers: Vec<_> = shared
        .members
        .iter()
        .map(|member| (Arc::clone(member.peer.qp()), Arc::clone(member.peer.cq())))
        .collect();
    // Told of each message that has been taken, so that the next wait has mostly begun.
    let (taken, is_taken) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            for (round, (qp, cq)) in peers.iter().cycle().take(ROUNDS).enumerate() {
                qp.post_send(SendWr {
                    wr_id: WrId(round as u64),
                    op: SendOp::Send {
                        data: SendData::Inline(&round.to_be_bytes()),
                        invalidate: None,
                    },
                    flags: SendFlags::SIGNALED,
                })?;
                while cq.poll(&mut [NOTHING]) == 0 {
                    std::thread::yield_now();
                }
                if is_taken.recv().is_err() {
                    break;
                }
            }
            Ok::<_, Stop>(())
        });
        let take_all = || {
            for round in 0..ROUNDS {
                let wc = waited_for(&*shared.cq)?;
                ensure_eq!(shared.message(&wc)?, round.to_be_bytes(), "message");
                // It has gone only after a failure of its own.
                let _ = taken.send(());
            }
            Ok(())
        };
        let received = take_all();
        drop(taken);
        let sent = sender
            .join()
            .map_err(|_| Stop::failed("the sending thread panicked"))?;
        sent.and(received)
    })
}

/// The next completion, by arming, polling, and waiting.
fn waited_for(cq: &dyn CompletionQueue) -> Verdict<WorkCompletion> {
    let mut out = [NOTHING];
    loop {
        let token = cq.arm(ArmFor::Waiter);
        if cq.poll(&mut out) == 1 {
            return Ok(out[0]);
        }
        if cq.wait(token, Some(BOUND))? == Wake::TimedOut {
            let found = cq.poll(&mut out);
            return Err(Stop::failed(format!(
                "the wait timed out, then there were {found}"
            )));
        }
    }
}

/// Polls until told to stop, beside others who do the same.
fn poll_until(stop: &AtomicBool, cq: &dyn CompletionQueue, seen: &Mutex<Vec<WorkCompletion>>) {
    let mut out = [NOTHING; 3];
    while !stop.load(Ordering::Acquire) {
        let count = cq.poll(&mut out);
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(&out[..count]);
        std::thread::yield_now();
    }
}

pub(super) fn every_completion_goes_to_one_thread(rig: &Rig<'_>) -> Verdict {
    let shared = Shared::new(rig, 2)?;
    let (stop, seen) = (
        AtomicBool::new(false),
        Mutex::<Vec<WorkCompletion>>::default(),
    );
    let expected = shared.members.len() * usize::from(RECVS);
    let send_and_count = || {
        for round in 0..50u8 {
            for member in &shared.members {
                for _ in 1..RECVS {
                    member.peer.post_message(&[round], SendFlags::empty())?;
                }
                let last = member.peer.post_message(&[round], SendFlags::SIGNALED)?;
                member.peer.sent(last, WcOpcode::Send)?;
            }
            let all = shared.lab.until("completions on two threads", || {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                (seen.len() >= expected).then(|| std::mem::take(&mut *seen))
            })?;
            let different: HashSet<_> = all.iter().map(|wc| (wc.qp, wc.wr_id)).collect();
            ensure_eq!(
                (all.len(), different.len()),
                (expected, expected),
                "completions"
            );
            for wc in &all {
                ensure_eq!(shared.message(wc)?, [round], "message");
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| poll_until(&stop, &*shared.cq, &seen));
        }
        let verdict = send_and_count();
        stop.store(true, Ordering::Release);
        verdict
    })
}
