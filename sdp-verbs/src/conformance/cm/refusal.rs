//! Connections that do not come about.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::cm::{CmEventKind, RejectReason};
use crate::conformance::report::{Stop, Verdict, ensure, ensure_eq};
use crate::conformance::rig::{End, Lab, Options, Rig, Side};

pub(in super::super) fn nobody_listens(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(1)?;
    drop(listener);
    is_refused(&lab, addr)
}

/// Nobody answers at `addr`.
fn is_refused(lab: &Lab, addr: SocketAddr) -> Verdict {
    let id = lab.station(Side::Active).new_id()?;
    id.resolve(addr, Duration::from_secs(5))?;
    match lab.event(Side::Active, &*id)? {
        CmEventKind::Resolved => {}
        CmEventKind::Failed(_) => return Ok(()),
        other => return Err(Stop::failed(format!("resolving gave {other:?}"))),
    }
    let active = End::new(lab, Side::Active, id, &Options::default())?;
    active.id().connect(b"")?;
    match active.event()? {
        CmEventKind::Rejected { reason, .. } => {
            ensure_eq!(reason, RejectReason::NoListener, "reason");
            Ok(())
        }
        CmEventKind::Failed(_) => Ok(()),
        other => Err(Stop::failed(format!("connecting gave {other:?}"))),
    }
}

pub(in super::super) fn no_way_there(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    // TEST-NET-1: nobody is there.
    let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
    let id = lab.station(Side::Active).new_id()?;
    if id.resolve(nowhere, Duration::from_secs(1)).is_err() {
        return Ok(());
    }
    match lab.event(Side::Active, &*id)? {
        CmEventKind::Failed(_) => Ok(()),
        // A way may exist although nobody is at its end.
        CmEventKind::Resolved => {
            let active = End::new(&lab, Side::Active, id, &Options::default())?;
            active.id().connect(b"")?;
            match active.event()? {
                CmEventKind::Failed(_) | CmEventKind::Rejected { .. } => Ok(()),
                other => Err(Stop::failed(format!("connecting gave {other:?}"))),
            }
        }
        other => Err(Stop::failed(format!("resolving gave {other:?}"))),
    }
}

pub(in super::super) fn the_listener_rejects(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(4)?;
    let max = rig.sides.passive.limits().reject_data_max;
    for len in [0, 1, max] {
        let reasons = super::super::rig::pattern(3, len);
        let id = lab.resolve(Side::Active, addr)?;
        let active = End::new(&lab, Side::Active, id, &Options::default())?;
        active.id().connect(b"")?;
        let (id, _) = lab.request(Side::Passive, &*listener)?;
        id.reject(&reasons)?;
        match active.event()? {
            CmEventKind::Rejected {
                reason,
                private_data,
            } => {
                ensure_eq!(reason, RejectReason::Consumer, "reason");
                ensure!(
                    private_data.starts_with(&reasons),
                    "private data {private_data:?}"
                );
            }
            other => return Err(Stop::failed(format!("connecting gave {other:?}"))),
        }
    }
    Ok(())
}

pub(in super::super) fn the_connector_rejects(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(4)?;
    let id = lab.resolve(Side::Active, addr)?;
    let active = End::new(&lab, Side::Active, id, &Options::default())?;
    active.id().connect(b"")?;
    let (id, _) = lab.request(Side::Passive, &*listener)?;
    let passive = End::new(&lab, Side::Passive, id, &Options::default())?;
    passive.id().accept(b"")?;
    match active.event()? {
        CmEventKind::ConnectResponse { .. } => active.id().reject(b"no")?,
        other => return Err(Stop::failed(format!("connecting gave {other:?}"))),
    }
    match passive.event()? {
        CmEventKind::Disconnected | CmEventKind::Rejected { .. } => Ok(()),
        // Where there is no confirmation (iWARP), the connection is there when it is accepted.
        CmEventKind::Established => passive.disconnected(),
        other => Err(Stop::failed(format!("a rejected accept gave {other:?}"))),
    }
}

pub(in super::super) fn a_full_backlog_rejects(rig: &Rig<'_>) -> Verdict {
    const BACKLOG: u32 = 2;
    const CALLERS: usize = 5;
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(BACKLOG)?;
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let id = lab.resolve(Side::Active, addr)?;
        let caller = End::new(&lab, Side::Active, id, &Options::default())?;
        caller.id().connect(b"")?;
        callers.push(caller);
    }
    // Taken by the lab, but not answered.
    let mut rejected = 0;
    lab.until("rejections for a full backlog", || {
        for caller in &callers {
            match caller.event_now() {
                Some(CmEventKind::Rejected {
                    reason: RejectReason::Backlog,
                    ..
                }) => {
                    rejected += 1;
                }
                Some(other) => return Some(Err(format!("a caller got {other:?}"))),
                None => {}
            }
        }
        (rejected == CALLERS - BACKLOG as usize).then_some(Ok(()))
    })?
    .map_err(Stop::failed)?;
    for _ in 0..BACKLOG {
        let (id, _) = lab.request(Side::Passive, &*listener)?;
        id.reject(b"")?;
    }
    let (_active, _passive) = lab.connect(Side::Active, &*listener, addr, &Options::default())?;
    Ok(())
}

pub(in super::super) fn a_dropped_listener_keeps_its_connections(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(4)?;
    let (active, passive) = lab.connect(Side::Active, &*listener, addr, &Options::default())?;
    drop(listener);
    lab.settle();
    active.send(b"still there")?;
    ensure_eq!(passive.receive()?, b"still there", "message");
    is_refused(&lab, addr)
}
