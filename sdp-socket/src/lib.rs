//! Stream sockets over RDMA with zero copy for plain `write` and `read`: the *Sockets* Direct
//! Protocol (not Session Description).
//!
//! [`SdpStream`] and [`SdpListener`] are used as `std::net`'s TCP types. Between two processes of
//! one machine they need no adapter and no privilege.
//!
//! ```
//! use std::io::{Read, Write};
//! use sdp_socket::{SdpListener, SdpStream};
//!
//! let listener = SdpListener::bind("127.0.0.1:0")?;
//! let mut client = SdpStream::connect(listener.local_addr()?)?;
//! client.write_all(b"hello")?;
//! let (mut server, _) = listener.accept()?;
//! let mut hello = [0; 5];
//! server.read_exact(&mut hello)?;
//! assert_eq!(&hello, b"hello");
//! # std::io::Result::Ok(())
//! ```
//!
//! # Layers
//!
//! ```text
//!   SdpStream, SdpListener, Builder, SdpBuffer      stream listener builder bound buffer options
//!   connecting, listening                           connecting listener
//!   driver: actions -> verbs, completions -> engine driver/
//!   context: channels, timers, progress             context
//!   budget: memory of all connections together      budget
//!   report: what this process tells; who asks       report/ process
//!   park: clock, sleep, wake                        park/
//! ```
//!
//! # Threads
//!
//! Every type may be shared. Reads and writes of one stream go on at once; writes take turns, so
//! the bytes of two never mix. One thread of this library, `sdp-progress`, is started with the
//! first connect or bind: it completes handshakes and answers peers of connections on which no
//! thread is in a call. It sleeps while there is nothing to do.

mod agenda;
mod bound;
mod budget;
mod buffer;
mod builder;
mod capture;
mod connecting;
mod context;
mod driver;
mod error;
mod lent;
mod listener;
mod liveness;
mod options;
mod park;
mod process;
mod provider;
mod ready;
mod report;
mod size;
mod stats;
mod stream;
mod sync;
mod urgent;

pub use bound::SdpBound;
pub use budget::MemoryUse;
pub use buffer::SdpBuffer;
pub use builder::Builder;
pub use connecting::SdpConnecting;
pub use context::Context;
pub use driver::{RecvFlags, SendFlags};
pub use error::raw_errno;
pub use listener::{Incoming, SdpListener};
pub use options::ZcopyThreshold;
pub use park::{
    Runtime, SpinPolicy, WaitWord, cancel_sleep, inside, list_anew, list_sleeper, poll_asleep,
    signals_restart, watch_sleepers,
};
pub use process::{SdpProcess, Told};
pub use provider::{
    ProviderKind, Route, diagnosis, memory_use, route_to, set_trace, verbs_counters,
};
pub use ready::{Readiness, hide_descriptors};
pub use report::{Counters, set_counters};
pub use sdp_verbs::hidden;
pub use sdp_verbs::hook::trace::TraceCounters as VerbsCounters;
pub use sdp_verbs::survey;
pub use stats::{Choice, Stats};
pub use stream::SdpStream;
