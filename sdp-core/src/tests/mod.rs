//! Tests of the whole engine: two of them on virtual time, or one against a scripted peer.

mod util;

mod at_once;
mod basic;
mod cancel;
mod coalesce;
mod hostile;
mod illegal;
mod interrupt;
mod keepalive;
mod opening;
mod paced;
mod pipelined;
mod random;
mod reading;
mod resize;
mod scarcity;
mod suspend;
mod table;
mod urgent;
mod write;
mod zcopy;
