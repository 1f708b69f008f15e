//! Capability bits and limits tell the truth.

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{End, Link, Mem, Options, Rig, Side, refused};
use crate::caps::Caps;
use crate::error::{PostError, VerbsError};
use crate::mr::Binding;
use crate::types::{Access, RemoteAddr, Rkey};
use crate::wr::{SendFlags, SendOp};

/// A key that nobody was given.
const NO_KEY: Rkey = Rkey(0xFFFF_FFFE);

pub(super) fn bits_agree_with_behaviour(rig: &Rig<'_>) -> Verdict {
    for side in [Side::Active, Side::Passive] {
        posting(rig, side, Caps::RDMA_READ, |end| {
            let mem = end.mem(64)?;
            Ok(end
                .post_read(&[mem.sge(0, 64)], RemoteAddr(4096), NO_KEY)
                .map(drop))
        })?;
        posting(rig, side, Caps::RDMA_WRITE, |end| {
            Ok(end.post_write(&[], RemoteAddr(0), Rkey(0)).map(drop))
        })?;
        posting(rig, side, Caps::LOCAL_INV, |end| {
            let op = SendOp::LocalInv { rkey: NO_KEY };
            Ok(end.post(op, SendFlags::SIGNALED).map(drop))
        })?;
        posting(rig, side, Caps::SEND_WITH_INV, |end| {
            Ok(end
                .post_message_inv(b"x", SendFlags::SIGNALED, Some(NO_KEY))
                .map(drop))
        })?;
        windows(rig, side)?;
        heap_windows(rig, side)?;
        remote_regions(rig, side)?;
    }
    Ok(())
}

fn end(link: &Link, side: Side) -> &End {
    match side {
        Side::Active => &link.active,
        Side::Passive => &link.passive,
    }
}

/// Posting gives `Unsupported` if and only if the bit is clear. What else becomes of the request
/// is the subject of other cases, so each one gets a connection of its own.
fn posting(
    rig: &Rig<'_>,
    side: Side,
    cap: Caps,
    post: impl FnOnce(&End) -> Verdict<Result<(), PostError>>,
) -> Verdict {
    let link = rig.plain_link()?;
    let end = end(&link, side);
    let unsupported = post(end)? == Err(PostError::Unsupported);
    let present = end.provider().caps().contains(cap);
    ensure_eq!(
        unsupported,
        !present,
        "{side:?} side: posting gives Unsupported for {cap:?}"
    );
    Ok(())
}

fn is_unsupported(error: &VerbsError) -> bool {
    matches!(error, VerbsError::Unsupported { .. })
}

fn windows(rig: &Rig<'_>, side: Side) -> Verdict {
    let link = rig.plain_link()?;
    let provider = end(&link, side).provider();
    if provider.caps().contains(Caps::MEMORY_WINDOW) {
        provider.alloc_window()?;
        Ok(())
    } else {
        refused("a window", provider.alloc_window(), is_unsupported)
    }
}

fn heap_windows(rig: &Rig<'_>, side: Side) -> Verdict {
    let link = rig.plain_link()?;
    let end = end(&link, side);
    let caps = end.provider().caps();
    if !caps.intersects(Caps::HEAP_WINDOW | Caps::REMOTE_MR) {
        ensure!(
            end.qp().heap_reachable().is_err(),
            "heap reachable without HEAP_WINDOW and REMOTE_MR"
        );
    }
    if !caps.contains(Caps::MEMORY_WINDOW) {
        return Ok(());
    }
    let access = Access::LOCAL_WRITE | Access::MW_BIND;
    let mem = Mem::register(&**end.provider(), 4096, access)?;
    let window = end.provider().alloc_window()?;
    let binding = Binding {
        lkey: mem.lkey(),
        addr: mem.at(0, 4096),
        len: 4096,
        access: Access::REMOTE_READ,
    };
    let bound = end
        .qp()
        .bind(end.fresh_id(), SendFlags::SIGNALED, &*window, binding);
    if caps.contains(Caps::HEAP_WINDOW) {
        let reachable = end.qp().heap_reachable();
        ensure!(
            bound.is_ok() || reachable.is_err(),
            "a window over heap memory: {bound:?}, although the heap is reachable"
        );
        Ok(())
    } else {
        refused("a window over heap memory", bound, |error| {
            *error == PostError::Unsupported
        })
    }
}

fn remote_regions(rig: &Rig<'_>, side: Side) -> Verdict {
    let link = rig.link(&Options::default())?;
    let provider = end(&link, side).provider();
    let region = Mem::register(&**provider, 4096, Access::REMOTE_READ);
    if provider.caps().contains(Caps::REMOTE_MR) {
        let region = region?;
        ensure!(
            region.region().rkey().is_some(),
            "no remote key in {:?}",
            region.region()
        );
        return Ok(());
    }
    ensure!(
        region.is_err(),
        "a region with a remote right without REMOTE_MR"
    );
    Ok(())
}

pub(super) fn limits_are_sane(rig: &Rig<'_>) -> Verdict {
    for provider in [&rig.sides.active, &rig.sides.passive] {
        let limits = provider.limits();
        ensure!(!provider.name().is_empty(), "a provider without a name");
        ensure!(
            limits.send_wr_max >= 16 && limits.recv_wr_max >= 16,
            "queues: {limits:?}"
        );
        ensure!(limits.sge_max >= 1, "no elements: {limits:?}");
        ensure!(limits.recv_len_max >= 32 << 10, "receives: {limits:?}");
        ensure!(limits.rdma_len_max >= 1 << 20, "RDMA: {limits:?}");
        ensure!(limits.read_depth_max >= 1, "reads: {limits:?}");
        ensure!(limits.connect_data_max >= 32, "connect data: {limits:?}");
        ensure!(limits.accept_data_max >= 196, "accept data: {limits:?}");
    }
    Ok(())
}
