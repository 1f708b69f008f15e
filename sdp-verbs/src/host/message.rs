//! The messages of a host link's control socket: fixed-width, little-endian, one per packet.
//!
//! Decoding judges everything it can without knowing the link: kind, exact length, value ranges.
//! Bytes of a stranger never panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::names::{Name, SHARED_SLOTS, Scope};
use super::qp::{QP_DESCRIPTOR_LEN, QpDescriptor};
use crate::cm::RejectReason;
use crate::error::VerbsError;

/// Private data bytes in a connect request, an accept and a reject alike.
pub(crate) const PRIVATE_DATA_MAX: usize = 512;
/// The longest message.
pub(crate) const MESSAGE_MAX: usize = 1024;
/// First bytes of a handshake.
const MAGIC: [u8; 8] = *b"SDPHOST\n";

/// What each process's data plane says of itself once it knows who the peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setup {
    /// Address of the key table in its owner's memory.
    pub(crate) key_table_addr: u64,
    /// Bytes of the key table.
    pub(crate) key_table_len: u64,
    /// Bytes of the base chunk.
    pub(crate) base_len: u64,
    /// The key table's descriptor comes too, behind those of doorbell and base chunk.
    pub(crate) shows_keys: bool,
}

/// What each process says of itself first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    /// Layout version: another major one is refused.
    pub(crate) major: u16,
    /// Layout version: a minor one adds.
    pub(crate) minor: u16,
    /// Feature bits; unknown ones are ignored.
    pub(crate) features: u64,
    /// Bytes of a page.
    pub(crate) page_size: u32,
    /// Bytes of a word.
    pub(crate) word_size: u8,
    /// The process image.
    pub(crate) tag: u128,
    /// What it wants, or gives.
    pub(crate) wish: Wish,
}

/// What a [`Hello`] asks for or answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Asked: a link, an old one if there is one. Answered: a new link.
    Link,
    /// Asked: a new link, whatever exists.
    FreshLink,
    /// Answered: there is a link between these two already.
    Existing,
}

/// Why a handshake ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Version, word size or byte order.
    Incompatible,
    /// User.
    NotPermitted,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// Who is there.
    Hello(Hello),
    /// No link; the version spoken here comes with it.
    Refuse {
        /// Why.
        reason: Refusal,
        /// Layout version of the refusing side.
        major: u16,
        /// Layout version of the refusing side.
        minor: u16,
    },
    /// The data plane's own hello, with its descriptors.
    Setup(Setup),
    /// Connect request.
    Request(Box<Request>),
    /// The request is accepted.
    Response {
        /// The connection's id at the sender.
        from: u64,
        /// The connection's id at the receiver.
        to: u64,
        /// The sender's queue pair.
        qp: QpDescriptor,
        /// Private data.
        data: Vec<u8>,
    },
    /// The response is confirmed.
    Ready {
        /// The connection's id at the receiver.
        to: u64,
    },
    /// The request, or the response, is turned down.
    Reject {
        /// The connection's id at the receiver.
        to: u64,
        /// Why.
        reason: RejectReason,
        /// Private data.
        data: Vec<u8>,
    },
    /// The connection ends, or the request is withdrawn.
    Disconnect {
        /// The connection's id at the sender.
        from: u64,
        /// The connection's id at the receiver, zero while the sender does not know it.
        to: u64,
    },
    /// The end was seen.
    Disconnected {
        /// The connection's id at the receiver.
        to: u64,
    },
    /// The sender no longer listens under this name.
    Unlisten(Name),
    /// The sender has no use for the link.
    Idle,
    /// Nor has the receiver of `Idle`: the link ends.
    IdleToo,
    /// The receiver of `Idle` needs the link.
    Stay,
    /// A chunk of rings and slots, with its descriptor.
    Chunk {
        /// Its number.
        id: u32,
        /// Bytes.
        len: u64,
    },
    /// A registered region, with its descriptor.
    Region {
        /// Its number.
        id: u32,
        /// Bytes.
        len: u64,
    },
    /// A region is gone.
    RegionGone {
        /// Its number.
        id: u32,
    },
}

/// A connect request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    /// The connection's id at the sender.
    pub(crate) from: u64,
    /// The listener asked for.
    pub(crate) name: Name,
    /// Address of the connector.
    pub(crate) source: SocketAddr,
    /// Address it called.
    pub(crate) dst: SocketAddr,
    /// The connector's queue pair.
    pub(crate) qp: QpDescriptor,
    /// Private data.
    pub(crate) data: Vec<u8>,
}

macro_rules! wire {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $ty:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        struct $name { $($field: $ty),* }
    )*};
}

wire! {
    /// First bytes of every message.
    struct Header { kind: U16, reserved: U16, len: U32 }
    struct HelloWire {
        magic: [u8; 8], major: U16, minor: U16, word_size: u8, wish: u8, byte_order: u8,
        reserved: u8, page_size: U32, reserved2: U32, features: U64, tag: [u8; 16],
    }
    struct RefuseWire { reason: U16, major: U16, minor: U16, reserved: U16 }
    struct AddrWire { ip: [u8; 16], zone: U32, port: U16, family: u8, extra: u8 }
    struct RequestWire {
        from: U64, name: AddrWire, source: AddrWire, dst: AddrWire, qp: [u8; QP_DESCRIPTOR_LEN],
    }
    struct ResponseWire { from: U64, to: U64, qp: [u8; QP_DESCRIPTOR_LEN] }
    struct SetupWire {
        key_table_addr: U64, key_table_len: U64, base_len: U64, shows_keys: u8, reserved: [u8; 7],
    }
    struct RejectWire { to: U64, reason: U32, reserved: U32 }
    struct PairWire { from: U64, to: U64 }
    struct ToWire { to: U64 }
    struct SharedWire { len: U64, id: U32, reserved: U32 }
    struct GoneWire { id: U32, reserved: U32 }
}

/// Byte order this process was compiled for, as [`HelloWire`] says it.
const BYTE_ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };

/// Kinds, numbered; a number is never used again.
mod kind {
    pub(super) const HELLO: u16 = 1;
    pub(super) const REFUSE: u16 = 2;
    pub(super) const SETUP: u16 = 3;
    pub(super) const REQUEST: u16 = 4;
    pub(super) const RESPONSE: u16 = 5;
    pub(super) const READY: u16 = 6;
    pub(super) const REJECT: u16 = 7;
    pub(super) const DISCONNECT: u16 = 8;
    pub(super) const DISCONNECTED: u16 = 9;
    pub(super) const UNLISTEN: u16 = 10;
    pub(super) const IDLE: u16 = 11;
    pub(super) const IDLE_TOO: u16 = 12;
    pub(super) const STAY: u16 = 13;
    pub(super) const CHUNK: u16 = 14;
    pub(super) const REGION: u16 = 15;
    pub(super) const REGION_GONE: u16 = 16;
}

impl Message {
    /// The bytes of the message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => packet(kind::HELLO, hello_wire(hello).as_bytes(), &[]),
            Self::Refuse {
                reason,
                major,
                minor,
            } => {
                let wire = RefuseWire {
                    reason: U16::new(match reason {
                        Refusal::Incompatible => 1,
                        Refusal::NotPermitted => 2,
                    }),
                    major: U16::new(*major),
                    minor: U16::new(*minor),
                    reserved: U16::ZERO,
                };
                packet(kind::REFUSE, wire.as_bytes(), &[])
            }
            Self::Setup(setup) => {
                let wire = SetupWire {
                    key_table_addr: U64::new(setup.key_table_addr),
                    key_table_len: U64::new(setup.key_table_len),
                    base_len: U64::new(setup.base_len),
                    shows_keys: u8::from(setup.shows_keys),
                    reserved: [0; 7],
                };
                packet(kind::SETUP, wire.as_bytes(), &[])
            }
            Self::Request(request) => {
                let wire = RequestWire {
                    from: U64::new(request.from),
                    name: name_wire(&request.name),
                    source: addr_wire(request.source),
                    dst: addr_wire(request.dst),
                    qp: request.qp.0,
                };
                packet(kind::REQUEST, wire.as_bytes(), &request.data)
            }
            Self::Response { from, to, qp, data } => {
                let wire = ResponseWire {
                    from: U64::new(*from),
                    to: U64::new(*to),
                    qp: qp.0,
                };
                packet(kind::RESPONSE, wire.as_bytes(), data)
            }
            Self::Reject { to, reason, data } => {
                let wire = RejectWire {
                    to: U64::new(*to),
                    reason: U32::new(reason_number(*reason)),
                    reserved: U32::ZERO,
                };
                packet(kind::REJECT, wire.as_bytes(), data)
            }
            _ => self.encode_small(),
        }
    }

    fn encode_small(&self) -> Vec<u8> {
        let to = |kind, to: u64| packet(kind, ToWire { to: U64::new(to) }.as_bytes(), &[]);
        let shared = |kind, id: u32, len: u64| {
            let wire = SharedWire {
                len: U64::new(len),
                id: U32::new(id),
                reserved: U32::ZERO,
            };
            packet(kind, wire.as_bytes(), &[])
        };
        match self {
            Self::Ready { to: id } => to(kind::READY, *id),
            Self::Disconnected { to: id } => to(kind::DISCONNECTED, *id),
            Self::Disconnect { from, to } => {
                let wire = PairWire {
                    from: U64::new(*from),
                    to: U64::new(*to),
                };
                packet(kind::DISCONNECT, wire.as_bytes(), &[])
            }
            Self::Unlisten(name) => packet(kind::UNLISTEN, name_wire(name).as_bytes(), &[]),
            Self::Idle => packet(kind::IDLE, &[], &[]),
            Self::IdleToo => packet(kind::IDLE_TOO, &[], &[]),
            Self::Stay => packet(kind::STAY, &[], &[]),
            Self::Chunk { id, len } => shared(kind::CHUNK, *id, *len),
            Self::Region { id, len } => shared(kind::REGION, *id, *len),
            Self::RegionGone { id } => {
                let wire = GoneWire {
                    id: U32::new(*id),
                    reserved: U32::ZERO,
                };
                packet(kind::REGION_GONE, wire.as_bytes(), &[])
            }
            Self::Hello(_)
            | Self::Refuse { .. }
            | Self::Setup(_)
            | Self::Request(_)
            | Self::Response { .. }
            | Self::Reject { .. } => unreachable!("encoded by the caller"),
        }
    }

    /// Judges the bytes of one packet.
    ///
    /// # Errors
    /// [`VerbsError::Protocol`] with the broken rule.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, VerbsError> {
        let Ok((header, body)) = Header::read_from_prefix(bytes) else {
            return Err(broken(format!("{} bytes are no message", bytes.len())));
        };
        if usize::try_from(header.len.get()) != Ok(bytes.len()) {
            return Err(broken(format!(
                "the header says {} bytes, {} came",
                header.len,
                bytes.len()
            )));
        }
        match header.kind.get() {
            kind::HELLO => decode_hello(exact(body)?),
            kind::REFUSE => decode_refuse(exact(body)?),
            kind::SETUP => exact::<SetupWire>(body).map(|wire| {
                Self::Setup(Setup {
                    key_table_addr: wire.key_table_addr.get(),
                    key_table_len: wire.key_table_len.get(),
                    base_len: wire.base_len.get(),
                    shows_keys: wire.shows_keys != 0,
                })
            }),
            kind::REQUEST => decode_request(body),
            kind::RESPONSE => {
                let (wire, data): (ResponseWire, _) = with_data(body)?;
                Ok(Self::Response {
                    from: wire.from.get(),
                    to: wire.to.get(),
                    qp: QpDescriptor(wire.qp),
                    data,
                })
            }
            kind::REJECT => {
                let (wire, data): (RejectWire, _) = with_data(body)?;
                Ok(Self::Reject {
                    to: wire.to.get(),
                    reason: reason_of(wire.reason.get())?,
                    data,
                })
            }
            other => decode_small(other, body),
        }
    }

    /// Descriptors that must come with the message.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Setup(setup) => 2 + usize::from(setup.shows_keys),
            Self::Chunk { .. } | Self::Region { .. } => 1,
            _ => 0,
        }
    }
}

fn hello_wire(hello: &Hello) -> HelloWire {
    HelloWire {
        magic: MAGIC,
        major: U16::new(hello.major),
        minor: U16::new(hello.minor),
        word_size: hello.word_size,
        wish: match hello.wish {
            Wish::Link => 0,
            Wish::FreshLink => 1,
            Wish::Existing => 2,
        },
        byte_order: BYTE_ORDER,
        reserved: 0,
        page_size: U32::new(hello.page_size),
        reserved2: U32::ZERO,
        features: U64::new(hello.features),
        tag: hello.tag.to_le_bytes(),
    }
}

fn decode_small(number: u16, body: &[u8]) -> Result<Message, VerbsError> {
    match number {
        kind::READY => exact::<ToWire>(body).map(|w| Message::Ready { to: w.to.get() }),
        kind::DISCONNECTED => {
            exact::<ToWire>(body).map(|w| Message::Disconnected { to: w.to.get() })
        }
        kind::DISCONNECT => exact::<PairWire>(body).map(|w| Message::Disconnect {
            from: w.from.get(),
            to: w.to.get(),
        }),
        kind::UNLISTEN => name_of(&exact(body)?).map(Message::Unlisten),
        kind::IDLE => exact::<[u8; 0]>(body).map(|_| Message::Idle),
        kind::IDLE_TOO => exact::<[u8; 0]>(body).map(|_| Message::IdleToo),
        kind::STAY => exact::<[u8; 0]>(body).map(|_| Message::Stay),
        kind::CHUNK => exact::<SharedWire>(body).map(|w| Message::Chunk {
            id: w.id.get(),
            len: w.len.get(),
        }),
        kind::REGION => exact::<SharedWire>(body).map(|w| Message::Region {
            id: w.id.get(),
            len: w.len.get(),
        }),
        kind::REGION_GONE => {
            exact::<GoneWire>(body).map(|w| Message::RegionGone { id: w.id.get() })
        }
        other => Err(broken(format!("message kind {other} is unknown"))),
    }
}

fn decode_hello(wire: HelloWire) -> Result<Message, VerbsError> {
    if wire.magic != MAGIC {
        return Err(broken("the handshake does not begin with the magic".into()));
    }
    if wire.byte_order != BYTE_ORDER {
        return Err(broken("the peer has another byte order".into()));
    }
    let wish = match wire.wish {
        0 => Wish::Link,
        1 => Wish::FreshLink,
        2 => Wish::Existing,
        other => return Err(broken(format!("handshake wish {other} is unknown"))),
    };
    Ok(Message::Hello(Hello {
        major: wire.major.get(),
        minor: wire.minor.get(),
        features: wire.features.get(),
        page_size: wire.page_size.get(),
        word_size: wire.word_size,
        tag: u128::from_le_bytes(wire.tag),
        wish,
    }))
}

fn decode_refuse(wire: RefuseWire) -> Result<Message, VerbsError> {
    let reason = match wire.reason.get() {
        1 => Refusal::Incompatible,
        2 => Refusal::NotPermitted,
        other => return Err(broken(format!("refusal {other} is unknown"))),
    };
    Ok(Message::Refuse {
        reason,
        major: wire.major.get(),
        minor: wire.minor.get(),
    })
}

fn decode_request(body: &[u8]) -> Result<Message, VerbsError> {
    let (wire, data): (RequestWire, _) = with_data(body)?;
    if wire.from.get() == 0 {
        return Err(broken("a connect request names no connection".into()));
    }
    Ok(Message::Request(Box::new(Request {
        from: wire.from.get(),
        name: name_of(&wire.name)?,
        source: addr_of(&wire.source)?,
        dst: addr_of(&wire.dst)?,
        qp: QpDescriptor(wire.qp),
        data,
    })))
}

fn packet(kind: u16, body: &[u8], data: &[u8]) -> Vec<u8> {
    let len = size_of::<Header>() + body.len() + data.len();
    debug_assert!(len <= MESSAGE_MAX);
    let header = Header {
        kind: U16::new(kind),
        reserved: U16::ZERO,
        // A message is at most `MESSAGE_MAX` long: private data is checked where it comes in.
        len: U32::new(u32::try_from(len).unwrap_or(u32::MAX)),
    };
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(data);
    bytes
}

fn exact<T: FromBytes>(body: &[u8]) -> Result<T, VerbsError> {
    T::read_from_bytes(body).map_err(|_| {
        broken(format!(
            "a message body of {} bytes must have {}",
            body.len(),
            size_of::<T>()
        ))
    })
}

fn with_data<T: FromBytes>(body: &[u8]) -> Result<(T, Vec<u8>), VerbsError> {
    let Ok((wire, data)) = T::read_from_prefix(body) else {
        return Err(broken(format!(
            "a message body of {} bytes must have at least {}",
            body.len(),
            size_of::<T>()
        )));
    };
    if data.len() > PRIVATE_DATA_MAX {
        return Err(broken(format!(
            "{} bytes of private data, at most {PRIVATE_DATA_MAX} are allowed",
            data.len()
        )));
    }
    Ok((wire, data.to_vec()))
}

fn addr_wire(addr: SocketAddr) -> AddrWire {
    let (family, zone) = match addr {
        SocketAddr::V4(_) => (4, 0),
        SocketAddr::V6(a) => (6, a.scope_id()),
    };
    AddrWire {
        ip: ip_bytes(addr.ip()),
        zone: U32::new(zone),
        port: U16::new(addr.port()),
        family,
        extra: 0,
    }
}

fn addr_of(wire: &AddrWire) -> Result<SocketAddr, VerbsError> {
    let port = wire.port.get();
    match ip_of(wire.family, wire.ip)? {
        IpAddr::V4(ip) => Ok(SocketAddr::new(IpAddr::V4(ip), port)),
        IpAddr::V6(ip) => Ok(SocketAddr::V6(SocketAddrV6::new(
            ip,
            port,
            0,
            wire.zone.get(),
        ))),
    }
}

fn name_wire(name: &Name) -> AddrWire {
    let (ip, zone, family) = match name.scope {
        Scope::Exact(ip, zone) => (ip_bytes(ip), zone, if ip.is_ipv4() { 4 } else { 6 }),
        Scope::AnyV4 => ([0; 16], 0, 14),
        Scope::AnyV6 => ([0; 16], 0, 16),
        Scope::AnyDual => ([0; 16], 0, 46),
    };
    AddrWire {
        ip,
        zone: U32::new(zone),
        port: U16::new(name.port),
        family,
        extra: name.slot,
    }
}

fn name_of(wire: &AddrWire) -> Result<Name, VerbsError> {
    let scope = match wire.family {
        14 => Scope::AnyV4,
        16 => Scope::AnyV6,
        46 => Scope::AnyDual,
        family => Scope::Exact(ip_of(family, wire.ip)?, wire.zone.get()),
    };
    if wire.extra > SHARED_SLOTS {
        return Err(broken(format!("listener slot {} is unknown", wire.extra)));
    }
    Ok(Name {
        scope,
        port: wire.port.get(),
        slot: wire.extra,
    })
}

fn ip_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn ip_of(family: u8, bytes: [u8; 16]) -> Result<IpAddr, VerbsError> {
    let [.., a, b, c, d] = bytes;
    match family {
        4 => Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        6 => Ok(IpAddr::V6(Ipv6Addr::from(bytes))),
        other => Err(broken(format!("address family {other} is unknown"))),
    }
}

fn reason_number(reason: RejectReason) -> u32 {
    match reason {
        RejectReason::NoListener => 1,
        RejectReason::Backlog => 2,
        RejectReason::Consumer => 3,
        RejectReason::NotPermitted => 4,
        RejectReason::Incompatible => 5,
    }
}

fn reason_of(number: u32) -> Result<RejectReason, VerbsError> {
    match number {
        1 => Ok(RejectReason::NoListener),
        2 => Ok(RejectReason::Backlog),
        3 => Ok(RejectReason::Consumer),
        4 => Ok(RejectReason::NotPermitted),
        5 => Ok(RejectReason::Incompatible),
        other => Err(broken(format!("reject reason {other} is unknown"))),
    }
}

/// The peer broke a rule of the control socket.
pub(crate) fn broken(rule: String) -> VerbsError {
    VerbsError::Protocol {
        what: "control socket of a host link",
        rule,
    }
}

#[cfg(test)]
mod tests;
