//! Who is compared, in which workloads.

use super::Workload;
use super::client::Client;
use super::peers::{Runs, plain};
use super::spawn::OwnServer;
use crate::cli::CompareArgs;
use crate::transport::{Buffers, Endpoint, Kind, Mode, Provider, Wait, ZCOPY_MIN};

/// Bulk workloads if nothing else is asked for: bytes of a message, and connections.
const BULK: (&[usize], &[u32]) = (&[64 << 10, 1 << 20], &[1, 8]);
/// The ping-pong if nothing else is asked for.
pub(super) const PING_PONG: (&[usize], &[u32]) = (&[64], &[1]);

/// A peer: how its streams are opened, and for which workload.
#[derive(Debug)]
pub(super) struct Peer {
    /// As `--peers` spells it.
    pub(super) name: String,
    pub(super) workload: Workload,
    pub(super) endpoint: Endpoint,
    /// Whether it is measured without being named.
    pub(super) usual: bool,
    pub(super) server: Option<OwnServer>,
    pub(super) failure: Option<String>,
}

impl Peer {
    /// Whether it is one of those asked for.
    pub(super) fn is_wanted(&self, names: Option<&Vec<String>>) -> bool {
        names.map_or(self.usual, |names| names.contains(&self.name))
    }
}

/// One workload with one entry for each peer that runs it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) workload: Workload,
    /// Bytes of a message.
    pub(super) size: usize,
    /// Connections.
    pub(super) conns: u32,
    pub(super) entries: Vec<Entry>,
}

/// A peer in a row.
#[derive(Debug)]
pub(super) struct Entry {
    /// Index of the peer.
    pub(super) peer: usize,
    pub(super) client: Option<Client>,
    pub(super) runs: Runs,
}

/// All peers, in the order in which they are shown.
pub(super) fn peers(provider: Provider) -> Vec<Peer> {
    let peer = |usual, name: &str, workload, endpoint| Peer {
        name: name.to_owned(),
        workload,
        endpoint,
        usual,
        server: None,
        failure: None,
    };
    let sdp = |mode, buffers, wait| Endpoint {
        kind: Kind::Sdp,
        provider,
        mode,
        buffers,
        wait,
        size: 0,
    };
    let (tcp, uds) = (
        |wait| plain(Kind::Tcp, wait, 0),
        |wait| plain(Kind::Uds, wait, 0),
    );
    let (auto, heap, registered) = (Mode::Auto, Buffers::Heap, Buffers::Registered);
    let (adaptive, sleep, spin, poll) = (Wait::Adaptive, Wait::Sleep, Wait::Spin, Wait::Poll);
    let (bw, lat) = (Workload::Bw, Workload::Lat);
    let floor = |kind| plain(kind, adaptive, 0);
    vec![
        peer(true, "tcp", bw, tcp(sleep)),
        peer(true, "uds", bw, uds(sleep)),
        peer(true, "sdp-bcopy", bw, sdp(Mode::Bcopy, heap, adaptive)),
        peer(true, "sdp-auto", bw, sdp(auto, heap, adaptive)),
        peer(true, "sdp-zcopy", bw, sdp(Mode::Zcopy, heap, adaptive)),
        peer(true, "sdp-registered", bw, sdp(auto, registered, adaptive)),
        peer(true, "floor-ring", bw, floor(Kind::FloorRing)),
        peer(true, "floor-single", bw, floor(Kind::FloorSingle)),
        peer(false, "tcp-poll", bw, tcp(poll)),
        peer(false, "uds-poll", bw, uds(poll)),
        peer(false, "sdp-poll", bw, sdp(auto, heap, poll)),
        peer(
            false,
            "sdp-registered-poll",
            bw,
            sdp(auto, registered, poll),
        ),
        peer(true, "tcp", lat, tcp(sleep)),
        peer(true, "tcp-spin", lat, tcp(spin)),
        peer(true, "uds", lat, uds(sleep)),
        peer(true, "uds-spin", lat, uds(spin)),
        peer(true, "sdp-auto", lat, sdp(auto, heap, adaptive)),
        peer(true, "sdp-spin", lat, sdp(auto, heap, spin)),
        peer(true, "tcp-poll", lat, tcp(poll)),
        peer(true, "uds-poll", lat, uds(poll)),
        peer(true, "sdp-poll", lat, sdp(auto, heap, poll)),
        peer(false, "sdp-sleep", lat, sdp(auto, heap, sleep)),
        peer(
            false,
            "sdp-registered",
            lat,
            sdp(auto, registered, adaptive),
        ),
    ]
}

/// One row for each workload, size and number of connections asked for.
pub(super) fn rows(args: &CompareArgs, peers: &[Peer]) -> Vec<Row> {
    let mut rows = Vec::new();
    for workload in [Workload::Bw, Workload::Lat] {
        if args.workload.is_some_and(|only| only != workload) {
            continue;
        }
        let usual = match workload {
            Workload::Bw => BULK,
            Workload::Lat => PING_PONG,
        };
        for size in args.sizes.as_deref().unwrap_or(usual.0) {
            for conns in args.conns.as_deref().unwrap_or(usual.1) {
                rows.push(row(peers, workload, *size, *conns));
            }
        }
    }
    rows.retain(|row| !row.entries.is_empty());
    rows
}

fn row(peers: &[Peer], workload: Workload, size: usize, conns: u32) -> Row {
    let entry = |(peer, one): (usize, &Peer)| {
        let endpoint = Endpoint {
            size,
            ..one.endpoint.clone()
        };
        // Shorter messages are copied, whatever the mode.
        let shrinks = endpoint.mode == Mode::Zcopy && size < ZCOPY_MIN;
        (one.workload == workload && !shrinks).then(|| Entry {
            peer,
            client: None,
            runs: Runs::new(workload, endpoint, conns),
        })
    };
    Row {
        workload,
        size,
        conns,
        entries: peers.iter().enumerate().filter_map(entry).collect(),
    }
}

/// The arguments that these options give.
#[cfg(test)]
pub(super) fn args(options: &[&str]) -> CompareArgs {
    use clap::Parser;

    use crate::cli::{Cli, Command, Perf};
    let words = [&["sdp", "perf", "compare"], options].concat();
    match Cli::parse_from(words).command {
        Command::Perf {
            command: Perf::Compare(args),
        } => args,
        other => panic!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(options: &[&str]) -> Vec<(Workload, usize, u32, usize)> {
        let args = args(options);
        let wanted = peers(args.provider).into_iter();
        let peers: Vec<_> = wanted
            .filter(|peer| peer.is_wanted(args.peers.as_ref()))
            .collect();
        let rows = rows(&args, &peers).into_iter();
        rows.map(|row| (row.workload, row.size, row.conns, row.entries.len()))
            .collect()
    }

    #[test]
    fn the_usual_rows_are_four_of_bulk_and_the_ping_pong() {
        let (bw, lat) = (Workload::Bw, Workload::Lat);
        assert_eq!(
            shapes(&[]),
            [
                (bw, 65_536, 1, 8),
                (bw, 65_536, 8, 8),
                (bw, 1 << 20, 1, 8),
                (bw, 1 << 20, 8, 8),
                (lat, 64, 1, 9)
            ]
        );
    }

    #[test]
    fn rows_and_peers_that_are_asked_for_are_those_that_are_there() {
        let bulk = shapes(&["--workload=bw", "--sizes=64,1M", "--conns=3"]);
        // No zero copy of 64 bytes.
        assert_eq!(
            bulk,
            [(Workload::Bw, 64, 3, 7), (Workload::Bw, 1 << 20, 3, 8)]
        );
        let polled = shapes(&["--workload=bw", "--sizes=4K", "--peers=tcp-poll,sdp-poll"]);
        assert_eq!(
            polled,
            [(Workload::Bw, 4096, 1, 2), (Workload::Bw, 4096, 8, 2)]
        );
        assert_eq!(shapes(&["--workload=lat", "--peers=floor-ring"]), []);
    }
}
