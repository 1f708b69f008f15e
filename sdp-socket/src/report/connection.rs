//! The parts of a report: providers, listeners, connections. Names are those of
//! [`Stats`].

use std::net::SocketAddr;

use sdp_core::Phase;

use super::json::Members;
use crate::context::{Context, Ended};
use crate::driver::{Conn, Snapshot};
use crate::listener::Listening;
use crate::stats::Stats;

/// A provider, or one of its devices, and what its connections did that have ended.
pub(super) fn write_context(members: &mut Members<'_>, context: &Context, ended: &Ended) {
    write_place(members, context);
    members.number("connections_ended", ended.count);
    let stats = Stats {
        memory_refused: ended.memory_refused,
        ..Stats::from(&ended.stats)
    };
    members.object("ended", |members| write_stats(members, &stats));
}

fn write_place(members: &mut Members<'_>, context: &Context) {
    members.string("provider", Some(context.provider().name()));
    members.string("device", context.provider().device());
}

/// A listener. Those of its places that only others of its kind have are not told.
pub(super) fn write_listener(members: &mut Members<'_>, listening: &Listening) {
    let account = listening.account();
    members.string("local", account.local);
    members.string("providers", Some(account.providers.join(",")));
    members.number("backlog", u64::from(account.backlog));
    members.count("queued", account.queued);
    members.count("waiting", account.waiting);
    members.number("accepted", account.accepted);
}

/// A connect whose peer has not been asked yet.
pub(super) fn write_resolving(members: &mut Members<'_>, context: &Context, peer: SocketAddr) {
    write_place(members, context);
    members.string("local", None::<SocketAddr>);
    members.string("peer", Some(peer));
    members.string("state", Some("resolving"));
}

/// A connection; without a snapshot, one whose lock others held each time.
pub(super) fn write(members: &mut Members<'_>, conn: &Conn, snapshot: Option<Snapshot>) {
    write_place(members, &conn.context);
    members.string("local", conn.local_addr());
    members.string("peer", conn.peer_addr());
    let Some(snapshot) = snapshot else {
        members.string("state", Some("busy"));
        return;
    };
    members.string("state", Some(state(snapshot.phase)));
    members.flag("in_call", conn.is_in_call());
    members.number("credits", u64::from(snapshot.credits));
    members.number("posted", u64::from(snapshot.posted));
    members.count("unsent", snapshot.unsent);
    members.count("unread", snapshot.unread);
    members.count("adverts_open", snapshot.adverts_open);
    members.count("peer_adverts_open", snapshot.peer_adverts_open);
    write_stats(members, &snapshot.stats);
}

fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Handshake => "handshake",
        Phase::Open => "open",
        Phase::Moving => "moving",
        Phase::Closing => "closing",
        Phase::Closed => "closed",
        _ => "other",
    }
}

fn write_stats(members: &mut Members<'_>, stats: &Stats) {
    for (name, count) in [
        ("tx_bytes_bcopy", stats.tx_bytes_bcopy),
        ("tx_bytes_inline", stats.tx_bytes_inline),
        ("tx_bytes_zcopy", stats.tx_bytes_zcopy),
        ("tx_bytes_written", stats.tx_bytes_written),
        ("tx_bytes_queued", stats.tx_bytes_queued),
        ("rx_bytes_bcopy", stats.rx_bytes_bcopy),
        ("rx_bytes_inline", stats.rx_bytes_inline),
        ("rx_bytes_zcopy", stats.rx_bytes_zcopy),
        ("rx_bytes_written", stats.rx_bytes_written),
        ("rx_bytes_read_ahead", stats.rx_bytes_read_ahead),
        ("tx_adverts_open_max", stats.tx_adverts_open_max),
        ("probes", stats.probes),
        ("credit_stalls", stats.credit_stalls),
        ("memory_scarce", stats.memory_scarce),
        ("memory_refused", stats.memory_refused),
    ] {
        members.number(name, count);
    }
    members.object("copy_reasons", |members| {
        for (reason, transfers, bytes) in &stats.copy_reasons {
            members.object(reason, |members| {
                members.number("transfers", *transfers);
                members.number("bytes", *bytes);
            });
        }
    });
    members.object("messages", |members| {
        for (kind, sent, received) in &stats.messages {
            members.object(kind, |members| {
                members.number("sent", *sent);
                members.number("received", *received);
            });
        }
    });
    members.list("choices", &stats.choices, |members, choice| {
        members.flag("registered", choice.registered);
        members.count("from", choice.from);
        members.flag("zcopy", choice.zcopy);
        members.string("why", Some(choice.why));
        members.number_if("copy_cost", choice.copy_cost);
        members.number_if("zcopy_cost", choice.zcopy_cost);
        members.number("sends", choice.sends);
        members.number("explored", choice.explored);
    });
}
