//! SEND and RECV.

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{Options, Rig, pattern};
use crate::caps::Caps;
use crate::error::PostError;
use crate::types::WrId;
use crate::wr::{SendData, SendFlags, SendOp, WcOpcode, WcStatus};

pub(super) fn arrive_in_order(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let mut number = 0u32;
    for _ in 0..60 {
        let first = number;
        let mut posted = Vec::new();
        for _ in 0..6 {
            let len = usize::try_from(number * 7 % 250).unwrap_or(0);
            let mut bytes = number.to_be_bytes().to_vec();
            bytes.extend(pattern(7, len));
            posted.push(link.active.post_message(&bytes, SendFlags::SIGNALED)?);
            link.passive.post_message(&bytes, SendFlags::empty())?;
            number += 1;
        }
        let last = link.passive.post_message(b"end", SendFlags::SIGNALED)?;
        for number in first..first + 6 {
            for end in [&link.active, &link.passive] {
                let bytes = end.receive_and_repost()?;
                ensure_eq!(bytes[..4], number.to_be_bytes(), "number of a message");
                let len = usize::try_from(number * 7 % 250).unwrap_or(0);
                ensure_eq!(bytes[4..], pattern(7, len), "message {number}");
            }
        }
        ensure_eq!(link.active.receive_and_repost()?, b"end", "last message");
        for id in posted {
            link.active.sent(id, WcOpcode::Send)?;
        }
        link.passive.sent(last, WcOpcode::Send)?;
    }
    Ok(())
}

pub(super) fn lengths_from_nothing_to_the_largest(rig: &Rig<'_>) -> Verdict {
    let max = rig.limits().recv_len_max.min(1 << 20);
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    for len in [
        0,
        1,
        2,
        63,
        64,
        65,
        4095,
        4096,
        4097,
        32 << 10,
        max - 1,
        max,
    ] {
        if len > max {
            continue;
        }
        link.passive.post_recv(len)?;
        let bytes = pattern(9, len);
        link.active.send(&bytes)?;
        let got = link.passive.receive()?;
        ensure!(
            got == bytes,
            "a message of {len} bytes arrived changed, as {}",
            got.len()
        );
    }
    Ok(())
}

pub(super) fn too_long_for_the_receive(rig: &Rig<'_>) -> Verdict {
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    let short = link.passive.post_recv(64)?;
    // Room is in whole buffers on some providers, so this is longer than any rounding.
    let id = link
        .active
        .post_message(&pattern(1, 32 << 10), SendFlags::SIGNALED)?;
    let wc = link.passive.next_received()?;
    ensure_eq!(
        (wc.wr_id, wc.status),
        (short, WcStatus::LocalLength),
        "{wc:?}"
    );
    if rig.caps().contains(Caps::REMOTE_STATUS) {
        link.active.failed(id)?;
    } else {
        // Sent is all that it was; the connection ends.
        ensure_eq!(link.active.next_sent()?.wr_id, id, "request that completed");
        link.active.disconnected()?;
    }
    Ok(())
}

pub(super) fn too_long_for_the_provider(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let max = rig.sides.active.limits().recv_len_max;
    let too_long = link.active.qp().reserve_send(max.saturating_add(1));
    ensure_eq!(
        too_long.map(drop),
        Err(PostError::TooLarge),
        "reserving beyond the limit"
    );
    if max <= 64 << 20 {
        let posted = link
            .active
            .post_message(&vec![0; max + 1], SendFlags::SIGNALED);
        ensure_eq!(posted, Err(PostError::TooLarge), "posting beyond the limit");
    }
    link.active.send(b"unharmed")?;
    ensure_eq!(link.passive.receive()?, b"unharmed", "message");
    Ok(())
}

pub(super) fn a_send_waits_for_a_receive(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RNR_RETRY)?;
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    let mut posted = Vec::new();
    for number in 0..4 {
        posted.push(
            link.active
                .post_message(&[number; 9], SendFlags::SIGNALED)?,
        );
    }
    link.lab.settle();
    ensure_eq!(
        link.active.sent_now(),
        None,
        "completion of a send that met no receive"
    );
    for number in 0..4 {
        link.passive.post_recv(64)?;
        ensure_eq!(link.passive.receive()?, [number; 9], "message");
    }
    for id in posted {
        link.active.sent(id, WcOpcode::Send)?;
    }
    // And with a receive there first, it goes on as ever.
    link.passive.post_recv(64)?;
    link.active.send(b"on")?;
    ensure_eq!(link.passive.receive()?, b"on", "message");
    Ok(())
}

pub(super) fn inline_bytes_are_free_at_once(rig: &Rig<'_>) -> Verdict {
    // As long as is promised to need no memory.
    let longest = vec![7; rig.limits().inline_max.clamp(6, 4096)];
    let options = Options {
        recv_len: longest.len(),
        ..Options::default()
    };
    let link = rig.link(&options)?;
    let mut bytes = *b"before";
    link.active.post_message(&bytes, SendFlags::SIGNALED)?;
    bytes.copy_from_slice(b"after!");
    link.active.post_message(&bytes, SendFlags::SIGNALED)?;
    bytes.fill(0);
    ensure_eq!(link.passive.receive()?, b"before", "first message");
    ensure_eq!(link.passive.receive()?, b"after!", "second message");
    link.active.post_message(&longest, SendFlags::SIGNALED)?;
    ensure_eq!(link.passive.receive()?, longest, "longest message");
    Ok(())
}

pub(super) fn gathered_from_several_elements(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let (one, other) = (link.active.mem(4096)?, link.active.mem(4096)?);
    one.write(100, b"from one ");
    other.write(7, b"and another");
    let all = [one.sge(100, 9), other.sge(7, 11), one.sge(100, 4)];
    let count = rig.limits().sge_max.min(all.len());
    let expected = [&b"from one "[..], b"and another", b"from"][..count].concat();
    let op = SendOp::Send {
        data: SendData::Sges(&all[..count]),
        invalidate: None,
    };
    let id = link.active.post(op, SendFlags::SIGNALED)?;
    ensure_eq!(link.passive.receive()?, expected, "message");
    link.active.sent(id, WcOpcode::Send)?;
    Ok(())
}

pub(super) fn receives_complete_with_their_own_ids(rig: &Rig<'_>) -> Verdict {
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    let mut posted = Vec::new();
    for len in [64, 4096, 128, 1000, 64] {
        posted.push(link.passive.post_recv(len)?);
    }
    for number in 0..4 {
        link.active
            .post_message(&[number; 20], SendFlags::empty())?;
    }
    let last = link.active.post_message(&[4; 20], SendFlags::SIGNALED)?;
    for (number, id) in (0u8..).zip(posted) {
        let wc = link.passive.next_received()?;
        ensure_eq!(
            (wc.wr_id, wc.status),
            (id, WcStatus::Success),
            "receive {number}"
        );
        ensure_eq!(link.passive.bytes(&wc)?, [number; 20], "message {number}");
        ensure_eq!(
            (wc.opcode, wc.invalidated),
            (WcOpcode::Recv, None),
            "{wc:?}"
        );
    }
    link.active.sent(last, WcOpcode::Send)?;
    Ok(())
}

pub(super) fn buffers_can_be_posted_again(rig: &Rig<'_>) -> Verdict {
    let link = rig.link(&Options {
        recvs: 1,
        ..Options::default()
    })?;
    for round in 0..100u8 {
        let bytes = pattern(round, usize::from(round) + 1);
        link.active.send(&bytes)?;
        let wc = link.passive.next_received()?;
        ensure_eq!(link.passive.bytes(&wc)?, bytes, "message {round}");
        // The bytes may be read as often as wanted.
        ensure_eq!(
            link.passive.bytes(&wc)?,
            bytes,
            "message {round}, read again"
        );
        link.passive.repost(&wc)?;
    }
    let rest = link.passive.received_now();
    if let Some(wc) = rest {
        return Err(Stop::failed(format!("a receive too many: {wc:?}")));
    }
    Ok(())
}

pub(super) fn from_memory_without_a_key(rig: &Rig<'_>) -> Verdict {
    for stray in 0..2 {
        // Long enough for either, so that only the sender's memory is wrong.
        let link = rig.link(&Options {
            recv_len: 16 << 10,
            ..Options::default()
        })?;
        let (mem, gone) = (link.active.mem(4096)?, link.active.mem(4096)?);
        let mut sge = mem.sge(0, 100);
        if stray == 0 {
            sge.lkey = gone.lkey();
        } else {
            sge.len = mem.region().len() + 1;
        }
        drop(gone);
        let op = SendOp::Send {
            data: SendData::Sges(&[sge]),
            invalidate: None,
        };
        // Refused at once, or in the completion.
        match link.active.post(op, SendFlags::SIGNALED) {
            Err(error) => ensure!(
                matches!(error, PostError::LocalProtection | PostError::TooLarge),
                "refused for the wrong reason: {error:?}"
            ),
            Ok(id) => {
                let status = link.active.failed(id)?;
                ensure_eq!(status, WcStatus::LocalProtection, "status of the send");
            }
        }
        while let Some(wc) = link.passive.received_now() {
            ensure_eq!(
                wc.status,
                WcStatus::Flushed,
                "message from no memory: {wc:?}"
            );
        }
    }
    Ok(())
}

pub(super) fn a_buffer_of_another_connection_is_refused(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (one, other) = (
        lab.link(&Options::default())?,
        lab.link(&Options::default())?,
    );
    let buf = other.passive.qp().alloc_recv(64)?;
    let posted = one.passive.qp().post_recv(WrId(1000), &buf);
    ensure_eq!(
        posted,
        Err(PostError::LocalProtection),
        "posting another connection's buffer"
    );
    one.active.send(b"mine")?;
    ensure_eq!(one.passive.receive()?, b"mine", "message");
    Ok(())
}

pub(super) fn a_posted_buffer_is_not_posted_again(rig: &Rig<'_>) -> Verdict {
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    let buf = link.passive.qp().alloc_recv(64)?;
    link.passive.qp().post_recv(WrId(1000), &buf)?;
    let again = link.passive.qp().post_recv(WrId(1001), &buf);
    ensure_eq!(
        again,
        Err(PostError::LocalProtection),
        "posting a posted buffer"
    );
    link.active.send(b"once")?;
    let wc = link.passive.next_received()?;
    ensure_eq!(
        (wc.wr_id, wc.status),
        (WrId(1000), WcStatus::Success),
        "{wc:?}"
    );
    Ok(())
}

pub(super) fn a_dropped_buffer_stays_posted(rig: &Rig<'_>) -> Verdict {
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    for round in 0..20u8 {
        let buf = link.passive.qp().alloc_recv(64)?;
        link.passive.qp().post_recv(WrId(u64::from(round)), &buf)?;
        drop(buf);
        link.active.send(&[round])?;
        let wc = link.passive.next_received()?;
        let expected = (WrId(u64::from(round)), WcStatus::Success, 1);
        ensure_eq!((wc.wr_id, wc.status, wc.byte_len), expected, "{wc:?}");
    }
    Ok(())
}
