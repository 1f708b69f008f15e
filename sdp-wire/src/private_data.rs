//! What the connection manager offers: private data of fixed sizes, and service IDs.

use core::fmt;

use static_assertions::const_assert;

use crate::{HELLO_ACK_LEN, HELLO_COMPACT_LEN, HELLO_LEN};

/// Private data in an InfiniBand CM REQ, in bytes.
pub const CM_REQ_PRIVATE_LEN: usize = 92;
/// Private data in an InfiniBand CM REP, in bytes.
pub const CM_REP_PRIVATE_LEN: usize = 196;
/// What librdmacm's own header leaves of a CM REQ's private data in its TCP port space, in bytes.
pub const RDMA_CM_REQ_PRIVATE_LEN: usize = 56;

const_assert!(HELLO_LEN <= CM_REQ_PRIVATE_LEN);
const_assert!(HELLO_ACK_LEN <= CM_REP_PRIVATE_LEN);
const_assert!(HELLO_COMPACT_LEN <= RDMA_CM_REQ_PRIVATE_LEN);
const_assert!(HELLO_LEN > RDMA_CM_REQ_PRIVATE_LEN);

/// How much room the carrier of a Hello has, and so which form it must take there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// Room for 92 bytes: only the whole Hello, so that any Annex A4 peer understands us.
    Whole,
    /// Less room, 32 bytes at least (rdma_cm has 56): only the compact Hello. No Annex A4 peer can
    /// exist on such a carrier, and its own header has the addresses.
    Compact,
}

impl Carrier {
    /// The carrier whose requests have room for `private_len` bytes; none below 32.
    #[must_use]
    pub const fn for_private_len(private_len: usize) -> Option<Self> {
        if private_len >= HELLO_LEN {
            Some(Self::Whole)
        } else if private_len >= HELLO_COMPACT_LEN {
            Some(Self::Compact)
        } else {
            None
        }
    }
}

/// A CM service ID: where connections to a port are made. Shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServiceId(u64);

impl ServiceId {
    /// The part that all ports share.
    const PREFIX: u64 = 0x0000_0000_0001_0000;

    /// The service ID of a TCP-style port: 0x0000_0000_0001_pppp.
    #[must_use]
    pub const fn from_port(port: u16) -> Self {
        Self(Self::PREFIX | port as u64)
    }

    /// The service ID of a port at which one certain connection is to be resumed: above the port it
    /// has 47 bits of `secret`, and the bit that marks SDP.
    #[must_use]
    pub const fn resuming_at(port: u16, secret: u64) -> Self {
        Self(secret & !(Self::PREFIX | 0xFFFF) | Self::PREFIX | port as u64)
    }

    /// Any service ID, as SuspComm may carry.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The port, if this is the service ID of one.
    #[must_use]
    pub const fn port(self) -> Option<u16> {
        let [a, b, c, d, e, f, high, low] = self.0.to_be_bytes();
        match [a, b, c, d, e, f] {
            [0, 0, 0, 0, 0, 1] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        }
    }

    /// The port to connect to, whatever stands above it: none has the number 0.
    #[must_use]
    pub const fn resume_port(self) -> Option<u16> {
        let [.., high, low] = self.0.to_be_bytes();
        match u16::from_be_bytes([high, low]) {
            0 => None,
            port => Some(port),
        }
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
