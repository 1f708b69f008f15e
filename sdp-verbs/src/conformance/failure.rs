//! Queue pairs in error.

use super::report::{Verdict, ensure, ensure_eq};
use super::rig::{Link, Options, Rig};
use crate::caps::Caps;
use crate::error::PostError;
use crate::mr::Binding;
use crate::types::{Access, RemoteAddr, Rkey};
use crate::wr::{SendFlags, WcOpcode, WcStatus};

pub(super) fn set_error_flushes_everything_once(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RNR_RETRY)?;
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    let (mut recvs, mut sends) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        recvs.push(link.active.post_recv(64)?);
    }
    // None of these can go out: the peer has posted no receive.
    for number in 0..6 {
        sends.push(link.active.post_message(&[number], SendFlags::SIGNALED)?);
    }
    link.active.qp().set_error();
    link.active.qp().set_error();
    for id in sends {
        ensure_eq!(
            link.active.failed(id)?,
            WcStatus::Flushed,
            "status of {id:?}"
        );
    }
    for id in recvs {
        let wc = link.active.next_received()?;
        ensure_eq!((wc.wr_id, wc.status), (id, WcStatus::Flushed), "{wc:?}");
    }
    link.lab.settle();
    let rest = (link.active.sent_now(), link.active.received_now());
    ensure_eq!(rest, (None, None), "a second time");
    Ok(())
}

pub(super) fn set_error_flushes_what_is_behind_a_bind(rig: &Rig<'_>) -> Verdict {
    const LEN: usize = 4096;
    rig.need(Caps::MEMORY_WINDOW | Caps::RNR_RETRY)?;
    let link = rig.link(&Options {
        recvs: 0,
        ..Options::default()
    })?;
    let end = &link.active;
    let mem = end.mem(LEN)?;
    let windows = [(), ()].map(|()| end.provider().alloc_window());
    let windows = windows.into_iter().collect::<Result<Vec<_>, _>>()?;
    // None of the messages can go out: the peer has posted no receive.
    let mut posted = Vec::new();
    for window in &windows {
        posted.push((
            end.post_message(b"before", SendFlags::empty())?,
            WcOpcode::Send,
        ));
        let binding = Binding {
            lkey: mem.lkey(),
            addr: mem.at(0, LEN),
            len: LEN,
            access: Access::REMOTE_READ,
        };
        let id = end.fresh_id();
        end.qp().bind(id, SendFlags::SIGNALED, &**window, binding)?;
        posted.push((id, WcOpcode::Bind));
        posted.push((
            end.post_message(b"behind", SendFlags::SIGNALED)?,
            WcOpcode::Send,
        ));
    }
    end.qp().set_error();
    for (id, opcode) in posted {
        let wc = end.next_sent()?;
        ensure_eq!((wc.wr_id, wc.opcode), (id, opcode), "{wc:?}");
        // A device may bind ahead of what it cannot send.
        let may_be_done = opcode == WcOpcode::Bind && wc.status == WcStatus::Success;
        ensure!(may_be_done || wc.status == WcStatus::Flushed, "{wc:?}");
    }
    for window in &windows {
        ensure_eq!(window.rkey(), None, "key of a window after the end");
    }
    link.lab.settle();
    ensure_eq!(end.sent_now(), None, "a second time");
    Ok(())
}

pub(super) fn posting_after_an_error_is_refused(rig: &Rig<'_>) -> Verdict {
    let link = rig.plain_link()?;
    link.active.qp().set_error();
    let late = link.active.post_message(b"late", SendFlags::SIGNALED);
    ensure_eq!(late, Err(PostError::WrongState), "posting in error");
    let late = link.active.qp().reserve_send(10).map(drop);
    ensure_eq!(late, Err(PostError::WrongState), "reserving in error");
    for _ in 0..Options::default().recvs {
        let wc = link.active.next_received()?;
        ensure_eq!(wc.status, WcStatus::Flushed, "{wc:?}");
    }
    // A receive may be refused, or come back at once.
    match link.active.try_post_recv(64)? {
        Err(error) => ensure_eq!(error, PostError::WrongState, "posting a receive in error"),
        Ok(id) => {
            let wc = link.active.next_received()?;
            ensure_eq!((wc.wr_id, wc.status), (id, WcStatus::Flushed), "{wc:?}");
        }
    }
    // The peer may be told of the end, but not of a message.
    link.lab.settle();
    while let Some(wc) = link.passive.received_now() {
        ensure_eq!(
            wc.status,
            WcStatus::Flushed,
            "completion for the peer: {wc:?}"
        );
    }
    Ok(())
}

pub(super) fn one_failure_flushes_the_rest(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RDMA_READ | Caps::REMOTE_STATUS)?;
    let link = rig.plain_link()?;
    let near = link.active.mem(4096)?;
    let nobody = (RemoteAddr(4096), Rkey(0xFFFF_FFFE));
    let before = link.active.post_message(b"before", SendFlags::SIGNALED)?;
    let bad = link
        .active
        .post_read(&[near.sge(0, 64)], nobody.0, nobody.1)?;
    let mut behind = Vec::new();
    for _ in 0..3 {
        match link
            .active
            .post_message(b"behind", SendFlags::SIGNALED | SendFlags::FENCE)
        {
            Ok(id) => behind.push(id),
            // It may have failed by now.
            Err(error) => ensure_eq!(error, PostError::WrongState, "posting behind a failure"),
        }
    }
    let wc = link.active.next_sent()?;
    ensure_eq!((wc.wr_id, wc.status), (before, WcStatus::Success), "{wc:?}");
    ensure_eq!(
        link.active.failed(bad)?,
        WcStatus::RemoteAccess,
        "status of the read"
    );
    for id in behind {
        ensure_eq!(
            link.active.failed(id)?,
            WcStatus::Flushed,
            "status of {id:?}"
        );
    }
    for _ in 0..Options::default().recvs {
        let wc = link.active.next_received()?;
        ensure_eq!(wc.status, WcStatus::Flushed, "{wc:?}");
    }
    link.lab.settle();
    let rest = (link.active.sent_now(), link.active.received_now());
    ensure_eq!(rest, (None, None), "a second time");
    Ok(())
}

pub(super) fn the_peer_notices_a_dropped_connection(rig: &Rig<'_>) -> Verdict {
    let Link {
        active, passive, ..
    } = rig.plain_link()?;
    drop(active);
    for _ in 0..Options::default().recvs {
        let wc = passive.next_received()?;
        ensure_eq!(wc.status, WcStatus::Flushed, "{wc:?}");
    }
    passive.disconnected()?;
    match passive.post_message(b"anybody?", SendFlags::SIGNALED) {
        Err(error) => ensure_eq!(error, PostError::WrongState, "posting to nobody"),
        Ok(id) => ensure!(
            passive.failed(id)? != WcStatus::Success,
            "a message to nobody was delivered"
        ),
    }
    Ok(())
}

pub(super) fn no_receive_for_too_long(rig: &Rig<'_>) -> Verdict {
    rig.need(Caps::RNR_RETRY)?;
    let link = rig.link(&Options {
        rnr_retry: 0,
        recvs: 0,
        ..Options::default()
    })?;
    let id = link
        .active
        .post_message(b"nobody waits", SendFlags::SIGNALED)?;
    ensure_eq!(
        link.active.failed(id)?,
        WcStatus::RnrRetryExceeded,
        "status of the send"
    );
    Ok(())
}
