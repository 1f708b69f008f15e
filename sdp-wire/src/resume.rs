//! Which suspended connection a handshake resumes.
//!
//! A Hello and a HelloAck carry MSeq and MSeqAck, which mean nothing before the first message: they
//! are zero, and receivers ignore them. Where a handshake resumes a connection, they hold the
//! service ID that was named in SuspComm. So both sides can tell it from every other handshake, and
//! the field of 64 bits needs no room that the short form of Hello does not have.

use crate::ServiceId;

/// MSeq and MSeqAck in the base header.
const PLACE: core::ops::Range<usize> = 8..16;

/// Marks an encoded Hello or HelloAck as one that resumes the connection that was suspended with
/// `service_id`. Bytes too short for a header are left alone.
pub fn mark_resuming(message: &mut [u8], service_id: ServiceId) {
    if let Some(place) = message.get_mut(PLACE) {
        place.copy_from_slice(&service_id.raw().to_be_bytes());
    }
}

/// What the Hello or HelloAck resumes. `None`: it begins a connection.
#[must_use]
pub fn resuming(message: &[u8]) -> Option<ServiceId> {
    let bytes = message.get(PLACE)?.try_into().ok()?;
    match u64::from_be_bytes(bytes) {
        0 => None,
        raw => Some(ServiceId::from_raw(raw)),
    }
}
