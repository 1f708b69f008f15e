//! What the socket tests share.

pub(crate) mod child;
pub(crate) mod log;
pub(crate) mod net;
pub(crate) mod pattern;
pub(crate) mod raw;
pub(crate) mod rng;
pub(crate) mod script;
pub(crate) mod sdp;
pub(crate) mod tcp;
pub(crate) mod threads;
pub(crate) mod watch;
