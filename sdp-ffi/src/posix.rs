//! The parts of this library that a library needs which gives its sockets to programs by other names:
//! `libsdp_preload` puts them behind descriptors.
//!
//! A socket that is [`register`]ed has a number, which every function of this library takes, and which
//! `sdp_close` closes.
//!
//! ```text
//!   Socket register                              a socket and what it is at the moment
//!   Family bytes_of read_address write_address   addresses
//!   guard cancellable Failed Failure             errno, panics, cancelled threads
//!   Several                                      the messages of one receive
//!   tcps_events whole_end                        what poll is asked and says of a socket
//! ```

use std::sync::Arc;

use libc::c_int;

pub use crate::address::{Family, bytes_of};
pub use crate::errno::Failure;
pub use crate::guard::{Failed, cancellable, guard};
pub use crate::message::Several;
pub use crate::pointer::{read_address, write_address};
pub use crate::poll::{tcps_events, whole_end};
use crate::process::process;
pub use crate::state::Socket;

/// A number for a socket, which belongs to it until it is closed.
///
/// # Errors
/// `EMFILE` with 2^20 open.
pub fn register(socket: Arc<Socket>) -> Result<c_int, Failure> {
    process().sockets.insert(socket)
}
