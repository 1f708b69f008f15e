//! Counters of a connection, as C has them.

use sdp_socket::Stats;
use smallvec::SmallVec;

/// Option, a struct sdp_stats, read only: what the connection has done. At level SOL_SDP.
pub const SDP_STATS: libc::c_int = 100;

/// Counters of one connection since it was made; of payload, where they count bytes. Later versions
/// add fields at the end: as many bytes as there is room for are written, and the length tells how
/// many these were.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SdpStats {
    /// Sent by copying.
    pub tx_bytes_bcopy: u64,
    /// Sent inside adverts.
    pub tx_bytes_inline: u64,
    /// Read by the peer out of the sender's own memory, or written from there.
    pub tx_bytes_zcopy: u64,
    /// Received by copying.
    pub rx_bytes_bcopy: u64,
    /// Received inside adverts.
    pub rx_bytes_inline: u64,
    /// Read straight into the receiver's own memory, or written there.
    pub rx_bytes_zcopy: u64,
    /// Read ahead into private memory.
    pub rx_bytes_read_ahead: u64,
    /// Of tx_bytes_zcopy: written straight into the memory of the peer's receive.
    pub tx_bytes_written: u64,
    /// Of rx_bytes_zcopy: written by the peer.
    pub rx_bytes_written: u64,
    /// Times a send had to wait for credits: the receiver was behind.
    pub credit_stalls: u64,
    /// Times buffers shrank because memory of the process came near SDP_MEM_MAX.
    pub memory_scarce: u64,
    /// Times private memory was refused because of it.
    pub memory_refused: u64,
    /// Signs of life asked for (SO_KEEPALIVE, TCP_USER_TIMEOUT).
    pub probes: u64,
    /// Why bytes were copied. Sends were shorter than SDP_ZCOPY_THRESH.
    pub copied_below_threshold: u64,
    /// SDP_ZCOPY_THRESH was 0.
    pub copied_threshold_off: u64,
    /// The call was not to wait.
    pub copied_nonblocking: u64,
    /// The peer cannot read the memory: on one machine it is mostly process_vm_readv that is not
    /// permitted. Memory of sdp_alloc() needs none.
    pub copied_memory_unreachable: u64,
    /// The adapter gave no key for the memory.
    pub copied_bind_failed: u64,
    /// Nobody received in time.
    pub copied_no_reader: u64,
    /// The receiver asked for a copy.
    pub copied_peer_refused: u64,
    /// The transfer was taken back: a signal, a time-out, the end of the connection.
    pub copied_cancelled: u64,
    /// The receive was too small for it to be worth it.
    pub copied_small_receive: u64,
    /// Copying was measured to be faster.
    pub copied_measured_slower: u64,
    /// Anything else: ends of transfers, peeking, urgent bytes, measuring.
    pub copied_otherwise: u64,
}

/// How many counters there are.
const COUNT: usize = size_of::<SdpStats>() / size_of::<u64>();

impl From<&Stats> for SdpStats {
    fn from(stats: &Stats) -> Self {
        let mut c = Self {
            tx_bytes_bcopy: stats.tx_bytes_bcopy,
            tx_bytes_inline: stats.tx_bytes_inline,
            tx_bytes_zcopy: stats.tx_bytes_zcopy,
            rx_bytes_bcopy: stats.rx_bytes_bcopy,
            rx_bytes_inline: stats.rx_bytes_inline,
            rx_bytes_zcopy: stats.rx_bytes_zcopy,
            rx_bytes_read_ahead: stats.rx_bytes_read_ahead,
            tx_bytes_written: stats.tx_bytes_written,
            rx_bytes_written: stats.rx_bytes_written,
            credit_stalls: stats.credit_stalls,
            memory_scarce: stats.memory_scarce,
            memory_refused: stats.memory_refused,
            probes: stats.probes,
            ..Self::default()
        };
        for (reason, _, bytes) in &stats.copy_reasons {
            *c.copied_for(reason) += bytes;
        }
        c
    }
}

impl SdpStats {
    fn copied_for(&mut self, reason: &str) -> &mut u64 {
        match reason {
            "below_threshold" => &mut self.copied_below_threshold,
            "threshold_off" => &mut self.copied_threshold_off,
            "nonblocking" => &mut self.copied_nonblocking,
            "memory_unreachable" => &mut self.copied_memory_unreachable,
            "bind_failed" => &mut self.copied_bind_failed,
            "no_reader" => &mut self.copied_no_reader,
            "peer_refused" => &mut self.copied_peer_refused,
            "cancelled" => &mut self.copied_cancelled,
            "small_receive" => &mut self.copied_small_receive,
            "measured_slower" => &mut self.copied_measured_slower,
            _ => &mut self.copied_otherwise,
        }
    }

    /// The bytes of the structure.
    pub(crate) fn bytes(&self) -> SmallVec<[u8; 16]> {
        let fields: [u64; COUNT] = [
            self.tx_bytes_bcopy,
            self.tx_bytes_inline,
            self.tx_bytes_zcopy,
            self.rx_bytes_bcopy,
            self.rx_bytes_inline,
            self.rx_bytes_zcopy,
            self.rx_bytes_read_ahead,
            self.tx_bytes_written,
            self.rx_bytes_written,
            self.credit_stalls,
            self.memory_scarce,
            self.memory_refused,
            self.probes,
            self.copied_below_threshold,
            self.copied_threshold_off,
            self.copied_nonblocking,
            self.copied_memory_unreachable,
            self.copied_bind_failed,
            self.copied_no_reader,
            self.copied_peer_refused,
            self.copied_cancelled,
            self.copied_small_receive,
            self.copied_measured_slower,
            self.copied_otherwise,
        ];
        fields
            .iter()
            .flat_map(|field| field.to_ne_bytes())
            .collect()
    }
}

/// What of Linux's `struct tcp_info` is written: up to `tcpi_bytes_received`.
const TCP_INFO_LEN: usize = 136;
const TCP_INFO_MSS: [usize; 2] = [16, 20];
const TCP_INFO_BYTES_ACKED: usize = 120;
const TCP_INFO_BYTES_RECEIVED: usize = 128;

/// The bytes of `struct tcp_info`: the state, the longest segment, the bytes sent and received. TCP's
/// own quantities are 0.
pub(crate) fn tcp_info_bytes(state: u8, max_segment: u32, stats: &Stats) -> SmallVec<[u8; 16]> {
    let mut bytes = SmallVec::from_elem(0, TCP_INFO_LEN);
    bytes[0] = state;
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    for at in TCP_INFO_MSS {
        put(at, &max_segment.to_ne_bytes());
    }
    let sent = stats.tx_bytes_bcopy + stats.tx_bytes_inline + stats.tx_bytes_zcopy;
    let received = stats.rx_bytes_bcopy + stats.rx_bytes_inline + stats.rx_bytes_zcopy;
    put(TCP_INFO_BYTES_ACKED, &sent.to_ne_bytes());
    put(TCP_INFO_BYTES_RECEIVED, &received.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// The counters are written as the structure has them: each one at its place, no two mixed up.
    #[test]
    fn counters_are_the_structure() {
        let stats = SdpStats {
            tx_bytes_bcopy: 1,
            rx_bytes_read_ahead: 7,
            credit_stalls: 10,
            copied_otherwise: 24,
            ..SdpStats::default()
        };
        let bytes = stats.bytes();
        assert_eq!(bytes.len(), size_of::<SdpStats>());
        let at = |offset: usize| u64::from_ne_bytes(bytes[offset..offset + 8].try_into().unwrap());
        assert_eq!(at(offset_of!(SdpStats, tx_bytes_bcopy)), 1);
        assert_eq!(at(offset_of!(SdpStats, rx_bytes_read_ahead)), 7);
        assert_eq!(at(offset_of!(SdpStats, credit_stalls)), 10);
        assert_eq!(at(offset_of!(SdpStats, copied_otherwise)), 24);
        assert_eq!(at(offset_of!(SdpStats, probes)), 0);
    }

    /// Every reason that a connection names is counted once.
    #[test]
    fn every_reason_is_counted_once() {
        let mut stats = Stats::default();
        stats.copy_reasons = vec![("no_reader", 1, 5), ("tail", 1, 7), ("peek", 2, 11)];
        let c = SdpStats::from(&stats);
        assert_eq!((c.copied_no_reader, c.copied_otherwise), (5, 18));
    }

    /// The places are those of Linux's structure.
    #[test]
    fn tcp_info_has_its_places() {
        let mut stats = Stats::default();
        stats.tx_bytes_zcopy = 5;
        stats.rx_bytes_bcopy = 6;
        let bytes = tcp_info_bytes(1, 1000, &stats);
        assert_eq!((bytes.len(), bytes[0]), (136, 1));
        assert_eq!(bytes[16..20], 1000_u32.to_ne_bytes());
        assert_eq!(bytes[120..128], 5_u64.to_ne_bytes());
        assert_eq!(bytes[128..136], 6_u64.to_ne_bytes());
    }
}
