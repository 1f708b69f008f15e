//! Tokens: bytes in a socket of the peer's program, by which it is shown that a message has come.
//!
//! ```text
//! owner                                   peer
//! lend_token_socket ── Token, socket ──▶  keeps it
//! arm for tokens, look once more          publishes a message, fence, sees the arm
//!                                         takes it, then puts the byte
//! arms for something else: was it taken?
//! ```
//! Who finds the arm taken knows of a token that lies in the socket, or will as soon as the peer goes
//! on. Until the peer has the socket it rings the doorbell.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketType, send, sockopt};

use crate::error::VerbsError;

/// Whether a descriptor of a peer's is one to put tokens into: writing to anything else could do
/// harm.
///
/// # Errors
/// [`VerbsError::Protocol`].
pub(crate) fn check(socket: BorrowedFd<'_>) -> Result<(), VerbsError> {
    let kind = sockopt::socket_domain(socket).and_then(|domain| {
        let kind = sockopt::socket_type(socket)?;
        Ok((domain, kind))
    });
    if matches!(kind, Ok((AddressFamily::UNIX, SocketType::STREAM))) {
        return Ok(());
    }
    Err(VerbsError::Protocol {
        what: "token socket of the peer",
        rule: "it is not a Unix stream socket".to_owned(),
    })
}

/// Puts a token. Never blocks. False: it cannot be put there.
pub(crate) fn put(socket: BorrowedFd<'_>) -> bool {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match send(socket, b"r", flags) {
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
