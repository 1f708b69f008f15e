//! Running out of descriptors, said precisely.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Resource, getrlimit};

use crate::error::VerbsError;
use crate::hidden;

/// A second descriptor for the same open file, hidden from the program.
///
/// # Errors
/// [`VerbsError::Limit`] when out of descriptors.
pub(crate) fn share(fd: impl AsFd) -> Result<OwnedFd, VerbsError> {
    fd.as_fd()
        .try_clone_to_owned()
        .map(hidden::hide)
        .map_err(|e| failed("duplicating a descriptor of a host link", e))
}

/// How many descriptors this process may have open.
pub(crate) fn open_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Says which limit stands behind a failed attempt to open or pass a descriptor.
pub(crate) fn failed(op: &'static str, source: impl Into<io::Error>) -> VerbsError {
    let source = source.into();
    let remedy = match source.raw_os_error() {
        Some(libc::EMFILE) => "raise RLIMIT_NOFILE (ulimit -n)",
        Some(libc::ENFILE) => "raise the sysctl fs.file-max",
        Some(libc::ETOOMANYREFS) => {
            "raise RLIMIT_NOFILE: it also bounds the descriptors on their way between processes"
        }
        _ => return VerbsError::os(op, source),
    };
    VerbsError::Limit {
        what: op,
        limit: format!("RLIMIT_NOFILE {}: {source}", open_limit()),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_named() {
        let error = failed("opening", io::Error::from_raw_os_error(libc::EMFILE));
        assert!(matches!(error, VerbsError::Limit { .. }), "{error}");
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        let error = failed("opening", io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(error.errno(), libc::EACCES);
    }
}
