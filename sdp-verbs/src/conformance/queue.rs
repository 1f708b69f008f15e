//! Queue limits, and requests that complete without a word.

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{End, Options, Rig, Side};
use crate::caps::Caps;
use crate::error::{PostError, VerbsError};
use crate::types::{RemoteAddr, Rkey};
use crate::wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WcStatus};

/// Queues may be rounded up, but not without end.
const ROUNDED_MAX: usize = 96;

pub(super) fn a_full_send_queue_says_so(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RNR_RETRY)?;
    let link = rig.link(&Options {
        send_wr_max: 4,
        recv_wr_max: 100,
        recvs: 0,
        ..Options::default()
    })?;
    let mut accepted = Vec::new();
    let full = loop {
        let number = u8::try_from(accepted.len()).unwrap_or(u8::MAX);
        match link.active.post_message(&[number; 5], SendFlags::SIGNALED) {
            Ok(id) => accepted.push(id),
            Err(error) => break error,
        }
        ensure!(
            accepted.len() <= ROUNDED_MAX,
            "a queue of 4 takes {}",
            accepted.len()
        );
    };
    ensure_eq!(full, PostError::QueueFull, "posting to a full queue");
    ensure!(
        accepted.len() >= 4,
        "a queue of 4 takes {} only",
        accepted.len()
    );
    for _ in 0..=accepted.len() {
        link.passive.post_recv(64)?;
    }
    for (number, id) in (0u8..).zip(&accepted) {
        ensure_eq!(link.passive.receive()?, [number; 5], "message {number}");
        link.active.sent(*id, WcOpcode::Send)?;
    }
    // The refused request left nothing behind, and there is room again.
    link.active.send(b"next")?;
    ensure_eq!(link.passive.receive()?, b"next", "message");
    Ok(())
}

pub(super) fn a_full_receive_queue_says_so(rig: &Rig<'_>) -> Verdict {
    let link = rig.link(&Options {
        recv_wr_max: 4,
        recvs: 0,
        ..Options::default()
    })?;
    let mut accepted = Vec::new();
    let full = loop {
        match link.passive.try_post_recv(64)? {
            Ok(id) => accepted.push(id),
            Err(error) => break error,
        }
        ensure!(
            accepted.len() <= ROUNDED_MAX,
            "a queue of 4 takes {}",
            accepted.len()
        );
    };
    ensure_eq!(full, PostError::QueueFull, "posting to a full queue");
    ensure!(
        accepted.len() >= 4,
        "a queue of 4 takes {} only",
        accepted.len()
    );
    for round in 0..3 {
        link.active.send(&[round])?;
        ensure_eq!(link.passive.receive_and_repost()?, [round], "message");
    }
    Ok(())
}

pub(super) fn unsignalled_success_is_silent(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    for number in 0..7 {
        link.active.post_message(&[number], SendFlags::empty())?;
    }
    let last = link.active.post_message(&[7], SendFlags::SIGNALED)?;
    for number in 0..8 {
        ensure_eq!(link.passive.receive()?, [number], "message");
    }
    link.active.sent(last, WcOpcode::Send)?;
    link.lab.settle();
    ensure_eq!(
        link.active.sent_now(),
        None,
        "completion of an unsignalled request"
    );
    Ok(())
}

pub(super) fn unsignalled_requests_free_their_places(rig: &Rig<'_>) -> Verdict {
    let link = rig.link(&Options {
        send_wr_max: 8,
        ..Options::default()
    })?;
    for round in 0..50 {
        for number in 0..7 {
            link.active
                .post_message(&[round, number], SendFlags::empty())?;
        }
        let last = link.active.post_message(&[round, 7], SendFlags::SIGNALED)?;
        for number in 0..8 {
            ensure_eq!(
                link.passive.receive_and_repost()?,
                [round, number],
                "message"
            );
        }
        link.active.sent(last, WcOpcode::Send)?;
    }
    Ok(())
}

pub(super) fn posting_needs_a_connection(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(1)?;
    let id = lab.resolve(Side::Active, addr)?;
    let active = End::new(&lab, Side::Active, id, &Options::default())?;
    let early = active.post_message(b"early", SendFlags::SIGNALED);
    ensure_eq!(
        early,
        Err(PostError::WrongState),
        "posting without a connection"
    );
    let early = active.qp().reserve_send(10).map(drop);
    ensure_eq!(
        early,
        Err(PostError::WrongState),
        "reserving without a connection"
    );
    // Receives may be posted before, and the refused requests have left nothing behind.
    active.id().connect(b"")?;
    let (id, _) = lab.request(Side::Passive, &*listener)?;
    let passive = End::new(&lab, Side::Passive, id, &Options::default())?;
    passive.id().accept(b"")?;
    active.establish()?;
    passive.established()?;
    active.send(b"now")?;
    ensure_eq!(passive.receive()?, b"now", "message");
    Ok(())
}

/// One of several threads that post to a queue pair, each message with its number.
fn post_many(qp: &dyn crate::qp::QueuePair, thread: u8, count: u16) -> Result<(), PostError> {
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        let bytes = [thread, high, low];
        loop {
            let posted = qp.post_send(SendWr {
                wr_id: crate::types::WrId(u64::from(number)),
                op: SendOp::Send {
                    data: SendData::Inline(&bytes),
                    invalidate: None,
                },
                flags: SendFlags::SIGNALED,
            });
            match posted {
                Ok(()) => break,
                // The thread of the case polls, and then there is room.
                Err(PostError::QueueFull) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

pub(super) fn two_threads_may_post(rig: &Rig<'_>) -> Verdict {
    const COUNT: u16 = 500;
    rig.need(Caps::RNR_RETRY)?;
    let link = rig.plain_link()?;
    let qp = &**link.active.qp();
    let receive_all = || {
        let (mut next, mut sent) = ([0u16; 2], 0);
        while next != [COUNT; 2] {
            let bytes = link.passive.receive_and_repost()?;
            let [thread, high, low] = bytes[..] else {
                return Err(Stop::failed(format!("a message {bytes:?}")));
            };
            let expected = &mut next[usize::from(thread)];
            ensure_eq!(
                u16::from_be_bytes([high, low]),
                *expected,
                "message of thread {thread}"
            );
            *expected += 1;
            while let Some(wc) = link.active.sent_now() {
                ensure_eq!(wc.status, WcStatus::Success, "{wc:?}");
                sent += 1;
            }
        }
        while sent < 2 * COUNT {
            link.active.next_sent()?;
            sent += 1;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|thread| scope.spawn(move || post_many(qp, thread, COUNT)));
        let received = receive_all();
        if received.is_err() {
            // Or the threads would go on for ever.
            qp.set_error();
        }
        for thread in threads {
            match thread.join() {
                Ok(posted) => posted.or_else(|error| match &received {
                    Ok(()) => Err(Stop::from(error)),
                    Err(_) => Ok(()),
                })?,
                Err(_) => return Err(Stop::failed("a posting thread panicked")),
            }
        }
        received
    })
}

pub(super) fn attributes_beyond_the_limits_are_refused(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (_listener, addr) = lab.listen(1)?;
    let id = lab.resolve(Side::Active, addr)?;
    let station = lab.station(Side::Active);
    let limits = station.provider.limits();
    let cq = station
        .provider
        .create_cq(64, &station.comp, crate::cq::CqToken(5))?;
    let attr = crate::qp::QpAttr {
        cq,
        send_wr_max: limits.send_wr_max,
        recv_wr_max: limits.recv_wr_max,
        rnr_retry: 7,
        silence_max: None,
    };
    let refused = |attr: &crate::qp::QpAttr| match id.create_qp(attr) {
        Err(VerbsError::Limit { .. } | VerbsError::Argument { .. }) => Ok(()),
        other => Err(Stop::failed(format!(
            "a queue beyond the limit gave {other:?}"
        ))),
    };
    if let Some(send_wr_max) = limits.send_wr_max.checked_add(1) {
        refused(&crate::qp::QpAttr {
            send_wr_max,
            ..attr.clone()
        })?;
    }
    if let Some(recv_wr_max) = limits.recv_wr_max.checked_add(1) {
        refused(&crate::qp::QpAttr {
            recv_wr_max,
            ..attr.clone()
        })?;
    }
    // The limits themselves are within them.
    let qp = id.create_qp(&attr)?;
    let beyond = qp.alloc_recv(limits.recv_len_max.saturating_add(1));
    ensure!(beyond.is_err(), "a receive beyond the limit");
    Ok(())
}

pub(super) fn too_many_elements_are_refused(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let mem = link.active.mem(4096)?;
    let max = rig.sides.active.limits().sge_max;
    let sges = vec![mem.sge(0, 1); max.saturating_add(1).min(1 << 16)];
    let (remote, rkey) = (RemoteAddr(4096), Rkey(0xFFFF_FFFE));
    let gathered = SendOp::Send {
        data: SendData::Sges(&sges),
        invalidate: None,
    };
    let sent = link.active.post(gathered, SendFlags::SIGNALED);
    ensure_eq!(
        sent,
        Err(PostError::TooLarge),
        "a message of {} elements",
        sges.len()
    );
    if rig.caps().contains(Caps::RDMA_READ) {
        let read = link.active.post_read(&sges, remote, rkey);
        ensure_eq!(
            read,
            Err(PostError::TooLarge),
            "a read into {} elements",
            sges.len()
        );
    }
    if rig.caps().contains(Caps::RDMA_WRITE) {
        let written = link.active.post_write(&sges, remote, rkey);
        ensure_eq!(
            written,
            Err(PostError::TooLarge),
            "a write of {} elements",
            sges.len()
        );
    }
    link.active.send(b"unharmed")?;
    ensure_eq!(link.passive.receive()?, b"unharmed", "message");
    Ok(())
}
