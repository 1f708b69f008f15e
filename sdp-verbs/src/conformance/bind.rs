//! What a window may show, and to whom.

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{End, Link, Mem, Rig, pattern};
use crate::caps::Caps;
use crate::error::PostError;
use crate::mr::{Binding, MemoryWindow};
use crate::types::{Access, RemoteAddr, Rkey};
use crate::wr::{SendFlags, SendOp, WcOpcode, WcStatus};

const LEN: usize = 4096;

fn binding(mem: &Mem, offset: usize, len: usize) -> Binding {
    Binding {
        lkey: mem.lkey(),
        addr: mem.at(offset, len.min(mem.region().len() - offset)),
        len,
        access: Access::REMOTE_READ,
    }
}

/// A bind must be refused: at once, or in its completion. The window stays without a key.
fn is_refused(end: &End, window: &dyn MemoryWindow, binding: Binding) -> Verdict {
    let id = end.fresh_id();
    match end.qp().bind(id, SendFlags::SIGNALED, window, binding) {
        Err(error) => {
            let fits = matches!(error, PostError::LocalProtection | PostError::TooLarge);
            ensure!(
                fits,
                "{binding:?} was refused for the wrong reason: {error:?}"
            );
        }
        Ok(_) => {
            let status = end.failed(id)?;
            ensure_eq!(status, WcStatus::LocalProtection, "status of {binding:?}");
        }
    }
    ensure_eq!(
        window.rkey(),
        None,
        "key of a window whose bind was refused"
    );
    Ok(())
}

pub(super) fn beyond_the_region(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::MEMORY_WINDOW)?;
    for (offset, len) in [(0, 2 * LEN + 1), (LEN, LEN + 1), (0, usize::MAX)] {
        let link = rig.plain_link()?;
        let mem = link.passive.mem(2 * LEN)?;
        let window = link.passive.provider().alloc_window()?;
        is_refused(&link.passive, &*window, binding(&mem, offset, len))?;
    }
    Ok(())
}

pub(super) fn of_nothing(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::MEMORY_WINDOW)?;
    let link = rig.plain_link()?;
    let mem = link.passive.mem(LEN)?;
    let window = link.passive.provider().alloc_window()?;
    is_refused(&link.passive, &*window, binding(&mem, 0, 0))
}

pub(super) fn over_memory_that_allows_none(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::MEMORY_WINDOW | Caps::HEAP_WINDOW)?;
    let link = rig.plain_link()?;
    link.passive.qp().heap_reachable().map_err(Stop::Skipped)?;
    let mem = Mem::register(&**link.passive.provider(), LEN, Access::LOCAL_WRITE)?;
    let window = link.passive.provider().alloc_window()?;
    is_refused(&link.passive, &*window, binding(&mem, 0, LEN))
}

pub(super) fn with_a_key_of_no_region(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::MEMORY_WINDOW)?;
    let link = rig.plain_link()?;
    let (mem, gone) = (link.passive.mem(LEN)?, link.passive.mem(LEN)?);
    let stale = gone.lkey();
    drop(gone);
    let window = link.passive.provider().alloc_window()?;
    let binding = Binding {
        lkey: stale,
        ..binding(&mem, 0, LEN)
    };
    is_refused(&link.passive, &*window, binding)
}

/// Two connections between the same sides; the first shows memory.
struct TwoLinks {
    one: Link,
    other: Link,
    mem: Mem,
    window: Box<dyn MemoryWindow>,
    rkey: Rkey,
}

fn two_links(rig: &Rig<'_>) -> Verdict<TwoLinks> {
    rig.need(Caps::MEMORY_WINDOW | Caps::RDMA_READ)?;
    let lab = rig.lab()?;
    let one = lab.link(&super::rig::Options::default())?;
    let other = lab.link(&super::rig::Options::default())?;
    let mem = one.passive.mem(LEN)?;
    mem.write(0, &pattern(1, LEN));
    let window = one.passive.provider().alloc_window()?;
    let id = one.passive.fresh_id();
    let bound = one
        .passive
        .qp()
        .bind(id, SendFlags::SIGNALED, &*window, binding(&mem, 0, LEN));
    let rkey = bound?;
    one.passive.sent(id, WcOpcode::Bind)?;
    Ok(TwoLinks {
        one,
        other,
        mem,
        window,
        rkey,
    })
}

/// The key is alive on the connection that it belongs to.
fn is_alive(link: &Link, mem: &Mem, rkey: Rkey) -> Verdict {
    let target = link.active.mem(LEN)?;
    let remote = RemoteAddr(mem.at(0, LEN).as_ptr() as u64);
    let id = link.active.post_read(&[target.sge(0, LEN)], remote, rkey)?;
    link.active.sent(id, WcOpcode::Read)?;
    ensure!(target.read(0, LEN) == pattern(1, LEN), "bytes differ");
    Ok(())
}

pub(super) fn a_key_is_good_on_its_own_connection_only(rig: &Rig<'_>) -> Verdict {
    let TwoLinks {
        one,
        other,
        mem,
        rkey,
        window: _window,
    } = two_links(rig)?;
    let target = other.active.mem(LEN)?;
    let remote = RemoteAddr(mem.at(0, LEN).as_ptr() as u64);
    let id = other
        .active
        .post_read(&[target.sge(0, LEN)], remote, rkey)?;
    ensure_eq!(
        other.active.failed(id)?,
        WcStatus::RemoteAccess,
        "status of the read"
    );
    ensure!(
        target.read(0, LEN).iter().all(|byte| *byte == 0),
        "a failed read left bytes"
    );
    is_alive(&one, &mem, rkey)
}

pub(super) fn another_connection_cannot_invalidate(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::SEND_WITH_INV)?;
    let TwoLinks {
        one,
        other,
        mem,
        window,
        rkey,
    } = two_links(rig)?;
    let flags = SendFlags::SIGNALED;
    other
        .active
        .post_message_inv(b"not yours", flags, Some(rkey))?;
    let wc = other.passive.next_received()?;
    ensure!(
        wc.status != WcStatus::Success,
        "a stranger's key was invalidated: {wc:?}"
    );
    ensure_eq!(wc.invalidated, None, "key in {wc:?}");
    ensure_eq!(window.rkey(), Some(rkey), "key of the window");
    is_alive(&one, &mem, rkey)
}

pub(super) fn another_queue_pair_cannot_invalidate(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::LOCAL_INV)?;
    let TwoLinks {
        one,
        other,
        mem,
        window,
        rkey,
    } = two_links(rig)?;
    // Refused at once, or in the completion.
    let posted = other
        .passive
        .post(SendOp::LocalInv { rkey }, SendFlags::SIGNALED);
    if let Ok(id) = posted {
        other.passive.failed(id)?;
    }
    ensure_eq!(window.rkey(), Some(rkey), "key of the window");
    is_alive(&one, &mem, rkey)
}

pub(super) fn a_dead_key_cannot_be_invalidated(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::MEMORY_WINDOW | Caps::SEND_WITH_INV | Caps::LOCAL_INV)?;
    let link = rig.plain_link()?;
    let mem = link.passive.mem(LEN)?;
    let shown = link.passive.expose(&mem, 0, LEN, Access::REMOTE_READ)?;
    let op = SendOp::LocalInv { rkey: shown.rkey };
    let id = link.passive.post(op, SendFlags::SIGNALED)?;
    link.passive.sent(id, WcOpcode::LocalInv)?;
    let flags = SendFlags::SIGNALED;
    link.active
        .post_message_inv(b"too late", flags, Some(shown.rkey))?;
    let wc = link.passive.next_received()?;
    ensure!(
        wc.status != WcStatus::Success,
        "a dead key was invalidated: {wc:?}"
    );
    Ok(())
}
