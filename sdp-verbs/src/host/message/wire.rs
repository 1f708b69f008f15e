//! The messages' fixed parts, byte for byte, and what is common to all.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{MESSAGE_MAX, PRIVATE_DATA_MAX};
use crate::error::VerbsError;
use crate::host::qp::QP_DESCRIPTOR_LEN;

/// First bytes of a handshake.
pub(super) const MAGIC: [u8; 8] = *b"SDPHOST\n";
/// Byte order this process was compiled for, as [`HelloWire`] says it.
pub(super) const BYTE_ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };

macro_rules! wire {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $ty:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $ty),* }
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
    struct TokenWire { qp: U32, index: U16, reserved: U16 }
}

/// Kinds, numbered; a number is never used again.
pub(super) mod kind {
    pub(in super::super) const HELLO: u16 = 1;
    pub(in super::super) const REFUSE: u16 = 2;
    pub(in super::super) const SETUP: u16 = 3;
    pub(in super::super) const REQUEST: u16 = 4;
    pub(in super::super) const RESPONSE: u16 = 5;
    pub(in super::super) const READY: u16 = 6;
    pub(in super::super) const REJECT: u16 = 7;
    pub(in super::super) const DISCONNECT: u16 = 8;
    pub(in super::super) const DISCONNECTED: u16 = 9;
    pub(in super::super) const UNLISTEN: u16 = 10;
    pub(in super::super) const IDLE: u16 = 11;
    pub(in super::super) const IDLE_TOO: u16 = 12;
    pub(in super::super) const STAY: u16 = 13;
    pub(in super::super) const CHUNK: u16 = 14;
    pub(in super::super) const REGION: u16 = 15;
    pub(in super::super) const REGION_GONE: u16 = 16;
    pub(in super::super) const TOKEN_SOCKET: u16 = 17;
}

pub(super) fn packet(kind: u16, body: &[u8], data: &[u8]) -> Vec<u8> {
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

pub(super) fn exact<T: FromBytes>(body: &[u8]) -> Result<T, VerbsError> {
    T::read_from_bytes(body).map_err(|_| {
        broken(format!(
            "a message body of {} bytes must have {}",
            body.len(),
            size_of::<T>()
        ))
    })
}

pub(super) fn with_data<T: FromBytes>(body: &[u8]) -> Result<(T, Vec<u8>), VerbsError> {
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

/// The peer broke a rule of the control socket.
pub(crate) fn broken(rule: String) -> VerbsError {
    VerbsError::Protocol {
        what: "control socket of a host link",
        rule,
    }
}
