//! Every message outside the connection manager, parsed.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, transmute};

use crate::adverts::{SinkAvail, SinkAvailHeader, SrcAvail, SrcAvailHeader};
use crate::bsdh::{Bsdh, check_flags};
use crate::control::{
    ModeChange, ModeChangeHeader, RecvSizeHeader, SuspCommHeader, check_recv_size,
};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::flags::Flags;
use crate::mid::Mid;
use crate::private_data::ServiceId;
use crate::rdma_compl::RdmaComplHeader;
use crate::{BSDH_LEN, HEAD_LEN_MAX};

/// One message outside the connection manager, without its payload bytes.
///
/// Out of [`Head::decode`] it keeps every rule a message can break by itself; see [`Head::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// Flags. REQ_PIPE is only here where it has a meaning.
    pub flags: Flags,
    /// Receive buffers the sender of this has posted and not yet seen used.
    pub bufs: u16,
    /// Sequence number of this message; wraps.
    pub mseq: u32,
    /// Sequence number of the last message its sender had received; wraps.
    pub mseq_ack: u32,
    /// Which message, with the fields of its extended header.
    pub body: Body,
    /// Bytes of stream payload behind the head.
    pub payload_len: u32,
}

/// Which message, with the fields of its extended header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// See [`Mid::DisConn`].
    DisConn,
    /// See [`Mid::AbortConn`].
    AbortConn,
    /// See [`Mid::SendSm`].
    SendSm,
    /// See [`Mid::RdmaWrCompl`].
    RdmaWrCompl {
        /// Bytes written into the oldest sink advert.
        len: u32,
    },
    /// See [`Mid::RdmaRdCompl`].
    RdmaRdCompl {
        /// Bytes read from the oldest source advert since the last such report; inline ones never
        /// count.
        len: u32,
    },
    /// See [`Mid::ModeChange`].
    ModeChange(ModeChange),
    /// See [`Mid::SrcAvailCancel`].
    SrcAvailCancel,
    /// See [`Mid::SinkAvailCancel`].
    SinkAvailCancel,
    /// See [`Mid::SinkCancelAck`].
    SinkCancelAck,
    /// See [`Mid::ChRcvBuf`].
    ChRcvBuf {
        /// Size wanted of the peer's receive buffers, in bytes; at least 37.
        size: u32,
    },
    /// See [`Mid::ChRcvBufAck`].
    ChRcvBufAck {
        /// Size now in force, in bytes; at least 37.
        size: u32,
    },
    /// See [`Mid::SuspComm`].
    SuspComm {
        /// Where to reconnect.
        service_id: ServiceId,
    },
    /// See [`Mid::SuspCommAck`].
    SuspCommAck,
    /// See [`Mid::SrcAvail`].
    SrcAvail(SrcAvail),
    /// See [`Mid::SinkAvail`].
    SinkAvail(SinkAvail),
    /// See [`Mid::Data`].
    Data,
}

/// Bytes in the longest extended header.
const EXT_LEN_MAX: usize = HEAD_LEN_MAX - BSDH_LEN;

/// The longest head as one block of bytes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RawHead {
    bsdh: Bsdh,
    ext: [u8; EXT_LEN_MAX],
}

impl Body {
    /// The identifier this body goes with.
    #[must_use]
    pub const fn mid(&self) -> Mid {
        match self {
            Self::DisConn => Mid::DisConn,
            Self::AbortConn => Mid::AbortConn,
            Self::SendSm => Mid::SendSm,
            Self::RdmaWrCompl { .. } => Mid::RdmaWrCompl,
            Self::RdmaRdCompl { .. } => Mid::RdmaRdCompl,
            Self::ModeChange(_) => Mid::ModeChange,
            Self::SrcAvailCancel => Mid::SrcAvailCancel,
            Self::SinkAvailCancel => Mid::SinkAvailCancel,
            Self::SinkCancelAck => Mid::SinkCancelAck,
            Self::ChRcvBuf { .. } => Mid::ChRcvBuf,
            Self::ChRcvBufAck { .. } => Mid::ChRcvBufAck,
            Self::SuspComm { .. } => Mid::SuspComm,
            Self::SuspCommAck => Mid::SuspCommAck,
            Self::SrcAvail(_) => Mid::SrcAvail,
            Self::SinkAvail(_) => Mid::SinkAvail,
            Self::Data => Mid::Data,
        }
    }

    /// Bytes before the payload: the BSDH and the extended header.
    #[must_use]
    pub const fn head_len(&self) -> usize {
        self.mid().head_len()
    }

    /// Whether payload may follow the head.
    #[must_use]
    pub const fn takes_payload(&self) -> bool {
        self.mid().takes_payload()
    }

    /// Whether the message is to be sent with a solicited event: it wakes a peer that sleeps until
    /// something it waits for has happened, or urgent data is on its way.
    #[must_use]
    pub fn is_solicited(&self, flags: Flags) -> bool {
        match self {
            Self::AbortConn
            | Self::SuspComm { .. }
            | Self::SuspCommAck
            | Self::SendSm
            | Self::SrcAvailCancel
            | Self::SinkAvailCancel
            | Self::SinkCancelAck
            | Self::RdmaWrCompl { .. }
            | Self::RdmaRdCompl { .. } => true,
            Self::Data => flags.intersects(Flags::OOB_PRES | Flags::OOB_PEND),
            Self::DisConn
            | Self::SrcAvail(_)
            | Self::SinkAvail(_)
            | Self::ModeChange(_)
            | Self::ChRcvBuf { .. }
            | Self::ChRcvBufAck { .. } => false,
        }
    }

    /// Reads the extended header of a message `mid` from `ext`, the bytes behind the BSDH.
    fn from_raw(mid: Mid, ext: &[u8]) -> Result<Self, DecodeError> {
        Ok(match mid {
            Mid::Hello | Mid::HelloAck => {
                let kind = DecodeErrorKind::WrongMid(mid);
                return Err(DecodeError::new("BSDH.MID", offset_of!(Bsdh, mid), kind));
            }
            Mid::DisConn => Self::DisConn,
            Mid::AbortConn => Self::AbortConn,
            Mid::SendSm => Self::SendSm,
            Mid::RdmaWrCompl => Self::RdmaWrCompl {
                len: read::<RdmaComplHeader>(mid, ext)?.len.get(),
            },
            Mid::RdmaRdCompl => Self::RdmaRdCompl {
                len: read::<RdmaComplHeader>(mid, ext)?.len.get(),
            },
            Mid::ModeChange => Self::ModeChange(ModeChange::from_raw(read(mid, ext)?)?),
            Mid::SrcAvailCancel => Self::SrcAvailCancel,
            Mid::SinkAvailCancel => Self::SinkAvailCancel,
            Mid::SinkCancelAck => Self::SinkCancelAck,
            Mid::ChRcvBuf => Self::ChRcvBuf {
                size: read::<RecvSizeHeader>(mid, ext)?.size.get(),
            },
            Mid::ChRcvBufAck => Self::ChRcvBufAck {
                size: read::<RecvSizeHeader>(mid, ext)?.size.get(),
            },
            Mid::SuspComm => {
                let raw = read::<SuspCommHeader>(mid, ext)?.service_id.get();
                Self::SuspComm {
                    service_id: ServiceId::from_raw(raw),
                }
            }
            Mid::SuspCommAck => Self::SuspCommAck,
            Mid::SrcAvail => Self::SrcAvail(read::<SrcAvailHeader>(mid, ext)?.into()),
            Mid::SinkAvail => Self::SinkAvail(read::<SinkAvailHeader>(mid, ext)?.into()),
            Mid::Data => Self::Data,
        })
    }

    /// The extended header, and zeros after it.
    fn to_raw(self) -> [u8; EXT_LEN_MAX] {
        match self {
            Self::RdmaWrCompl { len } | Self::RdmaRdCompl { len } => {
                pad::<4>(transmute!(RdmaComplHeader { len: len.into() }))
            }
            Self::ModeChange(change) => pad::<4>(transmute!(ModeChangeHeader::from(change))),
            Self::ChRcvBuf { size } | Self::ChRcvBufAck { size } => {
                pad::<4>(transmute!(RecvSizeHeader { size: size.into() }))
            }
            Self::SuspComm { service_id } => pad::<8>(transmute!(SuspCommHeader {
                service_id: service_id.raw().into()
            })),
            Self::SrcAvail(advert) => pad::<16>(transmute!(SrcAvailHeader::from(advert))),
            Self::SinkAvail(advert) => transmute!(SinkAvailHeader::from(advert)),
            Self::DisConn
            | Self::AbortConn
            | Self::SendSm
            | Self::SrcAvailCancel
            | Self::SinkAvailCancel
            | Self::SinkCancelAck
            | Self::SuspCommAck
            | Self::Data => [0; EXT_LEN_MAX],
        }
    }
}

/// Reads one raw header from the front of `ext`.
fn read<T: FromBytes>(mid: Mid, ext: &[u8]) -> Result<T, DecodeError> {
    T::read_from_prefix(ext)
        .map(|(header, _rest)| header)
        .map_err(|_| DecodeError::truncated(mid.name(), BSDH_LEN + ext.len()))
}

/// A shorter extended header, filled up with zeros.
fn pad<const N: usize>(ext: [u8; N]) -> [u8; EXT_LEN_MAX] {
    const { assert!(N <= EXT_LEN_MAX) };
    let mut out = [0; EXT_LEN_MAX];
    for (to, from) in out.iter_mut().zip(ext) {
        *to = from;
    }
    out
}

impl Head {
    /// Reads the head of a message that arrived as one Send.
    ///
    /// `head` holds at least the first min(`total_len`, [`HEAD_LEN_MAX`]) bytes of it; the payload
    /// need not be there. `total_len` is the byte count the transport reports for the message;
    /// `Len` must equal it.
    ///
    /// # Errors
    /// The first broken rule, in this order: truncated BSDH, identifier, `Len`, truncated extended
    /// header, then those of [`Head::check`]. Whether a SrcAvail must or must not carry payload
    /// depends on the mode of the half and is not judged here.
    pub fn decode(head: &[u8], total_len: usize) -> Result<Self, DecodeError> {
        // Bytes of a receive buffer behind the message are not its own.
        let head = head.get(..total_len).unwrap_or(head);
        let (bsdh, ext) = Bsdh::split(head)?;
        let mid = bsdh.mid()?;
        let stated = bsdh.len.get();
        if usize::try_from(stated) != Ok(total_len) {
            let kind = DecodeErrorKind::LengthMismatch {
                stated,
                actual: total_len,
            };
            return Err(DecodeError::new("BSDH.Len", offset_of!(Bsdh, len), kind));
        }
        let body = Body::from_raw(mid, ext)?;
        // No underflow: the extended header was there, so `total_len` and with it `stated` hold it.
        let payload_len = stated.saturating_sub(u32::from(mid.head_len_u8()));
        let head = Self {
            flags: bsdh.flags(mid),
            bufs: bsdh.bufs.get(),
            mseq: bsdh.mseq.get(),
            mseq_ack: bsdh.mseq_ack.get(),
            body,
            payload_len,
        };
        head.check()?;
        Ok(head)
    }

    /// Whether [`Head::decode`] will take what this encodes to: payload only where allowed,
    /// OOB_PRES only on Data with payload, adverts of 1 to 2^31 bytes that lie within the address
    /// space and hold their own inline bytes, receive sizes of at least 37.
    ///
    /// # Errors
    /// The first broken rule, in that order.
    pub fn check(&self) -> Result<(), DecodeError> {
        let mid = self.mid();
        if self.payload_len > 0 && !mid.takes_payload() {
            let kind = DecodeErrorKind::ForbiddenPayload {
                len: self.payload_len,
            };
            return Err(DecodeError::new(mid.name(), mid.head_len(), kind));
        }
        check_flags(self.flags, mid, self.payload_len)?;
        match self.body {
            Body::SrcAvail(advert) => advert.check(self.payload_len),
            Body::SinkAvail(advert) => advert.check(),
            Body::ChRcvBuf { size } => check_recv_size("ChRcvBuf.DesSz", BSDH_LEN, size),
            Body::ChRcvBufAck { size } => check_recv_size("ChRcvBufAck.ActSz", BSDH_LEN, size),
            _ => Ok(()),
        }
    }

    /// Writes the head and says how many bytes it has; what follows them in `out` is zero. `Len`
    /// counts the payload too, which the caller appends.
    ///
    /// REQ_PIPE is left out where it has no meaning. Nothing else is judged; see [`Head::check`].
    pub fn encode(&self, out: &mut [u8; HEAD_LEN_MAX]) -> usize {
        let bsdh = Bsdh {
            mid: self.mid().byte(),
            flags: self.flags.meaningful_on(self.mid()).bits(),
            bufs: self.bufs.into(),
            len: self.len().into(),
            mseq: self.mseq.into(),
            mseq_ack: self.mseq_ack.into(),
        };
        *out = transmute!(RawHead {
            bsdh,
            ext: self.body.to_raw()
        });
        self.head_len()
    }

    /// Bytes before the payload: the BSDH and the extended header.
    #[must_use]
    pub const fn head_len(&self) -> usize {
        self.body.head_len()
    }

    /// Bytes in the whole message, payload included: what `Len` says.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a message is never empty")]
    pub fn len(&self) -> u32 {
        self.payload_len
            .saturating_add(u32::from(self.mid().head_len_u8()))
    }

    /// The identifier.
    #[must_use]
    pub const fn mid(&self) -> Mid {
        self.body.mid()
    }

    /// Whether to send it with a solicited event; see [`Body::is_solicited`].
    #[must_use]
    pub fn is_solicited(&self) -> bool {
        self.body.is_solicited(self.flags)
    }
}

/// One message outside the connection manager with its payload, borrowed from a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Everything but the payload.
    pub head: Head,
    /// The payload; as long as `head.payload_len` says.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message; `bytes` is all of it and nothing else.
    ///
    /// # Errors
    /// As [`Head::decode`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let head = Head::decode(bytes, bytes.len())?;
        let payload = bytes
            .get(head.head_len()..)
            .ok_or_else(|| DecodeError::truncated(head.mid().name(), bytes.len()))?;
        Ok(Self { head, payload })
    }
}
