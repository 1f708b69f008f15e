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
//! on. Until the peer has the socket, and where it keeps none, it rings the doorbell.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketType, send, sockopt};

use super::descriptor;
use crate::error::VerbsError;

/// Sockets of peers get one of so many parts of the process's table of descriptors: the program did
/// not ask for them, and needs the rest itself.
const TABLE_PART: u64 = 8;

/// A peer's socket, and the count of those that the instance keeps.
#[derive(Debug)]
pub(crate) struct TokenSocket {
    socket: OwnedFd,
    count: Arc<AtomicU64>,
}

impl TokenSocket {
    /// Keeps a socket, unless `count` says that there are enough.
    pub(crate) fn keep(socket: OwnedFd, count: &Arc<AtomicU64>) -> Option<Self> {
        let max = descriptor::open_limit() / TABLE_PART;
        if count.fetch_add(1, Ordering::Relaxed) >= max {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let count = Arc::clone(count);
        Some(Self { socket, count })
    }
}

impl AsFd for TokenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for TokenSocket {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

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
