//! Registered buffers: memory that a peer on the same machine can read with one plain copy, and
//! that an adapter needs no registration for.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use sdp_verbs::MemoryRegion;

use crate::context::Context;
use crate::driver::{region_bytes, region_bytes_mut};
use crate::error;
use crate::park::Own;
use crate::provider::{ProviderKind, asked_for, shared};
use crate::stream::SdpStream;

/// Bytes registered for life with the process's default provider. Sends from it, or from any part
/// of it, take the fastest way there is. It gives the peer no right by itself: only the bytes of
/// a send in progress can be read, and only until that send returns.
///
/// While a call shows it to the peer the call borrows it, so another thread can neither free it,
///
/// ```compile_fail,E0505
/// # use std::io::Write;
/// fn free(mut stream: &sdp_socket::SdpStream, buf: sdp_socket::SdpBuffer) {
///     std::thread::scope(|threads| {
///         let shown = &buf;
///         let send = threads.spawn(move || stream.write(shown));
///         drop(buf);
///         send.join()
///     });
/// }
/// ```
///
/// nor move it,
///
/// ```compile_fail,E0505
/// # use std::io::Write;
/// fn take(mut stream: &sdp_socket::SdpStream, buf: sdp_socket::SdpBuffer) {
///     std::thread::scope(|threads| {
///         let shown = &buf;
///         let send = threads.spawn(move || stream.write(shown));
///         let elsewhere = Box::new(buf);
///         send.join()
///     });
/// }
/// ```
///
/// nor change it:
///
/// ```compile_fail,E0502
/// # use std::io::Write;
/// fn change(mut stream: &sdp_socket::SdpStream, mut buf: sdp_socket::SdpBuffer) {
///     std::thread::scope(|threads| {
///         let shown = &buf;
///         let send = threads.spawn(move || stream.write(shown));
///         buf[0] = 1;
///         send.join()
///     });
/// }
/// ```
///
/// When the call has returned all three are allowed:
///
/// ```
/// # use std::io::Write;
/// fn reuse(mut stream: &sdp_socket::SdpStream, mut buf: sdp_socket::SdpBuffer) {
///     let sent = std::thread::scope(|threads| {
///         let shown = &buf;
///         threads.spawn(move || stream.write(shown)).join()
///     });
///     buf[0] = 1;
///     drop(Box::new(buf));
/// }
/// ```
///
/// In a forked child it is empty: its memory stays with the parent.
pub struct SdpBuffer {
    held: Own<(Arc<dyn MemoryRegion>, Arc<Context>)>,
    len: usize,
}

impl SdpBuffer {
    /// `len` zeroed bytes, page aligned.
    ///
    /// # Errors
    /// Out of memory or descriptors, or a limit on file sizes or locked memory: the error names
    /// it. A bad `SDP_PROVIDER` or `SDP_MEM_MAX`.
    pub fn new(len: usize) -> io::Result<Self> {
        let contexts = shared(asked_for(None)?.unwrap_or(ProviderKind::Host))?;
        Self::with_context(&contexts[0], len)
    }

    /// As [`new`](Self::new), with the provider of `stream`, whichever that is, for this stream and all
    /// others of that provider.
    ///
    /// # Errors
    /// As [`new`](Self::new). In a forked child, for a stream of its parent's.
    pub fn for_stream(stream: &SdpStream, len: usize) -> io::Result<Self> {
        Self::with_context(&stream.conn()?.context, len)
    }

    /// As [`new`](Self::new), with the provider of a context of one's own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_context(context: &Arc<Context>, len: usize) -> io::Result<Self> {
        let region = context
            .provider()
            .alloc_registered(len.max(1))
            .map_err(error::verbs_error)?;
        context.add_registered(&region);
        let held = Own::new((region, Arc::clone(context)))?;
        Ok(Self { held, len })
    }
}

impl Drop for SdpBuffer {
    fn drop(&mut self) {
        if let Ok((region, context)) = self.held.get() {
            context.remove_registered(region.addr().as_ptr() as usize);
        }
    }
}

impl Deref for SdpBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.held.get() {
            Ok((region, _)) => &region_bytes(&**region)[..self.len],
            Err(_) => &[],
        }
    }
}

impl DerefMut for SdpBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self.held.get() {
            Ok((region, _)) => &mut region_bytes_mut(&**region)[..self.len],
            Err(_) => &mut [],
        }
    }
}

impl AsRef<[u8]> for SdpBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for SdpBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for SdpBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SdpBuffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
