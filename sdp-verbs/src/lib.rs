//! RDMA verbs for the *Sockets* Direct Protocol: one vocabulary, several providers.
//!
//! The words are those of ibverbs and rdma_cm: a [`Provider`] opens [`CompletionQueue`]s and
//! [`CmId`]s, a `CmId` that is bound to a device creates a [`QueuePair`], work requests are posted
//! to the queue pair and complete in its completion queue. Memory is named by keys, and a key that
//! was given to a peer can be taken back: it is *dead* once no access through it can succeed.
//!
//! [`host`] needs no adapter, [`rdma`] drives one, [`sim`] is a fabric in virtual time; [`hook`] has
//! wrappers around any of them, and [`conformance`] the suite that all have to pass.
//!
//! ```
//! use sdp_verbs::host::HostProvider;
//! use sdp_verbs::{Caps, Provider};
//!
//! let host = HostProvider::open()?;
//! assert!(host.caps().contains(Caps::RDMA_READ | Caps::SAME_HOST));
//! // Memory that peers may read by RDMA once a window over it is bound.
//! let region = host.alloc_registered(64 << 10)?;
//! assert!(region.len() >= 64 << 10);
//! # Ok::<(), sdp_verbs::VerbsError>(())
//! ```
//!
//! What it refuses to do: it knows no sockets and no SDP; it never blocks except in
//! [`CompletionQueue::wait`]; it starts no thread.
//!
//! # Threads
//!
//! Every object may be used from every thread. Two threads may post to one queue pair at once; the
//! order in which their requests enter it is then unspecified. One completion queue is polled by
//! one thread at a time: a second concurrent `poll` returns nothing.
//!
//! # Dropping
//!
//! Objects keep alive what they depend on, so they may be dropped in any order. Dropping never
//! panics and never blocks without bound. Dropping a `QueuePair` kills every key bound on it.

#![cfg_attr(not(target_os = "linux"), allow(unused))]
#[cfg(not(target_os = "linux"))]
compile_error!("sdp-verbs needs Linux 5.4 or newer: it relies on memfd seals, pidfd and futex");

pub mod caps;
pub mod cm;
pub mod conformance;
pub mod cq;
pub mod error;
pub mod hidden;
pub mod hook;
pub mod host;
mod locked;
pub mod memory;
pub mod mr;
mod own;
pub mod provider;
pub mod qp;
#[cfg(target_pointer_width = "64")]
pub mod rdma;
pub mod rng;
pub mod sim;
pub mod survey;
mod sync;
pub mod types;
pub mod wr;

pub use caps::{Caps, Limits};
pub use cm::{BindRequest, CmEvent, CmEventKind, CmId, CmToken, EventChannel, RejectReason};
pub use cq::{ArmFor, ArmToken, CompChannel, CompletionQueue, CqToken, Wake};
pub use error::{PostError, VerbsError};
pub use memory::{ForeignSlice, RecvBuf, SendBuf};
pub use mr::{Binding, MemoryRegion, MemoryWindow};
pub use provider::Provider;
pub use qp::{QpAttr, QueuePair};
pub use rng::Rng;
pub use types::{Access, Lkey, QpNum, RemoteAddr, Rkey, Sge, WrId};
pub use wr::{SendData, SendFlags, SendOp, SendWr, WcOpcode, WcStatus, WorkCompletion};
