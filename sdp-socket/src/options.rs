//! Options of one socket, shared by its clones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sdp_core::{Adaptive, Config, ZcopyThreshold as CoreThreshold};

use crate::liveness::Liveness;
use crate::park::SpinPolicy;

/// From which length on a send is read by the peer out of the caller's own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZcopyThreshold {
    /// By measurement, per class of length, from 64 KiB on with adapters and from 16 KiB on between
    /// processes of one machine. It begins without copies, except from memory other than
    /// [`SdpBuffer`](crate::SdpBuffer)s between processes of one machine, and tries the other way
    /// with at most one send in 64. [`Stats::choices`](crate::Stats) has what came out.
    #[default]
    Auto,
    /// Never: always copy.
    Off,
    /// From this many bytes on, whatever the memory.
    Bytes(usize),
}

pub(crate) use ZcopyThreshold as Threshold;

const AUTO_SAME_HOST: usize = 16 << 10;
const AUTO_ADAPTER: usize = 64 << 10;
/// Smallest threshold: below it an advert costs more than any copy.
pub(crate) const THRESHOLD_MIN: usize = 4 << 10;
/// Range of SO_SNDBUF and SO_RCVBUF.
const BUFFER_MIN: usize = 4 << 10;
const BUFFER_MAX: usize = 64 << 20;

const THRESHOLD_AUTO: usize = usize::MAX;
const THRESHOLD_OFF: usize = usize::MAX - 1;
const NO_TIME: u64 = u64::MAX;

/// Options; every clone of a stream sees the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    shared: Arc<Shared>,
    pub(crate) fixed: Fixed,
}

/// Options that are set before the connection is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fixed {
    pub(crate) send_buffer_len: Option<usize>,
    pub(crate) recv_buffer_len: Option<usize>,
    pub(crate) spin: SpinPolicy,
    pub(crate) rendezvous_wait: Option<Duration>,
    pub(crate) cancel_wait: Option<Duration>,
    pub(crate) version_1: bool,
}

#[derive(Debug)]
struct Shared {
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    linger: AtomicU64,
    threshold: AtomicUsize,
    /// As the engine has them.
    send_buffer_len: AtomicUsize,
    recv_buffer_len: AtomicUsize,
    recv_low_water: AtomicUsize,
    nonblocking: AtomicBool,
    nodelay: AtomicBool,
    oob_inline: AtomicBool,
    liveness: Liveness,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                read_timeout: AtomicU64::new(NO_TIME),
                write_timeout: AtomicU64::new(NO_TIME),
                linger: AtomicU64::new(NO_TIME),
                threshold: AtomicUsize::new(THRESHOLD_AUTO),
                send_buffer_len: AtomicUsize::new(0),
                recv_buffer_len: AtomicUsize::new(0),
                recv_low_water: AtomicUsize::new(1),
                nonblocking: AtomicBool::new(false),
                nodelay: AtomicBool::new(false),
                oob_inline: AtomicBool::new(false),
                liveness: Liveness::default(),
            }),
            fixed: Fixed::default(),
        }
    }
}

pub(crate) fn store_time(cell: &AtomicU64, time: Option<Duration>) {
    let nanos = time.map_or(NO_TIME, |t| {
        u64::try_from(t.as_nanos()).unwrap_or(NO_TIME - 1)
    });
    cell.store(nanos, Ordering::Relaxed);
}

pub(crate) fn load_time(cell: &AtomicU64) -> Option<Duration> {
    match cell.load(Ordering::Relaxed) {
        NO_TIME => None,
        nanos => Some(Duration::from_nanos(nanos)),
    }
}

impl Options {
    /// A copy that shares nothing: what an accepted connection inherits from its listener.
    pub(crate) fn inherited(&self) -> Self {
        let copy = Self {
            shared: Self::default().shared,
            fixed: self.fixed,
        };
        copy.set_threshold(self.threshold());
        copy.set_nodelay(self.nodelay());
        copy.set_oob_inline(self.oob_inline());
        copy.set_linger(self.linger());
        copy.liveness().copy_from(self.liveness());
        copy
    }

    /// SO_KEEPALIVE and what belongs to it.
    pub(crate) fn liveness(&self) -> &Liveness {
        &self.shared.liveness
    }

    pub(crate) fn read_timeout(&self) -> Option<Duration> {
        load_time(&self.shared.read_timeout)
    }

    pub(crate) fn set_read_timeout(&self, time: Option<Duration>) {
        store_time(&self.shared.read_timeout, time);
    }

    pub(crate) fn write_timeout(&self) -> Option<Duration> {
        load_time(&self.shared.write_timeout)
    }

    pub(crate) fn set_write_timeout(&self, time: Option<Duration>) {
        store_time(&self.shared.write_timeout, time);
    }

    pub(crate) fn linger(&self) -> Option<Duration> {
        load_time(&self.shared.linger)
    }

    pub(crate) fn set_linger(&self, time: Option<Duration>) {
        store_time(&self.shared.linger, time);
    }

    pub(crate) fn nonblocking(&self) -> bool {
        self.shared.nonblocking.load(Ordering::Relaxed)
    }

    pub(crate) fn set_nonblocking(&self, on: bool) {
        self.shared.nonblocking.store(on, Ordering::Relaxed);
    }

    pub(crate) fn nodelay(&self) -> bool {
        self.shared.nodelay.load(Ordering::Relaxed)
    }

    pub(crate) fn set_nodelay(&self, on: bool) {
        self.shared.nodelay.store(on, Ordering::Relaxed);
    }

    pub(crate) fn oob_inline(&self) -> bool {
        self.shared.oob_inline.load(Ordering::Relaxed)
    }

    pub(crate) fn set_oob_inline(&self, on: bool) {
        self.shared.oob_inline.store(on, Ordering::Relaxed);
    }

    pub(crate) fn threshold(&self) -> ZcopyThreshold {
        match self.shared.threshold.load(Ordering::Relaxed) {
            THRESHOLD_AUTO => ZcopyThreshold::Auto,
            THRESHOLD_OFF => ZcopyThreshold::Off,
            bytes => ZcopyThreshold::Bytes(bytes),
        }
    }

    pub(crate) fn set_threshold(&self, threshold: ZcopyThreshold) {
        let stored = match threshold {
            ZcopyThreshold::Auto => THRESHOLD_AUTO,
            ZcopyThreshold::Off => THRESHOLD_OFF,
            ZcopyThreshold::Bytes(bytes) => bytes.clamp(THRESHOLD_MIN, THRESHOLD_OFF - 1),
        };
        self.shared.threshold.store(stored, Ordering::Relaxed);
    }

    pub(crate) fn send_buffer_len(&self) -> usize {
        self.shared.send_buffer_len.load(Ordering::Relaxed)
    }

    pub(crate) fn set_send_buffer_len(&self, len: usize) {
        self.shared.send_buffer_len.store(len, Ordering::Relaxed);
    }

    pub(crate) fn recv_buffer_len(&self) -> usize {
        self.shared.recv_buffer_len.load(Ordering::Relaxed)
    }

    pub(crate) fn set_recv_buffer_len(&self, len: usize) {
        self.shared.recv_buffer_len.store(len, Ordering::Relaxed);
    }

    pub(crate) fn recv_low_water(&self) -> usize {
        self.shared.recv_low_water.load(Ordering::Relaxed)
    }

    pub(crate) fn set_recv_low_water(&self, len: usize) {
        self.shared.recv_low_water.store(len, Ordering::Relaxed);
    }

    pub(crate) fn spin(&self) -> SpinPolicy {
        self.fixed.spin
    }

    /// The engine's form of a threshold on this kind of provider.
    pub(crate) fn engine_threshold(threshold: ZcopyThreshold, same_host: bool) -> CoreThreshold {
        match threshold {
            ZcopyThreshold::Auto if same_host => CoreThreshold::Bytes(AUTO_SAME_HOST),
            ZcopyThreshold::Auto => CoreThreshold::Bytes(AUTO_ADAPTER),
            ZcopyThreshold::Off => CoreThreshold::Off,
            ZcopyThreshold::Bytes(bytes) => CoreThreshold::Bytes(bytes.max(THRESHOLD_MIN)),
        }
    }

    /// Where measuring begins on this kind of provider: reading another process's heap page by page
    /// costs more than two copies through the link on most machines.
    pub(crate) fn engine_adaptive(threshold: ZcopyThreshold, same_host: bool) -> Option<Adaptive> {
        (threshold == ZcopyThreshold::Auto).then_some(Adaptive {
            registered: true,
            heap: !same_host,
        })
    }

    /// A buffer size within its range.
    pub(crate) fn clamp_buffer(len: usize) -> usize {
        len.clamp(BUFFER_MIN, BUFFER_MAX)
    }

    /// Sizes of the buffers at the start.
    pub(crate) fn buffer_sizes(&self) -> (usize, usize) {
        let default = Config::default();
        let or = |set: Option<usize>, default| set.map_or(default, Self::clamp_buffer);
        (
            or(self.fixed.send_buffer_len, default.send_buffer_len),
            or(self.fixed.recv_buffer_len, default.recv_buffer_total),
        )
    }

    /// Puts these options into the engine's settings.
    pub(crate) fn apply(&self, config: &mut Config, same_host: bool) {
        config.zcopy_threshold = Self::engine_threshold(self.threshold(), same_host);
        config.adaptive = Self::engine_adaptive(self.threshold(), same_host);
        config.nodelay = self.nodelay();
        config.oob_inline = self.oob_inline();
        config.keepalive = self.liveness().keepalive();
        config.user_timeout = self.liveness().user_timeout();
        (config.send_buffer_len, config.recv_buffer_total) = self.buffer_sizes();
        self.set_send_buffer_len(config.send_buffer_len);
        self.set_recv_buffer_len(config.recv_buffer_total);
        if let Some(wait) = self.fixed.rendezvous_wait {
            config.rendezvous_wait = wait;
            config.rendezvous_wait_min = wait;
        }
        if let Some(wait) = self.fixed.cancel_wait {
            config.cancel_wait = wait;
        }
        if self.fixed.version_1 {
            config.version = sdp_wire::Version::V1_1;
        }
    }
}
