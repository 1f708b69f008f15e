//! Socket options.

use std::ffi::c_void;

use libc::{c_int, socklen_t};

use crate::address::Family;
use crate::errno::Failure;
use crate::guard::guard;
use crate::pointer::{target_len, write_bytes};
use crate::process::process;
use crate::settings::Name;

/// Level of the options that only SDP has.
pub const SOL_SDP: c_int = 1025;
/// Option, an int: from how many bytes on a send is not copied. 0: never; SDP_ZCOPY_AUTO: what is
/// measured to be best for the memory it comes from. At level SOL_SDP, or IPPROTO_TCP.
pub const SDP_ZCOPY_THRESH: c_int = 80;
/// Value of SDP_ZCOPY_THRESH, the default.
pub const SDP_ZCOPY_AUTO: c_int = -1;

/// No option that can be set has more bytes; of longer values the first ones are looked at.
const VALUE_LEN_MAX: usize = 16;

/// Sets an option, as setsockopt(2).
///
/// SOL_SOCKET: SO_SNDBUF and SO_RCVBUF (4 KiB to 64 MiB, read back as they are, not doubled; also
/// as SO_SNDBUFFORCE and SO_RCVBUFFORCE), SO_RCVLOWAT, SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER,
/// SO_KEEPALIVE, SO_OOBINLINE, SO_REUSEADDR (kept; binding always reuses), SO_REUSEPORT.
/// IPPROTO_TCP: TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT,
/// SDP_ZCOPY_THRESH. IPPROTO_IPV6: IPV6_V6ONLY, before binding. SOL_SDP: SDP_ZCOPY_THRESH.
///
/// Checked and kept, without effect: SO_BROADCAST, SO_PRIORITY, SO_INCOMING_CPU; TCP_CORK,
/// TCP_QUICKACK, TCP_DEFER_ACCEPT, TCP_SYNCNT, TCP_LINGER2, TCP_NOTSENT_LOWAT, TCP_MAXSEG,
/// TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_CONGESTION ("sdp" only, else ENOENT); IP_TOS, IP_TTL,
/// IP_BIND_ADDRESS_NO_PORT; IPV6_TCLASS, IPV6_UNICAST_HOPS.
///
/// Returns 0; or -1 with ENOPROTOOPT, EINVAL (length or value), EDOM (time), EPERM, ENOENT, EFAULT
/// (NULL), EBADF.
///
/// # Safety
/// value is NULL, or length bytes there can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_setsockopt(
    socket: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    guard("sdp_setsockopt", || {
        let socket = process().sockets.get(socket)?;
        // As Linux, which takes it for an int, and looks at it before the name.
        let len = c_int::try_from(length)
            .ok()
            .and_then(|n| usize::try_from(n).ok());
        let Some(len) = len else {
            return Err(Failure::new(libc::EINVAL, "a negative length"));
        };
        if len < least(level, option) {
            let words = format!("an option value of {len} bytes: too short");
            return Err(Failure::new(libc::EINVAL, words));
        }
        if len > 0 && value.is_null() {
            return Err(Failure::null("the value"));
        }
        let name = Name::of(level, option)?;
        let mut copy = [0; VALUE_LEN_MAX];
        let len = len.min(VALUE_LEN_MAX);
        // SAFETY: our caller's promise for the source; the copy has room for `len`.
        unsafe { std::ptr::copy_nonoverlapping(value.cast(), copy.as_mut_ptr(), len) };
        socket.set_option(name, &copy[..len]).map(|()| 0)
    })
}

/// The bytes that a value has at least, whatever option of the level it is.
const fn least(level: c_int, option: c_int) -> usize {
    match (level, option) {
        // Names.
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => 1,
        (libc::SOL_SOCKET, libc::SO_BINDTODEVICE) => 0,
        (libc::SOL_SOCKET | libc::IPPROTO_TCP, _) => size_of::<c_int>(),
        _ => 0,
    }
}

/// Reads an option, as getsockopt(2): those of sdp_setsockopt(), and SO_ERROR (which is then 0),
/// SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN, SO_SNDLOWAT, TCP_INFO (state, segment and bytes),
/// SDP_STATS.
///
/// Returns 0; or -1 with ENOPROTOOPT, EOPNOTSUPP (another level's on a socket of IPv4, as IPv6's),
/// ENOTCONN (SDP_STATS), EINVAL (negative length), EFAULT (NULL), EBADF.
///
/// # Safety
/// value is NULL, or *length bytes there can be written, and length too.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_getsockopt(
    socket: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    guard("sdp_getsockopt", || {
        let socket = process().sockets.get(socket)?;
        if LENGTH_FIRST.contains(&level) {
            // SAFETY: our caller's promise.
            unsafe { target_len(length) }?;
        }
        // By Linux's habit another errno than where it is set.
        let name = Name::of(level, option).map_err(|failure| match socket.family {
            Family::V4 if !OF_EVERY_FAMILY.contains(&level) => Failure {
                errno: libc::EOPNOTSUPP,
                ..failure
            },
            _ => failure,
        })?;
        if value.is_null() || length.is_null() {
            // Before SO_ERROR is taken and lost.
            return Err(Failure::null("the value or its length"));
        }
        let bytes = socket.option(name)?;
        // SAFETY: our caller's promise.
        let room = unsafe { target_len(length) }?;
        // SAFETY: our caller's promise.
        unsafe { write_bytes(shown(&bytes, level, room), value, length, false) }.map(|()| 0)
    })
}

/// Levels of which Linux looks at the length before the name.
const LENGTH_FIRST: [c_int; 3] = [libc::SOL_SOCKET, libc::IPPROTO_TCP, libc::IPPROTO_IP];
/// Those at which sockets of IPv4 have options.
const OF_EVERY_FAMILY: [c_int; 4] = [
    libc::SOL_SOCKET,
    libc::IPPROTO_TCP,
    libc::IPPROTO_IP,
    SOL_SDP,
];

/// What is written of a value: of a small one at IPPROTO_IP a byte, where there is no room for an int.
fn shown(bytes: &[u8], level: c_int, room: usize) -> &[u8] {
    let is_short = level == libc::IPPROTO_IP && room < size_of::<c_int>();
    let value = <[u8; size_of::<c_int>()]>::try_from(bytes).map(c_int::from_ne_bytes);
    match value {
        Ok(0..=255) if is_short && cfg!(target_endian = "little") => &bytes[..1],
        _ => bytes,
    }
}
