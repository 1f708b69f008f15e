//! `libsdp`: streams over the *Sockets* Direct Protocol for C and everything that calls C.
//!
//! Each function is its POSIX namesake with `sdp_` before it: the same arguments, the same
//! results, -1 and `errno` on failure. What went wrong in words, with names and numbers, is what
//! `sdp_strerror_ext` returns on the same thread. `include/sdp.h` is generated from these files.
//!
//! # Sockets are not descriptors
//!
//! A socket is a number from 2^20 up, where Linux by default has no descriptors; it belongs to
//! this library only. A number that is closed, or that was never a socket, gives `EBADF`: each
//! carries a generation, so a closed one stays dead although its place is used again.
//! `sdp_fileno` gives a real descriptor for poll, select and epoll.
//!
//! # Threads, signals, fork
//!
//! * Any thread may call anything. Closing a socket ends the calls other threads are blocked in:
//!   with what they have done so far, else `EBADF`.
//! * A send on a stream whose other side is gone raises `SIGPIPE` on the calling thread, unless
//!   `MSG_NOSIGNAL`.
//! * `pthread_cancel` never ends a thread inside a call, so no lock is left held and no memory shown.
//!   Calls are cancellation points before they begin and when they have failed; one that waits goes
//!   on waiting: `sdp_shutdown`, `sdp_close` or a signal ends it.
//! * A child after `fork` has none of its parent's sockets and buffers: their numbers give
//!   `EBADF`, and nothing of the parent is disturbed.
//!
//! # Layers
//!
//! ```text
//!   socket io message sendfile options names poll       the functions of sdp.h: unsafe, thin
//!   control ioctl memory version
//!   pointer guard cancel                                pointers in, errno and panics out
//!   state settings kept stats address process handle    what they do: safe
//!   errno
//!   posix                                               those two for another front door
//! ```
//!
//! No panic crosses into the caller: it becomes `EIO`.

mod address;
mod cancel;
mod control;
mod errno;
mod guard;
mod handle;
mod io;
mod ioctl;
mod kept;
mod memory;
mod message;
mod names;
mod options;
mod pointer;
mod poll;
pub mod posix;
mod process;
mod sendfile;
mod settings;
mod socket;
mod state;
mod stats;
mod version;

pub use control::sdp_fcntl;
pub use io::{
    sdp_read, sdp_readv, sdp_recv, sdp_recvfrom, sdp_send, sdp_sendto, sdp_sockatmark, sdp_write,
    sdp_writev,
};
pub use ioctl::sdp_ioctl;
pub use memory::{sdp_alloc, sdp_free};
pub use message::{sdp_recvmmsg, sdp_recvmsg, sdp_sendmmsg, sdp_sendmsg};
pub use names::{sdp_getpeername, sdp_getsockname};
pub use options::{SDP_ZCOPY_AUTO, SDP_ZCOPY_THRESH, SOL_SDP, sdp_getsockopt, sdp_setsockopt};
pub use poll::{sdp_fileno, sdp_poll, sdp_ppoll, sdp_set_nonblocking};
pub use sendfile::sdp_sendfile;
pub use socket::{
    AF_INET_SDP, AF_INET6_SDP, sdp_accept, sdp_accept4, sdp_bind, sdp_close, sdp_connect,
    sdp_listen, sdp_shutdown, sdp_socket,
};
pub use stats::{SDP_STATS, SdpStats};
pub use version::{sdp_strerror_ext, sdp_version, sdp_version_number};
