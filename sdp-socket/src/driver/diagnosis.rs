//! The state of a connection in words, for whoever asks why a call does not return.

use std::fmt;
use std::sync::atomic::Ordering;

use super::{Conn, Inner};

/// Everything that decides what a connection does next. Waits for no lock: what another thread
/// holds is left out, and says so.
pub(crate) struct Diagnosis<'a>(pub(crate) &'a Conn);

impl fmt::Display for Diagnosis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conn = self.0;
        writeln!(f, "{:?} {:?}", conn.token, conn.names)?;
        let inner = conn.inner.try_lock();
        match &inner {
            Ok(inner) => writeln!(f, "  {}", Held(inner))?,
            Err(_) => writeln!(f, "  the engine is in use")?,
        }
        writeln!(
            f,
            "  now {:?}, turn {:?}, callers {}, followers {}, leading {}, tx {:?}, rx {:?}, \
             timeout {}, housekeeping {}, {:?}, transport down {}, connected {}, closed {}",
            conn.context.now(),
            conn.turn,
            conn.callers.load(Ordering::Relaxed),
            conn.followers.load(Ordering::Relaxed),
            conn.leading.load(Ordering::Relaxed),
            conn.tx,
            conn.rx,
            conn.timeout.load(Ordering::Relaxed),
            conn.housekeeping.load(Ordering::Relaxed),
            conn.alarm,
            conn.transport_down.load(Ordering::Relaxed),
            conn.connected.load(Ordering::Relaxed),
            conn.closed.load(Ordering::Relaxed),
        )?;
        writeln!(f, "  {:?}", conn.cq)
    }
}

/// What is under a connection's lock.
struct Held<'a>(&'a Inner);

impl fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.0;
        write!(
            f,
            "{:?}\n  calls {:?}, private {:?}, jobs {}, works {}, receives {}, local work {}, \
             flushed {:?} {:?}, down since {:?}, told {}, ready {:?}\n  {:?} {:?}",
            inner.engine,
            inner.calls,
            inner.private,
            inner.jobs.len(),
            inner.works,
            inner.receives,
            inner.local_work,
            inner.flushed_works,
            inner.flushed_receives,
            inner.down_since,
            inner.told_down,
            inner.ready,
            inner.pair,
            inner.moving,
        )
    }
}
