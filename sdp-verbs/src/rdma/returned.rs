//! What calls of the C libraries came to.

use std::ptr::NonNull;

use super::sys;
use crate::error::VerbsError;

/// What a call that returns an errno, or -1 with errno set, came to.
pub(super) fn check(op: &'static str, returned: libc::c_int) -> Result<(), VerbsError> {
    match returned {
        0 => Ok(()),
        code if code > 0 => Err(VerbsError::os(op, std::io::Error::from_raw_os_error(code))),
        _ => Err(last_error(op)),
    }
}

/// Gives an object back that could otherwise go on using a program's memory.
///
/// If the device refuses although it is there, memory that is about to have another owner could
/// still be read or written by a peer, and no caller could do anything about that: nothing that
/// follows could be trusted, so the process ends.
pub(super) fn check_released(op: &'static str, returned: libc::c_int) {
    let Err(error) = check(op, returned) else {
        return;
    };
    if is_removed(&error) {
        // Its keys are gone with it.
        tracing::warn!("{error}");
        return;
    }
    tracing::error!("{error}");
    std::process::abort();
}

/// Whether a call failed because the device has been removed: the kernel answers EIO to everything
/// that names an object of it (ib_uverbs, `ib_uverbs_remove_one`).
pub(super) fn is_removed(error: &VerbsError) -> bool {
    matches!(error.errno(), libc::EIO | libc::ENODEV)
}

/// What errno says about a call that returned nothing.
pub(super) fn last_error(op: &'static str) -> VerbsError {
    VerbsError::os(op, std::io::Error::last_os_error())
}

/// An object of the C library, or why there is none.
pub(super) fn made<T>(op: &'static str, object: *mut T) -> Result<NonNull<T>, VerbsError> {
    NonNull::new(object).ok_or_else(|| {
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => VerbsError::Limit {
                what: op,
                limit: error.to_string(),
                remedy: "raise the limits of locked memory and of descriptors (ulimit -l, -n)",
            },
            // The bound of a cgroup (kernel/cgroup/rdma.c), and mlx5's answer when its adapter is full.
            Some(libc::EAGAIN) => VerbsError::Limit {
                what: op,
                limit: error.to_string(),
                remedy: "raise rdma.max of the control group; without one the adapter has no more \
                         of these, and fewer connections must do",
            },
            // The context of a device stays dead, though the device may have come back.
            Some(libc::EIO | libc::ENODEV) => sys::unavailable(format!(
                "{op}: {error}: the device was removed or reset; a program finds it again when it is \
                 started anew"
            )),
            _ => VerbsError::os(op, error),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn failed(code: libc::c_int) -> VerbsError {
        // SAFETY: no preconditions.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: this thread's own.
        unsafe { errno.write(code) };
        made::<u8>("ibv_create_qp", ptr::null_mut()).unwrap_err()
    }

    /// What a control group or the adapter has no more of is a limit, not a call to be tried again.
    #[test]
    fn a_limit_is_named() {
        for (code, remedy) in [(libc::EAGAIN, "rdma.max"), (libc::ENOMEM, "ulimit -l")] {
            let error = failed(code);
            assert!(matches!(error, VerbsError::Limit { .. }), "{error}");
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }

    /// A device that is gone is told from one that refuses.
    #[test]
    fn a_removed_device_is_named() {
        for code in [libc::EIO, libc::ENODEV] {
            assert!(is_removed(&check("ibv_destroy_qp", code).unwrap_err()));
            let error = failed(code);
            assert!(error.to_string().contains("started anew"), "{error}");
        }
        assert!(!is_removed(
            &check("ibv_destroy_qp", libc::EBUSY).unwrap_err()
        ));
    }
}
