//! The parts of this library that are not bound to its own functions, for a library that gives the
//! same sockets to programs by other names: `libsdp_preload` puts them behind descriptors.
//!
//! ```text
//!   Socket                                       a socket and what it is at the moment
//!   Family bytes_of                              addresses
//!   bytes … write_address                        C's pointers
//!   guard cancellable Failed Failure             errno, panics, cancelled threads
//! ```

pub use crate::address::{Family, bytes_of};
pub use crate::errno::Failure;
pub use crate::guard::{Failed, cancellable, guard};
pub use crate::pointer::{
    bytes, bytes_mut, read_address, recv_pieces, send_pieces, write_address, write_bytes,
};
pub use crate::settings::OptionBytes;
pub use crate::state::Socket;
