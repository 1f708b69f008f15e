//! Several connections at once.

use crate::cm::CmEventKind;
use crate::conformance::report::{Stop, Verdict, ensure, ensure_eq};
use crate::conformance::rig::{BOUND, End, Options, Rig, Side};

pub(in super::super) fn many_connections(rig: &Rig<'_>) -> Verdict {
    const COUNT: u8 = 16;
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(4)?;
    let mut links = Vec::new();
    for _ in 0..COUNT {
        links.push(lab.connect(Side::Active, &*listener, addr, &Options::default())?);
    }
    for round in 0..3 {
        for (number, (active, passive)) in (0u8..).zip(&links) {
            active.send(&[number, round, 1])?;
            passive.send(&[number, round, 2])?;
        }
        for (number, (active, passive)) in (0..COUNT).zip(&links).rev() {
            ensure_eq!(
                passive.receive_and_repost()?,
                [number, round, 1],
                "to the listener"
            );
            ensure_eq!(
                active.receive_and_repost()?,
                [number, round, 2],
                "to the connector"
            );
        }
    }
    // Every second one ends; the others do not notice.
    let mut odd = Vec::new();
    for (number, link) in links.into_iter().enumerate() {
        if number % 2 == 0 {
            link.0.id().disconnect();
            link.1.disconnected()?;
        } else {
            odd.push(link);
        }
    }
    for (active, passive) in &odd {
        active.send(b"on")?;
        ensure_eq!(passive.receive()?, b"on", "message");
    }
    Ok(())
}

pub(in super::super) fn both_sides_connect_at_once(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let options = Options::default();
    let resolved = |event| matches!(event, CmEventKind::Resolved);
    let (there, there_addr) = lab.listen(4)?;
    let out = lab.station(Side::Active).new_id()?;
    out.resolve(there_addr, BOUND)?;
    ensure!(resolved(lab.event(Side::Active, &*out)?), "resolving");
    let Some(mut here_addr) = out.local_addr() else {
        return Err(Stop::failed("a resolved id has no local address"));
    };
    here_addr.set_port(0);
    let (here, here_addr) = lab.listen_at(Side::Active, here_addr, 4)?;
    let back = lab.station(Side::Passive).new_id()?;
    back.resolve(here_addr, BOUND)?;
    ensure!(resolved(lab.event(Side::Passive, &*back)?), "resolving");
    let out = End::new(&lab, Side::Active, out, &options)?;
    let back = End::new(&lab, Side::Passive, back, &options)?;
    out.id().connect(b"")?;
    back.id().connect(b"")?;
    let (out_peer, _) = lab.request(Side::Passive, &*there)?;
    let (back_peer, _) = lab.request(Side::Active, &*here)?;
    let out_peer = End::new(&lab, Side::Passive, out_peer, &options)?;
    let back_peer = End::new(&lab, Side::Active, back_peer, &options)?;
    back_peer.id().accept(b"")?;
    out_peer.id().accept(b"")?;
    out.establish()?;
    back.establish()?;
    out_peer.established()?;
    back_peer.established()?;
    for (from, to) in [(&out, &out_peer), (&out_peer, &out), (&back, &back_peer)] {
        from.send(b"crossed")?;
        ensure_eq!(to.receive()?, b"crossed", "message");
    }
    Ok(())
}
