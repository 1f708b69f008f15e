//! Settings of one connection, with the project's defaults.

use core::time::Duration;

use sdp_wire::{HelloForm, Version};

use crate::adaptive::Adaptive;
use crate::keepalive::Keepalive;

/// From which length on a send is advertised instead of copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZcopyThreshold {
    /// Never: always copy.
    Off,
    /// From this many bytes on.
    Bytes(usize),
}

/// Settings. The ranges are checked by the socket layer.
#[derive(Clone, Debug)]
pub struct Config {
    /// SO_SNDBUF: private send memory, bytes.
    pub send_buffer_len: usize,
    /// SO_RCVBUF: private receive memory, bytes.
    pub recv_buffer_total: usize,
    /// SO_RCVLOWAT: bytes without which a blocking receive goes on waiting, and before which the
    /// connection is not readable; at least 1.
    pub recv_low_water: usize,
    /// Length of one posted receive buffer at first, header included: SDP's LocalRcvSz. The peer
    /// may ask for more in its Hello.
    pub recv_buffer_len_initial: u32,
    /// Length of one posted receive buffer at most, which the peer may ask for, and which the peer
    /// is asked for when there is much to send.
    pub recv_buffer_len: u32,
    /// Receive buffers posted at first, at least 4 (fewer are raised to 4).
    pub recv_buffers_initial: u16,
    /// Receive buffers posted at most, at least 4. Buffer ids are below this.
    pub recv_buffers_max: u16,
    /// SrcAvail + SinkAvail the peer may have open towards us (MaxAdverts).
    pub adverts_max: u16,
    /// Bytes of one SrcAvail at most.
    pub advert_len_max: u32,
    /// Threshold of sends.
    pub zcopy_threshold: ZcopyThreshold,
    /// Sends above the threshold go the way that was measured to be faster, beginning with this.
    /// `None`: none of them is copied.
    pub adaptive: Option<Adaptive>,
    /// A receive of at least this many bytes reads an advert straight into the caller's memory.
    pub read_direct_min: usize,
    /// Bytes of one read-ahead at most.
    pub read_ahead_len: usize,
    /// Payload bytes that travel inside a SrcAvail in Combined mode, at least 1.
    pub inline_len: u32,
    /// Time without progress after which both ends buffer (architecture, policy 3).
    pub rendezvous_wait: Duration,
    /// What it may fall to while nobody receives; the same as `rendezvous_wait`: it is fixed.
    pub rendezvous_wait_min: Duration,
    /// How long a call that must end waits for the peer's answer to its cancel.
    pub cancel_wait: Duration,
    /// Close without progress is given up after this time.
    pub close_wait: Duration,
    /// How long a move to another queue pair may take.
    pub move_wait: Duration,
    /// After this time without payload the peer is asked to go back to the receive buffers it
    /// began with.
    pub idle_wait: Duration,
    /// SO_KEEPALIVE.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT: accepted bytes that the peer does not take end the connection.
    pub user_timeout: Option<Duration>,
    /// TCP_NODELAY: do not coalesce small sends while credits are scarce.
    pub nodelay: bool,
    /// The program waits for room by polling: a non-blocking send may be cut short although there is
    /// private memory, while the peer's program reads.
    pub polled: bool,
    /// SO_OOBINLINE: an urgent byte is received with the others.
    pub oob_inline: bool,
    /// Send work requests the queue pair takes, at least 16.
    pub send_slots: u32,
    /// RDMA READs outstanding at most (initiator depth).
    pub read_depth: u32,
    /// Reading an advert is no wait (the provider's reads are this CPU's own work), so that
    /// non-blocking receives may do it.
    pub read_nonblocking: bool,
    /// Both adapters invalidate keys by SEND with invalidate: announce INVALIDATE_CAP.
    pub invalidate_cap: bool,
    /// Of a new connection, only the side that connected may send, until it was heard (iWARP).
    pub caller_first: bool,
    /// Version to call with.
    pub version: Version,
    /// Form of Hello the carrier takes.
    pub hello_form: HelloForm,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            send_buffer_len: 4 << 20,
            recv_buffer_total: 4 << 20,
            recv_low_water: 1,
            recv_buffer_len_initial: (4 << 10) + 64,
            recv_buffer_len: (32 << 10) + 64,
            recv_buffers_initial: 4,
            recv_buffers_max: 32,
            adverts_max: 16,
            advert_len_max: 1 << 20,
            zcopy_threshold: ZcopyThreshold::Bytes(64 << 10),
            adaptive: None,
            read_direct_min: 16 << 10,
            read_ahead_len: 256 << 10,
            inline_len: 64,
            rendezvous_wait: Duration::from_millis(2),
            rendezvous_wait_min: Duration::from_micros(50),
            cancel_wait: Duration::from_secs(1),
            close_wait: Duration::from_secs(60),
            move_wait: Duration::from_secs(5),
            idle_wait: Duration::from_secs(10),
            keepalive: None,
            user_timeout: None,
            nodelay: false,
            polled: false,
            oob_inline: false,
            send_slots: 128,
            read_depth: 4,
            read_nonblocking: false,
            invalidate_cap: true,
            caller_first: false,
            version: Version::V2_2,
            hello_form: HelloForm::Whole,
        }
    }
}

/// Receives posted at least: with fewer than four, one message each way can leave both sides
/// without the three credits that payload needs.
const RECV_BUFFERS_MIN: u16 = 4;
/// Send work requests at least: a data message, a read, an advert with its key, and control
/// messages beside them.
const SEND_SLOTS_MIN: u32 = 16;

impl Config {
    /// The nearest settings that the protocol can work with.
    pub(crate) fn within_bounds(mut self) -> Self {
        self.recv_low_water = self.recv_low_water.max(1);
        self.recv_buffers_max = self.recv_buffers_max.max(RECV_BUFFERS_MIN);
        self.recv_buffers_initial = self
            .recv_buffers_initial
            .clamp(RECV_BUFFERS_MIN, self.recv_buffers_max);
        let recv_len_min = u32::try_from(sdp_wire::RECV_LEN_MIN).unwrap_or(u32::MAX);
        // Four messages fit SO_RCVBUF: two promised, while as many are unread.
        let share = self.recv_buffer_total / 4 + sdp_wire::BSDH_LEN;
        let share = u32::try_from(share).unwrap_or(u32::MAX).max(recv_len_min);
        self.recv_buffer_len = self.recv_buffer_len.clamp(recv_len_min, share);
        self.recv_buffer_len_initial = self
            .recv_buffer_len_initial
            .clamp(recv_len_min, self.recv_buffer_len);
        self.adverts_max = self.adverts_max.max(1);
        self.send_slots = self.send_slots.max(SEND_SLOTS_MIN);
        self
    }
}
