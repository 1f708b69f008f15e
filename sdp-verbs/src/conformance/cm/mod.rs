//! Connection management.

mod address;
mod handshake;
mod many;
mod refusal;

pub(super) use address::*;
pub(super) use handshake::*;
pub(super) use many::*;
pub(super) use refusal::*;
