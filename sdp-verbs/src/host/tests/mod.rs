//! The data plane by itself: two instances in one process, the control socket replaced by calls.

mod hostile;
mod messages;
mod rdma;
mod rig;
mod teardown;
mod waiting;
