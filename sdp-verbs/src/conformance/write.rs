//! RDMA WRITE.

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{Exposure, Link, Mem, Rig, pattern};
use crate::caps::Caps;
use crate::error::PostError;
use crate::types::{Access, RemoteAddr, Rkey, Sge};
use crate::wr::{SendFlags, SendOp, WcOpcode, WcStatus};

/// What an untouched byte of a target looks like.
const UNTOUCHED: u8 = 0x5C;

/// A connection whose listener shows memory that its connector may write.
struct Setup {
    link: Link,
    source: Mem,
    target: Mem,
    shown: Exposure,
}

impl Setup {
    fn new(rig: &Rig<'_>, len: usize, offset: usize, shown_len: usize) -> Verdict<Self> {
        rig.need(Caps::RDMA_WRITE)?;
        rig.need_exposure()?;
        let link = rig.plain_link()?;
        let source = link.active.mem(len)?;
        source.write(0, &pattern(1, len));
        let target = link.passive.mem(len)?;
        target.write(0, &vec![UNTOUCHED; len]);
        let shown = link
            .passive
            .expose(&target, offset, shown_len, Access::REMOTE_WRITE)?;
        Ok(Self {
            link,
            source,
            target,
            shown,
        })
    }

    fn write(&self, local: &[Sge], remote: RemoteAddr) -> Verdict {
        let id = self
            .link
            .active
            .post_write(local, remote, self.shown.rkey)?;
        self.link.active.sent(id, WcOpcode::Write)?;
        Ok(())
    }

    /// A write must fail at the far side, and change no byte there.
    fn write_fails(&self, local: &[Sge], remote: RemoteAddr, rkey: Rkey) -> Verdict {
        let id = self.link.active.post_write(local, remote, rkey)?;
        self.link.active.refused_by_peer(id)?;
        let bytes = self.target.read(0, 8192);
        ensure!(
            bytes.iter().all(|byte| *byte == UNTOUCHED),
            "target changed"
        );
        Ok(())
    }
}

pub(super) fn a_whole_window(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 0, 8192)?;
    setup.write(&[setup.source.sge(0, 8192)], setup.shown.addr)?;
    ensure!(
        setup.target.read(0, 8192) == setup.source.read(0, 8192),
        "bytes differ"
    );
    Ok(())
}

pub(super) fn a_part(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 1000, 5000)?;
    for (from, to, len) in [(0, 0, 1), (1, 100, 1), (17, 201, 63), (300, 4999, 1)] {
        setup.write(&[setup.source.sge(from, len)], setup.shown.at(to))?;
        let (got, expected) = (
            setup.target.read(1000 + to, len),
            setup.source.read(from, len),
        );
        ensure_eq!(got, expected, "{len} bytes to {to}");
        let before = setup.target.read(999 + to, 1);
        ensure_eq!(before, [UNTOUCHED], "byte before {to}");
        let after = setup.target.read(1000 + to + len, 1);
        ensure_eq!(after, [UNTOUCHED], "byte after {to}");
    }
    Ok(())
}

pub(super) fn from_several_elements(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 0, 8192)?;
    let other = setup.link.active.mem(4096)?;
    other.write(0, &pattern(2, 4096));
    let all = [
        setup.source.sge(5000, 100),
        other.sge(3, 700),
        setup.source.sge(0, 1),
    ];
    let local = &all[..rig.limits().sge_max.min(all.len())];
    let parts = [
        setup.source.read(5000, 100),
        other.read(3, 700),
        setup.source.read(0, 1),
    ];
    let expected = parts[..local.len()].concat();
    setup.write(local, setup.shown.at(11))?;
    ensure!(
        setup.target.read(11, expected.len()) == expected,
        "bytes differ"
    );
    Ok(())
}

pub(super) fn large_and_unaligned(rig: &Rig<'_>) -> Verdict {
    let len = rig.large() - 100;
    let setup = Setup::new(rig, len + 100, 13, len)?;
    setup.write(&[setup.source.sge(7, len)], setup.shown.addr)?;
    ensure!(
        setup.target.read(13, len) == setup.source.read(7, len),
        "bytes differ"
    );
    ensure_eq!(
        setup.target.read(12, 1),
        [UNTOUCHED],
        "byte before the target"
    );
    ensure_eq!(
        setup.target.read(13 + len, 1),
        [UNTOUCHED],
        "byte after the target"
    );
    Ok(())
}

pub(super) fn is_there_before_the_message_behind_it(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 100_000, 0, 100_000)?;
    for round in 0..60u8 {
        let len = 100_000 - usize::from(round) * 1000;
        setup.source.write(0, &pattern(round, len));
        let write = SendOp::Write {
            local: &[setup.source.sge(0, len)],
            remote: setup.shown.addr,
            rkey: setup.shown.rkey,
        };
        setup.link.active.post(write, SendFlags::empty())?;
        let id = setup
            .link
            .active
            .post_message(&[round], SendFlags::SIGNALED)?;
        ensure_eq!(setup.link.passive.receive_and_repost()?, [round], "message");
        // Looked at before the sender knows of it.
        ensure!(
            setup.target.read(0, len) == pattern(round, len),
            "write {round} is late"
        );
        setup.link.active.sent(id, WcOpcode::Send)?;
    }
    Ok(())
}

pub(super) fn of_nothing_completes(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_WRITE)?;
    let link = rig.plain_link()?;
    for _ in 0..10 {
        let id = link.active.post_write(&[], RemoteAddr(0), Rkey(0))?;
        link.active.sent(id, WcOpcode::Write)?;
    }
    ensure_eq!(
        link.passive.received_now(),
        None,
        "completion for the peer of a write"
    );
    link.active.send(b"on")?;
    ensure_eq!(link.passive.receive()?, b"on", "message");
    Ok(())
}

pub(super) fn of_nothing_to_a_peer_that_is_gone(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_WRITE)?;
    let Link {
        active,
        passive,
        lab,
        ..
    } = rig.plain_link()?;
    drop(passive);
    // A refusal is an answer as well.
    if let Ok(id) = active.post_write(&[], RemoteAddr(0), Rkey(0)) {
        active.failed(id)?;
    }
    lab.settle();
    Ok(())
}

pub(super) fn beyond_the_window(rig: &Rig<'_>) -> Verdict {
    for (to, len) in [(0, 4097), (4095, 2), (4096, 1), (usize::MAX >> 1, 1)] {
        let setup = Setup::new(rig, 8192, 2000, 4096)?;
        let remote = RemoteAddr(setup.shown.addr.0.wrapping_add(to as u64));
        setup.write_fails(&[setup.source.sge(0, len)], remote, setup.shown.rkey)?;
    }
    let setup = Setup::new(rig, 8192, 2000, 4096)?;
    let before = RemoteAddr(setup.shown.addr.0 - 1);
    setup.write_fails(&[setup.source.sge(0, 2)], before, setup.shown.rkey)?;
    let setup = Setup::new(rig, 8192, 2000, 4096)?;
    let stranger = Rkey(setup.shown.rkey.0 ^ 0x1_0000);
    setup.write_fails(&[setup.source.sge(0, 2)], setup.shown.addr, stranger)
}

pub(super) fn without_the_right(rig: &Rig<'_>) -> Verdict {
    let mut setup = Setup::new(rig, 8192, 0, 8192)?;
    setup.shown = setup
        .link
        .passive
        .expose(&setup.target, 0, 8192, Access::REMOTE_READ)?;
    setup.write_fails(
        &[setup.source.sge(0, 100)],
        setup.shown.addr,
        setup.shown.rkey,
    )
}

pub(super) fn from_memory_without_a_key(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig, 8192, 0, 8192)?;
    let gone = setup.link.active.mem(4096)?;
    let stray = Sge {
        lkey: gone.lkey(),
        ..setup.source.sge(0, 100)
    };
    drop(gone);
    // Refused at once, or in the completion.
    match setup
        .link
        .active
        .post_write(&[stray], setup.shown.addr, setup.shown.rkey)
    {
        Err(error) => ensure_eq!(error, PostError::LocalProtection, "refusal"),
        Ok(id) => {
            let status = setup.link.active.failed(id)?;
            ensure_eq!(status, WcStatus::LocalProtection, "status of the write");
        }
    }
    let bytes = setup.target.read(0, 8192);
    ensure!(
        bytes.iter().all(|byte| *byte == UNTOUCHED),
        "target changed"
    );
    Ok(())
}
