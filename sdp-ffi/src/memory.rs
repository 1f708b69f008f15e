//! Registered memory.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use libc::{c_int, c_void, size_t};
use sdp_socket::SdpBuffer;

use crate::errno::Failure;
use crate::guard::guard;
use crate::process::process;

fn buffers() -> MutexGuard<'static, HashMap<usize, SdpBuffer>> {
    let buffers = &process().buffers;
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that is registered for life: sends from any part of it take the fastest way there is.
/// Zeroed, page aligned; length 0 gives one byte. A forked child must not touch it.
///
/// Returns the memory; or NULL with ENOMEM or what the system said.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sdp_alloc(length: size_t) -> *mut c_void {
    guard("sdp_alloc", || {
        if isize::try_from(length).is_err() {
            let words = format!("{length} bytes are more than there can be");
            return Err(Failure::new(libc::ENOMEM, words));
        }
        let mut buffer = SdpBuffer::new(length)?;
        let at = buffer.as_mut_ptr();
        buffers().insert(at.addr(), buffer);
        Ok(at.cast())
    })
}

/// Gives memory of sdp_alloc() back. NULL is fine.
///
/// Returns 0; or -1 with EINVAL for a pointer that did not come from sdp_alloc(), or that has been
/// given back; nothing is done then.
///
/// # Safety
/// No call that uses the memory is in progress, and nothing uses it afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sdp_free(memory: *mut c_void) -> c_int {
    guard("sdp_free", || {
        if memory.is_null() {
            return Ok(0);
        }
        let buffer = buffers().remove(&memory.addr());
        if buffer.is_none() {
            let words = format!("{memory:p} is no memory of sdp_alloc");
            return Err(Failure::new(libc::EINVAL, words));
        }
        Ok(0)
    })
}
