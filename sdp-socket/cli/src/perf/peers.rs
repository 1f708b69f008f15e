//! What is measured, and how its runs become a result.

use std::collections::BTreeMap;

use super::Workload;
use super::client::Outcome;
use crate::report::{Figure, Measured};
use crate::transport::{Buffers, Endpoint, Kind, Mode, Wait, name};

/// The figures of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// 10⁹ bytes each second.
    pub(super) gb_per_s: f64,
    /// Half the round trip, median, µs; 0 for bulk.
    pub(super) us_p50: f64,
    cpu_s_per_gb: f64,
    us_p99: f64,
    us_p999: f64,
    per_s: f64,
    spin_us: Option<f64>,
}

/// All runs of one peer under one workload.
#[derive(Debug)]
pub(super) struct Runs {
    workload: Workload,
    endpoint: Endpoint,
    conns: u32,
    samples: Vec<Sample>,
    bytes: u64,
    sent: [Option<u64>; 3],
}

/// Engine counters of the payload sent, in the order zcopy, bcopy, inline.
const SENT: [&str; 3] = ["tx_bytes_zcopy", "tx_bytes_bcopy", "tx_bytes_inline"];

impl Runs {
    /// None yet.
    pub(super) fn new(workload: Workload, endpoint: Endpoint, conns: u32) -> Self {
        Self {
            workload,
            endpoint,
            conns,
            samples: Vec::new(),
            bytes: 0,
            sent: [None; 3],
        }
    }

    /// Adds a run, made when the marker was `spin_us`.
    pub(super) fn add(&mut self, outcome: &Outcome, spin_us: Option<f64>) {
        let seconds = outcome.elapsed.as_secs_f64();
        let gigabytes = outcome.bytes as f64 / 1e9;
        let micros = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        self.samples.push(Sample {
            gb_per_s: gigabytes / seconds,
            cpu_s_per_gb: outcome.cpu.as_secs_f64() / gigabytes,
            us_p50: micros(0.5),
            us_p99: micros(0.99),
            us_p999: micros(0.999),
            per_s: outcome.messages as f64 / seconds,
            spin_us,
        });
        self.bytes += outcome.bytes;
        let ends = [&outcome.engine, &outcome.server.engine];
        for (total, counter) in self.sent.iter_mut().zip(SENT) {
            for counters in ends.into_iter().flatten() {
                let more = counters.get(counter).copied().unwrap_or(0);
                *total = Some(total.unwrap_or(0) + more);
            }
        }
    }

    /// The runs so far, in order.
    pub(super) fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The figures of single runs, which are worth telling if there were several.
    fn each(&self) -> BTreeMap<&'static str, Vec<f64>> {
        if self.samples.len() < 2 {
            return BTreeMap::new();
        }
        let of = |value: fn(&Sample) -> f64| self.samples.iter().map(value).collect();
        match self.workload {
            Workload::Bw => [
                ("gb_per_s", of(|one| one.gb_per_s)),
                ("cpu_s_per_gb", of(|one| one.cpu_s_per_gb)),
            ]
            .into(),
            Workload::Lat => [
                ("us_p50", of(|one| one.us_p50)),
                ("us_p99", of(|one| one.us_p99)),
            ]
            .into(),
        }
    }

    /// The result of all runs.
    pub(super) fn measured(&self) -> Measured {
        let Endpoint {
            kind,
            provider,
            mode,
            buffers,
            wait,
            size,
        } = self.endpoint;
        let bulk = self.workload == Workload::Bw;
        let figure = |wanted: bool, value: fn(&Sample) -> f64| {
            let values: Vec<_> = self.samples.iter().map(value).collect();
            Figure::of(&values).filter(|_| wanted)
        };
        let spins: Vec<_> = self.samples.iter().filter_map(|one| one.spin_us).collect();
        let [bytes_zcopy, bytes_bcopy, bytes_inline] = self.sent;
        Measured {
            workload: self.workload.name(),
            peer: match kind {
                Kind::Sdp => "sdp",
                Kind::Tcp => "tcp",
                Kind::Uds => "uds",
                Kind::FloorSingle | Kind::FloorRing => "floor",
            },
            provider: (kind == Kind::Sdp).then(|| name(provider)),
            mode: match kind {
                Kind::Sdp => Some(name(mode)),
                Kind::Tcp | Kind::Uds => None,
                Kind::FloorSingle => Some("single_copy".to_owned()),
                Kind::FloorRing => Some("ring".to_owned()),
            },
            buffers: name(effective_buffers(kind, buffers)),
            size,
            conns: self.conns,
            wait: name(effective_wait(kind, wait)),
            gb_per_s: figure(bulk, |one| one.gb_per_s),
            cpu_s_per_gb: figure(bulk, |one| one.cpu_s_per_gb),
            us_p50: figure(!bulk, |one| one.us_p50),
            us_p99: figure(!bulk, |one| one.us_p99),
            us_p999: figure(!bulk, |one| one.us_p999),
            per_s: figure(true, |one| one.per_s),
            bytes: self.bytes,
            bytes_zcopy,
            bytes_bcopy,
            bytes_inline,
            spin_us: Figure::of(&spins),
            each: self.each(),
            ..Measured::default()
        }
    }
}

/// Only SDP and the single copy know registered memory.
fn effective_buffers(kind: Kind, buffers: Buffers) -> Buffers {
    match kind {
        Kind::Sdp => buffers,
        Kind::FloorSingle => Buffers::Registered,
        Kind::Tcp | Kind::Uds | Kind::FloorRing => Buffers::Heap,
    }
}

/// The kernel's blocking call sleeps at once; a floor waits in one way only.
fn effective_wait(kind: Kind, wait: Wait) -> Wait {
    match (kind, wait) {
        (Kind::Sdp, wait) => wait,
        (Kind::Tcp | Kind::Uds, Wait::Spin | Wait::Poll) => wait,
        (Kind::Tcp | Kind::Uds, _) => Wait::Sleep,
        (Kind::FloorSingle | Kind::FloorRing, _) => Wait::Adaptive,
    }
}

/// The endpoint of a peer that has no provider, mode or memory of its own.
pub(super) fn plain(kind: Kind, wait: Wait, size: usize) -> Endpoint {
    Endpoint {
        kind,
        provider: crate::transport::Provider::Host,
        mode: Mode::Auto,
        buffers: Buffers::Heap,
        wait,
        size,
    }
}
