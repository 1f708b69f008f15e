//! The control messages that have an extended header: ModeChange, ChRcvBuf and its answer,
//! SuspComm.

use core::mem::offset_of;

use static_assertions::const_assert_eq;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{DecodeError, DecodeErrorKind};
use crate::{BSDH_LEN, RECV_LEN_MIN_WIRE};

/// MCH, raw: the 4 bytes after the BSDH of a ModeChange.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ModeChangeHeader {
    /// Bit 7: set, the receiver of this message changes its sending half, else its receiving
    /// half. Bits 6 to 4: the mode. Bits 3 to 0: zero.
    pub mode: u8,
    /// Zero on send, ignored on receive.
    pub reserved: [u8; 3],
}

const_assert_eq!(size_of::<ModeChangeHeader>(), 4);
const_assert_eq!(offset_of!(ModeChangeHeader, mode), 0);
const_assert_eq!(offset_of!(ModeChangeHeader, reserved), 1);

/// CRBH and CRBAH, raw: the 4 bytes after the BSDH of ChRcvBuf and ChRcvBufAck.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RecvSizeHeader {
    /// ChRcvBuf: the size wanted of the peer's receive buffers. ChRcvBufAck: the size in force.
    pub size: U32,
}

const_assert_eq!(size_of::<RecvSizeHeader>(), 4);
const_assert_eq!(offset_of!(RecvSizeHeader, size), 0);

/// SuspCH, raw: the 8 bytes after the BSDH of a SuspComm.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SuspCommHeader {
    /// Where to reconnect.
    pub service_id: U64,
}

const_assert_eq!(size_of::<SuspCommHeader>(), 8);
const_assert_eq!(offset_of!(SuspCommHeader, service_id), 0);

/// The four mode changes that exist, each named by what its *receiver* does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModeChange {
    /// Your receiving half becomes Buffered.
    RecvBuffered,
    /// Your receiving half becomes Combined.
    RecvCombined,
    /// Your receiving half becomes Pipelined.
    RecvPipelined,
    /// Your sending half becomes Combined.
    SendCombined,
}

impl ModeChange {
    /// All of them, in the order of their bytes.
    pub const ALL: [Self; 4] = [
        Self::RecvBuffered,
        Self::RecvCombined,
        Self::RecvPipelined,
        Self::SendCombined,
    ];

    /// The first byte of the header.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::RecvBuffered => 0x00,
            Self::RecvCombined => 0x10,
            Self::RecvPipelined => 0x20,
            Self::SendCombined => 0x90,
        }
    }

    /// Judges the raw header. The three reserved bytes are ignored, the first one is not: its low
    /// bits must be zero.
    pub(crate) fn from_raw(raw: ModeChangeHeader) -> Result<Self, DecodeError> {
        match Self::ALL
            .into_iter()
            .find(|change| change.byte() == raw.mode)
        {
            Some(change) => Ok(change),
            None => {
                let kind = DecodeErrorKind::ModeByte(raw.mode);
                Err(DecodeError::new("ModeChange.Mode", BSDH_LEN, kind))
            }
        }
    }
}

impl From<ModeChange> for ModeChangeHeader {
    fn from(change: ModeChange) -> Self {
        Self {
            mode: change.byte(),
            reserved: [0; 3],
        }
    }
}

/// A receive size below [`crate::RECV_LEN_MIN`] cannot carry the protocol, whoever names it.
pub(crate) fn check_recv_size(
    what: &'static str,
    offset: usize,
    size: u32,
) -> Result<(), DecodeError> {
    if size < RECV_LEN_MIN_WIRE {
        return Err(DecodeError::new(
            what,
            offset,
            DecodeErrorKind::RecvSizeTooSmall(size),
        ));
    }
    Ok(())
}
