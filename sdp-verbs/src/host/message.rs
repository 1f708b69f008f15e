//! The messages of a host link's control socket: fixed-width, little-endian, one per packet.
//!
//! Decoding judges everything it can without knowing the link: kind, exact length, value ranges.
//! Bytes of a stranger never panic.

mod address;
mod wire;

use std::net::SocketAddr;

use address::{addr_of, addr_wire, name_of, name_wire};
use wire::{
    BYTE_ORDER, GoneWire, Header, HelloWire, MAGIC, PairWire, RefuseWire, RejectWire, RequestWire,
    ResponseWire, SetupWire, SharedWire, ToWire, TokenWire, exact, kind, packet, with_data,
};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) use self::wire::broken;
use super::names::Name;
use super::qp::QpDescriptor;
use crate::cm::RejectReason;
use crate::error::VerbsError;

/// Private data bytes in a connect request, an accept and a reject alike.
pub(crate) const PRIVATE_DATA_MAX: usize = 512;
/// The longest message.
pub(crate) const MESSAGE_MAX: usize = 1024;
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
    /// A socket to put tokens into, with its descriptor. Since layout version 1.2, by feature bit.
    TokenSocket {
        /// Where the receiver keeps the queue pair.
        index: u16,
        /// The receiver's queue pair.
        qp: u32,
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
            Self::TokenSocket { index, qp } => {
                let wire = TokenWire {
                    qp: U32::new(*qp),
                    index: U16::new(*index),
                    reserved: U16::ZERO,
                };
                packet(kind::TOKEN_SOCKET, wire.as_bytes(), &[])
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
            Self::Chunk { .. } | Self::Region { .. } | Self::TokenSocket { .. } => 1,
            _ => 0,
        }
    }

    /// Whether a receiver that has no room for its descriptors does without.
    pub(crate) fn may_lack_descriptors(&self) -> bool {
        matches!(self, Self::TokenSocket { .. })
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
        kind::TOKEN_SOCKET => exact::<TokenWire>(body).map(|w| Message::TokenSocket {
            index: w.index.get(),
            qp: w.qp.get(),
        }),
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

fn reason_number(reason: RejectReason) -> u32 {
    match reason {
        RejectReason::NoListener => 1,
        RejectReason::Backlog => 2,
        // Nothing is stale here: a link ends with its process.
        RejectReason::Consumer | RejectReason::Stale => 3,
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

#[cfg(test)]
mod tests;
