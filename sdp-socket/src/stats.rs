//! What a connection has done, and why not more of it without a copy.

use sdp_core::{Connection, CopyReason, Mechanism, Why};
use sdp_wire::Mid;

/// Counters of one connection since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Payload bytes sent by copying.
    pub tx_bytes_bcopy: u64,
    /// Payload bytes sent inside adverts.
    pub tx_bytes_inline: u64,
    /// Payload bytes that left the caller's memory by RDMA: read by the peer, or written to it.
    pub tx_bytes_zcopy: u64,
    /// Of these, bytes written straight into the memory of the peer's receive.
    pub tx_bytes_written: u64,
    /// Bytes of messages, headers included, that wait below for memory of the peer's to come into:
    /// it has been promised, and is on its way. Known of `host` only.
    pub tx_bytes_queued: u64,
    /// Payload bytes received by copying.
    pub rx_bytes_bcopy: u64,
    /// Payload bytes received inside adverts.
    pub rx_bytes_inline: u64,
    /// Payload bytes that came straight into the caller's memory: read, or written by the peer.
    pub rx_bytes_zcopy: u64,
    /// Of these, bytes the peer wrote.
    pub rx_bytes_written: u64,
    /// Payload bytes read ahead into private memory.
    pub rx_bytes_read_ahead: u64,
    /// Adverts of this side that were open at once, at most.
    pub tx_adverts_open_max: u64,
    /// Signs of life asked for.
    pub probes: u64,
    /// Times a send had to wait for credits.
    pub credit_stalls: u64,
    /// Times the buffers shrank to 16 KiB because memory of the process came near `SDP_MEM_MAX`.
    pub memory_scarce: u64,
    /// Times private memory was refused because of it.
    pub memory_refused: u64,
    /// Why bytes were copied: reason, transfers, bytes. Reasons that did not occur are left out.
    pub copy_reasons: Vec<(&'static str, u64, u64)>,
    /// Which way sends go by [`ZcopyThreshold::Auto`](crate::ZcopyThreshold), per kind of memory
    /// and class of length, as far as there was a choice.
    pub choices: Vec<Choice>,
    /// Messages by kind: name, sent, received. Kinds that did not occur are left out.
    pub messages: Vec<(&'static str, u64, u64)>,
}

/// Which way sends of one kind of memory and class of length go, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// Memory that was registered for life, as that of `SdpBuffer`; else any other.
    pub registered: bool,
    /// Shortest send of the class; the next class begins at twice as much.
    pub from: usize,
    /// Read by the peer out of the caller's memory; else copied.
    pub zcopy: bool,
    /// `start`: nothing was measured yet; `measured`: the other way was no faster; `far_faster`:
    /// it took twice the time, and is left alone for long.
    pub why: &'static str,
    /// Measured cost of copying, picoseconds per byte of stream.
    pub copy_cost: Option<u64>,
    /// Measured cost of not copying.
    pub zcopy_cost: Option<u64>,
    /// Sends of the class.
    pub sends: u64,
    /// Of these, sends that tried the other way.
    pub explored: u64,
}

impl From<sdp_core::Choice> for Choice {
    fn from(core: sdp_core::Choice) -> Self {
        Self {
            registered: core.registered,
            from: core.from,
            zcopy: core.mechanism == Mechanism::ZeroCopy,
            why: match core.why {
                Why::Start => "start",
                Why::Measured => "measured",
                Why::FarFaster => "far_faster",
            },
            copy_cost: core.copy_cost,
            zcopy_cost: core.zcopy_cost,
            sends: core.sends,
            explored: core.explored,
        }
    }
}

impl Stats {
    /// Of a connection.
    pub(crate) fn of(engine: &Connection) -> Self {
        Self {
            choices: engine.choices().into_iter().map(Choice::from).collect(),
            ..Self::from(engine.stats())
        }
    }
}

impl From<&sdp_core::Stats> for Stats {
    fn from(core: &sdp_core::Stats) -> Self {
        let copy_reasons = CopyReason::ALL
            .iter()
            .zip(core.copies)
            .filter(|(_, (count, _))| *count != 0)
            .map(|(reason, (count, bytes))| (reason_name(*reason), count, bytes))
            .collect();
        let messages = Mid::ALL
            .iter()
            .zip(core.sent.iter().zip(core.received))
            .filter(|(_, (sent, received))| **sent + received != 0)
            .map(|(mid, (sent, received))| (mid.name(), *sent, received))
            .collect();
        Self {
            tx_bytes_bcopy: core.tx_bytes_bcopy,
            tx_bytes_inline: core.tx_bytes_inline,
            tx_bytes_zcopy: core.tx_bytes_zcopy,
            tx_bytes_written: core.tx_bytes_written,
            tx_bytes_queued: 0,
            rx_bytes_bcopy: core.rx_bytes_bcopy,
            rx_bytes_inline: core.rx_bytes_inline,
            rx_bytes_zcopy: core.rx_bytes_zcopy,
            rx_bytes_written: core.rx_bytes_written,
            rx_bytes_read_ahead: core.rx_bytes_read_ahead,
            tx_adverts_open_max: core.tx_adverts_open_max,
            probes: core.probes,
            credit_stalls: core.credit_stalls,
            memory_scarce: core.memory_scarce,
            memory_refused: 0,
            copy_reasons,
            choices: Vec::new(),
            messages,
        }
    }
}

fn reason_name(reason: CopyReason) -> &'static str {
    match reason {
        CopyReason::BelowThreshold => "below_threshold",
        CopyReason::ThresholdOff => "threshold_off",
        CopyReason::NonBlocking => "nonblocking",
        CopyReason::MemoryUnreachable => "memory_unreachable",
        CopyReason::BindFailed => "bind_failed",
        CopyReason::Tail => "tail",
        CopyReason::NoReader => "no_reader",
        CopyReason::PeerRefused => "peer_refused",
        CopyReason::Cancelled => "cancelled",
        CopyReason::NoAdvertAllowed => "no_advert_allowed",
        CopyReason::SmallReceive => "small_receive",
        CopyReason::ReadAhead => "read_ahead",
        CopyReason::Peek => "peek",
        CopyReason::Urgent => "urgent",
        CopyReason::NotMeasured => "not_measured",
        CopyReason::MeasuredSlower => "measured_slower",
        CopyReason::Exploring => "exploring",
        _ => "other",
    }
}
