//! What runs in guests.

use std::time::Duration;

use crate::cli::{Devices, Topologies};

/// A kind of software RDMA device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// RDMA over Converged Ethernet.
    Rxe,
    /// iWARP.
    Siw,
}

/// How devices are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One device, both ends on it.
    Loop,
    /// Two devices of one guest with a wire between them.
    Pair,
    /// Two guests with a wire between them.
    TwoGuests,
}

/// How the outcome of a job is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// The exit status decides.
    Status,
    /// Rust's test harness speaks.
    Libtest,
}

/// Something to run in a guest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    /// Last part of its name.
    pub(super) name: &'static str,
    /// Where it runs; none: without a device, on the provider for one machine.
    pub(super) topology: Option<Topology>,
    /// Kinds of device it is meant for.
    pub(super) devices: &'static [Device],
    /// Its script; both guests of a pair run it.
    pub(super) script: Script,
    /// How its outcome is read.
    pub(super) reading: Reading,
    /// Whether the short form has it.
    pub(super) short: bool,
    /// Seconds it may take, the boot included.
    pub(super) seconds_max: u64,
}

/// What a job runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Script {
    /// A shell script.
    Shell(&'static str),
    /// A shell script that uses the `sdp` program, as `$SDP`.
    Sdp(&'static str),
    /// A test program of the workspace with arguments.
    Test(&'static str, &'static str),
}

const DEVINFO: &str = include_str!("../../guest/jobs/devinfo.sh");
const RPING: &str = include_str!("../../guest/jobs/rping.sh");
const RPING_LINK: &str = include_str!("../../guest/jobs/rping_link.sh");
const SELF_CHECK: &str = include_str!("../../guest/jobs/self_check.sh");
const NETEM: &str = include_str!("../../guest/jobs/netem.sh");

const RXE: &[Device] = &[Device::Rxe];
const BOTH: &[Device] = &[Device::Rxe, Device::Siw];

/// All of them, in the order in which they run.
pub(super) const JOBS: &[Job] = &[
    job(
        "conformance-host",
        None,
        &[],
        Script::Test("conformance_host", ""),
    )
    .short(),
    job("self-check", None, &[], Script::Sdp(SELF_CHECK)).short(),
    job(
        "devinfo",
        Some(Topology::Loop),
        BOTH,
        Script::Shell(DEVINFO),
    )
    .short(),
    job("rping", Some(Topology::Loop), BOTH, Script::Shell(RPING)),
    job("rping", Some(Topology::Pair), BOTH, Script::Shell(RPING)).short(),
    job("netem", Some(Topology::Pair), RXE, Script::Shell(NETEM)),
    job(
        "rping",
        Some(Topology::TwoGuests),
        BOTH,
        Script::Shell(RPING_LINK),
    )
    .short(),
];

const fn job(
    name: &'static str,
    topology: Option<Topology>,
    devices: &'static [Device],
    script: Script,
) -> Job {
    let reading = match script {
        Script::Shell(_) | Script::Sdp(_) => Reading::Status,
        Script::Test(..) => Reading::Libtest,
    };
    Job {
        name,
        topology,
        devices,
        script,
        reading,
        short: false,
        seconds_max: 150,
    }
}

impl Job {
    const fn short(mut self) -> Self {
        self.short = true;
        self
    }

    /// Its whole name on a kind of device.
    pub(super) fn full_name(&self, device: Option<Device>) -> String {
        match (device, self.topology) {
            (Some(device), Some(topology)) => {
                format!("{}.{}.{}", device.name(), topology.name(), self.name)
            }
            _ => format!("guest.{}", self.name),
        }
    }

    pub(super) fn total_max(&self) -> Duration {
        Duration::from_secs(self.seconds_max)
    }
}

impl Script {
    /// The test program it runs, if it runs one.
    pub(super) fn test(&self) -> Option<&'static str> {
        match self {
            Self::Test(name, _) => Some(name),
            Self::Shell(_) | Self::Sdp(_) => None,
        }
    }
}

impl Device {
    pub(super) fn is_in(self, devices: Devices) -> bool {
        match devices {
            Devices::Rxe => self == Self::Rxe,
            Devices::Siw => self == Self::Siw,
            Devices::All => true,
        }
    }

    /// As the kernel's tools call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rxe => "rxe",
            Self::Siw => "siw",
        }
    }
}

impl Topology {
    pub(super) fn is_in(self, topologies: Topologies) -> bool {
        match topologies {
            Topologies::Loop => self == Self::Loop,
            Topologies::Pair => self == Self::Pair,
            Topologies::TwoGuests => self == Self::TwoGuests,
            Topologies::All => true,
        }
    }

    /// As the command line calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Loop => "loop",
            Self::Pair => "pair",
            Self::TwoGuests => "two-guests",
        }
    }

    /// The function of `net.sh` that builds it.
    pub(super) fn function(self) -> &'static str {
        match self {
            Self::Loop => "loop_up",
            Self::Pair => "pair_up",
            Self::TwoGuests => "link_up",
        }
    }
}
