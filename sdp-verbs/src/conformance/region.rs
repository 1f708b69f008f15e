//! Registered memory and windows.

use std::collections::HashSet;

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{Mem, Rig, pattern};
use crate::caps::Caps;
use crate::types::Access;

pub(super) fn memory_is_zeroed_and_aligned(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    let page = rustix::param::page_size();
    for _ in 0..3 {
        let mut all = Vec::new();
        for len in [1, page - 1, page, page + 1, 10 * page] {
            let mem = link.active.mem(len)?;
            let whole = mem.region().len();
            ensure_eq!(
                whole,
                len.next_multiple_of(page),
                "length of a region for {len}"
            );
            let addr = mem.region().addr().as_ptr().addr();
            ensure!(addr.is_multiple_of(page), "a region at {addr:#x}");
            ensure!(
                mem.read(0, whole).iter().all(|byte| *byte == 0),
                "memory not zeroed"
            );
            mem.write(0, &pattern(1, whole));
            all.push(mem);
        }
        // Dropped after use: what comes in their place is zeroed too.
    }
    Ok(())
}

pub(super) fn memory_can_be_large(rig: &Rig<'_>) -> Verdict {
    const LEN: usize = 16 << 20;
    let link = rig.plain_link()?;
    let mem = link.active.mem(LEN)?;
    for offset in (0..LEN).step_by(1 << 20) {
        ensure_eq!(mem.read(offset, 8), [0; 8], "memory at {offset}");
        mem.write(offset, &offset.to_be_bytes());
    }
    for offset in (0..LEN).step_by(1 << 20) {
        ensure_eq!(
            mem.read(offset, 8),
            offset.to_be_bytes(),
            "memory at {offset}"
        );
    }
    Ok(())
}

pub(super) fn rights_are_as_promised(rig: &Rig<'_>) -> Verdict {
    for provider in [&rig.sides.active, &rig.sides.passive] {
        let region = provider.alloc_registered(100)?;
        let promised = Access::LOCAL_WRITE | Access::MW_BIND;
        ensure_eq!(region.access(), promised, "rights of allocated memory");
        ensure_eq!(region.rkey(), None, "remote key of allocated memory");
        ensure!(!region.is_empty(), "a region of nothing");
        for access in [Access::empty(), Access::LOCAL_WRITE] {
            let mem = Mem::register(&**provider, 4096, access)?;
            ensure_eq!(mem.region().access(), access, "rights of registered memory");
            ensure_eq!(
                mem.region().rkey(),
                None,
                "remote key without a remote right"
            );
            ensure_eq!(mem.region().len(), 4096, "length of registered memory");
        }
    }
    Ok(())
}

pub(super) fn keys_differ(rig: &Rig<'_>) -> Verdict {
    let provider = &rig.sides.active;
    let mut regions = Vec::new();
    for _ in 0..100 {
        regions.push(provider.alloc_registered(4096)?);
    }
    let lkeys: HashSet<_> = regions.iter().map(|region| region.lkey()).collect();
    ensure_eq!(lkeys.len(), regions.len(), "different local keys");
    let addrs: HashSet<_> = regions.iter().map(|region| region.addr()).collect();
    ensure_eq!(addrs.len(), regions.len(), "different addresses");
    Ok(())
}

pub(super) fn windows_start_unbound(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::MEMORY_WINDOW)?;
    for provider in [&rig.sides.active, &rig.sides.passive] {
        ensure_eq!(
            provider.alloc_window()?.rkey(),
            None,
            "key of a window never bound"
        );
    }
    Ok(())
}
