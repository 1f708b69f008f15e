//! Hello: the message that opens a connection, in two forms.

use core::mem::offset_of;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use static_assertions::const_assert_eq;
use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use crate::bsdh::Bsdh;
use crate::control::check_recv_size;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::mid::Mid;
use crate::private_data::Carrier;
use crate::version::Version;
use crate::{BSDH_LEN, BUFS_MIN, HELLO_COMPACT_LEN, HELLO_LEN};

/// The first 16 bytes of HH, raw: all of it that the compact form has.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct HelloStart {
    /// Major version in bits 7 to 4, minor in bits 3 to 0.
    pub version: u8,
    /// IP version in bits 7 to 4; capabilities in bits 3 to 0: bit 0 INVALIDATE_CAP, bit 1
    /// EXTENDED_MAXADVERTS. Version 1.1 has no capabilities.
    pub ipv_cap: u8,
    /// Zero on send, ignored on receive.
    pub reserved_18: u8,
    /// Adverts the sender of this can take at once.
    pub max_adverts: u8,
    /// The size it would like the other's receive buffers to have.
    pub des_rem_rcv_sz: U32,
    /// The size of its own receive buffers, with the BSDH.
    pub local_rcv_sz: U32,
    /// The connecting side's port.
    pub local_port: U16,
    /// Zero on send, ignored on receive.
    pub reserved_30: U16,
}

/// HH, raw: the 76 bytes after the BSDH of a whole Hello.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct HelloHeader {
    /// What both forms have.
    pub start: HelloStart,
    /// Connecting address: IPv6, or 12 zero bytes and IPv4.
    pub src_ip: [u8; 16],
    /// Address connected to, in the same encoding.
    pub dst_ip: [u8; 16],
    /// Zero on send, ignored on receive.
    pub reserved_64: U16,
    /// Adverts the sender can take at once, if EXTENDED_MAXADVERTS is set.
    pub ext_max_adverts: U16,
    /// Zero on send, ignored on receive.
    pub reserved_68: [u8; 24],
}

const_assert_eq!(size_of::<HelloStart>(), HELLO_COMPACT_LEN - BSDH_LEN);
const_assert_eq!(size_of::<HelloHeader>(), HELLO_LEN - BSDH_LEN);
const_assert_eq!(offset_of!(HelloHeader, start.version), 0);
const_assert_eq!(offset_of!(HelloHeader, start.ipv_cap), 1);
const_assert_eq!(offset_of!(HelloHeader, start.reserved_18), 2);
const_assert_eq!(offset_of!(HelloHeader, start.max_adverts), 3);
const_assert_eq!(offset_of!(HelloHeader, start.des_rem_rcv_sz), 4);
const_assert_eq!(offset_of!(HelloHeader, start.local_rcv_sz), 8);
const_assert_eq!(offset_of!(HelloHeader, start.local_port), 12);
const_assert_eq!(offset_of!(HelloHeader, start.reserved_30), 14);
const_assert_eq!(offset_of!(HelloHeader, src_ip), 16);
const_assert_eq!(offset_of!(HelloHeader, dst_ip), 32);
const_assert_eq!(offset_of!(HelloHeader, reserved_64), 48);
const_assert_eq!(offset_of!(HelloHeader, ext_max_adverts), 50);
const_assert_eq!(offset_of!(HelloHeader, reserved_68), 52);

/// Cap bit 0: the peer may use Send with Invalidate towards the sender of this.
pub(crate) const INVALIDATE_CAP: u8 = 0x1;
/// Cap bit 1: ExtMaxAdverts holds the number of adverts.
const EXTENDED_MAXADVERTS: u8 = 0x2;

/// The whole message as one block of bytes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RawHello {
    bsdh: Bsdh,
    header: HelloHeader,
}

/// Which form a Hello has. `Len` says it on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HelloForm {
    /// All of Annex A4: 92 bytes.
    Whole,
    /// The BSDH and the first 16 bytes of HH: 32 bytes, without addresses.
    Compact,
}

impl HelloForm {
    /// Bytes in a Hello of this form.
    #[must_use]
    pub const fn hello_len(self) -> usize {
        self.len_u8() as usize
    }

    const fn len_u8(self) -> u8 {
        match self {
            Self::Whole => 92,
            Self::Compact => 32,
        }
    }
}

impl From<Carrier> for HelloForm {
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Whole => Self::Whole,
            Carrier::Compact => Self::Compact,
        }
    }
}

/// What the connecting side says about itself.
///
/// Out of a decoder: at least 3 buffers, at least 1 advert, receive buffers of at least 37 bytes,
/// and addresses only in the whole form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// Receive buffers posted: the first credits.
    pub bufs: u16,
    /// Protocol version.
    pub version: Version,
    /// Which form the bytes have.
    pub form: HelloForm,
    /// Whether the other side may use Send with Invalidate. Version 1.1 cannot say so.
    pub invalidate_cap: bool,
    /// Adverts this side can take at once, both kinds together. More than 255 can only be said in
    /// the whole form of version 2.2; elsewhere 255 is sent.
    pub adverts_max: u16,
    /// The size, in bytes with the BSDH, this side would like the other's receive buffers to have.
    /// A wish: any value decodes.
    pub desired_remote_recv_size: u32,
    /// The size of this side's receive buffers, in bytes with the BSDH.
    pub local_recv_size: u32,
    /// This side's port.
    pub local_port: u16,
    /// This side's address; whole form only. The unspecified address on the wire is `None`.
    pub src: Option<IpAddr>,
    /// The address connected to, as `src`.
    pub dst: Option<IpAddr>,
}

impl Hello {
    /// Reads a Hello out of the private data of a connection request.
    ///
    /// Carriers pad private data, so what follows the `Len` bytes of the message is ignored, as
    /// are MSeq and MSeqAck (numbering starts after the handshake) and all reserved fields.
    ///
    /// # Errors
    /// The first broken rule, in this order: identifier, `Len` (92 on [`Carrier::Whole`], 32 on
    /// [`Carrier::Compact`]), flags, truncation, version, IP version, capabilities, then those of
    /// [`Hello::check`].
    pub fn decode(bytes: &[u8], carrier: Carrier) -> Result<Self, DecodeError> {
        let (bsdh, rest) = Bsdh::split(bytes)?;
        let form = HelloForm::from(carrier);
        bsdh.expect_cm(Mid::Hello, form.len_u8())?;
        let truncated = || DecodeError::truncated("Hello", bytes.len());
        let hello = match form {
            HelloForm::Whole => {
                let (header, _padding) =
                    HelloHeader::read_from_prefix(rest).map_err(|_| truncated())?;
                Self::from_raw(bsdh, form, &header)?
            }
            HelloForm::Compact => {
                let (start, _padding) =
                    HelloStart::read_from_prefix(rest).map_err(|_| truncated())?;
                Self::from_raw(bsdh, form, &HelloHeader::from_start(start))?
            }
        };
        hello.check()?;
        Ok(hello)
    }

    fn from_raw(bsdh: &Bsdh, form: HelloForm, raw: &HelloHeader) -> Result<Self, DecodeError> {
        let version = Version::from_wire("Hello.Version", raw.start.version)?;
        let ip_version = raw.start.ipv_cap >> 4;
        let read_ip = match ip_version {
            4 => ipv4_from_wire,
            6 => ipv6_from_wire,
            _ => {
                let kind = DecodeErrorKind::IpVersion(ip_version);
                return Err(DecodeError::new("Hello.IPV", IPV_OFFSET, kind));
            }
        };
        let caps = if version.has_caps() {
            raw.start.ipv_cap
        } else {
            0
        };
        let adverts_max = match form {
            _ if caps & EXTENDED_MAXADVERTS == 0 => u16::from(raw.start.max_adverts),
            HelloForm::Whole => nonzero_ext_adverts(raw.ext_max_adverts.get())?,
            HelloForm::Compact => {
                let kind = DecodeErrorKind::ExtendedAdverts;
                return Err(DecodeError::new("Hello.Cap", IPV_OFFSET, kind));
            }
        };
        Ok(Self {
            bufs: bsdh.bufs.get(),
            version,
            form,
            invalidate_cap: caps & INVALIDATE_CAP != 0,
            adverts_max,
            desired_remote_recv_size: raw.start.des_rem_rcv_sz.get(),
            local_recv_size: raw.start.local_rcv_sz.get(),
            local_port: raw.start.local_port.get(),
            src: read_ip(raw.src_ip),
            dst: read_ip(raw.dst_ip),
        })
    }

    /// Whether [`Hello::decode`] will take what this encodes to.
    ///
    /// # Errors
    /// [`DecodeErrorKind::TooFewBufs`], [`DecodeErrorKind::ZeroAdverts`],
    /// [`DecodeErrorKind::RecvSizeTooSmall`].
    pub fn check(&self) -> Result<(), DecodeError> {
        check_bufs(self.bufs)?;
        if self.adverts_max == 0 {
            return Err(DecodeError::new(
                "Hello.MaxAdverts",
                MAX_ADVERTS_OFFSET,
                DecodeErrorKind::ZeroAdverts,
            ));
        }
        let offset = BSDH_LEN + offset_of!(HelloHeader, start.local_rcv_sz);
        check_recv_size("Hello.LocalRcvSz", offset, self.local_recv_size)
    }

    /// Writes the message and says how many bytes it has: 92 or 32. What follows them is zero.
    ///
    /// What the form or the version has no field for is left out: addresses in the compact form,
    /// `invalidate_cap` in version 1.1, adverts beyond 255 in either. The IP version is 6 if
    /// either address is IPv6 (an IPv4 one beside it goes as IPv4-mapped), else 4.
    pub fn encode(&self, out: &mut [u8; HELLO_LEN]) -> usize {
        let form_len = self.form.len_u8();
        let bsdh = Bsdh::for_cm(Mid::Hello, self.bufs, form_len);
        *out = transmute!(RawHello {
            bsdh,
            header: self.header()
        });
        self.form.hello_len()
    }

    fn header(&self) -> HelloHeader {
        let whole = self.form == HelloForm::Whole;
        let v6 = [self.src, self.dst].iter().flatten().any(IpAddr::is_ipv6);
        let ip_version = if v6 { 6 } else { 4 };
        let max_adverts = u8::try_from(self.adverts_max).unwrap_or(u8::MAX);
        let extended = whole && self.version.has_caps() && self.adverts_max > u16::from(u8::MAX);
        let mut caps = 0;
        if self.version.has_caps() && self.invalidate_cap {
            caps |= INVALIDATE_CAP;
        }
        if extended {
            caps |= EXTENDED_MAXADVERTS;
        }
        let mut header = HelloHeader::from_start(HelloStart {
            version: self.version.byte(),
            ipv_cap: ip_version << 4 | caps,
            reserved_18: 0,
            max_adverts,
            des_rem_rcv_sz: self.desired_remote_recv_size.into(),
            local_rcv_sz: self.local_recv_size.into(),
            local_port: self.local_port.into(),
            reserved_30: 0.into(),
        });
        if extended {
            header.ext_max_adverts = self.adverts_max.into();
        }
        if whole {
            header.src_ip = ip_to_wire(self.src, v6);
            header.dst_ip = ip_to_wire(self.dst, v6);
        }
        header
    }
}

impl HelloHeader {
    /// The header with nothing after its first 16 bytes.
    const fn from_start(start: HelloStart) -> Self {
        Self {
            start,
            src_ip: [0; 16],
            dst_ip: [0; 16],
            reserved_64: U16::ZERO,
            ext_max_adverts: U16::ZERO,
            reserved_68: [0; 24],
        }
    }
}

const IPV_OFFSET: usize = BSDH_LEN + offset_of!(HelloHeader, start.ipv_cap);
const MAX_ADVERTS_OFFSET: usize = BSDH_LEN + offset_of!(HelloHeader, start.max_adverts);

/// Fewer than three buffers cannot keep the credit rules going.
pub(crate) fn check_bufs(bufs: u16) -> Result<(), DecodeError> {
    if bufs < BUFS_MIN {
        let kind = DecodeErrorKind::TooFewBufs(bufs);
        return Err(DecodeError::new("BSDH.Bufs", offset_of!(Bsdh, bufs), kind));
    }
    Ok(())
}

/// ExtMaxAdverts, judged here because only here it is known which of the two fields was used.
fn nonzero_ext_adverts(adverts_max: u16) -> Result<u16, DecodeError> {
    if adverts_max == 0 {
        let offset = BSDH_LEN + offset_of!(HelloHeader, ext_max_adverts);
        let kind = DecodeErrorKind::ZeroAdverts;
        return Err(DecodeError::new("Hello.ExtMaxAdverts", offset, kind));
    }
    Ok(adverts_max)
}

/// The last four bytes; the twelve before them are padding, and ignored like all padding.
fn ipv4_from_wire(bytes: [u8; 16]) -> Option<IpAddr> {
    let [.., a, b, c, d] = bytes;
    let addr = Ipv4Addr::new(a, b, c, d);
    (!addr.is_unspecified()).then_some(IpAddr::V4(addr))
}

fn ipv6_from_wire(bytes: [u8; 16]) -> Option<IpAddr> {
    let addr = Ipv6Addr::from(bytes);
    (!addr.is_unspecified()).then_some(IpAddr::V6(addr))
}

fn ip_to_wire(addr: Option<IpAddr>, v6: bool) -> [u8; 16] {
    match addr {
        None => [0; 16],
        Some(IpAddr::V6(addr)) => addr.octets(),
        // The unspecified address means "none" in either family, and must not turn into a mapped
        // one, which means something else.
        Some(IpAddr::V4(addr)) if v6 && !addr.is_unspecified() => addr.to_ipv6_mapped().octets(),
        Some(IpAddr::V4(addr)) => addr.to_ipv6_compatible().octets(),
    }
}
