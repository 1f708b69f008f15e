//! The way to a connection, call by call.

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cm::{CmEventKind, CmId};
use crate::conformance::report::{Stop, Verdict, ensure, ensure_eq};
use crate::conformance::rig::{BOUND, End, Lab, Options, Rig, Side, pattern, refused};
use crate::error::VerbsError;

fn is_state(error: &VerbsError) -> bool {
    matches!(error, VerbsError::State { .. })
}

fn is_argument(error: &VerbsError) -> bool {
    matches!(error, VerbsError::Argument { .. })
}

pub(in super::super) fn listening_needs_a_bound_id(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let id = lab.station(Side::Passive).new_id()?;
    refused("listening without an address", id.listen(1), is_state)
}

pub(in super::super) fn calls_out_of_order_are_refused(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let id = lab.station(Side::Active).new_id()?;
    refused("connecting before resolving", id.connect(b""), is_state)?;
    refused("accepting without a request", id.accept(b""), is_state)?;
    refused("establishing without a response", id.establish(), is_state)?;
    id.disconnect();
    ensure_eq!(
        id.peer_addr(),
        None,
        "peer of an id that was never connected"
    );
    let link = lab.link(&Options::default())?;
    refused("connecting twice", link.active.id().connect(b""), is_state)?;
    refused("accepting twice", link.passive.id().accept(b""), is_state)?;
    link.active.send(b"still there")?;
    ensure_eq!(link.passive.receive()?, b"still there", "message");
    Ok(())
}

/// Private data may be padded with zeros to a fixed length, as on InfiniBand.
fn ensure_data(got: &[u8], sent: &[u8]) -> Verdict {
    let (head, padding) = got.split_at(sent.len().min(got.len()));
    ensure_eq!(head, sent, "private data");
    ensure!(
        padding.iter().all(|byte| *byte == 0),
        "private data padded with {padding:?}"
    );
    Ok(())
}

pub(in super::super) fn private_data_arrives_both_ways(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(4)?;
    let (connect_max, accept_max) = (
        rig.sides.active.limits().connect_data_max,
        rig.sides.passive.limits().accept_data_max,
    );
    for (ask, answer) in [(0, 0), (1, 1), (32, 196), (connect_max, accept_max)] {
        let (ask, answer) = (pattern(1, ask), pattern(2, answer));
        let id = lab.resolve(Side::Active, addr)?;
        let active = End::new(&lab, Side::Active, id, &Options::default())?;
        active.id().connect(&ask)?;
        let (id, data) = lab.request(Side::Passive, &*listener)?;
        ensure_data(&data, &ask)?;
        let passive = End::new(&lab, Side::Passive, id, &Options::default())?;
        passive.id().accept(&answer)?;
        match active.event()? {
            CmEventKind::ConnectResponse { private_data } => ensure_data(&private_data, &answer)?,
            other => return Err(Stop::failed(format!("connecting gave {other:?}"))),
        }
        active.id().establish()?;
        passive.established()?;
    }
    Ok(())
}

pub(in super::super) fn too_much_private_data_is_refused(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(4)?;
    let options = Options::default();
    let id = lab.resolve(Side::Active, addr)?;
    let active = End::new(&lab, Side::Active, id, &options)?;
    let ask = vec![0; rig.sides.active.limits().connect_data_max + 1];
    refused(
        "connect data beyond the limit",
        active.id().connect(&ask),
        is_argument,
    )?;
    active.id().connect(b"")?;
    let (id, _) = lab.request(Side::Passive, &*listener)?;
    let passive = End::new(&lab, Side::Passive, id, &options)?;
    let limits = rig.sides.passive.limits();
    let answer = vec![0; limits.reject_data_max + 1];
    refused(
        "reject data beyond the limit",
        passive.id().reject(&answer),
        is_argument,
    )?;
    let answer = vec![0; limits.accept_data_max + 1];
    refused(
        "accept data beyond the limit",
        passive.id().accept(&answer),
        is_argument,
    )?;
    // The refused calls have left no trace.
    passive.id().accept(b"")?;
    active.establish()?;
    passive.established()
}

/// An event, waited for as a program would that has only the descriptor and the time-out to go
/// by.
fn event_by_descriptor(lab: &Lab, side: Side, id: &dyn CmId) -> Verdict<CmEventKind> {
    loop {
        if let Some(event) = lab.event_now(side, id) {
            return Ok(event);
        }
        let stations = [lab.station(Side::Active), lab.station(Side::Passive)];
        let timer = stations
            .iter()
            .filter_map(|station| station.events.next_timeout())
            .min();
        let limit = timer.unwrap_or(BOUND).min(BOUND);
        let limit = Timespec::try_from(limit)
            .map_err(|_| Stop::failed(format!("a time-out of {limit:?}")))?;
        let mut fds =
            stations.map(|station| PollFd::from_borrowed_fd(station.events.fd(), PollFlags::IN));
        let ready = rustix::event::poll(&mut fds, Some(&limit)).map_err(std::io::Error::from)?;
        ensure!(
            ready > 0 || timer.is_some(),
            "the descriptors tell of nothing"
        );
        lab.turn();
    }
}

pub(in super::super) fn descriptors_tell_of_events(rig: &Rig<'_>) -> Verdict {
    let lab = rig.lab()?;
    let (listener, addr) = lab.listen(4)?;
    let options = Options::default();
    let caller = lab.station(Side::Active).new_id()?;
    caller.resolve(addr, BOUND)?;
    let event = event_by_descriptor(&lab, Side::Active, &*caller)?;
    ensure!(
        matches!(event, CmEventKind::Resolved),
        "resolving gave {event:?}"
    );
    let active = End::new(&lab, Side::Active, caller, &options)?;
    active.id().connect(b"")?;
    let request = event_by_descriptor(&lab, Side::Passive, &*listener)?;
    let CmEventKind::ConnectRequest { id, .. } = request else {
        return Err(Stop::failed(format!("a listener got {request:?}")));
    };
    let passive = End::new(&lab, Side::Passive, id, &options)?;
    passive.id().accept(b"")?;
    let event = event_by_descriptor(&lab, Side::Active, active.id())?;
    ensure!(
        matches!(event, CmEventKind::ConnectResponse { .. }),
        "connecting gave {event:?}"
    );
    active.id().establish()?;
    let event = event_by_descriptor(&lab, Side::Passive, passive.id())?;
    ensure!(
        matches!(event, CmEventKind::Established),
        "accepting gave {event:?}"
    );
    active.id().disconnect();
    let event = event_by_descriptor(&lab, Side::Passive, passive.id())?;
    ensure!(
        matches!(event, CmEventKind::Disconnected),
        "disconnecting gave {event:?}"
    );
    Ok(())
}
