//! From the errors of the lower layers to `io::Error`: the one table.

use std::io;

use sdp_core::{CallError, ConnectionError};
use sdp_verbs::{RejectReason, VerbsError};

/// A failed call.
pub(crate) fn call_error(error: &CallError) -> io::Error {
    match error {
        CallError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        CallError::Interrupted => io::ErrorKind::Interrupted.into(),
        CallError::BrokenPipe => errno(libc::EPIPE),
        CallError::NotConnected => errno(libc::ENOTCONN),
        CallError::Fault => errno(libc::EFAULT),
        CallError::Connection(why) => connection_error(why),
        other => io::Error::other(*other),
    }
}

/// Why a connection ended.
pub(crate) fn connection_error(error: &ConnectionError) -> io::Error {
    let kind = match error {
        ConnectionError::PeerMisbehaved(_) | ConnectionError::Malformed(_) => {
            io::ErrorKind::ConnectionAborted
        }
        ConnectionError::PeerIncompatible(_) | ConnectionError::Refused(_) => {
            io::ErrorKind::ConnectionRefused
        }
        ConnectionError::Reset => return errno(libc::ECONNRESET),
        ConnectionError::TimedOut(_) => io::ErrorKind::TimedOut,
        ConnectionError::Transport(_) | ConnectionError::MemoryGone(_) => {
            io::ErrorKind::ConnectionReset
        }
        ConnectionError::Unreachable(code) => return errno(*code),
        ConnectionError::LocallyAborted => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, *error)
}

/// A failed verb. Plain system errors keep their errno; the others keep their words, and a full
/// table of descriptors is one of them.
pub(crate) fn verbs_error(error: VerbsError) -> io::Error {
    let error = match error {
        VerbsError::Os { op, source } if is_out_of_descriptors(&source) => VerbsError::Limit {
            what: op,
            limit: format!("RLIMIT_NOFILE or fs.file-max: {source}"),
            remedy: "raise ulimit -n",
        },
        other => other,
    };
    let kind = errno(error.errno()).kind();
    match error {
        VerbsError::Os { op: _, source } if source.raw_os_error().is_some() => source,
        other => io::Error::new(kind, other),
    }
}

/// The errno inside of an error of this crate: of the system call, the verb or the peer's answer
/// that failed. `None` for errors that have their kind only.
#[must_use]
pub fn raw_errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let verbs: &VerbsError = error.get_ref()?.downcast_ref()?;
        Some(verbs.errno())
    })
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// A rejection in words.
pub(crate) fn reject_reason(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::NoListener => "nobody listens there",
        RejectReason::Backlog => "the listener's backlog is full",
        RejectReason::Consumer => "the listening program turned it down",
        RejectReason::NotPermitted => "the peer belongs to another user",
        RejectReason::Incompatible => "the peer's version does not fit",
        RejectReason::Stale => {
            "the peer's machine still had a connection from before a crash, and ends it now: try again"
        }
        _ => "rejected",
    }
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// Every reason gives the kind that a TCP program expects.
    #[test]
    fn kinds_are_those_of_tcp() {
        let rows = [
            (ConnectionError::Reset, ErrorKind::ConnectionReset),
            (ConnectionError::Transport("x"), ErrorKind::ConnectionReset),
            (ConnectionError::MemoryGone("x"), ErrorKind::ConnectionReset),
            (ConnectionError::Refused("x"), ErrorKind::ConnectionRefused),
            (
                ConnectionError::PeerIncompatible("x"),
                ErrorKind::ConnectionRefused,
            ),
            (ConnectionError::TimedOut("x"), ErrorKind::TimedOut),
            (
                ConnectionError::PeerMisbehaved("x"),
                ErrorKind::ConnectionAborted,
            ),
            (
                ConnectionError::Unreachable(libc::ENETUNREACH),
                ErrorKind::NetworkUnreachable,
            ),
            (
                ConnectionError::LocallyAborted,
                ErrorKind::ConnectionAborted,
            ),
        ];
        for (error, kind) in rows {
            assert_eq!(connection_error(&error).kind(), kind, "{error:?}");
        }
        assert_eq!(
            call_error(&CallError::BrokenPipe).kind(),
            ErrorKind::BrokenPipe
        );
        assert_eq!(
            call_error(&CallError::WouldBlock).kind(),
            ErrorKind::WouldBlock
        );
        assert_eq!(
            call_error(&CallError::NotConnected).kind(),
            ErrorKind::NotConnected
        );
        assert_eq!(
            call_error(&CallError::Fault).raw_os_error(),
            Some(libc::EFAULT)
        );
    }

    /// A limit says in words what to do about it.
    #[test]
    fn verbs_errors_keep_their_words() {
        let limit = VerbsError::Limit {
            what: "memfd",
            limit: "RLIMIT_FSIZE=1".into(),
            remedy: "raise it",
        };
        let error = verbs_error(limit);
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("RLIMIT_FSIZE") && error.to_string().contains("raise"));
        let full = VerbsError::os("opening", errno(libc::EMFILE));
        assert!(verbs_error(full).to_string().contains("RLIMIT_NOFILE"));
        let other = VerbsError::os("binding", errno(libc::EADDRINUSE));
        assert_eq!(verbs_error(other).kind(), ErrorKind::AddrInUse);
    }
}
