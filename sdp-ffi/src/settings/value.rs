//! The bytes of options, as C has them.

use std::time::Duration;

use libc::{c_int, c_long};
use sdp_socket::ZcopyThreshold;
use smallvec::SmallVec;

use crate::errno::Failure;
use crate::kept::Kept;
use crate::options::SDP_ZCOPY_AUTO;

/// The bytes of an option: one of the structures below.
pub(crate) type OptionBytes = SmallVec<[u8; 16]>;

/// What TCP_CONGESTION says. Its length there is that of Linux.
pub(super) const CONGESTION: &[u8; 16] = b"sdp\0\0\0\0\0\0\0\0\0\0\0\0\0";

pub(super) fn saturating(len: usize) -> c_int {
    c_int::try_from(len).unwrap_or(c_int::MAX)
}

pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Failure> {
    let found = bytes.get(at..at + N).and_then(|b| b.try_into().ok());
    found.ok_or_else(|| {
        let words = format!("an option value of {} bytes: too short", bytes.len());
        Failure::new(libc::EINVAL, words)
    })
}

pub(super) fn int(bytes: &[u8]) -> Result<c_int, Failure> {
    field(bytes, 0).map(c_int::from_ne_bytes)
}

pub(crate) fn int_bytes(value: c_int) -> OptionBytes {
    OptionBytes::from_slice(&value.to_ne_bytes())
}

/// Only one there is.
pub(super) fn congestion(bytes: &[u8]) -> Result<(), Failure> {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let ours = CONGESTION.split(|byte| *byte == 0).next();
    if bytes.is_empty() {
        return Err(Failure::new(libc::EINVAL, "a name of no bytes"));
    }
    if Some(name) == ours {
        return Ok(());
    }
    let name = String::from_utf8_lossy(name);
    let words = format!("no congestion control {name:?}: there is none but credits, sdp");
    Err(Failure::new(libc::ENOENT, words))
}

pub(super) fn kept_value(kept: Kept, bytes: &[u8]) -> Result<c_int, Failure> {
    match bytes {
        [] if kept.takes_a_byte() => Ok(0),
        [byte, ..] if kept.takes_a_byte() && bytes.len() < size_of::<c_int>() => Ok((*byte).into()),
        _ => int(bytes),
    }
}

/// As Linux: a negative size is a huge one, and the library brings it into its range.
pub(super) fn buffer_len(bytes: &[u8]) -> Result<usize, Failure> {
    Ok(usize::try_from(int(bytes)?).unwrap_or(usize::MAX))
}

pub(super) fn threshold(value: c_int) -> Result<ZcopyThreshold, Failure> {
    match (value, usize::try_from(value)) {
        (SDP_ZCOPY_AUTO, _) => Ok(ZcopyThreshold::Auto),
        (0, _) => Ok(ZcopyThreshold::Off),
        (_, Ok(len)) => Ok(ZcopyThreshold::Bytes(len)),
        (_, Err(_)) => {
            let words = format!("a zero copy threshold of {value} bytes");
            Err(Failure::new(libc::EINVAL, words))
        }
    }
}

pub(super) const LONG_LEN: usize = size_of::<c_long>();
pub(super) const MICROS: c_long = 1_000_000;

/// What Linux takes for no limit, in seconds: longer than it can count.
const TIME_MAX: c_long = c_long::MAX / 1000;
/// A limit that is over at once, and reads as zero.
pub(super) const AT_ONCE: Duration = Duration::from_nanos(1);

/// `struct timeval`; zero is no limit, less is no time at all.
pub(super) fn time(bytes: &[u8]) -> Result<Option<Duration>, Failure> {
    let seconds = c_long::from_ne_bytes(field(bytes, 0)?);
    let micros = c_long::from_ne_bytes(field(bytes, LONG_LEN)?);
    if !(0..MICROS).contains(&micros) {
        let words = format!("a time of {seconds} s and {micros} µs");
        return Err(Failure::new(libc::EDOM, words));
    }
    let Ok(whole) = u64::try_from(seconds) else {
        return Ok(Some(AT_ONCE));
    };
    let micros = u64::try_from(micros).map_or(Duration::ZERO, Duration::from_micros);
    let time = Duration::from_secs(whole).saturating_add(micros);
    Ok((!time.is_zero() && seconds < TIME_MAX).then_some(time))
}

pub(super) fn time_bytes(time: Option<Duration>) -> OptionBytes {
    let time = time.unwrap_or_default();
    let seconds = c_long::try_from(time.as_secs()).unwrap_or(c_long::MAX);
    let micros = c_int::try_from(time.subsec_micros()).map_or(0, c_long::from);
    let mut bytes = OptionBytes::from_slice(&seconds.to_ne_bytes());
    bytes.extend_from_slice(&micros.to_ne_bytes());
    bytes
}

/// What a negative linger time means to Linux: a very long one. In seconds.
const LINGER_MAX: u64 = u32::MAX as u64;

/// `struct linger`.
pub(super) fn linger(bytes: &[u8]) -> Result<Option<Duration>, Failure> {
    let on = int(bytes)? != 0;
    let seconds = c_int::from_ne_bytes(field(bytes, size_of::<c_int>())?);
    let seconds = u64::try_from(seconds).unwrap_or(LINGER_MAX);
    Ok(on.then(|| Duration::from_secs(seconds)))
}

pub(super) fn linger_bytes(on: bool, seconds: c_int) -> OptionBytes {
    let mut bytes = int_bytes(c_int::from(on));
    bytes.extend_from_slice(&seconds.to_ne_bytes());
    bytes
}
