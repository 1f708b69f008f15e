//! The provider for two processes of one machine, or two threads: the adapter is the CPU.
//!
//! A [`HostProvider`] is one end point: it has a random tag, a table of remote keys, and links to
//! other end points. A link is built once per pair of processes; queue pairs are slots in it.

mod arm;
mod bell;
mod cache;
mod cells;
mod channel;
mod cm;
mod control;
mod cq;
mod descriptor;
mod event;
mod event_channel;
mod handshake;
mod identity;
mod keys;
mod layout;
mod link;
mod message;
mod names;
mod notice;
mod options;
mod plane;
mod pool;
mod ports;
mod provider;
mod qp;
mod region;
mod ring;
mod shm;
mod token;
mod wait;
mod words;
mod xmem;

pub use control::caller;
pub use identity::Credentials;
pub use options::HostOptions;
pub use provider::HostProvider;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

// A fuzz target is one of the tests, with an input from outside.
#[cfg(all(fuzzing, not(test)))]
mod tests;

/// The body of a fuzz target: a peer that scribbles over a link's memory.
#[cfg(fuzzing)]
pub fn fuzz_link(bytes: &[u8]) {
    tests::scribble::run(bytes);
}
