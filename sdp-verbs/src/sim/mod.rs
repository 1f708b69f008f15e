//! A deterministic fabric: virtual time, one seed, adapters and links with costs, and faults.
//!
//! A [`Fabric`] holds everything: clock, links, adapters, queue pairs, connection management.
//! [`Fabric::node`] adds a machine with one adapter, which is a [`Provider`](crate::Provider).
//! Nothing happens by itself: under [`Drive::Stepped`] whoever owns the fabric calls
//! [`step`](Fabric::step), and between two steps no byte moves; under [`Drive::Eager`] every call
//! carries out all that follows from it, so that programs with threads of their own run on it.
//!
//! The same seed and the same calls give the same run, and the same [`trace
//! hash`](Fabric::trace_hash). [`Faults`] says what goes wrong and how often.
//!
//! # Time
//!
//! Every machine has processors, one unless [`SimOptions::processors`] says otherwise, which are
//! busy for a while with what is done on them ([`Timing`]): posting, registering, copying, taking
//! interrupts. What a busy processor posts leaves when it is done. [`SimProvider::now`] is the time
//! on the one that works now ([`SimProvider::run_on`]), and [`SimProvider::busy`] what all of them
//! have spent their time on.
//!
//! A program that a busy processor runs is ahead of the clock. Before it looks at a completion
//! queue, whoever runs programs may let the clock catch up: [`Fabric::set_pace`].
//!
//! # What an adapter does
//!
//! A SEND takes its bytes when it is posted (inline, reserved buffers) or when it starts
//! (scatter lists), and fills the receive when it arrives. A READ takes its bytes when the
//! answer leaves, after the key was looked at a second time. Completions of one queue come in
//! order; those of the send queue and of the receive queue are in no order to each other. A place
//! in the send queue is free again when the completion of the request, or of one behind it, has
//! been polled. A queue pair in error tells the peer nothing: the peer's requests fail when the
//! retries are over, or connection management says it earlier.

mod adapter;
mod channel;
mod clock;
mod cm;
mod cq;
mod events;
mod fabric;
mod faults;
mod link;
mod opening;
mod options;
mod processors;
mod provider;
mod qp;
mod region;
mod request;
mod trace;
mod watch;
mod world;

pub use fabric::{Drive, Fabric, SOON};
pub use faults::{Fault, FaultCounts, Faults};
pub use options::{SimOptions, Timing};
pub use processors::{Busy, Work};
pub use provider::SimProvider;
pub use watch::{Passing, Watcher};
