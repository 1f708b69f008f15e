//! A key that was taken back lets nobody in.

use super::report::{Stop, Verdict, ensure, ensure_eq};
use super::rig::{End, Exposure, Lab, Link, Mem, Options, Rig, pattern};
use crate::caps::Caps;
use crate::mr::Binding;
use crate::types::{Access, RemoteAddr, Rkey};
use crate::wr::{SendFlags, SendOp, WcOpcode, WcStatus};

const LEN: usize = 4096;

/// A connection whose listener shows memory in a window, and memory to read it into.
struct Setup {
    link: Link,
    source: Mem,
    target: Mem,
    shown: Exposure,
}

impl Setup {
    fn new(rig: &Rig<'_>) -> Verdict<Self> {
        rig.need(Caps::RDMA_READ | Caps::MEMORY_WINDOW)?;
        Self::on(&rig.lab()?)
    }

    fn on(lab: &Lab) -> Verdict<Self> {
        let link = lab.link(&Options::default())?;
        let source = link.passive.mem(LEN)?;
        source.write(0, &pattern(1, LEN));
        let target = link.active.mem(LEN)?;
        let shown = link.passive.expose(&source, 0, LEN, Access::REMOTE_READ)?;
        let setup = Self {
            link,
            source,
            target,
            shown,
        };
        // The key is good to begin with.
        setup.reads(&setup.shown)?;
        Ok(setup)
    }

    fn reads(&self, shown: &Exposure) -> Verdict {
        let local = [self.target.sge(0, LEN)];
        let id = self.link.active.post_read(&local, shown.addr, shown.rkey)?;
        self.link.active.sent(id, WcOpcode::Read)?;
        ensure!(
            self.target.read(0, LEN) == self.source.read(0, LEN),
            "bytes differ"
        );
        self.target.write(0, &[0; LEN]);
        Ok(())
    }

    fn read_fails(&self, rkey: Rkey, addr: RemoteAddr) -> Verdict {
        read_fails(&self.link.active, &self.target, rkey, addr)
    }

    fn invalidate(&self, rkey: Rkey) -> Verdict {
        let id = self
            .link
            .passive
            .post(SendOp::LocalInv { rkey }, SendFlags::SIGNALED)?;
        self.link.passive.sent(id, WcOpcode::LocalInv)?;
        Ok(())
    }
}

fn read_fails(end: &End, target: &Mem, rkey: Rkey, addr: RemoteAddr) -> Verdict {
    let id = end.post_read(&[target.sge(0, LEN)], addr, rkey)?;
    ensure_eq!(
        end.failed(id)?,
        WcStatus::RemoteAccess,
        "status of the read"
    );
    ensure!(
        target.read(0, LEN).iter().all(|byte| *byte == 0),
        "a failed read left bytes"
    );
    Ok(())
}

pub(super) fn after_local_inv(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::LOCAL_INV)?;
    let setup = Setup::new(rig)?;
    setup.invalidate(setup.shown.rkey)?;
    if let Some(window) = &setup.shown.window {
        ensure_eq!(window.rkey(), None, "key of the window");
    }
    setup.read_fails(setup.shown.rkey, setup.shown.addr)
}

pub(super) fn after_send_with_inv(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::SEND_WITH_INV)?;
    let setup = Setup::new(rig)?;
    let (link, rkey) = (&setup.link, setup.shown.rkey);
    let id = link
        .active
        .post_message_inv(b"done", SendFlags::SIGNALED, Some(rkey))?;
    let wc = link.passive.next_received()?;
    ensure_eq!(wc.status, WcStatus::Success, "{wc:?}");
    ensure_eq!(wc.invalidated, Some(rkey), "key in {wc:?}");
    ensure_eq!(link.passive.bytes(&wc)?, b"done", "message");
    if let Some(window) = &setup.shown.window {
        ensure_eq!(window.rkey(), None, "key of the window");
    }
    link.active.sent(id, WcOpcode::Send)?;
    setup.read_fails(rkey, setup.shown.addr)
}

pub(super) fn after_the_window_is_dropped(rig: &Rig<'_>) -> Verdict {
    let mut setup = Setup::new(rig)?;
    setup.shown.window = None;
    setup.read_fails(setup.shown.rkey, setup.shown.addr)
}

pub(super) fn after_the_region_is_dropped(rig: &Rig<'_>) -> Verdict {
    let Setup {
        link,
        source,
        target,
        shown,
    } = Setup::new(rig)?;
    drop(source);
    // Something else may be mapped there by now; it must not be seen.
    let other = link.passive.mem(LEN)?;
    other.write(0, &pattern(2, LEN));
    read_fails(&link.active, &target, shown.rkey, shown.addr)
}

/// Keys are tried on a second connection as well, which is in good health.
fn dead_everywhere(setup: &Setup) -> Verdict {
    let (rkey, addr) = (setup.shown.rkey, setup.shown.addr);
    let local = [setup.target.sge(0, LEN)];
    // Any answer but success will do on the connection that is in error.
    if let Ok(id) = setup.link.active.post_read(&local, addr, rkey) {
        setup.link.active.failed(id)?;
    }
    let bytes = setup.target.read(0, LEN);
    ensure!(
        bytes.iter().all(|byte| *byte == 0),
        "a failed read left bytes"
    );
    let healthy = Setup::on(&setup.link.lab)?;
    healthy.read_fails(rkey, addr)
}

pub(super) fn after_set_error(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig)?;
    setup.link.passive.qp().set_error();
    dead_everywhere(&setup)
}

pub(super) fn after_the_queue_pair_is_dropped(rig: &Rig<'_>) -> Verdict {
    let Setup {
        link,
        source,
        target,
        shown,
    } = Setup::new(rig)?;
    drop(link.passive);
    let healthy = Setup::on(&link.lab)?;
    healthy.read_fails(shown.rkey, shown.addr)?;
    drop((source, target));
    Ok(())
}

fn bind(setup: &Setup, window: &dyn crate::mr::MemoryWindow) -> Verdict<Rkey> {
    let binding = Binding {
        lkey: setup.source.lkey(),
        addr: setup.source.at(0, LEN),
        len: LEN,
        access: Access::REMOTE_READ,
    };
    let end = &setup.link.passive;
    let id = end.fresh_id();
    let rkey = end.qp().bind(id, SendFlags::SIGNALED, window, binding)?;
    end.sent(id, WcOpcode::Bind)?;
    ensure_eq!(window.rkey(), Some(rkey), "key of the window");
    Ok(rkey)
}

fn window_of(setup: &Setup) -> Verdict<&dyn crate::mr::MemoryWindow> {
    match &setup.shown.window {
        Some(window) => Ok(&**window),
        None => Err(Stop::failed("memory was shown without a window")),
    }
}

pub(super) fn a_window_is_bound_again(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::LOCAL_INV)?;
    let setup = Setup::new(rig)?;
    let window = window_of(&setup)?;
    let mut rkey = setup.shown.rkey;
    for _ in 0..50 {
        setup.invalidate(rkey)?;
        let fresh = bind(&setup, window)?;
        ensure!(fresh != rkey, "the same key again: {rkey:?}");
        rkey = fresh;
        let local = [setup.target.sge(0, LEN)];
        let id = setup
            .link
            .active
            .post_read(&local, setup.shown.addr, rkey)?;
        setup.link.active.sent(id, WcOpcode::Read)?;
    }
    Ok(())
}

pub(super) fn a_bound_window_is_not_bound_again(rig: &Rig<'_>) -> Verdict {
    let setup = Setup::new(rig)?;
    let window = window_of(&setup)?;
    let binding = Binding {
        lkey: setup.source.lkey(),
        addr: setup.source.at(0, LEN),
        len: LEN,
        access: Access::REMOTE_READ,
    };
    let end = &setup.link.passive;
    let id = end.fresh_id();
    // Refused at once, or in the completion.
    if end
        .qp()
        .bind(id, SendFlags::SIGNALED, window, binding)
        .is_ok()
    {
        end.failed(id)?;
        return Ok(());
    }
    ensure_eq!(window.rkey(), Some(setup.shown.rkey), "key of the window");
    setup.reads(&setup.shown)
}

pub(super) fn an_old_key_stays_dead(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::LOCAL_INV)?;
    let setup = Setup::new(rig)?;
    setup.invalidate(setup.shown.rkey)?;
    bind(&setup, window_of(&setup)?)?;
    setup.read_fails(setup.shown.rkey, setup.shown.addr)
}

pub(super) fn write_after_local_inv(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_WRITE | Caps::MEMORY_WINDOW | Caps::LOCAL_INV)?;
    let link = rig.plain_link()?;
    let target = link.passive.mem(LEN)?;
    let source = link.active.mem(LEN)?;
    source.write(0, &pattern(3, LEN));
    let shown = link.passive.expose(&target, 0, LEN, Access::REMOTE_WRITE)?;
    let id = link
        .active
        .post_write(&[source.sge(0, LEN)], shown.addr, shown.rkey)?;
    link.active.sent(id, WcOpcode::Write)?;
    ensure!(target.read(0, LEN) == source.read(0, LEN), "bytes differ");
    let op = SendOp::LocalInv { rkey: shown.rkey };
    let id = link.passive.post(op, SendFlags::SIGNALED)?;
    link.passive.sent(id, WcOpcode::LocalInv)?;
    target.write(0, &[7; LEN]);
    let id = link
        .active
        .post_write(&[source.sge(0, LEN)], shown.addr, shown.rkey)?;
    ensure_eq!(
        link.active.failed(id)?,
        WcStatus::RemoteAccess,
        "status of the write"
    );
    ensure!(target.read(0, LEN) == [7; LEN], "a dead key let a write in");
    Ok(())
}
