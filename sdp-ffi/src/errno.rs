//! Failures of calls, and the one table from `std::io`'s errors to errno.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use libc::c_int;

/// Why a call failed: for `errno`, and for `sdp_strerror_ext`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number.
    pub errno: c_int,
    /// What there is to say beyond it.
    pub message: Cow<'static, str>,
}

impl Failure {
    /// Of a number and words.
    #[must_use]
    pub fn new(errno: c_int, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            errno,
            message: message.into(),
        }
    }

    /// The same, of an address: words that do not name it are given it.
    #[must_use]
    pub fn at(mut self, addr: SocketAddr) -> Self {
        let name = addr.to_string();
        if !self.message.contains(&name) {
            self.message = format!("{name}: {}", self.message).into();
        }
        self
    }

    /// A number that is no open socket.
    pub(crate) fn bad_handle(handle: c_int) -> Self {
        Self::new(
            libc::EBADF,
            format!("{handle} is not an open socket of this library"),
        )
    }

    /// The socket was closed during the call.
    pub(crate) fn closed() -> Self {
        Self::new(libc::EBADF, "the socket was closed during the call")
    }

    /// A pointer that must not be NULL.
    pub(crate) fn null(what: &'static str) -> Self {
        Self::new(libc::EFAULT, format!("{what} is NULL"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            errno: errno_of(&error),
            message: error.to_string().into(),
        }
    }
}

/// Kinds of error that come without a number, and the errno a TCP program expects in their place.
const KINDS: [(ErrorKind, c_int); 18] = [
    (ErrorKind::AddrInUse, libc::EADDRINUSE),
    (ErrorKind::AddrNotAvailable, libc::EADDRNOTAVAIL),
    (ErrorKind::AlreadyExists, libc::EEXIST),
    (ErrorKind::BrokenPipe, libc::EPIPE),
    (ErrorKind::ConnectionAborted, libc::ECONNABORTED),
    (ErrorKind::ConnectionRefused, libc::ECONNREFUSED),
    (ErrorKind::ConnectionReset, libc::ECONNRESET),
    (ErrorKind::HostUnreachable, libc::EHOSTUNREACH),
    (ErrorKind::Interrupted, libc::EINTR),
    (ErrorKind::InvalidInput, libc::EINVAL),
    (ErrorKind::NetworkDown, libc::ENETDOWN),
    (ErrorKind::NetworkUnreachable, libc::ENETUNREACH),
    (ErrorKind::NotConnected, libc::ENOTCONN),
    (ErrorKind::OutOfMemory, libc::ENOMEM),
    (ErrorKind::PermissionDenied, libc::EACCES),
    (ErrorKind::TimedOut, libc::ETIMEDOUT),
    (ErrorKind::Unsupported, libc::EOPNOTSUPP),
    (ErrorKind::WouldBlock, libc::EAGAIN),
];

/// The errno of an error: its own number if it has one, else that of its kind, else `EIO`.
pub(crate) fn errno_of(error: &io::Error) -> c_int {
    sdp_socket::raw_errno(error).unwrap_or_else(|| {
        let row = KINDS.iter().find(|(kind, _)| *kind == error.kind());
        row.map_or(libc::EIO, |(_, errno)| *errno)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of the table holds, and std gives the same kind back for the number: a program
    /// in either language sees one error.
    #[test]
    fn every_kind_has_its_number_and_the_number_its_kind() {
        for (kind, errno) in KINDS {
            assert_eq!(errno_of(&kind.into()), errno, "{kind:?}");
            assert_eq!(errno_of(&io::Error::new(kind, "words")), errno, "{kind:?}");
            assert_eq!(io::Error::from_raw_os_error(errno).kind(), kind, "{errno}");
        }
    }

    /// A number of the system's is passed on whatever its kind; an unknown kind is EIO.
    #[test]
    fn numbers_pass_and_strangers_are_eio() {
        for errno in [libc::EMFILE, libc::EFAULT, libc::EISCONN, libc::ENOTCONN] {
            assert_eq!(errno_of(&io::Error::from_raw_os_error(errno)), errno);
        }
        assert_eq!(errno_of(&io::Error::other("?")), libc::EIO);
    }

    /// The words of an error survive.
    #[test]
    fn words_are_kept() {
        let failure = Failure::from(io::Error::new(ErrorKind::TimedOut, "no answer from there"));
        assert_eq!(failure.errno, libc::ETIMEDOUT);
        assert_eq!(failure.message, "no answer from there");
    }

    /// Who is refused hears by whom, once.
    #[test]
    fn addresses_are_named_once() {
        let addr: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let refused = Failure::new(libc::ECONNREFUSED, "Connection refused").at(addr);
        assert_eq!(refused.message, "127.0.0.1:7000: Connection refused");
        assert_eq!(refused.clone().at(addr), refused);
    }
}
