//! What the cases stand on: two sides, their connections, and a bounded way to wait.

mod end;
mod lab;
mod mem;
mod poll_thread;

use std::net::IpAddr;

pub(super) use end::{End, NOTHING};
pub(super) use lab::{BOUND, Lab, Link, Options, Side};
pub(super) use mem::{Exposure, Mem, pattern};

use super::report::{Stop, Verdict, ensure};
use super::{Fixture, Poller, Sides};
use crate::caps::{Caps, Limits};

/// What a case is given.
#[derive(Debug)]
pub(super) struct Rig<'a> {
    fixture: &'a dyn Fixture,
    pub(super) sides: Sides,
}

impl<'a> Rig<'a> {
    pub(super) fn new(fixture: &'a dyn Fixture) -> Verdict<Self> {
        let sides = fixture.open()?;
        Ok(Self { fixture, sides })
    }

    pub(super) fn address(&self) -> IpAddr {
        self.fixture.address()
    }

    /// An IPv6 address of the passive side; without one the case is skipped.
    pub(super) fn address_v6(&self) -> Verdict<IpAddr> {
        self.fixture.address_v6().map_err(Stop::Skipped)
    }

    pub(super) fn rounds(&self) -> u32 {
        self.fixture.rounds()
    }

    /// What both sides can do.
    pub(super) fn caps(&self) -> Caps {
        self.sides.active.caps() & self.sides.passive.caps()
    }

    /// What both sides guarantee, as far as cases ask.
    pub(super) fn limits(&self) -> Limits {
        let (one, other) = (self.sides.active.limits(), self.sides.passive.limits());
        Limits {
            recv_len_max: one.recv_len_max.min(other.recv_len_max),
            inline_max: one.inline_max.min(other.inline_max),
            rdma_len_max: one.rdma_len_max.min(other.rdma_len_max),
            sge_max: one.sge_max.min(other.sge_max),
            read_depth_max: one.read_depth_max.min(other.read_depth_max),
            registered_max: one.registered_max.min(other.registered_max),
            ..one
        }
    }

    /// Bytes of a large request. Both sides may be of one process, which has the memory registered
    /// three times then, and message buffers.
    pub(super) fn large(&self) -> usize {
        let limits = self.limits();
        limits
            .rdma_len_max
            .min(limits.registered_max / 6)
            .min(3 << 20)
    }

    /// Skips the case unless both sides have a capability.
    pub(super) fn need(&self, caps: Caps) -> Verdict {
        let absent = caps - self.caps();
        if absent.is_empty() {
            Ok(())
        } else {
            Err(Stop::Skipped(format!("absent: {absent:?}")))
        }
    }

    /// Skips the case unless memory can be shown to the peer for reading or writing.
    pub(super) fn need_exposure(&self) -> Verdict {
        if self
            .caps()
            .intersects(Caps::MEMORY_WINDOW | Caps::REMOTE_MR)
        {
            Ok(())
        } else {
            Err(Stop::Skipped(
                "absent: MEMORY_WINDOW and REMOTE_MR".to_owned(),
            ))
        }
    }

    /// Two sides with nothing between them yet.
    pub(super) fn lab(&self) -> Verdict<Lab> {
        Lab::new(&self.sides, self.fixture.address(), self.fixture.poller())
    }

    /// A lab in which the case itself polls, whatever the fixture says.
    pub(super) fn manual_lab(&self) -> Verdict<Lab> {
        Lab::new(&self.sides, self.fixture.address(), Poller::Caller)
    }

    /// A connection in a lab of its own.
    pub(super) fn link(&self, options: &Options) -> Verdict<Link> {
        self.lab()?.link(options)
    }

    /// As [`link`](Self::link), with room for the usual.
    pub(super) fn plain_link(&self) -> Verdict<Link> {
        self.link(&Options::default())
    }
}

/// Fails unless a failed call failed for one of the reasons given.
#[track_caller]
pub(super) fn refused<T, E: std::fmt::Debug>(
    what: &str,
    result: Result<T, E>,
    fits: impl FnOnce(&E) -> bool,
) -> Verdict {
    match result {
        Ok(_) => Err(Stop::failed(format!("{what} was accepted"))),
        Err(error) => {
            ensure!(
                fits(&error),
                "{what} was refused for the wrong reason: {error:?}"
            );
            Ok(())
        }
    }
}
