//! Why bytes were refused.

use crate::mid::Mid;

/// Why some bytes are no message: which field, where, and the rule it broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{what} at byte {offset}: {kind}")]
pub struct DecodeError {
    /// The header, or header and field, that broke the rule, named as the annex names it.
    pub what: &'static str,
    /// Where that field starts, in bytes from the start of the message. For
    /// [`DecodeErrorKind::Truncated`]: how many bytes there were.
    pub offset: usize,
    /// The rule.
    pub kind: DecodeErrorKind,
}

impl DecodeError {
    pub(crate) const fn new(what: &'static str, offset: usize, kind: DecodeErrorKind) -> Self {
        Self { what, offset, kind }
    }

    pub(crate) const fn truncated(what: &'static str, have: usize) -> Self {
        Self::new(what, have, DecodeErrorKind::Truncated)
    }
}

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end inside a header.
    #[error("the bytes end inside this header")]
    Truncated,
    /// BSDH.Len differs from the byte count the transport reports.
    #[error("Len says {stated} bytes, the transport delivered {actual}")]
    LengthMismatch {
        /// BSDH.Len.
        stated: u32,
        /// Bytes delivered.
        actual: usize,
    },
    /// A Hello or HelloAck whose Len is not the one its carrier demands.
    #[error("Len says {stated} bytes, this message has {expected} on this carrier")]
    WrongForm {
        /// BSDH.Len.
        stated: u32,
        /// The only Len allowed here.
        expected: u32,
    },
    /// An identifier of the experimental range, which we do not speak.
    #[error("experimental message identifier {0:#04x} is not spoken here")]
    UnknownMid(u8),
    /// An identifier of a reserved range.
    #[error("message identifier {0:#04x} is reserved")]
    ReservedMid(u8),
    /// A known message in a place where it must not appear.
    #[error("{0} must not appear here")]
    WrongMid(Mid),
    /// Bytes after the head of a message that takes no payload.
    #[error("{len} bytes of payload on a message that takes none")]
    ForbiddenPayload {
        /// Bytes after the head.
        len: u32,
    },
    /// OOB_PRES on something else than Data.
    #[error("OOB_PRES is for Data only, not for {0}")]
    OobNotData(Mid),
    /// OOB_PRES on a Data message that has no byte to be urgent.
    #[error("OOB_PRES on a Data message without payload")]
    OobWithoutPayload,
    /// An advert of nothing or of more than 2^31 bytes.
    #[error("advert of {0} bytes; allowed are 1 to 2^31")]
    AdvertLen(u32),
    /// An advert that runs past the end of the address space.
    #[error("advert of {len} bytes at {addr:#x} runs past the end of the address space")]
    AdvertWraps {
        /// Bytes advertised.
        len: u32,
        /// Where they start.
        addr: u64,
    },
    /// A SrcAvail that carries more bytes than it advertises, though the one includes the other.
    #[error("{payload_len} bytes inline of an advert of {len}")]
    InlineExceedsAdvert {
        /// Bytes carried inline.
        payload_len: u32,
        /// Bytes advertised, the inline ones included.
        len: u32,
    },
    /// The first byte of a ModeChange header is none of the four legal ones.
    #[error("mode byte {0:#04x}; legal are 0x00, 0x10, 0x20 and 0x90")]
    ModeByte(u8),
    /// A major version other than 1 and 2.
    #[error("version byte {0:#04x}; spoken here are major versions 1 and 2")]
    Version(u8),
    /// An IP version other than 4 and 6.
    #[error("IP version {0}; known are 4 and 6")]
    IpVersion(u8),
    /// A peer that can take no advert at all, which is illegal even if none is ever sent.
    #[error("the number of adverts taken must not be 0")]
    ZeroAdverts,
    /// The bit that announces ExtMaxAdverts, in a compact Hello, which has no such field.
    #[error("EXTENDED_MAXADVERTS in a compact Hello, which has no room for ExtMaxAdverts")]
    ExtendedAdverts,
    /// Fewer receive buffers than a connection needs to make progress.
    #[error("{0} receive buffers; at least 3 must be posted")]
    TooFewBufs(u16),
    /// Receive buffers that cannot hold the longest head and one byte.
    #[error("receive buffers of {0} bytes; at least 37 are needed")]
    RecvSizeTooSmall(u32),
}
