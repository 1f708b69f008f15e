//! One connection of the *Sockets* Direct Protocol as a state machine: no I/O, no clock, no lock,
//! no thread, no random numbers.
//!
//! [`Connection`] takes inputs (`handle_*`) and application calls, and gives out [`Action`]s (verb
//! calls as plain values), [`Event`]s and the time it wants to be called again. Time is an
//! argument. Memory is named by opaque ids: a posted receive [`BufferId`], a piece of private
//! memory [`MemId`], a message being filled [`GrantId`], the caller's own memory by the id of the
//! call that brought it. The engine never sees a payload byte.
//!
//! ```
//! use sdp_core::{Action, Config, Connection, Instant};
//!
//! let now = Instant::from_nanos(0);
//! let mut client = Connection::connect(now, Config::default(), 7000, None, None);
//! // A driver carries every action out; here it matters that one of them sends the Hello.
//! let mut actions = std::iter::from_fn(|| client.poll_action());
//! let hello = actions.find_map(|action| match action {
//!     Action::Connect(hello) => Some(hello),
//!     _ => None,
//! });
//! // The other end begins with it, and answers.
//! let hello = hello.expect("a connect request");
//! let mut server = Connection::accept(now, Config::default(), &hello).expect("a good Hello");
//! let mut actions = std::iter::from_fn(|| server.poll_action());
//! assert!(actions.any(|action| matches!(action, Action::Accept(_))));
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

use core::time::Duration;

// First, so that all others have its macro.
#[macro_use]
#[doc(hidden)]
pub mod mutate;

mod control;
mod credits;
mod keys;
mod mark;
mod mode;
mod opening;
mod outbox;
mod patience;
mod resize;
mod rx;
mod suspend;
#[cfg(test)]
mod tests;
mod timer;
mod turns;
mod tx;

pub mod action;
pub mod adaptive;
pub mod call;
pub mod config;
pub mod connection;
pub mod error;
pub mod event;
pub mod ids;
pub mod keepalive;
pub mod stats;
pub mod time;

pub use action::{Action, CopyJob, CopyWhat, Payload, PostSend, PrivateData, ReadInto};
pub use adaptive::{Adaptive, Choice, Mechanism, Why};
pub use call::{
    CopySource, CopyTarget, EndCall, FoundAtOnce, RecvRequest, RecvStep, SendRequest, SendStep,
    UrgentRecv,
};
pub use config::{Config, ZcopyThreshold};
pub use connection::{Connection, PeerParams, Phase, Refusal};
pub use error::{CallError, ConnectionError};
pub use event::{CmInput, Completion, Event, Received};
pub use ids::{BufferId, CallId, GrantId, JobId, KeyId, MemId, RecvId, SendId, WorkId};
pub use keepalive::Keepalive;
pub use stats::{CopyReason, Stats};
pub use time::Instant;

/// How long to wait after the driver refused memory before asking again.
pub(crate) const RETRY_WAIT: Duration = Duration::from_millis(10);
