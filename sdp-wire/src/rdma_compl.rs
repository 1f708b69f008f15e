//! Reports of finished RDMA transfers.

use static_assertions::const_assert_eq;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// RWCH and RRCH, raw: the 4 bytes after the BSDH of RdmaWrCompl and RdmaRdCompl.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RdmaComplHeader {
    /// RdmaWrCompl: bytes written. RdmaRdCompl: bytes read since the last one for this SrcAvail,
    /// never counting the inline ones.
    pub len: U32,
}

const_assert_eq!(size_of::<RdmaComplHeader>(), 4);
const_assert_eq!(core::mem::offset_of!(RdmaComplHeader, len), 0);
