//! Ends of connections.

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{End, Link, Options, Rig};
use crate::cm::CmEventKind;
use crate::wr::{SendFlags, WcOpcode, WcStatus};

/// Every receive of an end comes back flushed, and only once.
fn flushed(end: &End, count: usize) -> Verdict {
    for _ in 0..count {
        let wc = end.next_received()?;
        ensure_eq!(wc.status, WcStatus::Flushed, "{wc:?}");
    }
    Ok(())
}

/// Nothing further comes of a link, except that the end which ended it may be told so.
fn quiet(link: &Link) -> Verdict {
    link.lab.settle();
    for end in [&link.active, &link.passive] {
        let rest = (end.received_now(), end.sent_now());
        ensure_eq!(rest, (None, None), "after the end");
        let first = end.event_now();
        let fits = matches!(first, None | Some(CmEventKind::Disconnected));
        ensure!(fits, "after the end: {first:?}");
        let second = end.event_now();
        ensure!(second.is_none(), "after the end: {second:?}");
    }
    Ok(())
}

pub(super) fn by_the_connector(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    link.active.id().disconnect();
    link.passive.disconnected()?;
    flushed(&link.passive, Options::default().recvs)?;
    flushed(&link.active, Options::default().recvs)?;
    quiet(&link)
}

pub(super) fn by_the_listener(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    link.passive.id().disconnect();
    link.active.disconnected()?;
    flushed(&link.active, Options::default().recvs)?;
    flushed(&link.passive, Options::default().recvs)?;
    quiet(&link)
}

pub(super) fn by_both_at_once(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    link.active.id().disconnect();
    link.passive.id().disconnect();
    flushed(&link.active, Options::default().recvs)?;
    flushed(&link.passive, Options::default().recvs)?;
    quiet(&link)
}

pub(super) fn twice_is_harmless(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    link.active.id().disconnect();
    link.active.id().disconnect();
    link.passive.disconnected()?;
    link.passive.id().disconnect();
    link.active.id().disconnect();
    flushed(&link.active, Options::default().recvs)?;
    flushed(&link.passive, Options::default().recvs)?;
    quiet(&link)
}

pub(super) fn by_dropping_the_id(rig: &Rig<'_>) -> Verdict {
    let mut link = rig.plain_link()?;
    link.active.drop_id();
    link.passive.disconnected()?;
    flushed(&link.passive, Options::default().recvs)
}

/// Checks that `count` messages come first, then the flush, then the event.
fn delivered_first(end: &End, count: u8) -> Verdict {
    for number in 0..count {
        let wc = end.next_received()?;
        ensure_eq!(wc.status, WcStatus::Success, "message {number}: {wc:?}");
        ensure_eq!(end.bytes(&wc)?, [number; 3], "message {number}");
    }
    flushed(end, Options::default().recvs - usize::from(count))?;
    end.disconnected()
}

pub(super) fn what_was_sent_is_delivered_first(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    for number in 0..5 {
        link.active.post_message(&[number; 3], SendFlags::empty())?;
    }
    link.active.id().disconnect();
    delivered_first(&link.passive, 5)
}

pub(super) fn what_was_sent_survives_a_drop(rig: &Rig<'_>) -> Verdict {
    let Link {
        active, passive, ..
    } = rig.plain_link()?;
    for number in 0..4 {
        active.post_message(&[number; 3], SendFlags::empty())?;
    }
    let last = active.post_message(&[4; 3], SendFlags::SIGNALED)?;
    active.sent(last, WcOpcode::Send)?;
    drop(active);
    delivered_first(&passive, 5)
}

/// Objects of one end, boxed up so that they can be dropped one by one.
fn parts(rig: &Rig<'_>) -> Verdict<(End, Vec<Box<dyn std::any::Any>>)> {
    let sides = &rig.sides;
    let lab = rig.manual_lab()?;
    let (listener, addr) = lab.listen(1)?;
    let channel = sides.active.create_event_channel()?;
    let comp = sides.active.create_comp_channel()?;
    let cq = sides.active.create_cq(64, &comp, crate::cq::CqToken(9))?;
    let id = sides.active.create_id(&channel)?;
    let event = |what: &str| lab.until(what, || channel.poll().map(|event| event.kind));
    id.resolve(addr, std::time::Duration::from_secs(5))?;
    event("resolving")?;
    let qp = id.create_qp(&crate::qp::QpAttr {
        cq: std::sync::Arc::clone(&cq),
        send_wr_max: 16,
        recv_wr_max: 16,
        rnr_retry: 7,
        silence_max: None,
    })?;
    let buf = qp.alloc_recv(64)?;
    qp.post_recv(crate::types::WrId(1), &buf)?;
    id.connect(b"")?;
    let (peer_id, _) = lab.request(super::rig::Side::Passive, &*listener)?;
    let peer = End::new(
        &lab,
        super::rig::Side::Passive,
        peer_id,
        &Options::default(),
    )?;
    peer.id().accept(b"")?;
    event("connecting")?;
    id.establish()?;
    peer.established()?;
    let reserved = qp.reserve_send(10)?;
    let region = sides.active.alloc_registered(4096)?;
    let mut all: Vec<Box<dyn std::any::Any>> = vec![
        Box::new(channel),
        Box::new(comp),
        Box::new(cq),
        Box::new(id),
        Box::new(qp),
        Box::new(buf),
        Box::new(reserved),
        Box::new(region),
    ];
    if sides
        .active
        .caps()
        .contains(crate::caps::Caps::MEMORY_WINDOW)
    {
        all.push(Box::new(sides.active.alloc_window()?));
    }
    Ok((peer, all))
}

pub(super) fn objects_are_dropped_in_any_order(rig: &Rig<'_>) -> Verdict {
    for turn in 0..9 {
        for reversed in [false, true] {
            let (peer, mut all) = parts(rig)?;
            let middle = turn % all.len();
            all.rotate_left(middle);
            if reversed {
                all.reverse();
            }
            for object in all {
                drop(object);
                peer.turn();
            }
            peer.disconnected()?;
        }
    }
    Ok(())
}
