//! What a connection with nothing else to do does for a small call.

use super::Connection;
use crate::action::{Action, PostSend};
use crate::call::FoundAtOnce;
use crate::config::ZcopyThreshold;
use crate::stats::CopyReason;
use crate::time::Instant;

impl Connection {
    /// Sends `len` bytes as one message, without a turn, if there is nothing else to do: the caller posts
    /// it before anything else happens to this connection, with the bytes behind the header. `reason`: why
    /// they are copied, `None` if they might also be advertised. Nothing else follows: no action, event
    /// or time.
    ///
    /// `None`: the send is to take its turn, by [`send_start`](Self::send_start).
    pub fn send_at_once(&mut self, len: usize, reason: Option<CopyReason>) -> Option<PostSend> {
        let reason = match (reason, self.sh.config.zcopy_threshold) {
            (Some(reason), _) => reason,
            (None, ZcopyThreshold::Bytes(threshold)) if len >= threshold => return None,
            (None, ZcopyThreshold::Bytes(_)) => CopyReason::BelowThreshold,
            (None, ZcopyThreshold::Off) => CopyReason::ThresholdOff,
        };
        let life = &self.sh.life;
        let plain = life.is_open() && !life.tx_shut() && self.sh.out.is_empty();
        let goes = plain && self.tx.goes_at_once(&self.sh, len);
        let len = u32::try_from(len).ok().filter(|len| goes && *len > 0)?;
        self.tx.send_at_once(&mut self.sh, len, reason);
        match self.sh.out.poll(&mut self.sh.credits) {
            Some(Action::PostSend(message)) => Some(message),
            other => unreachable!("a message was queued and {other:?} came out"),
        }
    }

    /// Where the bytes are that a receive of up to `len` bytes would return without a turn, if there is
    /// nothing else to do. Once they are copied, [`received_at_once`](Self::received_at_once) is called
    /// before anything else happens to this connection.
    ///
    /// `None`: there are none, or the receive is to take its turn, by
    /// [`recv_start`](Self::recv_start).
    #[must_use]
    pub fn found_at_once(&self, len: usize) -> Option<FoundAtOnce> {
        let life = &self.sh.life;
        if !life.is_open() || life.rx_shut || len == 0 {
            return None;
        }
        self.rx.found_at_once(&self.sh, len)
    }

    /// The bytes that were [`found_at_once`](Self::found_at_once) have been copied.
    pub fn received_at_once(&mut self, now: Instant, found: FoundAtOnce) {
        self.rx.take(&mut self.sh, found.len);
        self.pump(now);
    }
}
