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

/// What guests leave besides their outcome, for a judge on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evidence {
    /// What went over the wire between two guests, for a dissector.
    Capture,
    /// The same, and what both guests have written down themselves.
    Conversation,
    /// The report of `hw-test` and its page, in the folder of the first guest.
    HwTest,
    /// Instructions, counted in each of two boots.
    Cost,
    /// What each program has measured, round by round.
    Performance,
    /// What the device says that it can do, beside what was left out.
    Skips,
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
    /// What bash runs; both guests of a pair run it.
    pub(super) script: &'static str,
    /// The test program that the script knows as `$TEST`.
    pub(super) test: Option<&'static str>,
    /// Whether the script uses the `sdp` program, as `$SDP`.
    pub(super) with_sdp: bool,
    /// Whether one guest reaches the other by ssh.
    pub(super) with_ssh: bool,
    /// Whether unmodified programs run, with the preload library.
    pub(super) with_preload: bool,
    /// Whether it needs the small C programs.
    pub(super) with_probes: bool,
    /// Whether its guest always has virtual time, which no other work of this machine disturbs.
    pub(super) counted: bool,
    /// Whether its guest has two processors. Most have one, which the emulator carries out in less than
    /// half of the time that it needs for two that wait for each other. Two where threads race, and for
    /// the programs of perftest, which give their processor to nobody.
    pub(super) on_two_processors: bool,
    /// How its outcome is read.
    pub(super) reading: Reading,
    /// What else is judged once it has succeeded.
    pub(super) evidence: Option<Evidence>,
    /// Whether the short form has it.
    pub(super) short: bool,
    /// How long it takes, about, beside the boot of its guest: only the order depends on it.
    pub(super) seconds: u32,
    /// Whether it leaves a guest that is of no use to a job after it.
    pub(super) is_last: bool,
}

const SELF_CHECK: &str = include_str!("../../guest/jobs/self_check.sh");
const DEVINFO: &str = include_str!("../../guest/jobs/devinfo.sh");
const RPING: &str = include_str!("../../guest/jobs/rping.sh");
const RPING_LINK: &str = include_str!("../../guest/jobs/rping_link.sh");
const NETEM: &str = include_str!("../../guest/jobs/netem.sh");
const HW_TEST: &str = include_str!("../../guest/jobs/hw_test.sh");
const HW_TEST_SSH: &str = include_str!("../../guest/jobs/hw_test_ssh.sh");
const HW_TEST_NO_DEVICE: &str = include_str!("../../guest/jobs/hw_test_no_device.sh");
const HW_TEST_ALONE: &str = include_str!("../../guest/jobs/hw_test_alone.sh");
/// All tests of a program; few at once, the guest is slow.
const TEST: &str = "\"$TEST\" --include-ignored --test-threads=2\n";
const CONFORMANCE: &str = "conformance_rdma";
const CONFORMS: &str = include_str!("../../guest/jobs/conformance.sh");
const PROVIDERS: &str = include_str!("../../guest/jobs/providers.sh");
const DEVICES: &str = include_str!("../../guest/jobs/devices.sh");
const MEMLOCK: &str = include_str!("../../guest/jobs/memlock.sh");
const STREAM_NOBODY: &str = include_str!("../../guest/jobs/stream_nobody.sh");
const KILL: &str = include_str!("../../guest/jobs/kill.sh");
const DOCTOR: &str = include_str!("../../guest/jobs/doctor.sh");
const SOAK: &str = include_str!("../../guest/jobs/soak.sh");
const CAPTURE: &str = include_str!("../../guest/jobs/capture.sh");
const FIRST_MESSAGE: &str = include_str!("../../guest/jobs/first_message.sh");
const PRELOAD: &str = include_str!("../../guest/jobs/preload.sh");
const LOSS: &str = include_str!("../../guest/jobs/loss.sh");
const PEER_GONE: &str = include_str!("../../guest/jobs/peer_gone.sh");
const KEYS: &str = include_str!("../../guest/jobs/keys.sh");
/// One at a time: each of these tests has its own threads already.
const STREAM: &str = "\"$TEST\" --include-ignored --test-threads=1\n";
const COST: &str = include_str!("../../guest/jobs/cost.sh");
const PERFORMANCE: &str = include_str!("../../guest/jobs/performance.sh");
const STREAM_RDMA: &str = "stream_rdma";
const CONFORMANCE_NOBODY: &str = include_str!("../../guest/jobs/conformance_nobody.sh");

const NONE: &[Device] = &[];
const RXE: &[Device] = &[Device::Rxe];
const SIW: &[Device] = &[Device::Siw];
const BOTH: &[Device] = &[Device::Rxe, Device::Siw];
const LOOP: Option<Topology> = Some(Topology::Loop);
const PAIR: Option<Topology> = Some(Topology::Pair);
const TWO_GUESTS: Option<Topology> = Some(Topology::TwoGuests);

/// Far above what a job takes, with its boot, also on a machine that does much else: what is over this
/// hangs. In the guest `cases.sh` sees to it.
pub(super) const TOTAL_MAX: Duration = Duration::from_secs(600);

/// All of them.
pub(super) const JOBS: &[Job] = &[
    job("self-check", None, NONE, SELF_CHECK)
        .sdp()
        .short()
        .takes(4),
    job("conformance-host", None, NONE, TEST)
        .test("conformance_host")
        .short()
        .on_two_processors()
        .takes(15),
    job("hw-test-no-device", None, NONE, HW_TEST_NO_DEVICE).sdp(),
    job("devinfo", LOOP, BOTH, DEVINFO).short(),
    job("rping", LOOP, BOTH, RPING),
    job("conformance", LOOP, BOTH, CONFORMS)
        .test(CONFORMANCE)
        .judged(Evidence::Skips)
        .short()
        .on_two_processors()
        .takes(35),
    job("conformance-nobody", LOOP, BOTH, CONFORMANCE_NOBODY)
        .test(CONFORMANCE)
        .takes(15),
    job("stream", LOOP, BOTH, STREAM)
        .test(STREAM_RDMA)
        .short()
        .on_two_processors()
        .takes(14),
    job("stream-nobody", LOOP, BOTH, STREAM_NOBODY)
        .test(STREAM_RDMA)
        .takes(6),
    job("providers", LOOP, BOTH, PROVIDERS).test("providers_rdma"),
    job("memlock", LOOP, BOTH, MEMLOCK).test("memlock_rdma"),
    job("keys", LOOP, BOTH, KEYS)
        .test("keys_rdma")
        .short()
        .on_two_processors()
        .takes(8),
    job("doctor", LOOP, BOTH, DOCTOR).sdp(),
    job("soak", LOOP, BOTH, SOAK)
        .sdp()
        .on_two_processors()
        .takes(28),
    job("kill", LOOP, BOTH, KILL)
        .sdp()
        .on_two_processors()
        .takes(22),
    job("cost", LOOP, RXE, COST)
        .sdp()
        .probes()
        .judged(Evidence::Cost)
        .takes(160),
    job("performance", LOOP, RXE, PERFORMANCE)
        .counted()
        .sdp()
        .probes()
        .judged(Evidence::Performance)
        .takes(100),
    job("hw-test-alone", LOOP, RXE, HW_TEST_ALONE).sdp(),
    job("rping", PAIR, BOTH, RPING).short(),
    job("netem", PAIR, RXE, NETEM).takes(12),
    job("conformance", PAIR, BOTH, CONFORMS)
        .test(CONFORMANCE)
        .judged(Evidence::Skips)
        .takes(15),
    job("stream", PAIR, BOTH, STREAM).test(STREAM_RDMA).takes(6),
    job("devices", PAIR, BOTH, DEVICES).test("devices_rdma"),
    job("rping", TWO_GUESTS, BOTH, RPING_LINK)
        .judged(Evidence::Capture)
        .short(),
    job("capture", TWO_GUESTS, RXE, CAPTURE)
        .sdp()
        .judged(Evidence::Conversation),
    job("preload", TWO_GUESTS, RXE, PRELOAD).sdp().preload(),
    job("first-message", TWO_GUESTS, SIW, FIRST_MESSAGE).sdp(),
    job("loss", TWO_GUESTS, BOTH, LOSS).sdp(),
    job("hw-test", TWO_GUESTS, BOTH, HW_TEST)
        .sdp()
        .given(CONFORMANCE)
        .on_two_processors()
        .judged(Evidence::HwTest),
    job("hw-test-ssh", TWO_GUESTS, RXE, HW_TEST_SSH)
        .sdp()
        .given(CONFORMANCE)
        .ssh()
        .on_two_processors()
        .judged(Evidence::HwTest),
    job("peer-gone", TWO_GUESTS, BOTH, PEER_GONE)
        .test("peer_gone")
        .last(),
];

const fn job(
    name: &'static str,
    topology: Option<Topology>,
    devices: &'static [Device],
    script: &'static str,
) -> Job {
    Job {
        name,
        topology,
        devices,
        script,
        test: None,
        with_sdp: false,
        with_ssh: false,
        with_preload: false,
        with_probes: false,
        counted: false,
        on_two_processors: false,
        reading: Reading::Status,
        evidence: None,
        short: false,
        seconds: 3,
        is_last: false,
    }
}

impl Job {
    /// The script's output is that of a test program.
    const fn test(mut self, name: &'static str) -> Self {
        self.reading = Reading::Libtest;
        self.given(name)
    }

    /// The script knows a test program.
    const fn given(mut self, name: &'static str) -> Self {
        self.test = Some(name);
        self
    }

    const fn sdp(mut self) -> Self {
        self.with_sdp = true;
        self
    }

    const fn ssh(mut self) -> Self {
        self.with_ssh = true;
        self
    }

    const fn preload(mut self) -> Self {
        self.with_preload = true;
        self
    }

    const fn probes(mut self) -> Self {
        self.with_probes = true;
        self
    }

    const fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    const fn on_two_processors(mut self) -> Self {
        self.on_two_processors = true;
        self
    }

    const fn judged(mut self, evidence: Evidence) -> Self {
        self.evidence = Some(evidence);
        self
    }

    const fn short(mut self) -> Self {
        self.short = true;
        self
    }

    const fn takes(mut self, seconds: u32) -> Self {
        self.seconds = seconds;
        self
    }

    const fn last(mut self) -> Self {
        self.is_last = true;
        self
    }

    /// Whether it needs a boot of its own: where instructions or virtual time count, and where the wire
    /// is captured.
    pub(super) fn is_alone(&self) -> bool {
        self.counted || self.is_captured() || self.evidence == Some(Evidence::Cost)
    }

    /// Whether the wire between two guests is captured.
    pub(super) fn is_captured(&self) -> bool {
        matches!(
            self.evidence,
            Some(Evidence::Capture | Evidence::Conversation)
        )
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
