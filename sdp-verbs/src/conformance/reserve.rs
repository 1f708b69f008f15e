//! Reserved send buffers.

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{End, Options, Rig, pattern, refused};
use crate::caps::Caps;
use crate::error::PostError;
use crate::memory::SendBuf;
use crate::types::WrId;
use crate::wr::{SendData, SendFlags, SendOp, WcOpcode};

fn post(end: &End, buf: SendBuf, len: usize) -> Result<WrId, PostError> {
    post_with(end, buf, len, SendFlags::SIGNALED)
}

fn post_with(end: &End, buf: SendBuf, len: usize, flags: SendFlags) -> Result<WrId, PostError> {
    let op = SendOp::Send {
        data: SendData::Buf { buf, len },
        invalidate: None,
    };
    end.post(op, flags)
}

pub(super) fn a_reserved_buffer_is_sent(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    for round in 0..50u8 {
        let bytes = pattern(round, usize::from(round));
        let buf = link.active.qp().reserve_send(bytes.len())?;
        ensure!(
            buf.mem().len() >= bytes.len(),
            "{buf:?} for {} bytes",
            bytes.len()
        );
        buf.mem().write(0, &bytes);
        let id = post(&link.active, buf, bytes.len())?;
        ensure_eq!(link.passive.receive_and_repost()?, bytes, "message {round}");
        link.active.sent(id, WcOpcode::Send)?;
    }
    Ok(())
}

pub(super) fn a_shorter_message_may_use_it(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    for len in [0, 1, 99] {
        let buf = link.active.qp().reserve_send(200)?;
        buf.mem().write(0, &pattern(1, 200));
        let id = post(&link.active, buf, len)?;
        ensure_eq!(
            link.passive.receive()?,
            pattern(1, 200)[..len],
            "message of {len}"
        );
        link.active.sent(id, WcOpcode::Send)?;
    }
    Ok(())
}

pub(super) fn a_returned_buffer_is_not_lost(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let qp = link.active.qp();
    for round in 0..50 {
        let mut held = Vec::new();
        for number in 0..Options::default().recvs {
            let buf = qp.reserve_send(100)?;
            buf.mem().write(0, &[0xEE; 100]);
            // Some go back at once, the others together.
            if (number + round) % 3 == 0 {
                qp.unreserve_send(buf);
            } else {
                held.push(buf);
            }
        }
        held.into_iter().for_each(|buf| qp.unreserve_send(buf));
    }
    for number in 0..8 {
        link.active.send(&[number; 10])?;
    }
    for number in 0..8 {
        ensure_eq!(link.passive.receive()?, [number; 10], "message");
    }
    Ok(())
}

pub(super) fn posted_in_another_order(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let first = link.active.qp().reserve_send(10)?;
    let second = link.active.qp().reserve_send(10)?;
    first.mem().write(0, b"reserved 1");
    second.mem().write(0, b"reserved 2");
    let ids = [
        link.active.post_message(b"inline", SendFlags::SIGNALED)?,
        post(&link.active, second, 10)?,
        post(&link.active, first, 10)?,
    ];
    // The order of posting is what counts, for the bytes at least.
    for expected in [&b"inline"[..], b"reserved 2", b"reserved 1"] {
        ensure_eq!(link.passive.receive()?, expected, "message");
    }
    for id in ids {
        link.active.sent(id, WcOpcode::Send)?;
    }
    Ok(())
}

pub(super) fn too_large_is_refused(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let qp = link.active.qp();
    let max = rig.sides.active.limits().recv_len_max;
    let too_large = |error: &PostError| *error == PostError::TooLarge;
    refused(
        "a buffer beyond the limit",
        qp.reserve_send(max.saturating_add(1)),
        too_large,
    )?;
    let buf = qp.reserve_send(100)?;
    let beyond = buf.mem().len() + 1;
    refused(
        "a message beyond its buffer",
        post(&link.active, buf, beyond),
        |error| matches!(error, PostError::TooLarge | PostError::LocalProtection),
    )?;
    // The refused buffer was given back.
    for number in 0..8 {
        link.active.send(&[number])?;
        ensure_eq!(link.passive.receive()?, [number], "message");
    }
    Ok(())
}

pub(super) fn a_buffer_of_another_connection_is_refused(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (one, other) = (
        lab.link(&Options::default())?,
        lab.link(&Options::default())?,
    );
    let buf = other.active.qp().reserve_send(64)?;
    refused(
        "a buffer of another connection",
        post(&one.active, buf, 64),
        |error| *error == PostError::LocalProtection,
    )?;
    for link in [&one, &other] {
        for number in 0..8 {
            link.active.send(&[number])?;
            ensure_eq!(link.passive.receive()?, [number], "message");
        }
    }
    Ok(())
}

pub(super) fn a_reservation_holds_up_no_earlier_message(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RNR_RETRY)?;
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    for round in 0..10u8 {
        let id = link.active.post_message(&[round, 1], SendFlags::SIGNALED)?;
        link.lab.settle();
        link.passive.post_recv(64)?;
        // Must not take the only receive, which the message has been waiting for.
        let buf = link.active.qp().reserve_send(10)?;
        ensure_eq!(
            link.passive.receive()?,
            [round, 1],
            "the message that waited"
        );
        link.active.sent(id, WcOpcode::Send)?;
        link.passive.post_recv(64)?;
        buf.mem().write(0, &[round, 2]);
        let id = post(&link.active, buf, 2)?;
        ensure_eq!(link.passive.receive()?, [round, 2], "the reserved message");
        link.active.sent(id, WcOpcode::Send)?;
    }
    Ok(())
}

/// A buffer serves the next message when a later request has completed. Until then, and where TCP
/// carries the bytes long after, the message before is as it was posted.
pub(super) fn what_has_been_sent_is_not_changed(rig: &Rig<'_>) -> Verdict {
    const LEN: usize = 16 << 10;
    const SILENT: u8 = 7;
    let link = rig.link(&Options {
        recvs: 2 * (usize::from(SILENT) + 1),
        recv_len: LEN,
        ..Options::default()
    })?;
    for _ in 0..40 {
        // Twice, so that the second time the buffers of the first are there again.
        for time in 0..2 {
            let first = time * (SILENT + 1);
            let message = |number: u8, flags| -> Verdict<WrId> {
                let buf = link.active.qp().reserve_send(LEN)?;
                buf.mem().write(0, &pattern(number, LEN));
                Ok(post_with(&link.active, buf, LEN, flags)?)
            };
            for number in first..first + SILENT {
                message(number, SendFlags::empty())?;
            }
            let told = message(first + SILENT, SendFlags::SIGNALED)?;
            link.active.sent(told, WcOpcode::Send)?;
        }
        for number in 0..2 * (SILENT + 1) {
            let bytes = link.passive.receive_and_repost()?;
            ensure!(
                bytes == pattern(number, LEN),
                "message {number} has changed"
            );
        }
    }
    Ok(())
}
