//! Bodies of tests, written once for every kind of stream.

pub(crate) mod close;
pub(crate) mod data;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod ours;
pub(crate) mod promise;
pub(crate) mod queues;
pub(crate) mod urgent;
pub(crate) mod wait;
pub(crate) mod zcopy;
