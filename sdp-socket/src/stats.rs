//! What a connection has done, and why not more of it without a copy.

use sdp_core::CopyReason;
use sdp_wire::Mid;

/// Counters of one connection since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Payload bytes sent by copying.
    pub tx_bytes_bcopy: u64,
    /// Payload bytes sent inside adverts.
    pub tx_bytes_inline: u64,
    /// Payload bytes the peer read out of the caller's memory.
    pub tx_bytes_zcopy: u64,
    /// Payload bytes received by copying.
    pub rx_bytes_bcopy: u64,
    /// Payload bytes received inside adverts.
    pub rx_bytes_inline: u64,
    /// Payload bytes read straight into the caller's memory.
    pub rx_bytes_zcopy: u64,
    /// Payload bytes read ahead into private memory.
    pub rx_bytes_read_ahead: u64,
    /// Adverts of this side that were open at once, at most.
    pub tx_adverts_open_max: u64,
    /// Signs of life asked for.
    pub probes: u64,
    /// Times a send had to wait for credits.
    pub credit_stalls: u64,
    /// Why bytes were copied: reason, transfers, bytes. Reasons that did not occur are left out.
    pub copy_reasons: Vec<(&'static str, u64, u64)>,
    /// Messages by kind: name, sent, received. Kinds that did not occur are left out.
    pub messages: Vec<(&'static str, u64, u64)>,
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
            rx_bytes_bcopy: core.rx_bytes_bcopy,
            rx_bytes_inline: core.rx_bytes_inline,
            rx_bytes_zcopy: core.rx_bytes_zcopy,
            rx_bytes_read_ahead: core.rx_bytes_read_ahead,
            tx_adverts_open_max: core.tx_adverts_open_max,
            probes: core.probes,
            credit_stalls: core.credit_stalls,
            copy_reasons,
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
        _ => "other",
    }
}
