//! Counters of one connection.

use sdp_wire::Mid;

/// Why bytes were copied instead of being read from the sender's own memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CopyReason {
    /// Shorter than the threshold.
    BelowThreshold,
    /// The threshold is off.
    ThresholdOff,
    /// The call must not wait.
    NonBlocking,
    /// The provider cannot show this memory to the peer.
    MemoryUnreachable,
    /// Registering or binding failed.
    BindFailed,
    /// The remainder of a larger send, shorter than the threshold.
    Tail,
    /// No reader for `rendezvous_wait`.
    NoReader,
    /// The peer answered SendSm.
    PeerRefused,
    /// The call ended early: time-out, signal, shutdown.
    Cancelled,
    /// The peer takes no adverts (Buffered mode, or another of ours was open).
    NoAdvertAllowed,
    /// Receiver: the receive was too small for a direct read.
    SmallReceive,
    /// Receiver: read ahead, since nobody was receiving.
    ReadAhead,
    /// Receiver: MSG_PEEK.
    Peek,
    /// MSG_OOB: an urgent byte never travels by RDMA.
    Urgent,
    /// Copying is where the choice begins, and nothing was measured yet.
    NotMeasured,
    /// Copying was measured to be faster.
    MeasuredSlower,
    /// Copying is tried to see whether it is faster.
    Exploring,
}

impl CopyReason {
    /// All of them, in the order of [`Stats::copies`].
    pub const ALL: [Self; 17] = [
        Self::BelowThreshold,
        Self::ThresholdOff,
        Self::NonBlocking,
        Self::MemoryUnreachable,
        Self::BindFailed,
        Self::Tail,
        Self::NoReader,
        Self::PeerRefused,
        Self::Cancelled,
        Self::NoAdvertAllowed,
        Self::SmallReceive,
        Self::ReadAhead,
        Self::Peek,
        Self::Urgent,
        Self::NotMeasured,
        Self::MeasuredSlower,
        Self::Exploring,
    ];
}

/// Counters; they only grow.
#[derive(PartialEq, Eq, Clone, Debug, Default)]
pub struct Stats {
    /// Payload bytes sent in Data.
    pub tx_bytes_bcopy: u64,
    /// Payload bytes sent inside SrcAvail.
    pub tx_bytes_inline: u64,
    /// Payload bytes that left the caller's memory by RDMA: read by the peer, or written to it.
    pub tx_bytes_zcopy: u64,
    /// Of these, bytes written into the memory of the peer's receive.
    pub tx_bytes_written: u64,
    /// Payload bytes received in Data.
    pub rx_bytes_bcopy: u64,
    /// Payload bytes taken from inside SrcAvail.
    pub rx_bytes_inline: u64,
    /// Payload bytes that came straight into the caller's memory: read, or written by the peer.
    pub rx_bytes_zcopy: u64,
    /// Of these, bytes the peer wrote.
    pub rx_bytes_written: u64,
    /// Payload bytes read into private memory.
    pub rx_bytes_read_ahead: u64,
    /// Source adverts that were open at once, at most.
    pub tx_adverts_open_max: u64,
    /// Signs of life asked for (keepalive).
    pub probes: u64,
    /// Times a send had to wait for credits.
    pub credit_stalls: u64,
    /// Times the buffers shrank to their floor because memory of the process was scarce.
    pub memory_scarce: u64,
    /// Per [`CopyReason`], in the order of `ALL`: transfers and bytes.
    pub copies: [(u64, u64); CopyReason::ALL.len()],
    /// Messages sent, in the order of `Mid::ALL`.
    pub sent: [u64; Mid::ALL.len()],
    /// Messages received.
    pub received: [u64; Mid::ALL.len()],
}

/// The place of `mid` in `Mid::ALL`: its number, the gap before SinkAvail left out.
pub(crate) const fn mid_index(mid: Mid) -> usize {
    let byte = mid.byte() as usize;
    if byte < 0xFD { byte } else { byte - 0xFD + 15 }
}

impl Stats {
    /// Adds what another connection has counted; of what is a maximum the greater one stays.
    pub fn add(&mut self, other: &Self) {
        let Self {
            tx_bytes_bcopy,
            tx_bytes_inline,
            tx_bytes_zcopy,
            tx_bytes_written,
            rx_bytes_bcopy,
            rx_bytes_inline,
            rx_bytes_zcopy,
            rx_bytes_written,
            rx_bytes_read_ahead,
            tx_adverts_open_max,
            probes,
            credit_stalls,
            memory_scarce,
            copies,
            sent,
            received,
        } = other;
        self.tx_bytes_bcopy += tx_bytes_bcopy;
        self.tx_bytes_inline += tx_bytes_inline;
        self.tx_bytes_zcopy += tx_bytes_zcopy;
        self.tx_bytes_written += tx_bytes_written;
        self.rx_bytes_bcopy += rx_bytes_bcopy;
        self.rx_bytes_inline += rx_bytes_inline;
        self.rx_bytes_zcopy += rx_bytes_zcopy;
        self.rx_bytes_written += rx_bytes_written;
        self.rx_bytes_read_ahead += rx_bytes_read_ahead;
        self.tx_adverts_open_max = self.tx_adverts_open_max.max(*tx_adverts_open_max);
        self.probes += probes;
        self.credit_stalls += credit_stalls;
        self.memory_scarce += memory_scarce;
        for (sum, (count, bytes)) in self.copies.iter_mut().zip(copies) {
            sum.0 += count;
            sum.1 += bytes;
        }
        for (sum, count) in self.sent.iter_mut().zip(sent) {
            *sum += count;
        }
        for (sum, count) in self.received.iter_mut().zip(received) {
            *sum += count;
        }
    }

    /// A transfer, or part of one, of `len` bytes was copied because of `reason`.
    pub(crate) fn count_copy(&mut self, reason: CopyReason, transfers: u64, len: usize) {
        if let Some((count, bytes)) = self.copies.get_mut(reason as usize) {
            *count += transfers;
            *bytes += len as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every counter is added at its own place; of the maximum the greater one stays.
    #[test]
    fn sums() {
        let mut one = Stats {
            tx_bytes_bcopy: 1,
            tx_adverts_open_max: 5,
            memory_scarce: 7,
            ..Stats::default()
        };
        one.count_copy(CopyReason::Tail, 1, 10);
        one.sent[3] = 2;
        one.received[4] = 3;
        let mut sum = one.clone();
        sum.tx_adverts_open_max = 2;
        sum.add(&one);
        assert_eq!((sum.tx_bytes_bcopy, sum.tx_adverts_open_max), (2, 5));
        assert_eq!(sum.memory_scarce, 14);
        assert_eq!(sum.copies[CopyReason::Tail as usize], (2, 20));
        assert_eq!((sum.sent[3], sum.received[4]), (4, 6));
    }

    #[test]
    fn indices_follow_the_lists() {
        for (index, mid) in Mid::ALL.into_iter().enumerate() {
            assert_eq!(mid_index(mid), index);
        }
        for (index, reason) in CopyReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
