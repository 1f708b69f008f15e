//! Message identifiers and what each one implies for the shape of its message.

use core::fmt;

use crate::error::DecodeErrorKind;

/// Which of the 18 messages this is: byte 0 of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mid {
    /// Opens a connection; travels in the CM request.
    Hello = 0x00,
    /// Accepts a connection; travels in the CM reply.
    HelloAck = 0x01,
    /// Ends the sender's half of the stream, as TCP's FIN does.
    DisConn = 0x02,
    /// Turns a close already begun into an abortive one.
    AbortConn = 0x03,
    /// Asks the source to send the oldest source advert's bytes as Data.
    SendSm = 0x04,
    /// Tells the sink that RDMA Writes into its oldest sink advert are done.
    RdmaWrCompl = 0x05,
    /// Tells the source that bytes of its oldest source advert have been read.
    RdmaRdCompl = 0x06,
    /// Moves one half of the connection to another flow mode.
    ModeChange = 0x07,
    /// Withdraws all open source adverts.
    SrcAvailCancel = 0x08,
    /// Withdraws all open sink adverts.
    SinkAvailCancel = 0x09,
    /// Confirms a SinkAvailCancel.
    SinkCancelAck = 0x0A,
    /// Asks the peer to change the size of its receive buffers.
    ChRcvBuf = 0x0B,
    /// Answers ChRcvBuf with the size now in force.
    ChRcvBufAck = 0x0C,
    /// Asks the peer to pause and reconnect at another service ID.
    SuspComm = 0x0D,
    /// Answers SuspComm.
    SuspCommAck = 0x0E,
    /// Advertises memory to write into; may carry payload of the other half.
    SinkAvail = 0xFD,
    /// Advertises memory to read from; may carry the first bytes of it.
    SrcAvail = 0xFE,
    /// Carries payload, or nothing but credits.
    Data = 0xFF,
}

impl Mid {
    /// All identifiers, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Hello,
        Self::HelloAck,
        Self::DisConn,
        Self::AbortConn,
        Self::SendSm,
        Self::RdmaWrCompl,
        Self::RdmaRdCompl,
        Self::ModeChange,
        Self::SrcAvailCancel,
        Self::SinkAvailCancel,
        Self::SinkCancelAck,
        Self::ChRcvBuf,
        Self::ChRcvBufAck,
        Self::SuspComm,
        Self::SuspCommAck,
        Self::SinkAvail,
        Self::SrcAvail,
        Self::Data,
    ];

    /// The name, spelled as the annex spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hello => "Hello",
            Self::HelloAck => "HelloAck",
            Self::DisConn => "DisConn",
            Self::AbortConn => "AbortConn",
            Self::SendSm => "SendSm",
            Self::RdmaWrCompl => "RdmaWrCompl",
            Self::RdmaRdCompl => "RdmaRdCompl",
            Self::ModeChange => "ModeChange",
            Self::SrcAvailCancel => "SrcAvailCancel",
            Self::SinkAvailCancel => "SinkAvailCancel",
            Self::SinkCancelAck => "SinkCancelAck",
            Self::ChRcvBuf => "ChRcvBuf",
            Self::ChRcvBufAck => "ChRcvBufAck",
            Self::SuspComm => "SuspComm",
            Self::SuspCommAck => "SuspCommAck",
            Self::SinkAvail => "SinkAvail",
            Self::SrcAvail => "SrcAvail",
            Self::Data => "Data",
        }
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Bytes before the payload: the BSDH and this message's extended header (of a Hello, its
    /// whole form).
    #[must_use]
    pub const fn head_len(self) -> usize {
        self.head_len_u8() as usize
    }

    /// [`Mid::head_len`] in a width that converts to all others without loss.
    pub(crate) const fn head_len_u8(self) -> u8 {
        match self {
            Self::Hello => 92,
            Self::HelloAck => 196,
            Self::DisConn
            | Self::AbortConn
            | Self::SendSm
            | Self::SrcAvailCancel
            | Self::SinkAvailCancel
            | Self::SinkCancelAck
            | Self::SuspCommAck
            | Self::Data => 16,
            Self::RdmaWrCompl
            | Self::RdmaRdCompl
            | Self::ModeChange
            | Self::ChRcvBuf
            | Self::ChRcvBufAck => 20,
            Self::SuspComm => 24,
            Self::SrcAvail => 32,
            Self::SinkAvail => 36,
        }
    }

    /// Whether the message may carry payload of the stream.
    #[must_use]
    pub const fn takes_payload(self) -> bool {
        matches!(self, Self::Data | Self::SrcAvail | Self::SinkAvail)
    }

    /// Whether the message travels in the connection manager's private data instead of a Send.
    #[must_use]
    pub const fn is_cm(self) -> bool {
        matches!(self, Self::Hello | Self::HelloAck)
    }
}

impl TryFrom<u8> for Mid {
    type Error = DecodeErrorKind;

    /// # Errors
    /// [`DecodeErrorKind::UnknownMid`] for the experimental range 0x40 to 0x7F,
    /// [`DecodeErrorKind::ReservedMid`] for the reserved ranges.
    fn try_from(byte: u8) -> Result<Self, DecodeErrorKind> {
        match Self::ALL.into_iter().find(|mid| mid.byte() == byte) {
            Some(mid) => Ok(mid),
            None if matches!(byte, 0x40..=0x7F) => Err(DecodeErrorKind::UnknownMid(byte)),
            None => Err(DecodeErrorKind::ReservedMid(byte)),
        }
    }
}

impl fmt::Display for Mid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
