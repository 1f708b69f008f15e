//! What comes after what.

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{Rig, pattern};
use crate::caps::Caps;
use crate::mr::Binding;
use crate::types::{Access, RemoteAddr, Rkey};
use crate::wr::{SendFlags, SendOp, WcOpcode, WcStatus};

pub(super) fn completions_keep_the_order_of_posting(rig: &Rig<'_>) -> Verdict {
    const LEN: usize = 200_000;
    rig.need(Caps::RDMA_READ | Caps::RDMA_WRITE)?;
    rig.need_exposure()?;
    let link = rig.plain_link()?;
    let far = link.passive.mem(LEN)?;
    let near = link.active.mem(LEN)?;
    let access = Access::REMOTE_READ | Access::REMOTE_WRITE;
    let shown = link.passive.expose(&far, 0, LEN, access)?;
    for round in 0..5 {
        let end = &link.active;
        let signaled = SendFlags::SIGNALED;
        let posted = [
            (
                end.post_read(&[near.sge(0, LEN)], shown.addr, shown.rkey)?,
                WcOpcode::Read,
            ),
            (end.post_message(&[round, 1], signaled)?, WcOpcode::Send),
            (
                end.post_write(&[near.sge(0, LEN)], shown.addr, shown.rkey)?,
                WcOpcode::Write,
            ),
            (end.post_message(&[round, 2], signaled)?, WcOpcode::Send),
            (
                end.post_write(&[], RemoteAddr(0), Rkey(0))?,
                WcOpcode::Write,
            ),
            (
                end.post_read(&[near.sge(5, 1)], shown.addr, shown.rkey)?,
                WcOpcode::Read,
            ),
            (end.post_message(&[round, 3], signaled)?, WcOpcode::Send),
        ];
        for (id, opcode) in posted {
            end.sent(id, opcode)?;
        }
        for number in 1..=3 {
            ensure_eq!(
                link.passive.receive_and_repost()?,
                [round, number],
                "message"
            );
        }
    }
    Ok(())
}

/// Messages that nobody hears the end of, binds, and messages that name what was bound, all posted at
/// once: each key is good when the message behind its bind has come.
pub(super) fn binds_keep_their_places(rig: &Rig<'_>) -> Verdict {
    const LEN: usize = 4096;
    rig.need(Caps::MEMORY_WINDOW | Caps::LOCAL_INV | Caps::RDMA_READ)?;
    let link = rig.plain_link()?;
    let (far, near) = (link.passive.mem(2 * LEN)?, link.active.mem(LEN)?);
    let windows = [(), ()].map(|()| link.passive.provider().alloc_window());
    let windows = windows.into_iter().collect::<Result<Vec<_>, _>>()?;
    let signaled = SendFlags::SIGNALED;
    for round in 0..20 {
        let bytes = pattern(round, 2 * LEN);
        far.write(0, &bytes);
        let end = &link.passive;
        let mut posted = Vec::new();
        let mut shown = Vec::new();
        for (number, window) in (0..).zip(&windows) {
            end.post_message(&[round, number], SendFlags::empty())?;
            let offset = LEN * usize::from(number);
            let binding = Binding {
                lkey: far.lkey(),
                addr: far.at(offset, LEN),
                len: LEN,
                access: Access::REMOTE_READ,
            };
            let id = end.fresh_id();
            let addr = RemoteAddr(binding.addr.as_ptr().expose_provenance() as u64);
            let rkey = end.qp().bind(id, signaled, &**window, binding)?;
            posted.push((id, WcOpcode::Bind));
            shown.push((offset, addr, rkey));
            let id = end.post_message(&[round, 10 + number], signaled)?;
            posted.push((id, WcOpcode::Send));
        }
        for number in [0, 10, 1, 11] {
            let message = link.active.receive_and_repost()?;
            ensure_eq!(message, [round, number], "message");
            let Some(place) = number.checked_sub(10) else {
                continue;
            };
            let (offset, addr, rkey) = shown[usize::from(place)];
            let read = link.active.post_read(&[near.sge(0, LEN)], addr, rkey)?;
            link.active.sent(read, WcOpcode::Read)?;
            ensure_eq!(
                near.read(0, LEN),
                bytes[offset..offset + LEN],
                "what a key shows"
            );
        }
        for (id, opcode) in posted {
            end.sent(id, opcode)?;
        }
        for (_, _, rkey) in shown {
            let id = end.post(SendOp::LocalInv { rkey }, signaled)?;
            end.sent(id, WcOpcode::LocalInv)?;
        }
    }
    Ok(())
}

pub(super) fn a_fence_waits_for_reads(rig: &Rig<'_>) -> Verdict {
    const LEN: usize = 100_000;
    rig.need(Caps::RDMA_READ)?;
    rig.need_exposure()?;
    let link = rig.plain_link()?;
    let far = link.passive.mem(LEN)?;
    let near = link.active.mem(2 * LEN)?;
    let shown = link.passive.expose(&far, 0, LEN, Access::REMOTE_READ)?;
    for round in 0..20u8 {
        let bytes = pattern(round, LEN);
        far.write(0, &bytes);
        let one = link
            .active
            .post_read(&[near.sge(0, LEN)], shown.addr, shown.rkey)?;
        let two = link
            .active
            .post_read(&[near.sge(LEN, LEN)], shown.addr, shown.rkey)?;
        let flags = SendFlags::SIGNALED | SendFlags::FENCE;
        let last = link.active.post_message(b"read", flags)?;
        ensure_eq!(link.passive.receive_and_repost()?, b"read", "message");
        // The message says that the reads have been done, so this must not show in them.
        far.write(0, &vec![0xDD; LEN]);
        link.active.sent(one, WcOpcode::Read)?;
        link.active.sent(two, WcOpcode::Read)?;
        link.active.sent(last, WcOpcode::Send)?;
        for offset in [0, LEN] {
            ensure!(
                near.read(offset, LEN) == bytes,
                "a read after the fence (round {round})"
            );
        }
    }
    Ok(())
}

pub(super) fn a_key_travels_with_the_message_behind_its_bind(rig: &Rig<'_>) -> Verdict {
    const LEN: usize = 5000;
    rig.need(Caps::RDMA_READ | Caps::MEMORY_WINDOW | Caps::LOCAL_INV)?;
    let link = rig.plain_link()?;
    let far = link.passive.mem(LEN)?;
    let near = link.active.mem(LEN)?;
    let window = link.passive.provider().alloc_window()?;
    let end = &link.passive;
    for round in 0..30u8 {
        far.write(0, &pattern(round, LEN));
        let binding = Binding {
            lkey: far.lkey(),
            addr: far.at(0, LEN),
            len: LEN,
            access: Access::REMOTE_READ,
        };
        let rkey = end
            .qp()
            .bind(end.fresh_id(), SendFlags::empty(), &*window, binding)?;
        end.post_message(&rkey.0.to_be_bytes(), SendFlags::empty())?;
        let got = link.active.receive_and_repost()?;
        ensure_eq!(got, rkey.0.to_be_bytes(), "key in the message");
        let remote = RemoteAddr(far.at(0, LEN).as_ptr() as u64);
        let id = link.active.post_read(&[near.sge(0, LEN)], remote, rkey)?;
        link.active.sent(id, WcOpcode::Read)?;
        ensure!(
            near.read(0, LEN) == pattern(round, LEN),
            "round {round} differs"
        );
        link.active.send(b"done")?;
        let wc = end.next_received()?;
        ensure_eq!(wc.status, WcStatus::Success, "{wc:?}");
        end.repost(&wc)?;
        let id = end.post(SendOp::LocalInv { rkey }, SendFlags::SIGNALED)?;
        end.sent(id, WcOpcode::LocalInv)?;
    }
    Ok(())
}
