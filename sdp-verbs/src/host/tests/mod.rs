//! The data plane by itself: two instances in one process, the control socket replaced by calls.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod rdma;
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "a fuzz target uses a part of what the tests share"
    )
)]
mod rig;
pub(super) mod scribble;
#[cfg(test)]
mod teardown;
#[cfg(test)]
mod waiting;
