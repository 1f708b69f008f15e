//! Bells, which make a descriptor readable, and the epoll sets that listen to them.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getpeername, recv, send,
    socketpair, sockopt,
};

use super::descriptor;
use crate::error::VerbsError;
use crate::hidden;

/// A new eventfd that does not block.
pub(crate) fn new_bell() -> Result<OwnedFd, VerbsError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map(hidden::hide)
        .map_err(|e| descriptor::failed("opening an eventfd", e))
}

/// A new epoll descriptor.
pub(crate) fn new_epoll() -> Result<OwnedFd, VerbsError> {
    epoll::create(epoll::CreateFlags::CLOEXEC)
        .map(hidden::hide)
        .map_err(|e| descriptor::failed("opening an epoll descriptor", e))
}

/// Makes an eventfd readable. A full one is readable already.
pub(crate) fn ring(bell: BorrowedFd<'_>) {
    let rung = rustix::io::write(bell, &1u64.to_ne_bytes());
    debug_assert!(matches!(rung, Ok(8) | Err(Errno::AGAIN | Errno::INTR)));
}

/// Makes an eventfd not readable.
pub(crate) fn silence(bell: BorrowedFd<'_>) {
    let mut count = [0; 8];
    let read = rustix::io::read(bell, &mut count);
    debug_assert!(matches!(read, Ok(8) | Err(Errno::AGAIN | Errno::INTR)));
}

/// A new doorbell: the end to listen to, and the end to ring at, for the peer.
///
/// It is no eventfd, whose mode belongs to everybody who has it: a peer that clears `O_NONBLOCK`
/// would have us block on it. Of these two ends each process has one, and its calls say themselves
/// that they do not wait.
pub(crate) fn new_doorbell() -> Result<(OwnedFd, OwnedFd), VerbsError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Datagrams, so that whatever becomes of the peer's end does not make ours readable for ever.
    let (own, peers) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
        .map_err(|e| descriptor::failed("opening a doorbell", e))?;
    Ok((hidden::hide(own), hidden::hide(peers)))
}

/// Whether a descriptor of a peer's is a doorbell: writing to anything else could do harm.
///
/// # Errors
/// [`VerbsError::Protocol`].
pub(crate) fn check_doorbell(bell: BorrowedFd<'_>) -> Result<(), VerbsError> {
    let broken = |rule: &str| VerbsError::Protocol {
        what: "doorbell of the peer",
        rule: rule.to_owned(),
    };
    let kind = sockopt::socket_domain(bell).and_then(|domain| {
        let kind = sockopt::socket_type(bell)?;
        Ok((domain, kind))
    });
    if !matches!(kind, Ok((AddressFamily::UNIX, SocketType::DGRAM))) {
        return Err(broken("it is not a Unix datagram socket"));
    }
    // A socket with a name is somebody else's: what we say there would be taken for our own word.
    let nameless = getpeername(bell)
        .ok()
        .flatten()
        .is_none_or(|addr| addr.addr_len() as usize == size_of::<libc::sa_family_t>());
    if !nameless {
        return Err(broken("it is connected to a socket with a name"));
    }
    Ok(())
}

/// Rings a peer's doorbell. Never blocks. A full one is readable already; nobody hears one whose
/// owner is gone.
pub(crate) fn ring_doorbell(bell: BorrowedFd<'_>) {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    while let Err(error) = send(bell, &[1], flags) {
        match error {
            Errno::INTR => {}
            Errno::AGAIN | Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE => {
                break;
            }
            error => {
                tracing::warn!(%error, "host link: its doorbell cannot be rung");
                break;
            }
        }
    }
}

/// Takes one ring back. There are no more of a peer that rings by the rules; otherwise the descriptor stays
/// readable. Never blocks.
pub(crate) fn silence_doorbell(bell: BorrowedFd<'_>) {
    // Empty, or an error of the peer's end, which has been told of by this.
    while let Err(Errno::INTR) = recv(bell, &mut [0_u8; 1], RecvFlags::DONTWAIT) {}
}
