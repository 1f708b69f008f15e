//! What an end has done and found, and what the two ends and the judge say to each other.

use std::net::SocketAddr;

use sdp_socket::Stats;
use serde::{Deserialize, Serialize};

use super::plan::{Life, Way};
use crate::lab::{Census, Memory};

/// Texts of one kind that are kept; all are counted.
const TEXTS_MAX: usize = 10;

/// What the judge asks of an end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Order {
    /// Carry connections until told otherwise.
    Run {
        /// How long that will be.
        seconds: f64,
        /// How often to fork, and how often to start a program, meanwhile.
        disturbances: u32,
    },
    /// Send no more, and open no new connections. A client ends when those it has have ended.
    WindUp,
    /// To a server: all connections there were are there; end when they have ended.
    Stop,
    /// Say what you hold, when you have come to rest.
    Count,
}

/// What an end says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Event {
    /// It is ready; a server also says where it listens.
    Ready {
        /// Where.
        address: Option<SocketAddr>,
    },
    /// It goes on.
    Progress {
        /// Bytes received in this run.
        bytes: u64,
    },
    /// The run has ended.
    Ended(Box<Tally>),
    /// What it holds.
    Counted {
        /// Descriptors, threads, mappings.
        census: Census,
        /// Memory.
        memory: Memory,
    },
    /// A thread does not get on.
    Hangs {
        /// Which, and in what.
        reason: String,
    },
    /// It cannot go on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What one end did in one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Connections.
    pub(super) lives: u64,
    /// Of these, with a non-blocking socket at this end.
    pub(super) nonblocking: u64,
    /// Payload bytes sent.
    pub(super) bytes_sent: u64,
    /// Payload bytes received and compared.
    pub(super) bytes_received: u64,
    /// Calls that sent something.
    pub(super) sends: u64,
    /// Calls that received something.
    pub(super) receives: u64,
    /// Of both, with several pieces of memory.
    pub(super) vectored: u64,
    /// Calls that looked at bytes and left them.
    pub(super) peeks: u64,
    /// Calls that received until the memory was full.
    pub(super) wait_alls: u64,
    /// Calls from or to registered memory.
    pub(super) registered: u64,
    /// Calls that ended by a time-out, or with less than asked after one.
    pub(super) timeouts: u64,
    /// Non-blocking calls for which there was nothing to do.
    pub(super) would_blocks: u64,
    /// Bytes the peer read out of the program's memory.
    pub(super) bytes_zcopy: u64,
    /// Bytes copied through private buffers.
    pub(super) bytes_bcopy: u64,
    /// Bytes inside adverts.
    pub(super) bytes_inline: u64,
    /// Bytes received by reading ahead.
    pub(super) bytes_read_ahead: u64,
    /// Forked children, all of which must end by themselves.
    pub(super) forks: u64,
    /// Programs started, all of which must succeed.
    pub(super) commands: u64,
    /// Wrong bytes: calls that had one.
    pub(super) mismatches: Findings,
    /// Calls that failed, children that did not end well.
    pub(super) errors: Findings,
    /// How many bytes went each way of each connection, by this end's count.
    pub(super) flows: Vec<Flow>,
}

/// One way of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Flow {
    slot: u32,
    generation: u32,
    up: bool,
    bytes: u64,
}

impl Flow {
    /// `bytes` went this way.
    pub(super) fn new(life: Life, way: Way, bytes: u64) -> Self {
        Self {
            slot: life.slot,
            generation: life.generation,
            up: way == Way::Up,
            bytes,
        }
    }
}

/// Things that must not be: how many, and the first of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Findings {
    /// How many.
    pub(super) count: u64,
    /// The first ones.
    pub(super) texts: Vec<String>,
}

impl Findings {
    /// One more.
    pub(super) fn add(&mut self, text: String) {
        self.count += 1;
        if self.texts.len() < TEXTS_MAX {
            self.texts.push(text);
        }
    }

    /// More of the same.
    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        let room = TEXTS_MAX - self.texts.len();
        self.texts.extend(other.texts.into_iter().take(room));
    }
}

impl Tally {
    /// Adds what another thread, or another run, did.
    pub(super) fn merge(&mut self, other: Self) {
        self.lives += other.lives;
        self.nonblocking += other.nonblocking;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.sends += other.sends;
        self.receives += other.receives;
        self.vectored += other.vectored;
        self.peeks += other.peeks;
        self.wait_alls += other.wait_alls;
        self.registered += other.registered;
        self.timeouts += other.timeouts;
        self.would_blocks += other.would_blocks;
        self.bytes_zcopy += other.bytes_zcopy;
        self.bytes_bcopy += other.bytes_bcopy;
        self.bytes_inline += other.bytes_inline;
        self.bytes_read_ahead += other.bytes_read_ahead;
        self.forks += other.forks;
        self.commands += other.commands;
        self.mismatches.merge(other.mismatches);
        self.errors.merge(other.errors);
        self.flows.extend(other.flows);
    }

    /// Adds what an engine counted.
    pub(super) fn add_stats(&mut self, stats: &Stats) {
        self.bytes_zcopy += stats.tx_bytes_zcopy;
        self.bytes_bcopy += stats.tx_bytes_bcopy;
        self.bytes_inline += stats.tx_bytes_inline;
        self.bytes_read_ahead += stats.rx_bytes_read_ahead;
    }
}

/// Ways of connections on which the two ends count differently, in words.
pub(super) fn differences(client: &[Flow], server: &[Flow]) -> Findings {
    let key = |flow: &Flow| (flow.slot, flow.generation, flow.up);
    let by_key = |flows: &[Flow]| -> std::collections::BTreeMap<_, _> {
        flows.iter().map(|flow| (key(flow), flow.bytes)).collect()
    };
    let (client, server) = (by_key(client), by_key(server));
    let mut findings = Findings::default();
    let keys: std::collections::BTreeSet<_> = client.keys().chain(server.keys()).collect();
    for at in keys {
        let (here, there) = (client.get(at), server.get(at));
        if here != there {
            let (slot, generation, up) = at;
            findings.add(format!(
                "slot {slot} generation {generation} {}: client {here:?}, server {there:?}",
                if *up { "up" } else { "down" }
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_a_shorter_flow_are_found() {
        let flow = |slot, bytes| Flow {
            slot,
            generation: 0,
            up: true,
            bytes,
        };
        let whole = [flow(0, 10), flow(1, 20)];
        assert_eq!(differences(&whole, &whole).count, 0);
        assert_eq!(differences(&whole, &[flow(0, 10), flow(1, 19)]).count, 1);
        assert_eq!(differences(&whole, &[flow(0, 10)]).count, 1);
    }
}
