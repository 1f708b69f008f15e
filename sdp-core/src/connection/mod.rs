//! One connection.

use core::net::IpAddr;
use core::time::Duration;

use sdp_wire::{RemoteAddr, Rkey, Version};

use crate::action::{Action, PrivateData};
use crate::call::{CopyTarget, EndCall, RecvRequest, RecvStep, SendRequest, SendStep};
use crate::config::{Config, ZcopyThreshold};
use crate::error::{CallError, ConnectionError};
use crate::event::{CmInput, Completion, Event, Received};
use crate::ids::{BufferId, JobId, KeyId, RecvId, SendId, WorkId};
use crate::stats::{CopyReason, Stats};
use crate::time::Instant;

/// Where a connection stands, for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// The handshake is under way.
    Handshake,
    /// Both halves may carry data.
    Open,
    /// This side has begun to close, or the peer has.
    Closing,
    /// Nothing more will be posted.
    Closed,
}

/// What the peer said about itself in its Hello or HelloAck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerParams {
    /// Protocol version of the connection.
    pub version: Version,
    /// Length of its receive buffers, header included.
    pub recv_buffer_len: u32,
    /// Adverts it takes at once.
    pub adverts_max: u16,
    /// It lets us invalidate its keys by SEND with invalidate.
    pub invalidate_cap: bool,
}

/// Why a connection request cannot be accepted, and what to answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub error: ConnectionError,
    /// Private data for the reject.
    pub private_data: PrivateData,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    stats: Stats,
}

impl Connection {
    /// Connects.
    #[must_use]
    pub fn connect(
        _now: Instant,
        config: Config,
        _local_port: u16,
        _src: Option<IpAddr>,
        _dst: Option<IpAddr>,
    ) -> Self {
        Self {
            config,
            stats: Stats::default(),
        }
    }

    /// Accepts.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn accept(_now: Instant, config: Config, _hello: &[u8]) -> Result<Self, Refusal> {
        Ok(Self {
            config,
            stats: Stats::default(),
        })
    }

    /// Input.
    pub fn handle_cm(&mut self, _now: Instant, _input: CmInput<'_>) {}
    /// Input.
    pub fn handle_recv(&mut self, _now: Instant, _buf: BufferId, _msg: Received<'_>) {}
    /// Input.
    pub fn handle_recv_flushed(&mut self, _now: Instant, _buf: BufferId) {}
    /// Input.
    pub fn handle_completion(&mut self, _now: Instant, _work: WorkId, _result: Completion) {}
    /// Input.
    pub fn handle_bound(
        &mut self,
        _now: Instant,
        _key: KeyId,
        _result: Result<(Rkey, RemoteAddr), CopyReason>,
    ) {
    }
    /// Input.
    pub fn handle_copied(&mut self, _now: Instant, _job: JobId, _ok: bool) {}
    /// Input.
    pub fn buffer_unavailable(&mut self, _now: Instant, _buf: BufferId) {}
    /// Input.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Application.
    pub fn send_start(&mut self, _now: Instant, _req: SendRequest) -> SendId {
        SendId(0)
    }
    /// Application.
    pub fn send_poll(&mut self, _now: Instant, _id: SendId) -> SendStep {
        SendStep::Done(Err(CallError::NotConnected))
    }
    /// Application.
    pub fn send_copied(&mut self, _now: Instant, _id: SendId, _len: usize, _to: CopyTarget) {}
    /// Application.
    pub fn send_copy_failed(&mut self, _now: Instant, _id: SendId, _to: CopyTarget) {}
    /// Application.
    pub fn send_end(&mut self, _now: Instant, _id: SendId, _why: EndCall) {}
    /// Application.
    pub fn recv_start(&mut self, _now: Instant, _req: RecvRequest) -> RecvId {
        RecvId(0)
    }
    /// Application.
    pub fn recv_poll(&mut self, _now: Instant, _id: RecvId) -> RecvStep {
        RecvStep::Done(Err(CallError::NotConnected))
    }
    /// Application.
    pub fn recv_copied(&mut self, _now: Instant, _id: RecvId, _len: usize) {}
    /// Application.
    pub fn recv_end(&mut self, _now: Instant, _id: RecvId, _why: EndCall) {}
    /// Application.
    pub fn shutdown_send(&mut self, _now: Instant) {}
    /// Application.
    pub fn shutdown_recv(&mut self, _now: Instant) {}
    /// Application.
    pub fn close(&mut self, _now: Instant, _linger: Option<Duration>) {}
    /// Application.
    pub fn abort(&mut self, _now: Instant) {}
    /// TCP_NODELAY.
    pub fn set_nodelay(&mut self, nodelay: bool) {
        self.config.nodelay = nodelay;
    }
    /// Threshold of later sends.
    pub fn set_threshold(&mut self, threshold: ZcopyThreshold) {
        self.config.zcopy_threshold = threshold;
    }
    /// SO_SNDBUF.
    pub fn set_send_buffer_len(&mut self, len: usize) {
        self.config.send_buffer_len = len;
    }
    /// SO_RCVBUF.
    pub fn set_recv_buffer_total(&mut self, len: usize) {
        self.config.recv_buffer_total = len;
    }

    /// Output.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }
    /// Output.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }
    /// Output.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The handshake is complete and the connection has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        false
    }
    /// Ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        false
    }
    /// Bytes that a recv would get without waiting.
    #[must_use]
    pub fn readable_len(&self) -> usize {
        0
    }
    /// Bytes that a send can put into private send memory without waiting.
    #[must_use]
    pub fn send_space(&self) -> usize {
        0
    }
    /// Accepted bytes not yet given to the peer.
    #[must_use]
    pub fn unsent_len(&self) -> usize {
        0
    }
    /// The error the connection ended with, once.
    pub fn take_error(&mut self) -> Option<ConnectionError> {
        None
    }
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::Handshake
    }
    /// What the peer said about itself, once known.
    #[must_use]
    pub fn peer(&self) -> Option<&PeerParams> {
        None
    }
}
