//! SO_KEEPALIVE and TCP_USER_TIMEOUT: how long a silent peer is believed to be there.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sdp_core::Keepalive;

use crate::builder::Builder;
use crate::options::{load_time, store_time};
use crate::stream::SdpStream;

/// Linux's defaults.
const IDLE: Duration = Duration::from_secs(7_200);
const INTERVAL: Duration = Duration::from_secs(75);
const COUNT: u32 = 9;
/// Linux's limits.
const TIME_MAX: Duration = Duration::from_secs(32_767);
const COUNT_MAX: u32 = 127;

/// These options of one socket.
#[derive(Debug)]
pub(crate) struct Liveness {
    on: AtomicBool,
    idle: AtomicU64,
    interval: AtomicU64,
    count: AtomicU32,
    user_timeout: AtomicU64,
}

impl Default for Liveness {
    fn default() -> Self {
        let liveness = Self {
            on: AtomicBool::new(false),
            idle: AtomicU64::new(0),
            interval: AtomicU64::new(0),
            count: AtomicU32::new(COUNT),
            user_timeout: AtomicU64::new(0),
        };
        store_time(&liveness.idle, Some(IDLE));
        store_time(&liveness.interval, Some(INTERVAL));
        store_time(&liveness.user_timeout, None);
        liveness
    }
}

impl Liveness {
    /// Takes over the settings of `other`.
    pub(crate) fn copy_from(&self, other: &Self) {
        let copy = |to: &AtomicU64, from: &AtomicU64| store_time(to, load_time(from));
        self.on
            .store(other.on.load(Ordering::Relaxed), Ordering::Relaxed);
        copy(&self.idle, &other.idle);
        copy(&self.interval, &other.interval);
        self.count
            .store(other.count.load(Ordering::Relaxed), Ordering::Relaxed);
        copy(&self.user_timeout, &other.user_timeout);
    }

    /// As the engine has it.
    pub(crate) fn keepalive(&self) -> Option<Keepalive> {
        self.on.load(Ordering::Relaxed).then(|| Keepalive {
            idle: load_time(&self.idle).unwrap_or(IDLE),
            interval: load_time(&self.interval).unwrap_or(INTERVAL),
            count: self.count.load(Ordering::Relaxed),
        })
    }

    pub(crate) fn user_timeout(&self) -> Option<Duration> {
        load_time(&self.user_timeout)
    }

    fn set_time(cell: &AtomicU64, time: Duration) -> io::Result<()> {
        if time.is_zero() || time > TIME_MAX {
            return Err(invalid("a keepalive time of 0 or more than 32767 s"));
        }
        store_time(cell, Some(time));
        Ok(())
    }

    fn set_count(&self, count: u32) -> io::Result<()> {
        if count == 0 || count > COUNT_MAX {
            return Err(invalid("a keepalive count of 0 or more than 127"));
        }
        self.count.store(count, Ordering::Relaxed);
        Ok(())
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl Builder {
    /// SO_KEEPALIVE; see [`SdpStream::set_keepalive`]. Its times are set on the streams.
    #[must_use]
    pub fn keepalive(self, on: bool) -> Self {
        self.options.liveness().on.store(on, Ordering::Relaxed);
        self
    }

    /// TCP_USER_TIMEOUT; see [`SdpStream::set_user_timeout`].
    #[must_use]
    pub fn user_timeout(self, limit: Option<Duration>) -> Self {
        store_time(&self.options.liveness().user_timeout, limit);
        self
    }
}

impl SdpStream {
    /// SO_KEEPALIVE: a peer that has been silent for [`keepalive_time`](Self::keepalive_time) is
    /// asked for a sign of life by its adapter; one that gives none ends the connection as timed
    /// out. Between processes of one machine the kernel reports at once that the peer is gone, and
    /// one that is merely stopped counts as alive, as with TCP.
    ///
    /// # Errors
    /// None.
    pub fn set_keepalive(&self, on: bool) -> io::Result<()> {
        self.options()?.liveness().on.store(on, Ordering::Relaxed);
        self.keepalive_changed()
    }

    /// See [`set_keepalive`](Self::set_keepalive).
    ///
    /// # Errors
    /// None.
    pub fn keepalive(&self) -> io::Result<bool> {
        Ok(self.options()?.liveness().keepalive().is_some())
    }

    /// TCP_KEEPIDLE: 2 hours at first.
    ///
    /// # Errors
    /// `InvalidInput` for zero and for more than 32767 s.
    pub fn set_keepalive_time(&self, time: Duration) -> io::Result<()> {
        Liveness::set_time(&self.options()?.liveness().idle, time)?;
        self.keepalive_changed()
    }

    /// See [`set_keepalive_time`](Self::set_keepalive_time).
    ///
    /// # Errors
    /// None.
    pub fn keepalive_time(&self) -> io::Result<Duration> {
        Ok(load_time(&self.options()?.liveness().idle).unwrap_or(IDLE))
    }

    /// TCP_KEEPINTVL, how long an answer may take before it is missed: 75 s at first. The adapter
    /// repeats what it asks by itself.
    ///
    /// # Errors
    /// `InvalidInput` for zero and for more than 32767 s.
    pub fn set_keepalive_interval(&self, time: Duration) -> io::Result<()> {
        Liveness::set_time(&self.options()?.liveness().interval, time)?;
        self.keepalive_changed()
    }

    /// See [`set_keepalive_interval`](Self::set_keepalive_interval).
    ///
    /// # Errors
    /// None.
    pub fn keepalive_interval(&self) -> io::Result<Duration> {
        Ok(load_time(&self.options()?.liveness().interval).unwrap_or(INTERVAL))
    }

    /// TCP_KEEPCNT, how many answers may be missed: 9 at first.
    ///
    /// # Errors
    /// `InvalidInput` for zero and for more than 127.
    pub fn set_keepalive_retries(&self, count: u32) -> io::Result<()> {
        self.options()?.liveness().set_count(count)?;
        self.keepalive_changed()
    }

    /// See [`set_keepalive_retries`](Self::set_keepalive_retries).
    ///
    /// # Errors
    /// None.
    pub fn keepalive_retries(&self) -> io::Result<u32> {
        Ok(self.options()?.liveness().count.load(Ordering::Relaxed))
    }

    fn keepalive_changed(&self) -> io::Result<()> {
        let keepalive = self.options()?.liveness().keepalive();
        self.conn()?
            .visit_engine(|engine, now| engine.set_keepalive(now, keepalive));
        Ok(())
    }

    /// TCP_USER_TIMEOUT: bytes written that the peer takes no part of for so long end the
    /// connection as timed out; so does a peer without sign of life, whatever
    /// [`keepalive_retries`](Self::keepalive_retries) says.
    ///
    /// # Errors
    /// None.
    pub fn set_user_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.filter(|limit| !limit.is_zero());
        store_time(&self.options()?.liveness().user_timeout, limit);
        self.conn()?
            .visit_engine(|engine, now| engine.set_user_timeout(now, limit));
        Ok(())
    }

    /// See [`set_user_timeout`](Self::set_user_timeout).
    ///
    /// # Errors
    /// None.
    pub fn user_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.options()?.liveness().user_timeout())
    }
}
