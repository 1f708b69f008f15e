//! What a simulated adapter can do, and what everything costs.

use std::time::Duration;

use crate::caps::{Caps, Limits};

/// What one simulated machine has.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// Operations of its adapter.
    pub caps: Caps,
    /// How much.
    pub limits: Limits,
    /// Bytes that may be registered at once.
    pub registered_max: usize,
    /// Completions that one look at a queue gives, at most.
    pub poll_max: usize,
    /// Processors, at least 1. The first one takes the interrupts.
    pub processors: usize,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            caps: Caps::all()
                - Caps::SAME_HOST
                - Caps::EXPOSED_SINK
                - Caps::CALLER_FIRST
                - Caps::TOKENS,
            limits: Limits {
                send_wr_max: 4096,
                recv_wr_max: 4096,
                sge_max: 16,
                rdma_len_max: 1 << 30,
                recv_len_max: 1 << 20,
                inline_max: 256,
                read_depth_max: 16,
                connect_data_max: 92,
                accept_data_max: 196,
                reject_data_max: 148,
                registered_max: usize::MAX,
            },
            registered_max: 1 << 40,
            poll_max: usize::MAX,
            processors: 1,
        }
    }
}

/// What everything costs. Times are nanoseconds, rates are bytes per second.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A link, in each direction.
    pub link_rate: u64,
    /// From one adapter to another.
    pub latency: u64,
    /// Bytes of a packet.
    pub mtu: u64,
    /// Bytes around the payload of a packet.
    pub packet_overhead: u64,
    /// Queue pairs take turns on a link, each with so many bytes. Zero: one whole message goes after
    /// the other, whoever's it is.
    pub turn: u64,
    /// What an adapter moves between its memory and the link.
    pub dma_rate: u64,
    /// The processor posts a request.
    pub post: u64,
    /// The processor looks for completions, and takes each one.
    pub poll: u64,
    /// The adapter reports a completion.
    pub completion: u64,
    /// The adapter binds a window or invalidates a key.
    pub bind: u64,
    /// The processor registers memory: each time, and for each page.
    pub register: (u64, u64),
    /// The processor takes a registration back: each time, and for each page.
    pub deregister: (u64, u64),
    /// The processor copies payload between the program's memory and message buffers.
    pub copy_rate: u64,
    /// All processors of a machine together copy no faster than this.
    pub memory_rate: u64,
    /// The processor takes an interrupt.
    pub interrupt: u64,
    /// The processor takes the interrupt of a completion for which a thread sleeps, and switches to
    /// the thread.
    pub wake: u64,
    /// The processor enters the kernel to sleep, and comes back.
    pub system_call: u64,
    /// A SEND that met no receive is tried again after this.
    pub rnr_timer: u64,
    /// A request that gets no answer fails after this.
    pub retry_time: u64,
    /// Connection management handles a message.
    pub cm: u64,
    /// Connection management sends a message again, or gives up after some times.
    pub cm_retry: u64,
}

impl Default for Timing {
    /// An adapter of 20 Gb/s and a processor of some years ago.
    fn default() -> Self {
        Self {
            link_rate: 2_500_000_000,
            latency: 1_000,
            mtu: 2048,
            packet_overhead: 30,
            turn: 0,
            dma_rate: 3_000_000_000,
            post: 150,
            poll: 50,
            completion: 200,
            bind: 500,
            register: (30_000, 200),
            deregister: (0, 0),
            copy_rate: 2_000_000_000,
            memory_rate: u64::MAX,
            interrupt: 3_000,
            wake: 0,
            system_call: 500,
            rnr_timer: 10_000,
            retry_time: 100_000_000,
            cm: 20_000,
            cm_retry: 500_000_000,
        }
    }
}

/// How long `len` bytes take at `rate` bytes per second.
pub(super) fn time_of(len: u64, rate: u64) -> u64 {
    let nanos = u128::from(len) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// A length as a number.
pub(super) fn wide(len: usize) -> u64 {
    len as u64
}

/// A time as nanoseconds.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
