//! The machines of the figure: what their adapters, links and processors cost, and why so much.
//!
//! Each constant is of the machine, taken once from what was published of its kind, and the same for
//! every point. Exactly one is fitted: [`MEMORY_2005`].

use clap::ValueEnum;
use sdp_verbs::sim::{SimOptions, Timing};

/// What all processors of a machine of 2005 copy together, in bytes per second: fitted, so that
/// copying over eight connections comes near the 630 MB/s of the paper. A copy moves each byte over
/// the processor bus three times (read, read for ownership, write back) and the adapter moves it once
/// more: 2.6 GB/s, two fifths of the 6.4 that two Xeons' bus of 800 MHz has on paper. Whatever else
/// the paper's stack spent on a byte is in it too.
const MEMORY_2005: u64 = 640_000_000;

/// Adapters serve queue pairs in turns, some packets of each.
const TURN: u64 = 16 << 10;

/// A pair of machines, and the link between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub(crate) enum Machine {
    /// The paper's: two Xeons, InfiniBand of 20 Gb/s in PCI Express.
    Ddr2005,
    /// What it was compared with in the same year: the same hosts, InfiniBand of 10 Gb/s in PCI-X.
    Sdr2005,
    /// A host of today with 100 Gb/s.
    Modern100,
    /// The same with 400 Gb/s.
    Modern400,
}

impl Machine {
    pub(crate) const ALL: [Self; 4] = [
        Self::Ddr2005,
        Self::Sdr2005,
        Self::Modern100,
        Self::Modern400,
    ];

    /// Its name in reports and on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ddr2005 => "ddr2005",
            Self::Sdr2005 => "sdr2005",
            Self::Modern100 => "modern100",
            Self::Modern400 => "modern400",
        }
    }

    /// In words.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Ddr2005 => "two Xeons of 2005, InfiniBand of 20 Gb/s, PCI Express x8",
            Self::Sdr2005 => "two Xeons of 2005, InfiniBand of 10 Gb/s, PCI-X",
            Self::Modern100 => "16 processors of today, 100 Gb/s, PCI Express 3.0 x16",
            Self::Modern400 => "16 processors of today, 400 Gb/s, PCI Express 5.0 x16",
        }
    }

    /// What each machine has.
    pub(crate) fn options(self) -> SimOptions {
        let mut options = SimOptions::default();
        match self {
            Self::Ddr2005 | Self::Sdr2005 => {
                options.processors = 2;
                // Of a queue pair, which is what the adapter's driver gave.
                options.limits.read_depth_max = 4;
            }
            Self::Modern100 | Self::Modern400 => options.processors = 16,
        }
        options
    }

    /// What everything costs.
    pub(crate) fn timing(self) -> Timing {
        match self {
            Self::Ddr2005 => Timing {
                // 4X at 5 GHz: 20 Gb/s of signal are 16 Gb/s of data in 8b/10b.
                link_rate: 2_000_000_000,
                // Eight lanes carry 2 GB/s, of which packets of 64 to 128 bytes of payload with 24
                // around them, and credits for a chip set that answers late, leave this much.
                dma_rate: 1_400_000_000,
                ..host_2005()
            },
            Self::Sdr2005 => Timing {
                link_rate: 1_000_000_000,
                // 64 bits at 133 MHz: 1,067 MB/s in bursts; chip sets of the time measured 0.8 to
                // 0.9 GB/s when the card reads.
                dma_rate: 850_000_000,
                ..host_2005()
            },
            Self::Modern100 => Timing {
                // 100 Gb/s in 64b/66b, and forward error correction within that.
                link_rate: 12_100_000_000,
                // PCI Express 3.0 x16.
                dma_rate: 13_000_000_000,
                ..host_modern()
            },
            Self::Modern400 => Timing {
                link_rate: 48_400_000_000,
                // PCI Express 5.0 x16.
                dma_rate: 52_000_000_000,
                ..host_modern()
            },
        }
    }
}

/// A host with two Xeons of 3.2 to 3.6 GHz on one bus of 800 MHz, Linux 2.6.
fn host_2005() -> Timing {
    Timing {
        // 4 µs from program to program with small messages, less what is counted elsewhere.
        latency: 2_500,
        mtu: 2_048,
        // Local route, base transport and extended headers, both checksums.
        packet_overhead: 30,
        turn: TURN,
        // A descriptor, and an uncached write across the bus to the adapter's doorbell.
        post: 300,
        poll: 100,
        // The adapter writes a completion to memory.
        completion: 500,
        bind: 1_000,
        // From user space, without the pools of mappings that kernel modules had: a call, one or two
        // commands to the adapter's firmware, pages pinned one by one.
        register: (30_000, 200),
        deregister: (15_000, 50),
        // What the copy routines of the time came to, out of caches, on one processor.
        copy_rate: 1_000_000_000,
        memory_rate: MEMORY_2005,
        // Through the I/O APIC, to a handler that reads the adapter's event queue.
        interrupt: 4_000,
        // That, and a switch to the thread.
        wake: 7_000,
        system_call: 500,
        ..Timing::default()
    }
}

/// A host with sixteen processors and eight channels of memory.
fn host_modern() -> Timing {
    Timing {
        latency: 600,
        mtu: 4_096,
        packet_overhead: 30,
        turn: TURN,
        post: 50,
        poll: 20,
        completion: 100,
        bind: 200,
        // `ibv_reg_mr` and `ibv_dereg_mr` with pages of 4 KiB.
        register: (8_000, 40),
        deregister: (5_000, 15),
        copy_rate: 10_000_000_000,
        // Of some 250 GB/s, of which a copy takes three times its length.
        memory_rate: 80_000_000_000,
        interrupt: 1_000,
        wake: 2_500,
        system_call: 150,
        ..Timing::default()
    }
}
