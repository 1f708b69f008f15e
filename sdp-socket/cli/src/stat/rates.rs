//! How fast connections move, between one look and the next.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::find::Process;
use super::model::Connection;

/// What a connection is known by.
type Key = (u32, String, Option<SocketAddr>, Option<SocketAddr>);

/// Bytes that each connection had moved at one moment.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    bytes: HashMap<Key, (u64, u64)>,
}

impl Look {
    /// At what has just been found.
    pub(super) fn at(processes: &[Process]) -> Self {
        let all = processes.iter().flat_map(|process| {
            let each = process.report.connections.iter().filter(|it| !it.is_busy());
            each.map(|it| {
                (
                    key(process.pid, it),
                    (it.counts.sent(), it.counts.received()),
                )
            })
        });
        Self {
            at: Instant::now(),
            bytes: all.collect(),
        }
    }

    /// Bytes sent and received each second since `before`, if the connection was there.
    pub(super) fn rates(
        &self,
        before: &Self,
        pid: u32,
        connection: &Connection,
    ) -> Option<(f64, f64)> {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let key = key(pid, connection);
        let (old, new) = (before.bytes.get(&key)?, self.bytes.get(&key)?);
        let rate = |old: u64, new: u64| {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
            let bytes = new.saturating_sub(old) as f64;
            bytes / seconds
        };
        Some((rate(old.0, new.0), rate(old.1, new.1)))
    }
}

fn key(pid: u32, connection: &Connection) -> Key {
    let provider = connection.provider.as_str().to_owned();
    (pid, provider, connection.local, connection.peer)
}
