//! Protocol versions.

use core::fmt;

use crate::error::{DecodeError, DecodeErrorKind};

/// The protocol version of a connection: what its Hello and HelloAck say.
///
/// Only the major number decides. A peer of another minor is spoken to in the version here that
/// has its major, and reads ours with the same indulgence; the number it wrote stays visible in
/// the raw view. Beyond the fields of Hello and HelloAck the two versions have one wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 1.1, of the first implementations. No capability bits, no ExtMaxAdverts.
    V1_1,
    /// 2.2, of all later ones.
    V2_2,
}

impl Version {
    /// The byte on the wire: major in the high half, minor in the low one.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::V1_1 => 0x11,
            Self::V2_2 => 0x22,
        }
    }

    /// Whether Hello and HelloAck of this version have capability bits.
    #[must_use]
    pub const fn has_caps(self) -> bool {
        matches!(self, Self::V2_2)
    }

    /// Judges a version byte found at byte 16 of `what`.
    pub(crate) fn from_wire(what: &'static str, byte: u8) -> Result<Self, DecodeError> {
        match byte >> 4 {
            1 => Ok(Self::V1_1),
            2 => Ok(Self::V2_2),
            _ => Err(DecodeError::new(
                what,
                crate::BSDH_LEN,
                DecodeErrorKind::Version(byte),
            )),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V1_1 => "1.1",
            Self::V2_2 => "2.2",
        })
    }
}
