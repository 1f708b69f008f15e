//! Socket options: the kernel has all of them, and SDP those that it knows.

use libc::{c_int, c_void, socklen_t};
use sdp::posix::Failure;

use crate::boundary::{checked, interpose};
use crate::entry::Phase;
use crate::real;
use crate::report::Reason;

/// No option that SDP knows has more bytes.
const VALUE_LEN_MAX: usize = 16;

/// Options by which the kernel does something to a stream that only TCP's can have done to them.
const TCP_ONLY: [(c_int, c_int, &str); 5] = [
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY, "SO_ZEROCOPY"),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMPING, "SO_TIMESTAMPING"),
    (libc::IPPROTO_TCP, libc::TCP_ULP, "TCP_ULP"),
    (libc::IPPROTO_TCP, libc::TCP_REPAIR, "TCP_REPAIR"),
    (libc::IPPROTO_TCP, libc::TCP_MD5SIG, "TCP_MD5SIG"),
];

interpose! {
    fn setsockopt(
        fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t,
    ) -> c_int |entry| {
        let only = TCP_ONLY.iter().find(|row| (row.0, row.1) == (level, name));
        if let Some((_, _, word)) = only {
            if entry.phase() == Phase::New && !entry.by_name {
                entry.leave(fd, Reason::Option, || (*word).to_owned());
                return Ok(None);
            }
            return Err(Failure::new(libc::EOPNOTSUPP, format!("{word} is TCP's only")));
        }
        let is_relayed = entry.relayed().is_some();
        if is_relayed && level == libc::SOL_SOCKET {
            return Ok(None);
        }
        if is_relayed || is_sdps(level, name) {
            // SAFETY: our caller's promise.
            let set = unsafe { sdp::sdp_setsockopt(entry.handle(), level, name, value, len) };
            return checked(set).map(Some);
        }
        // The kernel judges the value, and has it if TCP takes over.
        // SAFETY: what our caller promised to the C library's function.
        checked(unsafe { real::setsockopt(fd, level, name, value, len) })?;
        let mut copy = [0_u8; VALUE_LEN_MAX];
        let len = usize::try_from(len).map_or(VALUE_LEN_MAX, |len| len.min(VALUE_LEN_MAX));
        // SAFETY: our caller's promise, which the kernel has relied on.
        unsafe { std::ptr::copy_nonoverlapping(value.cast(), copy.as_mut_ptr(), len) };
        match entry.socket()?.set_option_by_number(level, name, &copy[..len]) {
            // What only the kernel knows is the kernel's.
            Err(failure) if failure.errno == libc::ENOPROTOOPT => Ok(Some(0)),
            set => set.map(|()| Some(0)),
        }
    }

    fn getsockopt(
        fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t,
    ) -> c_int |entry| {
        let kernels = [libc::SO_TYPE, libc::SO_DOMAIN, libc::SO_PROTOCOL];
        let of_sockets = level == libc::SOL_SOCKET;
        let is_ours = match entry.relayed() {
            // A Unix socket knows those of every socket, but is not what the program has made.
            Some(_) => !of_sockets || [libc::SO_DOMAIN, libc::SO_PROTOCOL].contains(&name),
            None if of_sockets && kernels.contains(&name) => false,
            None => entry.is_sdps() || is_sdps(level, name),
        };
        if !is_ours {
            return Ok(None);
        }
        // SAFETY: our caller's promise.
        match checked(unsafe { sdp::sdp_getsockopt(entry.handle(), level, name, value, len) }) {
            Err(failure) if failure.errno == libc::ENOPROTOOPT => Ok(None),
            got => got.map(Some),
        }
    }
}

/// Options that TCP has not.
fn is_sdps(level: c_int, name: c_int) -> bool {
    level == sdp::SOL_SDP || (level, name) == (libc::IPPROTO_TCP, sdp::SDP_ZCOPY_THRESH)
}
