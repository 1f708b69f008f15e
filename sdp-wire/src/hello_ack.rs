//! HelloAck: the message that accepts a connection.

use core::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use crate::bsdh::Bsdh;
use crate::control::check_recv_size;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::hello::{INVALIDATE_CAP, check_bufs};
use crate::mid::Mid;
use crate::version::Version;
use crate::{BSDH_LEN, HELLO_ACK_LEN};

/// HAH, raw: the 180 bytes after the BSDH of a HelloAck.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct HelloAckHeader {
    /// Major version in bits 7 to 4, minor in bits 3 to 0.
    pub version: u8,
    /// Version 2.2: capabilities in bits 3 to 0, as in a Hello; bits 7 to 4 are zero on send and
    /// ignored on receive. Version 1.1: reserved.
    pub ipv_cap: u8,
    /// Zero on send, ignored on receive.
    pub reserved_18: u8,
    /// Adverts the sender of this can take at once.
    pub max_adverts: u8,
    /// The size of its receive buffers, with the BSDH.
    pub act_rcv_sz: U32,
    /// Zero on send, ignored on receive.
    pub reserved_24: [u8; 172],
}

const_assert_eq!(size_of::<HelloAckHeader>(), HELLO_ACK_LEN - BSDH_LEN);
const_assert_eq!(offset_of!(HelloAckHeader, version), 0);
const_assert_eq!(offset_of!(HelloAckHeader, ipv_cap), 1);
const_assert_eq!(offset_of!(HelloAckHeader, reserved_18), 2);
const_assert_eq!(offset_of!(HelloAckHeader, max_adverts), 3);
const_assert_eq!(offset_of!(HelloAckHeader, act_rcv_sz), 4);
const_assert_eq!(offset_of!(HelloAckHeader, reserved_24), 8);

/// The whole message as one block of bytes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RawHelloAck {
    bsdh: Bsdh,
    header: HelloAckHeader,
}

/// What the accepting side says about itself.
///
/// Out of a decoder: at least 3 buffers, at least 1 advert, receive buffers of at least 37 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HelloAck {
    /// Receive buffers posted: the first credits.
    pub bufs: u16,
    /// Protocol version: the one the Hello came in.
    pub version: Version,
    /// Adverts this side can take at once, both kinds together.
    pub adverts_max: u8,
    /// The size of this side's receive buffers, in bytes with the BSDH.
    pub actual_recv_size: u32,
    /// Whether the other side may use Send with Invalidate. Version 1.1 cannot say so.
    pub invalidate_cap: bool,
}

impl HelloAck {
    /// Reads a HelloAck out of the private data of a connection reply.
    ///
    /// Carriers pad private data, so what follows the 196 bytes of the message is ignored, as are
    /// MSeq and MSeqAck and all reserved fields.
    ///
    /// # Errors
    /// The first broken rule, in this order: identifier, `Len` (196), flags, truncation, version,
    /// then those of [`HelloAck::check`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (bsdh, rest) = Bsdh::split(bytes)?;
        bsdh.expect_cm(Mid::HelloAck, Mid::HelloAck.head_len_u8())?;
        let (raw, _padding) = HelloAckHeader::ref_from_prefix(rest)
            .map_err(|_| DecodeError::truncated("HelloAck", bytes.len()))?;
        let version = Version::from_wire("HelloAck.Version", raw.version)?;
        let ack = Self {
            bufs: bsdh.bufs.get(),
            version,
            adverts_max: raw.max_adverts,
            actual_recv_size: raw.act_rcv_sz.get(),
            invalidate_cap: version.has_caps() && raw.ipv_cap & INVALIDATE_CAP != 0,
        };
        ack.check()?;
        Ok(ack)
    }

    /// Whether [`HelloAck::decode`] will take what this encodes to.
    ///
    /// # Errors
    /// [`DecodeErrorKind::TooFewBufs`], [`DecodeErrorKind::ZeroAdverts`],
    /// [`DecodeErrorKind::RecvSizeTooSmall`].
    pub fn check(&self) -> Result<(), DecodeError> {
        check_bufs(self.bufs)?;
        if self.adverts_max == 0 {
            let offset = BSDH_LEN + offset_of!(HelloAckHeader, max_adverts);
            let kind = DecodeErrorKind::ZeroAdverts;
            return Err(DecodeError::new("HelloAck.MaxAdverts", offset, kind));
        }
        let offset = BSDH_LEN + offset_of!(HelloAckHeader, act_rcv_sz);
        check_recv_size("HelloAck.ActRcvSz", offset, self.actual_recv_size)
    }

    /// Writes the message and says how many bytes it has: all 196. `invalidate_cap` is left out in
    /// version 1.1, which has no bit for it.
    pub fn encode(&self, out: &mut [u8; HELLO_ACK_LEN]) -> usize {
        let invalidate = self.version.has_caps() && self.invalidate_cap;
        let header = HelloAckHeader {
            version: self.version.byte(),
            ipv_cap: if invalidate { INVALIDATE_CAP } else { 0 },
            reserved_18: 0,
            max_adverts: self.adverts_max,
            act_rcv_sz: self.actual_recv_size.into(),
            reserved_24: [0; 172],
        };
        let bsdh = Bsdh::for_cm(Mid::HelloAck, self.bufs, Mid::HelloAck.head_len_u8());
        *out = transmute!(RawHelloAck { bsdh, header });
        HELLO_ACK_LEN
    }
}
