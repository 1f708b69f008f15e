//! RDMA READ.

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{End, Exposure, Link, Mem, Options, Rig, pattern};
use crate::caps::Caps;
use crate::error::PostError;
use crate::types::{Access, RemoteAddr, Rkey, Sge};
use crate::wr::{WcOpcode, WcStatus};

/// What an untouched byte of a target looks like.
const UNTOUCHED: u8 = 0x5C;

/// A connection whose listener shows memory that its connector may read.
struct Setup {
    link: Link,
    source: Mem,
    target: Mem,
    shown: Exposure,
}

impl Setup {
    fn new(rig: &Rig<'_>, len: usize, offset: usize, shown_len: usize) -> Verdict<Self> {
        rig.need(Caps::RDMA_READ)?;
        rig.need_exposure()?;
        let link = rig.plain_link()?;
        let source = link.passive.mem(len)?;
        source.write(0, &pattern(1, len));
        let target = link.active.mem(len)?;
        target.write(0, &vec![UNTOUCHED; len]);
        let shown = link
            .passive
            .expose(&source, offset, shown_len, Access::REMOTE_READ)?;
        Ok(Self {
            link,
            source,
            target,
            shown,
        })
    }

    fn read(&self, local: &[Sge], remote: RemoteAddr) -> Verdict<usize> {
        let id = self.link.active.post_read(local, remote, self.shown.rkey)?;
        self.link.active.sent(id, WcOpcode::Read)
    }

    /// A read must fail at the far side, and leave no byte.
    fn read_fails(&self, local: &[Sge], remote: RemoteAddr, rkey: Rkey) -> Verdict {
        let id = self.link.active.post_read(local, remote, rkey)?;
        self.link.active.refused_by_peer(id)?;
        self.untouched()
    }

    fn untouched(&self) -> Verdict {
        let bytes = self.target.read(0, self.target.region().len().min(8192));
        ensure!(
            bytes.iter().all(|byte| *byte == UNTOUCHED || *byte == 0),
            "target changed"
        );
        Ok(())
    }
}

pub(super) fn a_whole_window(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 0, 8192)?;
    let len = setup.read(&[setup.target.sge(0, 8192)], setup.shown.addr)?;
    ensure_eq!(len, 8192, "bytes read");
    ensure!(
        setup.target.read(0, 8192) == setup.source.read(0, 8192),
        "bytes differ"
    );
    Ok(())
}

pub(super) fn a_part(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 1000, 5000)?;
    for (from, to, len) in [
        (0, 0, 1),
        (1, 100, 1),
        (17, 201, 63),
        (4999, 300, 1),
        (0, 3000, 5000),
    ] {
        let got = setup.read(&[setup.target.sge(to, len)], setup.shown.at(from))?;
        ensure_eq!(got, len, "bytes read");
        let (got, expected) = (
            setup.target.read(to, len),
            setup.source.read(1000 + from, len),
        );
        ensure!(got == expected, "{len} bytes from {from} differ");
        if to > 0 {
            ensure_eq!(
                setup.target.read(to - 1, 1),
                [UNTOUCHED],
                "byte before the target"
            );
        }
        if to + len < 8192 {
            ensure_eq!(
                setup.target.read(to + len, 1),
                [UNTOUCHED],
                "byte after the target"
            );
        }
    }
    Ok(())
}

pub(super) fn into_several_elements(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 0, 8192)?;
    let other = setup.link.active.mem(4096)?;
    let all = [
        setup.target.sge(5000, 100),
        other.sge(3, 700),
        setup.target.sge(0, 1),
    ];
    let local = &all[..rig.limits().sge_max.min(all.len())];
    let len = local.iter().map(|sge| sge.len).sum();
    ensure_eq!(setup.read(local, setup.shown.at(11))?, len, "bytes read");
    let parts = [
        setup.target.read(5000, 100),
        other.read(3, 700),
        setup.target.read(0, 1),
    ];
    let got = parts[..local.len()].concat();
    ensure!(got == setup.source.read(11, len), "bytes differ");
    Ok(())
}

pub(super) fn large_and_unaligned(rig: &Rig<'_>) -> Verdict {
    let len = rig.large() - 100;
    let setup = Setup::new(rig, len + 100, 13, len)?;
    ensure_eq!(
        setup.read(&[setup.target.sge(7, len)], setup.shown.addr)?,
        len,
        "bytes read"
    );
    ensure!(
        setup.target.read(7, len) == setup.source.read(13, len),
        "bytes differ"
    );
    ensure_eq!(
        setup.target.read(6, 1),
        [UNTOUCHED],
        "byte before the target"
    );
    ensure_eq!(
        setup.target.read(7 + len, 1),
        [UNTOUCHED],
        "byte after the target"
    );
    Ok(())
}

pub(super) fn many_outstanding(rig: &Rig<'_>) -> Verdict {
    let count = usize::try_from(rig.limits().read_depth_max)
        .unwrap_or(usize::MAX)
        .min(12);
    let setup = Setup::new(rig, 12 * 1024, 0, 12 * 1024)?;
    for _ in 0..20 {
        let mut posted = Vec::new();
        for number in 0..count {
            // Crosswise, so that each one is told from the others.
            let local = [setup.target.sge((count - 1 - number) * 1024, 1024)];
            let remote = setup.shown.at(number * 1024);
            posted.push(
                setup
                    .link
                    .active
                    .post_read(&local, remote, setup.shown.rkey)?,
            );
        }
        for (number, id) in posted.into_iter().enumerate() {
            ensure_eq!(
                setup.link.active.sent(id, WcOpcode::Read)?,
                1024,
                "bytes read"
            );
            let got = setup.target.read((count - 1 - number) * 1024, 1024);
            ensure!(
                got == setup.source.read(number * 1024, 1024),
                "read {number} differs"
            );
        }
    }
    Ok(())
}

pub(super) fn of_nothing(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 4096, 0, 4096)?;
    // A provider may refuse it, or do nothing and say so.
    if let Ok(id) = setup
        .link
        .active
        .post_read(&[], setup.shown.addr, setup.shown.rkey)
    {
        ensure_eq!(setup.link.active.sent(id, WcOpcode::Read)?, 0, "bytes read");
    }
    setup.untouched()?;
    let len = setup.read(&[setup.target.sge(0, 10)], setup.shown.addr)?;
    ensure_eq!(len, 10, "bytes read after that");
    Ok(())
}

pub(super) fn beyond_the_window(rig: &Rig<'_>) -> Verdict {
    for (from, len) in [(0, 4097), (4095, 2), (4096, 1), (usize::MAX >> 1, 1)] {
        let setup = Setup::new(rig, 8192, 2000, 4096)?;
        let remote = RemoteAddr(setup.shown.addr.0.wrapping_add(from as u64));
        setup.read_fails(&[setup.target.sge(0, len)], remote, setup.shown.rkey)?;
    }
    let setup = Setup::new(rig, 8192, 2000, 4096)?;
    let before = RemoteAddr(setup.shown.addr.0 - 1);
    setup.read_fails(&[setup.target.sge(0, 2)], before, setup.shown.rkey)?;
    let setup = Setup::new(rig, 8192, 2000, 4096)?;
    // The end of this range is beyond the last address there is.
    let wrapping = RemoteAddr(u64::MAX - 10);
    setup.read_fails(&[setup.target.sge(0, 100)], wrapping, setup.shown.rkey)
}

pub(super) fn of_a_key_never_given(rig: &Rig<'_>) -> Verdict {
    for change in [1, 0x100, 0x1_0000, 0x100_0000, u32::MAX] {
        let setup = Setup::new(rig, 4096, 0, 4096)?;
        let key = Rkey(setup.shown.rkey.0 ^ change);
        setup.read_fails(&[setup.target.sge(0, 100)], setup.shown.addr, key)?;
    }
    Ok(())
}

pub(super) fn without_the_right(rig: &Rig<'_>) -> Verdict {
    let mut setup = Setup::new(rig, 4096, 0, 4096)?;
    rig.need(Caps::RDMA_WRITE)?;
    let write_only = Access::REMOTE_WRITE;
    setup.shown = setup
        .link
        .passive
        .expose(&setup.source, 0, 4096, write_only)?;
    setup.read_fails(
        &[setup.target.sge(0, 100)],
        setup.shown.addr,
        setup.shown.rkey,
    )
}

/// A read must be refused for its own memory: at once, or in its completion.
fn local_fault(end: &End, local: &[Sge], shown: &Exposure) -> Verdict {
    match end.post_read(local, shown.addr, shown.rkey) {
        Err(error) => {
            ensure_eq!(error, PostError::LocalProtection, "refusal");
        }
        Ok(id) => {
            ensure_eq!(
                end.failed(id)?,
                WcStatus::LocalProtection,
                "status of the read"
            );
        }
    }
    Ok(())
}

pub(super) fn into_memory_without_the_right(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 4096, 0, 4096)?;
    let constant = Mem::register(&**setup.link.active.provider(), 4096, Access::empty())?;
    local_fault(&setup.link.active, &[constant.sge(0, 100)], &setup.shown)?;
    ensure_eq!(
        constant.read(0, 100),
        [0; 100],
        "memory without LOCAL_WRITE"
    );
    Ok(())
}

pub(super) fn beyond_the_local_region(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 0, 8192)?;
    let heap = Mem::register(&**setup.link.active.provider(), 8192, Access::LOCAL_WRITE)?;
    let small = setup.link.active.mem(4096)?;
    // Of the right address and the wrong key.
    let stray = Sge {
        lkey: small.lkey(),
        ..heap.sge(0, 100)
    };
    local_fault(&setup.link.active, &[stray], &setup.shown)?;
    let setup = Setup::new(rig, 8192, 0, 8192)?;
    let heap = Mem::register(&**setup.link.active.provider(), 4096, Access::LOCAL_WRITE)?;
    let long = Sge {
        len: 4097,
        ..heap.sge(0, 4096)
    };
    local_fault(&setup.link.active, &[long], &setup.shown)
}

pub(super) fn from_heap_memory(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_READ | Caps::MEMORY_WINDOW | Caps::HEAP_WINDOW)?;
    let link = rig.link(&Options::default())?;
    link.passive.qp().heap_reachable().map_err(Stop::Skipped)?;
    let len = rig.limits().rdma_len_max.min(300_000);
    let access = Access::MW_BIND;
    let source = Mem::register(&**link.passive.provider(), len, access)?;
    source.write(0, &pattern(5, len));
    let shown = link
        .passive
        .expose(&source, 5, len - 5, Access::REMOTE_READ)?;
    let target = Mem::register(&**link.active.provider(), len, Access::LOCAL_WRITE)?;
    for (from, len) in [(0, len - 5), (1, 1), (4000, 200), (len - 6, 1)] {
        let id = link
            .active
            .post_read(&[target.sge(0, len)], shown.at(from), shown.rkey)?;
        let read = link.active.sent(id, WcOpcode::Read);
        // The system's refusal may only have shown itself now.
        link.passive.qp().heap_reachable().map_err(Stop::Skipped)?;
        ensure_eq!(read?, len, "bytes read");
        ensure!(
            target.read(0, len) == source.read(5 + from, len),
            "bytes differ"
        );
    }
    Ok(())
}

pub(super) fn from_a_region_with_its_own_right(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_READ | Caps::REMOTE_MR)?;
    let link = rig.plain_link()?;
    let source = Mem::register(&**link.passive.provider(), 8192, Access::REMOTE_READ)?;
    source.write(0, &pattern(6, 8192));
    let Some(rkey) = source.region().rkey() else {
        return Err(Stop::failed(
            "a region with a remote right has no remote key",
        ));
    };
    let target = link.active.mem(8192)?;
    let remote = RemoteAddr(source.at(0, 8192).as_ptr() as u64);
    let id = link
        .active
        .post_read(&[target.sge(0, 8192)], remote, rkey)?;
    link.active.sent(id, WcOpcode::Read)?;
    ensure!(target.read(0, 8192) == source.read(0, 8192), "bytes differ");
    Ok(())
}
