//! Where a socket is in its life, and how its connect ended.

use std::sync::Arc;

use sdp_socket::{SdpBound, SdpConnecting};

use super::Socket;
use crate::errno::Failure;

/// Where a socket is in its life.
#[derive(Debug)]
pub(super) enum Phase {
    Fresh,
    Bound(SdpBound),
    Listening,
    /// It has listened, and was shut down: nothing more comes of it.
    Unlistening,
    Connecting(Arc<SdpConnecting>),
    /// The connect failed and nobody has been told.
    Failed(Failure),
    /// It failed, and this was told: as fresh, but that nothing more will come.
    Spent,
    /// `told`: a connect has returned 0.
    Connected {
        told: bool,
    },
}

impl Phase {
    /// The state that TCP_INFO tells, by Linux's numbers.
    pub(super) const fn tcp_state(&self) -> u8 {
        match self {
            Self::Connected { .. } => 1,
            Self::Connecting(_) => 2,
            Self::Fresh | Self::Bound(_) | Self::Failed(_) | Self::Spent | Self::Unlistening => 7,
            Self::Listening => 10,
        }
    }
}

impl Socket {
    /// Why the connect failed, once; the socket may then connect again. The descriptor to wait on shows no
    /// error any more.
    pub(super) fn take_connect_failure(&self, phase: &mut Phase) -> Option<Failure> {
        if !matches!(phase, Phase::Failed(_)) {
            return None;
        }
        let Phase::Failed(failure) = std::mem::replace(phase, Phase::Spent) else {
            return None;
        };
        self.told(&failure);
        Some(failure)
    }

    /// What a connect returns now that connecting is over.
    pub(super) fn connected(&self, phase: &mut Phase) -> Result<(), Failure> {
        if let Some(failure) = self.take_connect_failure(phase) {
            return Err(failure);
        }
        match phase {
            Phase::Connected { told: true } => Err(Failure::new(libc::EISCONN, "it is connected")),
            Phase::Connected { told } => {
                *told = true;
                Ok(())
            }
            _ => Err(Failure::new(libc::ECONNABORTED, "connecting was given up")),
        }
    }
}
