//! The messages of the *Sockets* Direct Protocol (SDP, InfiniBand Architecture Specification
//! Volume 1, Annex A4), byte for byte. Not Session Description, not Software-Defined Perimeter.
//!
//! Two views of every message:
//!
//! * The **raw view** ([`raw`]) gives each header's fields at their offsets and judges nothing.
//! * The **parsed form** ([`Message`], [`Head`], [`Hello`], [`HelloAck`]) comes out of a decoder
//!   only if every rule that one message can break by itself is kept. Rules that need the state
//!   of a connection (modes, credits, open adverts) belong to the engine, not here.
//!
//! ```text
//!   peer's bytes ──► raw::Bsdh + extended header ──► Head / Hello / HelloAck     decode
//!   Head / Hello / HelloAck ──► fixed-size array of bytes                        encode
//! ```
//!
//! What a decoder accepts it has checked; any bytes at all give a value or a [`DecodeError`] that
//! names the field, its offset and the broken rule, never a panic. Encoders cannot fail and do not
//! judge: [`Head::check`], [`Hello::check`] and [`HelloAck::check`] tell whether a decoder will
//! take what was built by hand.
//!
//! No allocation, no `std`, no `unsafe`. Nothing here holds resources, blocks or logs; every type
//! is plain data and may go to any thread.
//!
//! ```
//! use sdp_wire::{Body, Flags, HEAD_LEN_MAX, Head, Message};
//!
//! let head = Head {
//!     flags: Flags::empty(),
//!     bufs: 8,
//!     mseq: 1,
//!     mseq_ack: 0,
//!     body: Body::Data,
//!     payload_len: 5,
//! };
//! let mut bytes = [0; HEAD_LEN_MAX];
//! let head_len = head.encode(&mut bytes);
//! let mut message = bytes[..head_len].to_vec();
//! message.extend_from_slice(b"hello");
//!
//! let back = Message::decode(&message)?;
//! assert_eq!(back.head, head);
//! assert_eq!(back.payload, b"hello");
//! # Ok::<(), sdp_wire::DecodeError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod adverts;
mod bsdh;
mod control;
mod error;
mod flags;
mod hello;
mod hello_ack;
mod message;
mod mid;
mod pretty;
mod private_data;
mod rdma_compl;
mod resume;
mod version;

pub use adverts::{ADVERT_LEN_MAX, RemoteAddr, Rkey, SinkAvail, SrcAvail};
pub use control::ModeChange;
pub use error::{DecodeError, DecodeErrorKind};
pub use flags::Flags;
pub use hello::{Hello, HelloForm};
pub use hello_ack::HelloAck;
pub use message::{Body, Head, Message};
pub use mid::Mid;
pub use private_data::{
    CM_REP_PRIVATE_LEN, CM_REQ_PRIVATE_LEN, Carrier, RDMA_CM_REQ_PRIVATE_LEN, ServiceId,
};
pub use resume::{mark_resuming, resuming};
pub use version::Version;

/// The headers as they lie in memory: big-endian fields, no alignment, no judgement.
///
/// Every struct derives zerocopy's `FromBytes`, `IntoBytes` and `Unaligned`, so
/// `Bsdh::ref_from_prefix(bytes)` and its kin work on any byte slice. Reserved fields are shown,
/// so that a tracing tool can say what a peer put there.
pub mod raw {
    pub use crate::adverts::{SinkAvailHeader, SrcAvailHeader};
    pub use crate::bsdh::Bsdh;
    pub use crate::control::{ModeChangeHeader, RecvSizeHeader, SuspCommHeader};
    pub use crate::hello::{HelloHeader, HelloStart};
    pub use crate::hello_ack::HelloAckHeader;
    pub use crate::rdma_compl::RdmaComplHeader;
}

/// Bytes in the base header that starts every message.
pub const BSDH_LEN: usize = 16;
/// Bytes in the longest head outside the connection manager: the BSDH and a SinkAvail header.
pub const HEAD_LEN_MAX: usize = 36;
/// Bytes in a whole Hello, which fill the private data of an InfiniBand CM REQ.
pub const HELLO_LEN: usize = 92;
/// Bytes in a compact Hello, for carriers whose private data cannot hold the whole one.
pub const HELLO_COMPACT_LEN: usize = 32;
/// Bytes in a HelloAck, which fill the private data of an InfiniBand CM REP.
pub const HELLO_ACK_LEN: usize = 196;
/// The smallest receive buffer a connection may have, in bytes with the BSDH: it must hold the
/// longest head and one byte of payload.
pub const RECV_LEN_MIN: usize = 37;
/// [`RECV_LEN_MIN`] in the width of the fields that carry receive sizes.
pub(crate) const RECV_LEN_MIN_WIRE: u32 = 37;
/// The fewest posted receive buffers a peer may announce in Hello and HelloAck.
pub const BUFS_MIN: u16 = 3;

static_assertions::const_assert_eq!(RECV_LEN_MIN, HEAD_LEN_MAX + 1);
static_assertions::const_assert_eq!(RECV_LEN_MIN_WIRE as usize, RECV_LEN_MIN);
