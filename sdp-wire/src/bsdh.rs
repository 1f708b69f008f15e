//! The base header that starts every message.

use core::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{DecodeError, DecodeErrorKind};
use crate::mid::Mid;
use crate::{BSDH_LEN, Flags};

/// The Base Sockets Direct Header as it lies on the wire: 16 bytes, raw, unjudged.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Bsdh {
    /// Message identifier; see [`Mid`] for the known ones.
    pub mid: u8,
    /// Flag bits; see [`Flags`]. Bits 3 to 7 are zero on send and ignored on receive.
    pub flags: u8,
    /// Receive buffers the sender of this message has posted and not yet seen used.
    pub bufs: U16,
    /// Bytes in the whole message: this header, the extended header and the payload.
    pub len: U32,
    /// Sequence number of this message.
    pub mseq: U32,
    /// Sequence number of the last message its sender had received.
    pub mseq_ack: U32,
}

const_assert_eq!(size_of::<Bsdh>(), BSDH_LEN);
const_assert_eq!(offset_of!(Bsdh, mid), 0);
const_assert_eq!(offset_of!(Bsdh, flags), 1);
const_assert_eq!(offset_of!(Bsdh, bufs), 2);
const_assert_eq!(offset_of!(Bsdh, len), 4);
const_assert_eq!(offset_of!(Bsdh, mseq), 8);
const_assert_eq!(offset_of!(Bsdh, mseq_ack), 12);

impl Bsdh {
    /// Splits the header off the front of a message.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] when fewer than 16 bytes are there.
    pub(crate) fn split(bytes: &[u8]) -> Result<(&Self, &[u8]), DecodeError> {
        Self::ref_from_prefix(bytes).map_err(|_| DecodeError::truncated("BSDH", bytes.len()))
    }

    /// The identifier, if it is one that has a meaning.
    ///
    /// # Errors
    /// [`DecodeErrorKind::ReservedMid`] or [`DecodeErrorKind::UnknownMid`].
    pub(crate) fn mid(&self) -> Result<Mid, DecodeError> {
        Mid::try_from(self.mid).map_err(|kind| DecodeError::new("BSDH.MID", 0, kind))
    }

    /// The flags that mean something on a message `mid`: bits 3 to 7 are dropped, and REQ_PIPE
    /// wherever it has no meaning.
    pub(crate) fn flags(&self, mid: Mid) -> Flags {
        Flags::from_bits_truncate(self.flags).meaningful_on(mid)
    }
}

/// The rules on OOB_PRES: it marks the last payload byte of a Data message as urgent.
pub(crate) fn check_flags(flags: Flags, mid: Mid, payload_len: u32) -> Result<(), DecodeError> {
    if !flags.contains(Flags::OOB_PRES) {
        return Ok(());
    }
    let kind = match mid {
        Mid::Data if payload_len > 0 => return Ok(()),
        Mid::Data => DecodeErrorKind::OobWithoutPayload,
        _ => DecodeErrorKind::OobNotData(mid),
    };
    Err(DecodeError::new(
        "BSDH.Flags",
        offset_of!(Bsdh, flags),
        kind,
    ))
}

/// Handshake messages: they travel in CM private data, which has its own rules for Len.
impl Bsdh {
    /// Whether this starts the handshake message `mid`, of `form_len` bytes, without payload.
    ///
    /// # Errors
    /// The wrong identifier, a `Len` other than `form_len`, or OOB_PRES.
    pub(crate) fn expect_cm(&self, mid: Mid, form_len: u8) -> Result<(), DecodeError> {
        let found = self.mid()?;
        if found != mid {
            let kind = DecodeErrorKind::WrongMid(found);
            return Err(DecodeError::new("BSDH.MID", offset_of!(Self, mid), kind));
        }
        let (stated, expected) = (self.len.get(), u32::from(form_len));
        if stated != expected {
            let kind = DecodeErrorKind::WrongForm { stated, expected };
            return Err(DecodeError::new("BSDH.Len", offset_of!(Self, len), kind));
        }
        check_flags(self.flags(mid), mid, 0)
    }

    /// The header of a handshake message: no flags, and numbering has not begun.
    pub(crate) fn for_cm(mid: Mid, bufs: u16, form_len: u8) -> Self {
        Self {
            mid: mid.byte(),
            flags: 0,
            bufs: bufs.into(),
            len: u32::from(form_len).into(),
            mseq: U32::ZERO,
            mseq_ack: U32::ZERO,
        }
    }
}
