//! Adverts: memory offered to the peer, to read from (SrcAvail) or to write into (SinkAvail).

use core::fmt;
use core::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::BSDH_LEN;
use crate::error::{DecodeError, DecodeErrorKind};

/// The most bytes one advert may describe: 2^31.
pub const ADVERT_LEN_MAX: u32 = 1 << 31;

/// A key that lets the peer reach advertised memory. Shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rkey(pub u32);

impl fmt::Debug for Rkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// An address in the memory of whoever advertised it; any alignment. Shown in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemoteAddr(pub u64);

impl fmt::Debug for RemoteAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// SrcAH, raw: the 16 bytes after the BSDH of a SrcAvail.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SrcAvailHeader {
    /// Bytes advertised, those also sent inline included.
    pub len: U32,
    /// Remote key.
    pub rkey: U32,
    /// Virtual address of the first byte.
    pub va: U64,
}

const_assert_eq!(size_of::<SrcAvailHeader>(), 16);
const_assert_eq!(offset_of!(SrcAvailHeader, len), 0);
const_assert_eq!(offset_of!(SrcAvailHeader, rkey), 4);
const_assert_eq!(offset_of!(SrcAvailHeader, va), 8);

/// SinkAH, raw: the 20 bytes after the BSDH of a SinkAvail.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SinkAvailHeader {
    /// Bytes advertised.
    pub len: U32,
    /// Remote key.
    pub rkey: U32,
    /// Virtual address of the first byte.
    pub va: U64,
    /// The sink's count of payload messages that used up no advert.
    pub non_discards: U32,
}

const_assert_eq!(size_of::<SinkAvailHeader>(), 20);
const_assert_eq!(offset_of!(SinkAvailHeader, len), 0);
const_assert_eq!(offset_of!(SinkAvailHeader, rkey), 4);
const_assert_eq!(offset_of!(SinkAvailHeader, va), 8);
const_assert_eq!(offset_of!(SinkAvailHeader, non_discards), 16);

/// Memory the peer may read: the bytes a sender has for us.
///
/// Out of a decoder, `len` is 1 to 2^31 and `addr + len` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SrcAvail {
    /// Bytes advertised, those also sent inline included.
    pub len: u32,
    /// Key to read with.
    pub rkey: Rkey,
    /// Where the bytes start, inline ones included.
    pub addr: RemoteAddr,
}

/// Memory the peer may write: room a receiver has for our bytes.
///
/// Out of a decoder, `len` is 1 to 2^31 and `addr + len` does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SinkAvail {
    /// Bytes advertised.
    pub len: u32,
    /// Key to write with.
    pub rkey: Rkey,
    /// Where the room starts.
    pub addr: RemoteAddr,
    /// The sink's count of payload messages that used up no advert; wraps. The source compares it
    /// with its own count to tell a stale advert from a usable one.
    pub non_discards: u32,
}

/// The rules every advert obeys by itself, whichever kind it is.
fn check(what: [&'static str; 2], len: u32, addr: RemoteAddr) -> Result<(), DecodeError> {
    let [what_len, what_va] = what;
    if len == 0 || len > ADVERT_LEN_MAX {
        return Err(DecodeError::new(
            what_len,
            BSDH_LEN,
            DecodeErrorKind::AdvertLen(len),
        ));
    }
    // No memory ends past 2^64; ruled out here, nobody's address arithmetic can overflow later.
    if addr.0.checked_add(u64::from(len)).is_none() {
        let kind = DecodeErrorKind::AdvertWraps { len, addr: addr.0 };
        return Err(DecodeError::new(
            what_va,
            BSDH_LEN + offset_of!(SrcAvailHeader, va),
            kind,
        ));
    }
    Ok(())
}

impl SrcAvail {
    /// Whether this advert, sent with `payload_len` bytes inline, keeps the rules.
    pub(crate) fn check(&self, payload_len: u32) -> Result<(), DecodeError> {
        check(["SrcAvail.Len", "SrcAvail.VA"], self.len, self.addr)?;
        if payload_len > self.len {
            let kind = DecodeErrorKind::InlineExceedsAdvert {
                payload_len,
                len: self.len,
            };
            return Err(DecodeError::new("SrcAvail.Len", BSDH_LEN, kind));
        }
        Ok(())
    }
}

impl SinkAvail {
    /// Whether this advert keeps the rules. Its payload is of the other half: no relation.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        check(["SinkAvail.Len", "SinkAvail.VA"], self.len, self.addr)
    }
}

impl From<SrcAvailHeader> for SrcAvail {
    fn from(raw: SrcAvailHeader) -> Self {
        Self {
            len: raw.len.get(),
            rkey: Rkey(raw.rkey.get()),
            addr: RemoteAddr(raw.va.get()),
        }
    }
}

impl From<SrcAvail> for SrcAvailHeader {
    fn from(advert: SrcAvail) -> Self {
        Self {
            len: advert.len.into(),
            rkey: advert.rkey.0.into(),
            va: advert.addr.0.into(),
        }
    }
}

impl From<SinkAvailHeader> for SinkAvail {
    fn from(raw: SinkAvailHeader) -> Self {
        Self {
            len: raw.len.get(),
            rkey: Rkey(raw.rkey.get()),
            addr: RemoteAddr(raw.va.get()),
            non_discards: raw.non_discards.get(),
        }
    }
}

impl From<SinkAvail> for SinkAvailHeader {
    fn from(advert: SinkAvail) -> Self {
        Self {
            len: advert.len.into(),
            rkey: advert.rkey.0.into(),
            va: advert.addr.0.into(),
            non_discards: advert.non_discards.into(),
        }
    }
}
