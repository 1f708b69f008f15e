//! The control socket of a link: sequenced packets with descriptors and credentials.
//!
//! This module holds the one system call that has no safe wrapper: `recvmsg` with credentials
//! whose process id may be 0, which the safe wrappers at hand do not foresee.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, UCred, sockopt,
};
use smallvec::SmallVec;

use super::descriptor;
use super::identity::Credentials;
use super::message::{MESSAGE_MAX, Message, broken};
use crate::error::VerbsError;
use crate::hidden;

/// Descriptors one packet may bring; more than any message has, so that a few too many are
/// counted and named instead of cut off.
const DESCRIPTORS_MAX: usize = 8;
/// Room for them and for credentials.
const CONTROL_LEN: usize = 80;
/// Room for what is sent, wherever the compiler puts it.
const SEND_CONTROL_LEN: usize = 128;

/// One packet.
#[derive(Debug)]
pub(crate) struct Packet {
    /// What it says.
    pub(crate) message: Message,
    /// As many descriptors as the message must have; close-on-exec.
    pub(crate) fds: SmallVec<[OwnedFd; 3]>,
    /// Who sent it.
    pub(crate) credentials: Credentials,
}

/// What a receive found.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet.
    Packet(Packet),
    /// Nothing now.
    Empty,
    /// The peer has closed the socket, and everything it sent has been received.
    Closed,
}

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// It is in the peer's queue.
    Done,
    /// The peer's queue is full.
    Full,
    /// The peer has closed the socket.
    Closed,
}

/// A control socket, not yet connected.
///
/// # Errors
/// [`VerbsError::Limit`] when out of descriptors.
pub(crate) fn open() -> Result<OwnedFd, VerbsError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|e| descriptor::failed("opening a control socket", e))?;
    // Each packet then carries who sent it; accepted sockets inherit it from their listener.
    sockopt::set_socket_passcred(&socket, true)
        .map_err(|e| VerbsError::os("SO_PASSCRED on a control socket", e))?;
    Ok(hidden::hide(socket))
}

/// Sends one packet without blocking. `sign` says who we are by our effective user; without it
/// the kernel adds the real one, which is good enough to tell processes apart.
///
/// # Errors
/// [`VerbsError::Limit`] if too many descriptors are on their way; [`VerbsError::Os`] for lack of
/// memory.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    sign: bool,
) -> Result<Sent, VerbsError> {
    match send_once(socket.as_fd(), bytes, fds, sign) {
        // Our user has no name in our own user namespace, so we cannot say it. The kernel's word
        // does; the peer will judge it as it judges every user it does not know.
        Err(Errno::INVAL | Errno::PERM) if sign => send_once(socket.as_fd(), bytes, fds, false),
        other => other,
    }
    .map_err(not_sent)
}

/// As [`send`], where a lack of what comes back by itself is no error: kernel memory, or room for descriptors on
/// their way. `None`: it is lacking.
///
/// # Errors
/// As [`send`].
pub(crate) fn send_if_able(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<Option<Sent>, VerbsError> {
    match send_once(socket.as_fd(), bytes, fds, false) {
        Ok(sent) => Ok(Some(sent)),
        Err(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => Ok(None),
        Err(error) => Err(not_sent(error)),
    }
}

fn not_sent(error: Errno) -> VerbsError {
    descriptor::failed("sending on a control socket", error)
}

fn send_once(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    sign: bool,
) -> Result<Sent, Errno> {
    let mut space = [MaybeUninit::uninit(); SEND_CONTROL_LEN];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let mut fits = fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds));
    if sign {
        fits &= control.push(SendAncillaryMessage::ScmCredentials(UCred {
            pid: rustix::process::getpid(),
            uid: rustix::process::geteuid(),
            gid: rustix::process::getegid(),
        }));
    }
    assert!(fits, "no message of ours has this many descriptors");
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        let iov = [std::io::IoSlice::new(bytes)];
        return match net::sendmsg(socket, &iov, &mut control, flags) {
            Ok(_) => Ok(Sent::Done),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(Sent::Full),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Sent::Closed),
            Err(e) => Err(e),
        };
    }
}

/// Receives one packet without blocking and judges it by itself: length, kind, number of
/// descriptors. Descriptors of a packet that is refused are closed.
///
/// # Errors
/// [`VerbsError::Protocol`] with the broken rule; [`VerbsError::Os`] for lack of memory.
pub(crate) fn receive(socket: impl AsFd) -> Result<Received, VerbsError> {
    let mut bytes = [0_u8; MESSAGE_MAX];
    let raw = match receive_raw(socket.as_fd(), &mut bytes)? {
        Some(raw) => raw,
        None => return Ok(Received::Empty),
    };
    let Some(credentials) = raw.credentials else {
        // Every packet carries credentials, so what has neither bytes nor them is the end.
        return match raw.len {
            0 => Ok(Received::Closed),
            _ => Err(broken("a packet came without credentials".into())),
        };
    };
    let message = Message::decode(bytes.get(..raw.len).unwrap_or_default());
    if raw.truncated
        && raw.fds.is_empty()
        && let Ok(message) = &message
        && message.may_lack_descriptors()
    {
        return Ok(Received::Packet(Packet {
            message: message.clone(),
            fds: SmallVec::new(),
            credentials,
        }));
    }
    if raw.truncated {
        return Err(broken(format!(
            "a packet has more than {MESSAGE_MAX} bytes or {DESCRIPTORS_MAX} descriptors, or this \
             process has no room for them (RLIMIT_NOFILE {})",
            descriptor::open_limit()
        )));
    }
    let message = message?;
    let expected = message.descriptors();
    if raw.fds.len() != expected {
        return Err(broken(format!(
            "{} descriptors came with a message that has {expected}",
            raw.fds.len()
        )));
    }
    Ok(Received::Packet(Packet {
        message,
        fds: raw.fds.into_iter().map(hidden::hide).collect(),
        credentials,
    }))
}

/// A packet before it is judged.
struct Raw {
    len: usize,
    truncated: bool,
    fds: SmallVec<[OwnedFd; DESCRIPTORS_MAX]>,
    credentials: Option<Credentials>,
}

#[repr(C, align(8))]
struct ControlSpace([u8; CONTROL_LEN]);

/// `None` when nothing is there.
fn receive_raw(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<Option<Raw>, VerbsError> {
    let mut control = ControlSpace([0; CONTROL_LEN]);
    let mut iov = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: `msghdr` is plain integers and pointers, for which all zeroes is a value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    let len = loop {
        #[expect(
            clippy::useless_conversion,
            reason = "the C libraries disagree about this field's type"
        )]
        {
            header.msg_controllen = CONTROL_LEN.try_into().unwrap_or_default();
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the descriptor is borrowed, so open; `header` points to `iov` and `control`,
        // which live here, are as long as it says, and are not otherwise in use.
        let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        if let Ok(len) = usize::try_from(result) {
            break len;
        }
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            // A reset is reported once, before what was sent earlier: that still counts.
            Some(libc::EINTR | libc::ECONNRESET) => {}
            Some(libc::EAGAIN) => return Ok(None),
            _ => return Err(VerbsError::os("receiving on a control socket", error)),
        }
    };
    let mut raw = Raw {
        len,
        truncated: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        fds: SmallVec::new(),
        credentials: None,
    };
    take_control(&header, &mut raw);
    Ok(Some(raw))
}

/// Takes descriptors and credentials out of a received header.
fn take_control(header: &libc::msghdr, raw: &mut Raw) {
    // SAFETY: `header` is as the kernel filled it, and its control space is still alive.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: not null, so it points to a whole, aligned `cmsghdr` within the space.
        let cmsg = unsafe { at.read() };
        // SAFETY: as above; the data follow the header.
        let data = unsafe { libc::CMSG_DATA(at) };
        // SAFETY: plain arithmetic on a length.
        let head = unsafe { libc::CMSG_LEN(0) };
        // The C libraries disagree about these types; both hold a small length.
        let len = (cmsg.cmsg_len as usize).saturating_sub(head as usize);
        match (cmsg.cmsg_level, cmsg.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for i in 0..len / size_of::<i32>() {
                    // SAFETY: the kernel says that `len` bytes of data are there.
                    let place = unsafe { data.cast::<i32>().add(i) };
                    // SAFETY: within the data; it may be unaligned.
                    let number = unsafe { place.read_unaligned() };
                    // SAFETY: the kernel has just opened it for us, and says so only once.
                    raw.fds.push(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= size_of::<libc::ucred>() => {
                // SAFETY: the data are that long, and `ucred` is plain integers.
                let ucred = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                raw.credentials = Some(Credentials {
                    pid: ucred.pid,
                    uid: ucred.uid,
                });
            }
            _ => {}
        }
        // SAFETY: `header` and `at` are as above.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
}

/// Who called connect(2) on an accepted socket, or listen(2) behind a connected one, as the kernel
/// noted it then. Whoever has been handed the socket since is somebody else.
///
/// # Errors
/// [`VerbsError::Os`] if it is no connected Unix socket.
pub fn caller(socket: impl AsFd) -> Result<Credentials, VerbsError> {
    let mut cred = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or_default();
    // SAFETY: the descriptor is borrowed, so open; `cred` and `len` are alive and fit each other.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            cred.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(VerbsError::os(
            "SO_PEERCRED of a control socket",
            std::io::Error::last_os_error(),
        ));
    }
    // SAFETY: zeroed at first, then filled by the kernel; plain integers.
    let cred = unsafe { cred.assume_init() };
    Ok(Credentials {
        pid: cred.pid,
        uid: cred.uid,
    })
}

#[cfg(test)]
mod tests;
