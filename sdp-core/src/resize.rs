//! ChRcvBuf: the size of receive buffers (clause §3.4). This side never asks, and answers the
//! peer with the size in force, which the rules allow for every request.

use crate::error::ConnectionError;

/// Answers to resize requests.
#[derive(Debug, Default)]
pub(crate) struct Resize {
    /// An answer is owed.
    ack_due: bool,
}

impl Resize {
    /// The peer asks.
    ///
    /// # Errors
    /// The rule it breaks.
    pub(crate) fn on_request(&mut self) -> Result<(), ConnectionError> {
        if self.ack_due {
            return Err(ConnectionError::PeerMisbehaved(
                "§3.4: a second ChRcvBuf before the first was answered",
            ));
        }
        self.ack_due = true;
        Ok(())
    }

    /// The peer answers what was not asked.
    pub(crate) const fn on_ack() -> ConnectionError {
        ConnectionError::PeerMisbehaved("§3.4: ChRcvBufAck without ChRcvBuf")
    }

    pub(crate) const fn ack_due(&self) -> bool {
        self.ack_due
    }

    pub(crate) fn on_ack_sent(&mut self) {
        self.ack_due = false;
    }
}
